"""Which part of a fitted sampler its error is owed to: each one left out or made larger in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...adapters import FittedSampler
from ...adapters.fitted.network import Residual
from ...adapters.fitted.plan import PARTS
from ..report.tables import columns
from .fits import ALONE, Fits, FitSize


def fitted_budget(fits: Fits, size: FitSize) -> dict[str, Any]:
    """RMSE on noises that nothing was chosen by, of one fit and of small changes to it.

    All are made from the same pairs in as many updates, with the same seed. What is better than the
    fit as it is was missing (capacity: "double width"; pairs: "half the pairs" worse by much); what
    is as good is not needed.

    Args:
        fits: of which backbone, and where fits are kept. size: of each fit.

    Returns:
        For JSON: "rmse", name -> NFE -> RMSE, "classical" among the names; "minutes",
        "evaluations": name -> of the fit, see `fit_sampler`; "parameters": of the networks.
    """
    made = {name: fits.sampler(own, **options) for name, (own, options) in _variants(fits, size)}
    first = next(iter(made.values())).figures["plans"]
    rmse = {"classical": {str(p["nfe"]): p["classical"] for p in first}}
    return {
        "guidance": fits.scale, "updates": size.updates, "pairs": size.pairs,
        "rmse": rmse | {name: errors(fitted) for name, fitted in made.items()},
        "minutes": {name: f.figures["minutes"] for name, f in made.items()},
        "evaluations": {name: sum(f.figures["evaluations"].values()) for name, f in made.items()},
        "parameters": {name: parameters(f.learned.network) for name, f in made.items()},
    }  # fmt: skip


def _variants(fits: Fits, size: FitSize) -> list[tuple[str, tuple[FitSize, dict[str, Any]]]]:
    """Name -> size of the fit and what it is given."""
    own = fits.network()
    other = {
        "no features": fits.network(features=False),
        "half width": fits.network(max(1, own.width // 2)),
        "double width": fits.network(2 * own.width),
    }
    fixed = tuple(part for part in PARTS if part != "times")
    return [
        ("as it is", (size, {"network": own})),
        *((name, (size, {"network": config})) for name, config in other.items()),
        ("half the pairs", (replace(size, pairs=max(1, size.pairs // 2)), {"network": own})),
        ("times fixed", (size, {"network": own, "parts": fixed})),
        ("no network", (size, {"network": False})),
        ("coefficients alone", (size, dict(ALONE["coefficients"]))),
        ("form ordered", (size, {"network": own, "form": "ordered"})),
    ]


def errors(fitted: FittedSampler) -> dict[str, float]:
    """NFE -> RMSE of a sampler on the reported noises."""
    return {str(p["nfe"]): p["fitted"] for p in fitted.figures["plans"]}


def parameters(network: Residual | None) -> int:
    """How many numbers a network has; 0 where there is none."""
    return 0 if network is None else sum(p.numel() for p in network.parameters())


def budget_table(study: Mapping[str, Any]) -> str:
    """The errors of `fitted_budget` as text."""
    title = f"RMSE of the fitted sampler, {study['updates']} updates from {study['pairs']} pairs"
    return columns(title, study["rmse"])
