"""Which backbone a sampler was fitted to: names, shapes and a few values of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

VALUES = 256
"""Weights that are compared, spread over all tensors."""

CLOSE = 2.0**-7
"""The relative difference that another dtype may make: a rounding of bfloat16 is half of it."""


@dataclass(frozen=True, eq=False)
class BackboneFingerprint:
    """names: digest of the names and shapes of all weights. values: some weights (n,), float32."""

    names: str
    values: Tensor

    def fits(self, other: BackboneFingerprint) -> bool:
        """Whether both are of one backbone, in whatever dtypes."""
        if self.names != other.names or self.values.shape != other.values.shape:
            return False
        return torch.allclose(self.values, other.values, rtol=CLOSE, atol=1e-6)


_KNOWN: WeakKeyDictionary[nn.Module, tuple[int, BackboneFingerprint]] = WeakKeyDictionary()


def backbone_fingerprint(model: Any) -> BackboneFingerprint | None:
    """The fingerprint of a network, None of what is no module with weights.

    Wrappers of compilers and of parallel training change nothing.
    """
    if not isinstance(model, nn.Module):
        return None
    parameters = {_plain(name): p for name, p in sorted(model.named_parameters())}
    if not parameters:
        return None
    # weights that were changed in place since have other versions
    version = sum(p._version for p in parameters.values() if not p.is_inference())
    known = _KNOWN.get(model)
    if known is None or known[0] != version:
        known = _KNOWN[model] = version, _measure(parameters)
    return known[1]


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "module"))


def _measure(parameters: Mapping[str, Tensor]) -> BackboneFingerprint:
    total = hashlib.blake2b(digest_size=10)
    for name, p in parameters.items():
        total.update(f"{name} {tuple(p.shape)}\n".encode())
    wanted = list(parameters.values())
    step = max(1, len(wanted) // 64)
    each = max(1, VALUES // len(wanted[::step]))
    parts = []
    for p in wanted[::step]:
        flat = p.detach().reshape(-1)
        where = torch.linspace(0, len(flat) - 1, min(each, len(flat)), device=p.device).long()
        parts.append(flat[where].float().cpu())
    return BackboneFingerprint(total.hexdigest(), torch.cat(parts))
