"""What more updates, more pairs and a larger network are worth to a fitted sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...adapters.fitted.effort import HELD_OUT
from ..report.panels import Panels, styles, tidy_log
from .fits import Fits, FitSize
from .fitted_budget import errors, parameters

PAIRS = (64, 256, 1024)


def effort_study(
    fits: Fits, size: FitSize, pairs: Sequence[int] = PAIRS, widths: Sequence[int] | None = None
) -> dict[str, Any]:
    """Errors against updates and against pairs, for networks of two widths or more.

    Every number of pairs is a fit in all updates of its own; the course of the one with the most
    pairs is the error against updates. A fit keeps the best weights that it saw, so an error
    against pairs is that of its best look.

    Args:
        fits: of which backbone, and where fits are kept. size: of each fit, but for its pairs.
        pairs: tried, rising. widths: of the networks; default half the own one, and the own one.

    Returns:
        For JSON: "nfe", "guidance", "updates"; "classical": NFE -> RMSE; "widths": width ->
        {"parameters"; "updates": [[updates, {NFE: RMSE on the selection noises}], ...];
        "pairs": [[pairs, {NFE: RMSE on the reported noises}], ...]; "minutes", "evaluations":
        [of each fit, ...]}.
    """
    own = fits.network().width
    found: dict[str, Any] = {}
    for width in widths or (own // 2, own):
        network = fits.network(width)
        made = [fits.sampler(replace(size, pairs=count), network=network) for count in pairs]
        found[str(width)] = {
            "parameters": parameters(made[-1].learned.network),
            "updates": [
                [look["step"], {key.partition("@")[0]: e for key, e in look["errors"].items()}]
                for look in made[-1].figures["looks"]
            ],
            "pairs": [[count, errors(f)] for count, f in zip(pairs, made, strict=True)],
            "minutes": [f.figures["minutes"] for f in made],
            "evaluations": [sum(f.figures["evaluations"].values()) for f in made],
        }
    plans = made[-1].figures["plans"]
    return {
        "nfe": list(size.nfe), "guidance": fits.scale, "updates": size.updates,
        "classical": {str(p["nfe"]): p["classical"] for p in plans}, "widths": found,
    }  # fmt: skip


def draw_effort(path: str | Path, study: Mapping[str, Any], command: str) -> None:
    """Error against updates on the left, against pairs on the right; a line a width and NFE."""
    kinds = {"updates": f"error on {HELD_OUT[0]} selection noises", "pairs": "error on others"}
    with Panels(path, list(kinds.values()), "What effort is worth", command) as panels:
        lines = [(w, n) for w in study["widths"] for n in map(str, study["nfe"])]
        looks = styles([f"width {w}, NFE {n}" for w, n in lines])
        for kind, title in kinds.items():
            axis = panels.axes[title]
            for width, nfe in lines:
                points = [(x, e[nfe]) for x, e in study["widths"][width][kind]]
                label = f"width {width}, NFE {nfe}"
                axis.loglog(*zip(*points, strict=True), label=label, markersize=4, **looks[label])
            for error in study["classical"].values():
                axis.axhline(error, color="0.6", linewidth=1, linestyle=":")
            axis.set_xlabel(kind, fontsize=9)
            axis.set_ylabel("RMSE to the converged solve", fontsize=9)
            tidy_log(axis, "x")
            tidy_log(axis, "y")


def effort_table(study: Mapping[str, Any]) -> str:
    """The errors against pairs, and what each fit took, as text."""
    nfes = [str(n) for n in study["nfe"]]
    head = "".join(f"{f'NFE {n}':>10}" for n in nfes)
    lines = [
        f"{study['updates']} updates; best classical: "
        + ", ".join(f"{study['classical'][n]:.4f} at NFE {n}" for n in nfes),
        f"{'width':<8}{'parameters':>12}{'pairs':>8}{head}{'minutes':>10}{'evaluations':>14}",
    ]
    for width, found in study["widths"].items():
        for (count, rmse), minutes, rows in zip(
            found["pairs"], found["minutes"], found["evaluations"], strict=True
        ):
            cells = "".join(f"{rmse[n]:>10.4f}" for n in nfes)
            lines.append(
                f"{width:<8}{found['parameters']:>12}{count:>8}{cells}{minutes:>10.1f}{rows:>14,}"
            )
    return "\n".join(lines)
