"""The report of a fit: its figures as JSON, and a picture of errors before and after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...extras import require
from ...storage import whole_file, write_json

NAMES = ("classical", "fitted")
"""Of the errors in the plans of `fit_sampler`'s figures: before and after."""

LABELS = {"classical": "best classical"}


def write_report(
    figures: Mapping[str, Any], out: str | Path, names: tuple[str, str] = NAMES
) -> tuple[Path, Path]:
    """Write OUT.json and OUT.png beside a fit's file OUT.safetensors; their paths.

    figures: of the fit. names: keys of the errors before and after in its plans.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    base = Path(out).with_suffix("")
    record, picture = base.with_suffix(".json"), base.with_suffix(".png")
    write_json(record, figures)
    require("matplotlib", "analysis").use("Agg")
    plt = require("matplotlib.pyplot", "analysis")
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    _errors(left, figures["plans"], names)
    _course(right, figures["looks"], names[0])
    with whole_file(picture) as temporary:
        fig.savefig(temporary, format="png", dpi=120)
    plt.close(fig)
    return record, picture


def _errors(axes: Any, plans: list[dict[str, Any]], names: tuple[str, str]) -> None:
    """RMSE on the reported noises against the budget, a pair of lines a guidance scale."""
    for i, scale in enumerate(sorted({p["guidance"] for p in plans})):
        mine = sorted((p for p in plans if p["guidance"] == scale), key=lambda p: p["nfe"])
        budgets = [p["nfe"] for p in mine]
        name = "no guidance" if scale == 1 else f"guidance {scale:g}"
        for key, line in zip(names, ("o--", "o-"), strict=True):
            axes.plot(budgets, [p[key] for p in mine], line, color=f"C{i}",
                      label=f"{LABELS.get(key, key)}, {name}")  # fmt: skip
    axes.set(xlabel="NFE", ylabel="RMSE to the converged end", yscale="log",
             title="On noises that nothing was chosen by")  # fmt: skip
    axes.set_xticks(sorted({p["nfe"] for p in plans}))
    axes.legend()
    axes.grid(alpha=0.3)


def _course(axes: Any, looks: list[dict[str, Any]], before: str) -> None:
    """Error over the one before training against updates, on the selection noises."""
    axes.plot([0, *(k["step"] for k in looks)], [1.0, *(k["ratio"] for k in looks)], "o-")
    axes.axhline(1.0, color="grey", lw=0.8)
    axes.set(xlabel="updates", ylabel=f"error, {LABELS.get(before, before)} = 1",
             title="While fitting, all plans together", ylim=(0, None))  # fmt: skip
    axes.grid(alpha=0.3)


def table(figures: Mapping[str, Any], names: tuple[str, str] = NAMES) -> str:
    """The figures of a fit in lines of text; names: see `write_report`."""
    before, after = names
    lines = [
        f"{'NFE':>4} {'guidance':>9} {'start':>9} {'shift':>6} {before:>10} {after:>10} "
        f"{'ratio':>6}"
    ]
    for p in figures["plans"]:
        note = f"  this is {p['start']}: nothing learned was better" if p["fell_back"] else ""
        lines.append(
            f"{p['nfe']:>4} {p['guidance']:>9g} {p['start']:>9} {p['shift']:>6.3g} "
            f"{p[before]:>10.4f} {p[after]:>10.4f} {p[after] / p[before]:>6.2f}{note}"
        )
    return "\n".join(lines)


def effort_line(figures: Mapping[str, Any]) -> str:
    """What a fit took, in a line."""
    effort, rows = figures["effort"], sum(figures["evaluations"].values())
    return (
        f"{effort['updates']} updates, {effort['pairs']} pairs a guidance scale, {rows:,} "
        f"evaluations of the backbone on single states, {figures['minutes']:g} minutes"
    )
