"""Converged ends of many noises, chunk by chunk, each kept on disk under what it depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...adapters import FlowField, Guidance
from ...adapters.backbones.registry import NamedBackbone
from ...adapters.sampling.converged import (
    ORDER,
    START,
    STEPS,
    Converged,
    rmse,
    steps_apart,
    tight_path,
)
from ...checks import integer_from
from ...storage import whole_file

CHUNK = 64


def fingerprint(model: Any) -> str:
    """SHA-256 of a network's weights and buffers with their names and shapes, in hexadecimal.

    Raises:
        TypeError: a model without a state_dict: what it computes cannot be told from another.
    """
    if not callable(getattr(model, "state_dict", None)):
        raise TypeError(f"the model must be a torch module to be told apart, got {type(model)}")
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def references(
    backbone: NamedBackbone,
    noise: Tensor,
    labels: Tensor | None,
    guidance: Guidance,
    *,
    steps: int = STEPS,
    folder: Path | None = None,
    progress: Callable[[], None] | None = None,
) -> Converged:
    """The converged ends of these noises; their error is measured on the first `CHUNK` of them.

    Args:
        backbone: its model, convention. noise: (B, ...). labels: (B,) int64, or None.
        steps: of the converged solve, an integer >= 4.
        folder: where chunks are kept and found again, made if it does not exist; None: nowhere.
        progress: called after every chunk.

    Raises:
        TypeError: a folder with a model that has no fingerprint. What `tight_solve` raises.
    """
    integer_from(4, steps, "steps")
    mark = "" if folder is None else fingerprint(backbone.model)

    def ends(part: slice, count: int) -> Tensor:
        own = None if labels is None else labels[part]
        field = FlowField(backbone.model, backbone.convention, own, guidance)
        if folder is None:
            return tight_path(field, noise[part], 1, count)[-1]
        key = _key(mark, field, noise[part], count)
        return _kept(folder / f"{key}.safetensors", field, noise[part], count)

    chunks = []
    for first in range(0, len(noise), CHUNK):
        chunks.append(ends(slice(first, first + CHUNK), steps))
        if progress is not None:
            progress()
    other = steps_apart(steps)
    error = rmse(chunks[0], ends(slice(0, CHUNK), other))
    return Converged(torch.cat(chunks), error, steps + other + 2 * START)


def _key(mark: str, field: FlowField, noise: Tensor, steps: int) -> str:
    digest = hashlib.sha256()
    for text in (mark, field.resolved.name, repr(field.guidance), f"order {ORDER}, steps {steps}"):
        digest.update(text.encode() + b"\0")
    digest.update(f"{noise.dtype} {tuple(noise.shape)}".encode() + _bytes(noise))
    digest.update(b"" if field.labels is None else _bytes(field.labels))
    return digest.hexdigest()[:32]


def _kept(path: Path, field: FlowField, noise: Tensor, steps: int) -> Tensor:
    """A chunk's ends from its file, else solved and written to it."""
    if path.exists():
        return load_file(path)["x"]
    x = tight_path(field, noise, 1, steps)[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        save_file({"x": x}, temporary)
    return x
