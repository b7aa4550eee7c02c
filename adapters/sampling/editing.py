"""Editing by inversion: data to noise under one label, back under another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...plans.method import Method
from ..flow.field import Convention, Guidance
from .sample import Samples, sample
from .samplers import Sampler


@dataclass(frozen=True)
class Edited:
    """Data turned into something else by `edit`.

    x: the edited data (B, ...). noise: the inverted states at σ = strength. inversion,
    regeneration: the ways back and forth, with what each cost.
    """

    x: Tensor
    noise: Tensor
    inversion: Samples
    regeneration: Samples


def invert(
    model: Any,
    data: Tensor,
    labels: Tensor | None = None,
    *,
    strength: float = 1.0,
    method: str | Sampler | Method = "pec2",
    nfe: int = 10,
    sidenet: nn.Module | None = None,
    guidance: Guidance | None = None,
    convention: Convention | str = "repa",
    shift: float = 1.0,
    callback: Callable[[float, Tensor], None] | None = None,
) -> Samples:
    """The states at noise fraction `strength` that the flow takes to these data.

    Args:
        data: (B, ...) float32 or float64, in the backbone's range.
        labels: (B,) int64, what the data are.
        strength: noise fraction in (0, 1] to go back to: 1 is pure noise.
        model, method, nfe, sidenet, guidance, convention, shift, callback: see `sample`. The
            anchors lie at the times of the way forth, in reverse.

    Raises:
        ValueError: strength out of range, data not finite; what `sample` raises.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength must be in (0, 1], got {strength}")
    return sample(
        model, data, labels, sigmas=(0.0, strength), method=method, nfe=nfe, sidenet=sidenet,
        guidance=guidance, convention=convention, shift=shift, callback=callback,
    )  # fmt: skip


def edit(
    model: Any,
    data: Tensor,
    source: Tensor,
    target: Tensor,
    *,
    strength: float = 1.0,
    method: str | Sampler | Method = "pec2",
    nfe: int = 10,
    sidenet: nn.Module | None = None,
    guidance: Guidance | None = None,
    convention: Convention | str = "repa",
    shift: float = 1.0,
) -> Edited:
    """Turn data of the labels `source` into what the same noises give under the labels `target`.

    Args:
        data: (B, ...) in the backbone's range. source, target: (B,) int64.
        strength: how far back to go, see `invert`: the less, the more is kept of the data.
        nfe: evaluations of each way; the cost is twice that.
        guidance: of the way forth alone. The way back is never guided: a guided flow is not the one
            that data come from, and inverting it loses them.
        model, method, sidenet, convention, shift: see `sample`; the same on both ways.

    Raises:
        ValueError: strength out of range, labels that do not fit; what `sample` raises.

    Source: Song et al. 2021 (the flow as a code for data); Meng et al. 2022 (strength).
    """
    way: dict[str, Any] = {
        "method": method, "nfe": nfe, "sidenet": sidenet, "convention": convention, "shift": shift,
    }  # fmt: skip
    # the null label is checked on the way back already, before anything is computed
    unguided = Guidance(1.0, None if guidance is None else guidance.null_label)
    back = invert(model, data, source, strength=strength, guidance=unguided, **way)
    forth = sample(model, back.x, target, sigmas=(strength, 0.0), guidance=guidance, **way)
    return Edited(forth.x, back.x, back, forth)
