"""Small fits that say what each change to the published sampler is worth: trained when asked for,
kept on disk under all that they depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...adapters import FittedSampler, FittedSideNet, fit_sampler, fit_sidenet
from ...adapters.backbones.registry import NamedBackbone
from ...adapters.fitted.fit_sampler import sized_network
from ...adapters.fitted.network import ResidualConfig
from ...adapters.fitted.pairs import Task
from ...adapters.sidenet.network import SideNet
from ...adapters.training.state import digest
from .reference_cache import fingerprint
from .rivals import Rival

ALONE: dict[str, Mapping[str, Any]] = {
    "coefficients": {"parts": ("coefficients",), "network": False, "form": "free"},
    "coefficients+times": {
        "parts": ("coefficients", "times"), "network": False, "form": "free",
    },
}  # fmt: skip
"""Name of a rival -> what `fit_sampler` is given: the form of arXiv 2505.21114 and 2603.11607."""

PUBLISHED = "bianchor-ends"
"""The published form, its SideNet trained to the ends."""


@dataclass(frozen=True)
class FitSize:
    """How much a fit is. nfe: its budgets. updates, pairs, steps: see `fit_sampler`."""

    nfe: Sequence[int] = (3, 5, 7, 10)
    updates: int = 400
    pairs: int = 512
    steps: int = 128


@dataclass(frozen=True)
class Fits:
    """The fits of a backbone at a guidance scale, kept on disk; they share their pairs.

    cache: folder, made if it does not exist.
    """

    backbone: NamedBackbone
    scale: float
    cache: Path

    def folder(self, size: FitSize) -> Path:
        """Of the pairs and the files."""
        key = _key(fingerprint(self.backbone.model), self.scale, size.steps)
        return self.cache / "fits" / f"{self.backbone.name.replace(':', '-')}-{key}"

    def path(self, size: FitSize, **options: Any) -> Path:
        """The file of a fit; options: what it is given besides its size."""
        return self.folder(size) / f"{_key(asdict(size), sorted(options.items()))}.safetensors"

    def given(self, size: FitSize) -> dict[str, Any]:
        """What every fit on this backbone is given but for the model."""
        backbone = self.backbone
        return asdict(size) | {
            "shape": backbone.shape, "num_classes": backbone.num_classes,
            "convention": backbone.convention, "guidance": (self.scale,),
            "folder": self.folder(size),
        }  # fmt: skip

    def sampler(self, size: FitSize, **options: Any) -> FittedSampler:
        """A sampler from its file, else fitted and written to it; raises as `fit_sampler`."""
        path = self.path(size, **options)
        if path.exists():
            return FittedSampler.load(path)
        fitted = fit_sampler(self.backbone.model, **self.given(size), **options)
        fitted.save(path)
        return fitted

    def published(self, size: FitSize, sidenet: SideNet) -> FittedSideNet:
        """The same of the published form. Raises as `fit_sidenet`."""
        path = self.path(size, sidenet=digest(sidenet.state_dict()))
        if path.exists():
            return FittedSideNet.load(path)
        fitted = fit_sidenet(self.backbone.model, sidenet, **self.given(size))
        fitted.save(path)
        return fitted

    def network(self, width: int | None = None, *, features: bool = True) -> ResidualConfig:
        """The network that `fit_sampler` makes here, but for its width and its features."""
        backbone = self.backbone
        task = Task(backbone.model, backbone.shape, backbone.num_classes, backbone.convention)
        config = sized_network(task, (self.scale,), None)
        return replace(
            config, width=width or config.width, features=config.features if features else None
        )


def make_rivals(fits: Fits, size: FitSize, sidenet: SideNet) -> None:
    """Fit what of `rivals_of` is not on disk yet; sidenet: where the published form starts."""
    for options in ALONE.values():
        fits.sampler(size, **options)
    fits.published(size, sidenet)


def rivals_of(fits: Fits, size: FitSize, sidenet: SideNet) -> list[Rival]:
    """The fits of `make_rivals` that are on disk, as rivals on their own grids."""
    found: dict[str, Any] = {
        name: fits.sampler(size, **options)
        for name, options in ALONE.items()
        if fits.path(size, **options).exists()
    }
    if fits.path(size, sidenet=digest(sidenet.state_dict())).exists():
        found[PUBLISHED] = fits.published(size, sidenet)
    return [
        Rival(
            name, fitted, own_grid=True, budgets=size.nfe,
            mark=digest((fitted.learned if name in ALONE else fitted.sidenet).state_dict()),
        )
        for name, fitted in found.items()
    ]  # fmt: skip


def _key(*values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
