"""The fitted samplers that come with the shipped backbones."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from ..backbones.pretrained import shipped
from ..flow.field import FlowField
from ..sampling.samplers import Plan
from .fingerprint import backbone_fingerprint
from .fitted import FittedSampler

FILES = ("fashion_fitted", "mnist_fitted", "galaxy_hsc32_fitted")
"""Weight files of fitted samplers, without ".safetensors"."""


@functools.cache
def _loaded() -> tuple[FittedSampler, ...]:
    paths = [shipped(f"{name}.safetensors") for name in FILES]
    return tuple(FittedSampler.load(path) for path in paths if path.exists())


def shipped_fitted(model: Any) -> FittedSampler:
    """The shipped sampler that was fitted to this backbone; on the command line it is "fitted".

    model: with the weights of a shipped backbone.

    Raises:
        ValueError: there is none.
    """
    found = backbone_fingerprint(model)
    for fitted in _loaded():
        if found is not None and fitted.fingerprint is not None and fitted.fingerprint.fits(found):
            return fitted
    raise ValueError(
        "method 'fitted': none is shipped for this backbone; fit one with `quadflow fit` and give "
        "its file"
    )


def of_backbone(field: FlowField, nfe: int, sidenet: nn.Module | None) -> Plan:
    """The shipped sampler of the field's backbone, as a sampler for `sample`."""
    return shipped_fitted(field.model)(field, nfe, sidenet)
