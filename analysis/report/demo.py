"""`quadflow demo`: measured orders, and images in few evaluations, in three minutes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import quadflow as qf

from ...adapters import Guidance, initial_noise, load_sidenet, load_unet
from ...adapters.data.images import difference_tile, tile
from ...extras import progress, require
from ...storage import write_json
from ..images.rivals import shipped_rival
from ..images.trajectories import TrajectoryErrors, trajectory_errors
from ..orders.convergence import measured_order
from .figures import convergence_plot, sample_grid
from .machine import machine
from .tables import guided, starred

NODES = (3, 4, 5)
STEPS: dict[str, dict[int, Sequence[int]]] = {
    "kepler": {3: (800, 1131, 1600, 2263), 4: (565, 800, 1131, 1600), 5: (476, 565, 673, 800)},
    "lotka-volterra": {3: (100, 141, 200, 283), 4: (120, 170, 240, 339), 5: (85, 120, 170, 240)},
    "driven": {3: (32, 45, 64, 90), 4: (32, 45, 64, 90), 5: (13, 16, 19, 23)},
}
NFES = (3, 5, 7, 10, 20)
METHODS = ("euler", "heun", "ab2", "dpmpp-2m", "pec2", "bianchor")
"""Beside the shipped fitted sampler; `quadflow evaluate` has the others."""
PICTURED = slice(5, 10)
"""The images that are drawn: one of each label from sandal to ankle boot."""


def run_demo(out: Path, *, seed: int = 0, quick: bool = False) -> dict[str, Any]:
    """Run the demo; write pictures and `demo.json` into `out`; return the figures.

    Args:
        out: folder, made if it does not exist.
        seed: of the noises.
        quick: two problems' worth of steps and ten images instead of all.

    Raises:
        ValueError: the fitted sampler of the U-Net is not there.
    """
    began = time.perf_counter()
    require("matplotlib", "analysis")  # before a minute of work that would end without a picture
    model, sidenet = load_unet(), load_sidenet()
    count = 10 if quick else 20
    scales = (2.0,) if quick else (1.0, 2.0)
    fitted = {scale: shipped_rival(model, scale) for scale in scales}
    out.mkdir(parents=True, exist_ok=True)
    names = ("driven",) if quick else tuple(STEPS)
    total = sum(len(s) for name in names for s in STEPS[name].values())
    total += len(scales) * (1 + len(METHODS) * len(NFES))
    total += sum(rival.has(nfe) for rival in fitted.values() for nfe in NFES)
    with progress(total, "quadflow demo") as bar:

        def tick() -> None:
            bar.update(1)

        orders = [
            measured_order(
                # two sweeps more than the order needs: the collocation method itself shows
                qf.collocation(qf.gauss_lobatto(n), n + 2, guess="extrapolated"), name,
                STEPS[name][n], progress=tick,
            )
            for name in names
            for n in NODES
        ]  # fmt: skip
        labels = torch.arange(count) % model.num_classes
        noise = initial_noise(seed, count, (model.config.in_channels, 28, 28))
        errors = {
            scale: trajectory_errors(
                model, sidenet, noise, labels, methods=(*METHODS, fitted[scale]), nfes=NFES,
                guidance=Guidance(scale, model.num_classes),
                reference_steps=128 if quick else 256, progress=tick,
            )
            for scale in scales
        }  # fmt: skip
    convergence_plot(out / "convergence.png", orders)
    _draw(
        out / "samples.png", errors[2.0],
        f"Fashion-MNIST, guidance 2, the same noises everywhere (seed {seed}); RMSE over {count} "
        f"images, of which {len(range(count)[PICTURED])} are shown\n"
        "Below each image: how far it is from the converged one, pixel by pixel",
    )  # fmt: skip
    figures: dict[str, Any] = {
        "seed": seed,
        "images": count,
        "machine": machine(),
        "torch": torch.__version__,
        "orders": [m.to_dict() for m in orders],
        "sampling": [_sampling_dict(scale, e) for scale, e in errors.items()],
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_json(out / "demo.json", figures)
    print(order_table(figures))
    for result in figures["sampling"]:
        print(error_table(result))
    print(f"\n{figures['seconds']} s; pictures and demo.json in {out}/")
    return figures


def _draw(path: Path, errors: TrajectoryErrors, title: str) -> None:
    """Samples and their difference maps, at the NFE that all methods have."""
    wanted = errors.reference.x[PICTURED]
    nfes = [n for n in NFES if all(n in row for row in errors.samples.values())]
    shown = {
        method: {nfe: row[nfe].x[PICTURED] for nfe in nfes}
        for method, row in errors.samples.items()
    }
    across = len(wanted)
    sample_grid(
        path,
        {m: {n: tile(x, across) for n, x in row.items()} for m, row in shown.items()},
        tile(wanted, across), errors.rmse, title,
        differences={
            m: {n: difference_tile(x, wanted, across) for n, x in row.items()}
            for m, row in shown.items()
        },
    )  # fmt: skip


def _sampling_dict(scale: float, result: TrajectoryErrors) -> dict[str, Any]:
    return {
        "guidance": scale,
        "reference_rmse": result.reference.error,
        "reference_nfe": result.reference.nfe,
        "rmse": {m: {str(n): e for n, e in row.items()} for m, row in result.rmse.items()},
        "seconds": {
            m: {str(n): round(s.stats.wall_time, 4) for n, s in row.items()}
            for m, row in result.samples.items()
        },
    }


def order_table(figures: Mapping[str, Any]) -> str:
    """Measured against promised order, as text, from the contents of demo.json."""
    lines = [
        "",
        "Gauss-Lobatto collocation: global order, promised 2n-2 (local error one order higher)",
        f"{'problem':<16}{'nodes':>6}{'promised':>10}{'measured':>10}{'residual':>10}"
        f"{'smallest error':>16}",
    ]
    for m in figures["orders"]:
        nodes = m["method"].rpartition("-")[2]
        lines.append(
            f"{m['problem']:<16}{nodes:>6}{m['promised_order']:>10}{m['measured_order']:>10.2f}"
            f"{m['residual_decades']:>10.3f}{min(m['errors']):>16.1e}"
        )
    return "\n".join(lines)


def error_table(result: Mapping[str, Any]) -> str:
    """Trajectory RMSE by method and NFE, as text, from one entry of demo.json's "sampling".

    The best of every column is starred.
    """
    lines = [
        "",
        f"RMSE to the converged solve from the same noise, {guided(result['guidance'])}",
        f"(the reference's own error: {result['reference_rmse']:.1e})",
    ]
    return "\n".join(lines + starred(result["rmse"], 12))
