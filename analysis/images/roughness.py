"""What roughness of a network in t does to the orders that can be seen in few evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import quadflow as qf

from ...adapters import FlowField, Guidance
from ...adapters.backbones.registry import NamedBackbone
from ...adapters.sampling.converged import converged, rmse, tight_path
from ...adapters.sampling.sample import default_labels, initial_noise
from ..report.panels import Panels, styles, tidy_log

STEPS: dict[str, tuple[int, ...]] = {
    "rk4": (1, 2, 3, 4, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128),
    "ab2": (4, 5, 7, 10, 14, 20, 28, 40, 56, 80, 113, 160, 226, 320, 450),
    "ab4": (4, 5, 7, 10, 14, 20, 28, 40, 56, 80, 113, 160, 226, 320, 450),
}
"""Equal steps of the fixed-step methods."""

TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
"""rtol of "adams" (variable order and steps), atol a tenth of it."""

FINEST = 960
"""Times along the path at which the velocity is looked at, from the noise to the data."""

SEED = 500_000


def roughness(
    backbone: NamedBackbone,
    *,
    count: int = 4,
    reference_steps: int = 1024,
    finest: int = FINEST,
    most: int = 512,
    progress: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Errors of classical methods against NFE, and how rough the velocity is along the true path.

    Args:
        backbone: what is looked at, without guidance. count: noises.
        reference_steps: of the converged solve. finest: times along the path, >= 8.
        most: NFE beyond which no method is run.
        progress: called after every method, and after the path.

    Returns:
        For JSON: "reference_rmse"; "errors": method -> [[NFE, RMSE], ...]; "orders": method ->
        {"5 to 20": slope, "over 60": slope} of log RMSE against log NFE, None where fewer than two
        points lie there; "differences": [[h, D(h)], ...], D the root mean square of v(t+h) - 2 v(t)
        + v(t-h) along the path, relative to v's. For a smooth velocity D is proportional to h².
    """
    labels = default_labels(count, backbone.num_classes)
    noise = initial_noise(SEED, count, backbone.shape)
    field = FlowField(backbone.model, backbone.convention, labels, Guidance())
    truth = converged(field, noise, reference_steps)
    tick = progress or (lambda: None)
    errors: dict[str, list[tuple[int, float]]] = {}
    for method, steps in STEPS.items():
        errors[method] = [_fixed(field, noise, method, n, truth.x) for n in steps]
        tick()
    errors["adams"] = sorted(_adams(field, noise, rtol, truth.x) for rtol in TOLERANCES)
    tick()
    errors = {m: [p for p in points if p[0] <= most] for m, points in errors.items()}
    differences = second_differences(field, noise, finest)
    tick()
    return {
        "images": count,
        "reference_rmse": truth.error,
        "errors": errors,
        "orders": {
            m: {"5 to 20": _slope(points, 4, 20), "over 60": _slope(points, 60, most)}
            for m, points in errors.items()
        },
        "differences": differences,
    }


def _fixed(
    field: FlowField, noise: Tensor, method: str, steps: int, truth: Tensor
) -> tuple[int, float]:
    """NFE and RMSE of a method in equal steps."""
    ends = (field.resolved.noise_t, field.resolved.data_t)
    grid = np.linspace(*ends, steps + 1)
    # the anchors there are at the start, so that an evaluation a step is all that it costs
    own: Any = qf.adams(int(method[2]), startup="rising") if method.startswith("ab") else method
    with torch.no_grad():
        found = qf.solve(field, noise, ends, method=own, grid=grid, node_evaluation="loop")
    return found.stats.nfe, rmse(found.y[-1], truth)


def _adams(field: FlowField, noise: Tensor, rtol: float, truth: Tensor) -> tuple[int, float]:
    ends = (field.resolved.noise_t, field.resolved.data_t)
    with torch.no_grad():
        found = qf.solve(
            field, noise, ends, method="adams", rtol=rtol, atol=rtol / 10, node_evaluation="loop"
        )
    return found.stats.nfe, rmse(found.y[-1], truth)


def second_differences(field: FlowField, noise: Tensor, finest: int) -> list[tuple[float, float]]:
    """(h, D(h)) of the velocity along the true path, h in steps of σ from 1/finest to a quarter."""
    path = tight_path(field, noise, finest, finest)
    ends = (field.resolved.noise_t, field.resolved.data_t)
    times = np.linspace(*ends, finest + 1)[:-1]  # the network at the data's end is another matter
    with torch.no_grad():
        v = torch.stack([field.evaluate(float(t), x)[0] for t, x in zip(times, path, strict=False)])
    size = float(v.double().square().mean().sqrt())
    spans = sorted({max(1, round(k)) for k in np.geomspace(1, finest / 4, 24)})
    return [
        (k / finest, float((v[2 * k :] - 2 * v[k:-k] + v[: -2 * k]).double().square().mean().sqrt())
         / size)
        for k in spans
    ]  # fmt: skip


def _slope(points: Sequence[tuple[int, float]], low: float, high: float) -> float | None:
    """-d log RMSE / d log NFE of a straight line through the points within low..high."""
    inside = [(n, e) for n, e in points if low <= n <= high and e > 0]
    if len(inside) < 2:
        return None
    nfe, errors = np.log(np.array(inside, np.float64)).T
    return -float(np.polyfit(nfe, errors, 1)[0])


def draw_roughness(path: str | Path, studies: dict[str, dict[str, Any]], command: str) -> None:
    """Errors against NFE above, second differences of the velocity below, a column a backbone."""
    names = [f"{name}: error" for name in studies]
    names += [f"{name}: velocity along t" for name in studies]
    title = "Rough in t: what order can be seen, and why"
    with Panels(path, names, title, command) as panels:
        looks = styles(list(next(iter(studies.values()))["errors"]))
        for name, study in studies.items():
            axis = panels.axes[f"{name}: error"]
            for method, points in study["errors"].items():
                axis.loglog(*zip(*points, strict=True), label=method, markersize=4, **looks[method])
            axis.axhline(study["reference_rmse"], color="0.6", linewidth=1, linestyle=":")
            axis.axvspan(5, 20, color="0.93")
            axis.set_xlabel("NFE", fontsize=9)
            axis.set_ylabel("RMSE to the converged solve", fontsize=9)
            below = panels.axes[f"{name}: velocity along t"]
            h, d = np.array(study["differences"]).T
            below.loglog(h, d, "o-", color="0.2", markersize=3, label="second difference D(h)")
            below.loglog(h, d[-1] * (h / h[-1]) ** 2, color="0.6", label="h², a smooth velocity")
            below.set_xlabel("h", fontsize=9)
            below.set_ylabel("D(h), relative", fontsize=9)
            for one in (axis, below):
                tidy_log(one, "x")
                tidy_log(one, "y")


def seen_orders(studies: dict[str, dict[str, Any]]) -> str:
    """The orders that show, by backbone and method, as text."""
    methods = list(next(iter(studies.values()))["orders"])
    lines = [f"{'backbone':<20}{'NFE':<10}" + "".join(f"{m:>8}" for m in methods)]
    for name, study in studies.items():
        for where in ("5 to 20", "over 60"):
            found = [study["orders"][m][where] for m in methods]
            cells = "".join(f"{'–' if x is None else format(x, '.1f'):>8}" for x in found)
            lines.append(f"{name:<20}{where:<10}{cells}")
    return "\n".join(lines)
