"""Network weights as safetensors files: written atomically, read strictly, never unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .extras import require


class CheckpointError(ValueError):
    """A weight file is missing, damaged, or does not fit the network."""


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
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in module.state_dict().items()}
    wrong = [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if wrong:
        raise CheckpointError(f"{path} is not written: {', '.join(wrong)} not finite in {dtype}")
    temporary = path.with_name(path.name + ".part")
    metadata = {"config": json.dumps(dict(config))}
    try:
        safetensors.save_file(tensors, str(temporary), metadata=metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy `tensors` into `module`, strictly: every key and shape must fit.

    Raises:
        CheckpointError: with the list of what is missing, unexpected, of another shape, or not
            finite.
    """
    own = module.state_dict()
    wrong = [f"missing {key}" for key in own if key not in tensors]
    wrong += [f"unexpected {key}" for key in tensors if key not in own]
    for key, value in tensors.items():
        if key in own and own[key].shape != value.shape:
            wrong.append(f"{key}: shape {tuple(value.shape)}, should be {tuple(own[key].shape)}")
        elif not bool(torch.isfinite(value).all()):
            wrong.append(f"{key}: not finite")
    if wrong:
        raise CheckpointError(f"{source} does not fit: " + "; ".join(wrong))
    module.load_state_dict(dict(tensors))
