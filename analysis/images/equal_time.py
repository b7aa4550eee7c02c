"""Samplers at equal wall time: rivals with as many evaluations as fit into a method's seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..cost.timing import interleaved
from .evaluation import JudgedBackbone, Terms, evaluate
from .peers import run_sampler
from .rivals import Rival, as_rival

BATCH = 16


def equal_time(
    subject: JudgedBackbone,
    method: str | Rival,
    rivals: Sequence[str | Rival],
    terms: Terms,
    *,
    batch: int = BATCH,
    repeats: int = 5,
    cache: Path | None = None,
    progress: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """One row an NFE of `terms`: the method's time and error there, and those of its rivals.

    A rival's number of evaluations is the largest that its measured time an evaluation fits into
    the method's time. All are timed in turns, twice: to find those numbers, and at them. Errors are
    `evaluate`'s, each rival on its own best grid for its number.

    Args:
        subject: backbone and SideNet. method: what is compared. rivals: with what.
        terms: noises, guidance, budgets (nfes), shifts; its methods and grids are not used.
        batch: samples a timed run. repeats: timed runs of each.
        cache: see `evaluate`. progress: called after every NFE.

    Returns:
        Rows for JSON: {"nfe", "batch", "seconds", "rmse", "rivals": {name: {"nfe", "seconds",
        "rmse"}}}; seconds are medians over the repeats.
    """
    own, others = as_rival(method), [as_rival(rival) for rival in rivals]
    rows = []
    for nfe in filter(own.has, terms.nfes):
        first = _seconds(subject, terms, {r: nfe for r in (own, *others)}, batch, repeats)
        fits = {r: max(1, int(nfe * first[own.name] / first[r.name])) for r in others}
        seconds = _seconds(subject, terms, {own: nfe} | fits, batch, repeats)
        errors = {
            rival.name: _error(subject, terms, rival, count, cache)
            for rival, count in ({own: nfe} | fits).items()
        }
        rows.append({
            "nfe": nfe, "batch": batch, "seconds": seconds[own.name], "rmse": errors[own.name],
            "rivals": {
                r.name: {"nfe": fits[r], "seconds": seconds[r.name], "rmse": errors[r.name]}
                for r in others
            },
        })  # fmt: skip
        if progress is not None:
            progress()
    return rows


def _seconds(
    subject: JudgedBackbone, terms: Terms, counts: dict[Rival, int], batch: int, repeats: int
) -> dict[str, float]:
    """Median wall seconds of one run of each rival at its NFE, taken in turns."""
    noise, labels = subject.noise_and_labels(terms.seed, batch)

    def clock(item: tuple[Rival, int]) -> float:
        rival, nfe = item
        return run_sampler(
            rival.sampler, subject.backbone.model, noise, labels, nfe=nfe, sidenet=subject.sidenet,
            guidance=terms.guidance, convention=subject.backbone.convention,
        ).seconds  # fmt: skip

    runs = {rival.name: (rival, nfe) for rival, nfe in counts.items()}
    # every run as often as every other, however long it is
    times = interleaved(runs, repeats=repeats, seconds=float("inf"), clock=clock)
    return {name: timing.median for name, timing in times.items()}


def _error(
    subject: JudgedBackbone, terms: Terms, rival: Rival, nfe: int, cache: Path | None
) -> float:
    """RMSE of a rival at an NFE on its best grid."""
    one = replace(
        terms, methods=(rival,), nfes=(nfe,), euler_nfes=(), uniform=not terms.tuned, calibrated={}
    )
    return evaluate(subject, one, cache=cache).rows[-1].rmse


def equal_time_table(rows: Sequence[dict[str, Any]], method: str) -> str:
    """Rows of `equal_time` as text: RMSE, and in brackets the evaluations that fit; the best of a
    column is starred."""
    names = [method, *rows[0]["rivals"]]
    lines = [f"{'method':<16}" + "".join(f"{r['seconds'] * 1e3:>13.0f} ms" for r in rows)]
    best = [min(r["rmse"], *(o["rmse"] for o in r["rivals"].values())) for r in rows]
    for name in names:
        cells = []
        for row, least in zip(rows, best, strict=True):
            entry = row if name == method else row["rivals"][name]
            star = "*" if entry["rmse"] == least else " "
            cells.append(f"{entry['rmse']:>10.4f}{star}({entry['nfe']:>3})")
        lines.append(f"{name:<16}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)
