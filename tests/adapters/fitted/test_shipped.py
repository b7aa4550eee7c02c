"""The fitted sampler of a shipped backbone is found by the backbone's weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quadflow.adapters import FittedSampler, load_unet, shipped_fitted
from quadflow.adapters.fitted import shipped
from quadflow.adapters.fitted.fingerprint import backbone_fingerprint
from quadflow.adapters.fitted.sampler import Learned


def of(model: nn.Module) -> FittedSampler:
    return FittedSampler(Learned({}, None), None, "repa", backbone_fingerprint(model))


def test_found_by_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = load_unet(), nn.Linear(2, 2)
    fitted = (of(other), of(model))
    monkeypatch.setattr(shipped, "_loaded", lambda: fitted)
    assert shipped_fitted(load_unet()) is fitted[1]
    assert shipped_fitted(other) is fitted[0]
    with torch.no_grad():
        other.weight.add_(1)
    with pytest.raises(ValueError, match="none is shipped for this backbone; fit one with `quadf"):
        shipped_fitted(other)
