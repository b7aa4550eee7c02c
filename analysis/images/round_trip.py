"""How well data survive inversion and regeneration, and what an edit looks like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...adapters import FlowField, Guidance, edit, initial_noise
from ...adapters.backbones.registry import NamedBackbone
from ...adapters.sampling.converged import rmse, tight_solve
from ...adapters.sampling.sample import default_labels


def generated(backbone: NamedBackbone, labels: Tensor | None, count: int, seed: int) -> Tensor:
    """Converged samples (count, *shape) of the backbone: data that it knows how to make."""
    field = FlowField(backbone.model, backbone.convention, labels)
    return tight_solve(field, initial_noise(seed, count, backbone.shape))


def round_trip_errors(
    backbone: NamedBackbone,
    sidenet: nn.Module | None,
    *,
    methods: Sequence[str],
    nfes: Sequence[int],
    count: int = 24,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """RMSE between data and data -> noise -> data under the same label, by method and NFE a way."""
    labels = default_labels(count, backbone.num_classes)
    data = generated(backbone, labels, count, seed)
    same = torch.zeros(count, dtype=torch.int64) if labels is None else labels
    return {
        method: {
            str(nfe): rmse(
                edit(
                    backbone.model, data, same, same, method=method, nfe=nfe, sidenet=sidenet,
                    convention=backbone.convention,
                ).x,
                data,
            )
            for nfe in nfes
        }
        for method in methods
    }  # fmt: skip


def edit_grid(
    backbone: NamedBackbone,
    sidenet: nn.Module | None,
    pairs: Sequence[tuple[int, int]],
    *,
    method: str,
    nfe: int,
    strength: float,
    guidance: float,
    columns: int = 10,
    seed: int = 0,
) -> Tensor:
    """For every (source, target): a row of generated images of the source class, and one of their
    edits; (2 * pairs * columns, C, H, W) in [-1, 1]."""
    rows = []
    for source, target in pairs:
        labels = torch.full((columns,), source)
        data = generated(backbone, labels, columns, seed)
        edited = edit(
            backbone.model, data, labels, torch.full_like(labels, target), method=method, nfe=nfe,
            sidenet=sidenet, strength=strength, convention=backbone.convention,
            guidance=Guidance(guidance, backbone.num_classes),
        )  # fmt: skip
        rows += [backbone.to_images(data), backbone.to_images(edited.x)]
    return torch.cat(rows)
