"""Published SiT weights (REPA and the original) from their torch files."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..flow.field import resolve_convention
from .checkpoints import (
    CheckpointError,
    count_blocks,
    dimensions,
    load_into,
    read_torch,
    state_dict_of,
)
from .sit import SIT_CONFIGS, SiT, SiTConfig, position_table

HEADS = {(c.width, c.depth): c.heads for c in SIT_CONFIGS.values()}
"""Heads of the published networks by (width, depth): no tensor's shape tells them."""


@dataclass(frozen=True)
class LoadedSiT:
    """A SiT from a file. convention: name for `FlowField`. weights: what of the file was taken,
    "ema", "model" or "state dict"."""

    model: SiT
    convention: str
    weights: str


def load_sit(
    path: str | Path,
    *,
    prefer: str = "ema",
    projectors: bool = False,
    config: SiTConfig | None = None,
    heads: int | None = None,
    convention: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> LoadedSiT:
    """A SiT from a checkpoint of REPA or of the original code, in evaluation mode, frozen.

    Args:
        path: a torch file: {model, ema, opt, args, steps} or a bare state dict, with or without the
            "module." of DDP. Files that quadflow wrote: `load_backbone`.
        prefer: "ema" (the averaged weights) or "model"; the other is taken if it is the only one,
            and `LoadedSiT.weights` says so.
        projectors: keep REPA's projectors (for `SiT.features`), which sampling does not need.
        config: the shape; None reads it off the tensors. If given, its `z_dims` decide about the
            projectors.
        heads: where the file is of no published size (S, B, L, XL) and no config is given.
        convention: name in `CONVENTIONS`; None: "sit" for learn_sigma without projectors (the
            original networks: data at t = 1), else "repa" (data at t = 0). An original network
            trained without learn_sigma cannot be told from one of REPA's: say "sit".
        dtype: of the weights. Each tensor is copied once, from a mapped file, so a network takes
            the memory of its own weights (2.7 GB for XL in float32).

    Raises:
        CheckpointError: missing, damaged or foreign file, weights that do not fit (listed), another
            position table, or a network trained for another path or prediction.
        ValueError: unknown prefer, dtype or convention.

    Source: Ma et al. 2024 (SiT), Yu et al. 2025 (REPA): names and shapes of their tensors.
    """
    if prefer not in ("ema", "model"):
        raise ValueError(f"prefer must be 'ema' or 'model', got {prefer!r}")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be floating point, got {dtype}")
    if convention is not None:
        resolve_convention(convention)
    tensors, weights, arguments = _read(path, prefer)
    keep = projectors if config is None else bool(config.z_dims)
    held = any(key.startswith("projectors.") for key in tensors)
    if not keep:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("projectors.")}
    if config is None:
        config = sit_config_of(tensors, path, heads=heads, encoder_depth=arguments.get("depth"))
        if projectors and not config.z_dims:
            raise CheckpointError(f"{path} has no projectors")
    with torch.device("meta"):
        model = SiT(config)
    if "pos_embed" in tensors:
        check_positions(tensors["pos_embed"], config, path)
    copied = {
        # integers stay what they are, for the strict load to refuse
        key: value.to(
            dtype if value.is_floating_point() else value.dtype,
            copy=True,
            memory_format=torch.contiguous_format,
        )
        for key, value in tensors.items()
    }
    load_into(model, copied, path, assign=True)
    original = config.learn_sigma and not held
    return LoadedSiT(
        model.eval().requires_grad_(False), convention or ("sit" if original else "repa"), weights
    )


def _read(path: str | Path, prefer: str) -> tuple[dict[str, Tensor], str, dict[str, int]]:
    """The tensors, which they are, and what the file's arguments tell ("depth" of the encoder)."""
    value = read_torch(path)
    if not isinstance(value, Mapping) or not ("ema" in value or "model" in value):
        return state_dict_of(value, path), "state dict", {}
    weights = prefer if prefer in value else ("model" if prefer == "ema" else "ema")
    tensors = state_dict_of(value[weights], f"{path} ({weights})")
    given = value.get("args")
    told = vars(given) if isinstance(given, argparse.Namespace) else {}
    # the conventions here are those of the straight path and the velocity
    for name, usual in (("path_type", ("linear",)), ("prediction", ("v", "velocity"))):
        if name in told and str(told[name]).lower() not in usual:
            raise CheckpointError(
                f"{path} was trained with {name}={told[name]!r}, which no convention here describes"
            )
    depth = told.get("encoder_depth")
    return tensors, weights, {"depth": depth} if isinstance(depth, int) else {}


def sit_config_of(
    tensors: Mapping[str, Tensor],
    source: str | Path,
    *,
    heads: int | None = None,
    encoder_depth: int | None = None,
) -> SiTConfig:
    """The shape of a SiT, from its tensors; projectors that are among them are part of it.

    heads: if the network is of no published size. encoder_depth: of the projectors, 8 unless told.

    Raises:
        CheckpointError: the tensors are of no SiT, or the heads are not known.
    """
    first, table, places = (
        "x_embedder.proj.weight",
        "y_embedder.embedding_table.weight",
        "pos_embed",
    )
    last, hidden = "final_layer.linear.weight", "blocks.0.mlp.fc1.weight"
    wanted = {first: 4, table: 2, places: 3, last: 2, hidden: 2}
    shapes = dimensions(tensors, wanted, source, "SiT")
    width, channels, patch, _ = shapes[first]
    depth = count_blocks(tensors, source, "SiT")
    side, ratio = math.isqrt(shapes[places][1]), shapes[last][0] / (patch**2 * channels)
    if side**2 != shapes[places][1]:
        raise CheckpointError(f"{source}: pos_embed has {shapes[places][1]} places, not a square")
    if ratio not in (1, 2):
        raise CheckpointError(
            f"{source}: {last} has {shapes[last][0]} rows, should be {patch**2 * channels} or "
            "twice that (learn_sigma)"
        )
    heads = heads or HEADS.get((width, depth))
    if heads is None:
        raise CheckpointError(
            f"{source}: a SiT of width {width} and depth {depth} is of no published size, and the "
            "tensors do not tell its heads: give heads="
        )
    try:
        config = SiTConfig(
            input_size=side * patch,
            patch=patch,
            in_channels=channels,
            width=width,
            depth=depth,
            heads=heads,
            mlp_ratio=shapes[hidden][0] / width,
            num_classes=shapes[table][0] - 1,
            learn_sigma=ratio == 2,
        )
        ends = [f"projectors.{i}.4.weight" for i in range(len(_projectors(tensors)))]
        if not ends:
            return config
        inner = dimensions(tensors, dict.fromkeys(ends, 2), source, "SiT")
        return replace(
            config,
            z_dims=tuple(inner[end][0] for end in ends),
            projector_dim=inner[ends[0]][1],
            encoder_depth=8 if encoder_depth is None else encoder_depth,
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{source} holds no SiT that can be made: {error}") from error


def _projectors(tensors: Mapping[str, Tensor]) -> set[str]:
    return {key.split(".")[1] for key in tensors if key.startswith("projectors.")}


def check_positions(table: Tensor, config: SiTConfig, source: str | Path) -> None:
    """Raise unless a position table (1, N, width) is the one of this grid.

    It may be off by 1e-4, or by the rounding of its own dtype if that is coarser. A table of
    another shape is left for the strict load, which lists it.

    Raises:
        CheckpointError: another table, such as one made for another grid.
    """
    ours = position_table(config.input_size // config.patch, config.width)
    if ours.shape != table.shape or not table.is_floating_point():
        return
    off = float((table.float() - ours).abs().max())
    if not off <= max(1e-4, torch.finfo(table.dtype).eps):
        raise CheckpointError(
            f"{source}: pos_embed is not the position table of {config.input_size}x"
            f"{config.input_size} pixels in patches of {config.patch}: they differ by {off:.2g}"
        )
