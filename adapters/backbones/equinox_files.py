"""Weights that equinox wrote (.eqx), read without equinox or jax and never unpickled."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .checkpoints import CheckpointError


def read_leaves(path: str | Path) -> list[Tensor]:
    """All leaves of an .eqx file in their order, as CPU tensors of the stored shapes and dtypes.

    The file is one .npy record after another, one a leaf of the saved module (its fields in order
    of declaration, depth first). Python numbers are records too, 0-dimensional ones; there are no
    names.

    Raises:
        CheckpointError: no such file, a record that is damaged, cut short or no array of real
            numbers, or no record at all.

    Source: `equinox.tree_serialise_leaves` and the .npy format of numpy.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"no readable weight file at {path}: {error.strerror}") from error
    stream, leaves = io.BytesIO(content), []
    while (start := stream.tell()) < len(content):
        try:
            array = np.lib.format.read_array(stream, allow_pickle=False)
            if array.dtype.kind not in "biuf":
                raise ValueError(f"dtype {array.dtype} is no real number")
            native = array.astype(array.dtype.newbyteorder("="))
            leaves.append(torch.from_numpy(native))
        except Exception as error:
            raise CheckpointError(
                f"{path} is no readable equinox file: record {len(leaves)}, at byte {start} of "
                f"{len(content)}: {error}"
            ) from error
    if not leaves:
        raise CheckpointError(f"{path} is empty")
    return leaves


def name_leaves(
    leaves: Iterable[Tensor], shapes: Mapping[str, tuple[int, ...]], source: str | Path
) -> dict[str, Tensor]:
    """Leaves by name: `shapes` has names and shapes in the order of the file.

    Raises:
        CheckpointError: with the list of what is missing, too much, of another shape, not floating
            point, or not finite.
    """
    found = list(leaves)
    wrong = [f"missing {name}" for name in list(shapes)[len(found) :]]
    if len(found) > len(shapes):
        wrong.append(f"{len(found)} records, should be {len(shapes)}")
    for (name, shape), leaf in zip(shapes.items(), found, strict=False):
        if tuple(leaf.shape) != shape:
            wrong.append(f"{name}: shape {tuple(leaf.shape)}, should be {shape}")
        elif not leaf.is_floating_point():
            wrong.append(f"{name}: {leaf.dtype}, should be floating point")
        elif not bool(torch.isfinite(leaf).all()):
            wrong.append(f"{name}: not finite")
    if wrong:
        raise CheckpointError(f"{source} does not fit: " + "; ".join(wrong))
    return dict(zip(shapes, found, strict=True))
