"""The report of a fit: its figures as JSON, and a picture of errors before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...extras import require
from ...storage import whole_file, write_json
from .fitted import FittedSampler


def write_report(fitted: FittedSampler, out: str | Path) -> tuple[Path, Path]:
    """Write OUT.json and OUT.png beside the sampler's file OUT.safetensors; their paths.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    base = Path(out).with_suffix("")
    figures, picture = base.with_suffix(".json"), base.with_suffix(".png")
    write_json(figures, fitted.figures)
    require("matplotlib", "analysis").use("Agg")
    plt = require("matplotlib.pyplot", "analysis")
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    _errors(left, fitted.figures["plans"])
    _course(right, fitted.figures["looks"])
    with whole_file(picture) as temporary:
        fig.savefig(temporary, format="png", dpi=120)
    plt.close(fig)
    return figures, picture


def _errors(axes: Any, plans: list[dict[str, Any]]) -> None:
    """RMSE on the reported noises against the budget, a pair of lines a guidance scale."""
    for i, scale in enumerate(sorted({p["guidance"] for p in plans})):
        mine = sorted((p for p in plans if p["guidance"] == scale), key=lambda p: p["nfe"])
        budgets = [p["nfe"] for p in mine]
        name = "no guidance" if scale == 1 else f"guidance {scale:g}"
        axes.plot(budgets, [p["classical"] for p in mine], "o--", color=f"C{i}",
                  label=f"best classical, {name}")  # fmt: skip
        axes.plot(budgets, [p["fitted"] for p in mine], "o-", color=f"C{i}",
                  label=f"fitted, {name}")  # fmt: skip
    axes.set(xlabel="NFE", ylabel="RMSE to the converged end", yscale="log",
             title="On noises that nothing was chosen by")  # fmt: skip
    axes.set_xticks(sorted({p["nfe"] for p in plans}))
    axes.legend()
    axes.grid(alpha=0.3)


def _course(axes: Any, looks: list[dict[str, Any]]) -> None:
    """Error over the classical method's against updates, on the selection noises."""
    axes.plot([0, *(k["step"] for k in looks)], [1.0, *(k["ratio"] for k in looks)], "o-")
    axes.axhline(1.0, color="grey", lw=0.8)
    axes.set(xlabel="updates", ylabel="error over the best classical method's",
             title="While fitting, all plans together", ylim=(0, None))  # fmt: skip
    axes.grid(alpha=0.3)


def table(fitted: FittedSampler) -> str:
    """The figures of a fit in lines of text."""
    lines = [
        f"{'NFE':>4} {'guidance':>9} {'start':>6} {'classical':>10} {'fitted':>10} {'ratio':>6}"
    ]
    for p in fitted.figures["plans"]:
        note = "  the classical method: nothing learned was better" if p["fell_back"] else ""
        lines.append(
            f"{p['nfe']:>4} {p['guidance']:>9g} {p['start']:>6} {p['classical']:>10.4f} "
            f"{p['fitted']:>10.4f} {p['fitted'] / p['classical']:>6.2f}{note}"
        )
    return "\n".join(lines)
