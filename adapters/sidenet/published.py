"""SideNets in the file format of the published BA-solver, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...storage import whole_file
from ..backbones.checkpoints import (
    CheckpointError,
    count_blocks,
    dimensions,
    finite_tensors,
    read_torch,
    state_dict_of,
)
from .network import SideNet, SideNetConfig

RAW, AVERAGED = "side_model", "ema_side_model"
PUBLISHED_HEADS = 4
"""Of the published attention block: no tensor's shape tells it."""


def sidenet_config(tensors: Mapping[str, Tensor], source: str | Path) -> SideNetConfig:
    """The shape of a published SideNet, from its tensors.

    patch = 1, heads = 4 and time_scale = 1 are what the published code fixes; a SideNet of ours
    with others has the same tensors and must be read from its own safetensors file.

    Raises:
        CheckpointError: the tensors are of no SideNet.
    """
    last, table, fused = "output_conv.weight", "y_embedder.embedding_table.weight", "emb_fusion.2"
    shapes = dimensions(tensors, {last: 4, table: 2, f"{fused}.weight": 2}, source, "SideNet")
    try:
        return SideNetConfig(
            in_channels=shapes[last][0],
            patch=1,
            width=shapes[last][1],
            emb_dim=shapes[f"{fused}.weight"][0],
            layers=count_blocks(tensors, source, "SideNet"),
            heads=PUBLISHED_HEADS,
            num_classes=shapes[table][0] - 1,
            time_scale=1.0,
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{source} holds no SideNet: {error}") from error


def read_published_sidenet(
    path: str | Path, *, ema: bool = True
) -> tuple[dict[str, Tensor], SideNetConfig]:
    """Tensors and shape of a SideNet in a torch file.

    Args:
        path: a published checkpoint {side_model, ema_side_model, optimizer, step}, or a bare state
            dict, with or without the "module." of DDP.
        ema: the averaged weights of a checkpoint, which are the ones to sample with; False: the
            raw ones. A bare state dict does not say which it is, and is refused for False.

    Raises:
        CheckpointError: missing, damaged or foreign file, or not the weights that are asked for.
    """
    value = read_torch(path)
    if isinstance(value, Mapping) and (RAW in value or AVERAGED in value):
        wanted = AVERAGED if ema else RAW
        if wanted not in value:
            raise CheckpointError(
                f"{path} has no {wanted!r} but {sorted(map(str, value))}: take ema={not ema}"
            )
        tensors = state_dict_of(value[wanted], f"{path} ({wanted})")
    elif not ema:
        raise CheckpointError(f"{path} has no {RAW!r} to take with ema=False")
    else:
        tensors = state_dict_of(value, path)
    return tensors, sidenet_config(tensors, path)


def save_published_sidenet(
    path: str | Path, sidenet: SideNet, ema: SideNet | None = None, *, step: int = 0
) -> None:
    """Write a SideNet as published: {side_model, ema_side_model, optimizer, step}.

    Args:
        path: of the new file, which appears whole or not at all.
        sidenet: the raw weights. ema: the averaged ones, of the same shape; None: the same weights.
        step: of the training, for the record.

    Weights are float32; `optimizer` is that of a fresh AdamW at learning rate 1e-4. The file does
    not record `input_size`.

    Raises:
        ValueError: a shape that the published code cannot make (patch, heads, time_scale), or `ema`
            of another one.
        CheckpointError: weights that are not finite.
    """
    path, averaged = Path(path), sidenet if ema is None else ema
    config = sidenet.config
    fixed = {"patch": 1, "heads": PUBLISHED_HEADS, "time_scale": 1.0}
    other = {name: getattr(config, name) for name in fixed if getattr(config, name) != fixed[name]}
    if other:
        raise ValueError(
            "the published format has "
            + ", ".join(f"{name}={fixed[name]}, got {value}" for name, value in other.items())
            + ": save it with save_weights"
        )
    if averaged.config != config:
        raise ValueError(f"ema has the shape {averaged.config}, sidenet {config}")
    weights = {
        key: finite_tensors(path, net, torch.float32)
        for key, net in ((RAW, sidenet), (AVERAGED, averaged))
    }
    optimizer = torch.optim.AdamW(sidenet.parameters(), lr=1e-4).state_dict()
    with whole_file(path) as temporary:
        torch.save(weights | {"optimizer": optimizer, "step": step}, temporary)
