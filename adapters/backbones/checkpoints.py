"""Network weights as files: written atomically, read strictly, no code in them is ever run."""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...extras import require
from ...storage import whole_file

LISTED = 12
"""So many mismatches of each kind an error lists; it counts the rest."""


class CheckpointError(ValueError):
    """A weight file is missing, damaged, or does not fit the network."""


def finite_tensors(path: Path, module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of `module` on the CPU in `dtype`, to be written to `path`.

    Raises:
        CheckpointError: weights that are not finite in `dtype`.
    """
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in module.state_dict().items()}
    wrong = [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if wrong:
        raise CheckpointError(f"{path} is not written: {', '.join(wrong)} not finite in {dtype}")
    return tensors


def save_weights(
    path: str | Path, module: nn.Module, config: Mapping[str, object], *, dtype: torch.dtype
) -> None:
    """Write the weights of `module` in `dtype`, with `config` (JSON) in the file's metadata.

    The file appears whole or not at all: it is written beside `path` and then renamed.

    Raises:
        CheckpointError: weights that are not finite in `dtype`.
    """
    safetensors = require("safetensors.torch", "generative")
    path = Path(path)
    tensors = finite_tensors(path, module, dtype)
    metadata = {"config": json.dumps(dict(config))}
    with whole_file(path) as temporary:
        safetensors.save_file(tensors, str(temporary), metadata=metadata)


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The tensors of a safetensors file and the config in its metadata.

    Raises:
        CheckpointError: no such file, not a readable safetensors file, or no config in it.
    """
    safe_open = require("safetensors", "generative").safe_open
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weight file at {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            config = json.loads((file.metadata() or {}).get("config", "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise CheckpointError(f"{path} is no readable safetensors file: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} has no 'config' in its metadata: quadflow did not write it")
    return tensors, config


def is_torch_file(path: str | Path) -> bool:
    """Whether a file begins as `torch.save` begins one, in its zipped or its older form."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(9)
    # a safetensors file may begin with any byte (a length), but its header opens at the ninth
    return start.startswith((b"PK\x03\x04", b"\x80")) and start[8:9] != b"{"


def read_torch(path: str | Path) -> object:
    """The contents of a `.pt` or `.pth` file, on the CPU: tensors, containers, plain values.

    Only `torch.load(weights_only=True)` reads it, so nothing in the file is run. Tensors of zipped
    files are mapped, not read: copy those to be kept, the file may change under the others.

    Raises:
        CheckpointError: no such file, not a readable torch file, or one that holds other objects.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weight file at {path}")
    try:
        # REPA and SiT store their command line as a Namespace: a bag of plain values whose making
        # runs nothing, and without which their files could not be read in this mode
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} is no readable torch file of weights: {reason}") from error


def state_dict_of(value: object, source: str | Path) -> dict[str, Tensor]:
    """`value` as a state dict: names to dense tensors with data, without the DDP prefix.

    "module." is taken off if every name has it; a mixture is left for the strict load to refuse.

    Raises:
        CheckpointError: it is no such mapping, with the entries that are not.
    """
    if not isinstance(value, Mapping) or not value:
        raise CheckpointError(f"{source} holds no state dict but {_kind(value)}")
    wrong = []
    for key, entry in value.items():
        if not isinstance(key, str) or not isinstance(entry, Tensor):
            wrong.append(f"{key!r} is {_kind(entry)}")
        elif entry.layout is not torch.strided or entry.is_quantized or entry.device.type != "cpu":
            wrong.append(f"{key!r} is no dense tensor with data")
    if wrong:
        raise CheckpointError(f"{source} holds no state dict: {listing(wrong)}")
    prefix = "module."
    whole = all(key.startswith(prefix) for key in value)
    return {key[len(prefix) :] if whole else key: entry for key, entry in value.items()}


def dimensions(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, int], source: str | Path, kind: str
) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors named in `wanted`, which gives how many axes each one has.

    Raises:
        CheckpointError: with what is missing or has another number of axes: no `kind` is in there.
    """
    wrong = [f"missing {key}" for key in wanted if key not in tensors]
    found = {key: tuple(tensors[key].shape) for key in wanted if key in tensors}
    wrong += [
        f"{key}: shape {shape}, should have {wanted[key]} axes"
        for key, shape in found.items()
        if len(shape) != wanted[key] or 0 in shape
    ]
    if wrong:
        raise CheckpointError(f"{source} holds no {kind}: {listing(wrong)}")
    return found


def count_blocks(tensors: Mapping[str, Tensor], source: str | Path, kind: str) -> int:
    """How many blocks "blocks.0." to "blocks.n-1." the names speak of; n >= 1 without a gap.

    Raises:
        CheckpointError: none, or some are missing between.
    """
    parts = [key.split(".") for key in tensors if key.startswith("blocks.")]
    indices = {int(p[1]) for p in parts if p[1].isdecimal()}
    if not indices:
        raise CheckpointError(f"{source} holds no {kind}: it has no blocks")
    # counted, not believed: a name could ask for any number of blocks
    gaps = [f"blocks.{i}" for i in range(len(indices)) if i not in indices]
    if gaps:
        raise CheckpointError(f"{source} does not fit: missing {listing(gaps)}")
    return len(indices)


def load_into(
    module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path, *, assign: bool = False
) -> None:
    """Copy `tensors` into `module`, strictly: every key and shape must fit.

    assign: put the tensors themselves in, in their own dtype, as a module on the meta device needs.

    Raises:
        CheckpointError: with the list of what is missing, unexpected, of another shape, no floating
            point numbers, or not finite; the module is then unchanged.
    """
    own = module.state_dict()
    missing = [f"missing {key}" for key in own if key not in tensors]
    unexpected = [f"unexpected {key}" for key in tensors if key not in own]
    shapes, values = [], []
    for key, value in tensors.items():
        if key in own and own[key].shape != value.shape:
            shapes.append(f"{key}: shape {tuple(value.shape)}, should be {tuple(own[key].shape)}")
        elif key in own and own[key].is_floating_point() and not value.is_floating_point():
            values.append(f"{key}: {value.dtype}, should be floating point")
        elif not bool(torch.isfinite(value).all()):
            values.append(f"{key}: not finite" + (f" in {value.dtype}" if assign else ""))
    wrong = [
        listing(entries, kind)
        for entries, kind in (
            (missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"),
            (values, "with wrong numbers"),
        )
        if entries
    ]  # fmt: skip
    if wrong:
        raise CheckpointError(f"{source} does not fit: " + "; ".join(wrong))
    module.load_state_dict(dict(tensors), assign=assign)


def listing(entries: list[str], kind: str = "") -> str:
    """Entries joined by "; ", the first `LISTED` of them and then "and 37 more" of this kind."""
    more = len(entries) - LISTED
    if more <= 0:
        return "; ".join(entries)
    return "; ".join(entries[:LISTED]) + f"; and {more} more" + (f" {kind}" if kind else "")


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        names = sorted(map(str, value))
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        return f"a mapping of {names[:LISTED]}{more}" if value else "an empty mapping"
    return f"a {type(value).__name__}"
