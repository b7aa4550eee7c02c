"""The recorded judgements as text tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..report.tables import columns, guided
from .evaluation import EULER_NFES
from .scores import GRIDS, few_images, table


def judgement(result: Mapping[str, Any]) -> dict[str, str]:
    """Tables of one `Evaluation` (as a dict): "uniform" with the long runs of Euler, "tuned" and
    "calibrated" where those were judged, "frechet", "budget" and "ablation" where they were
    measured, "against"."""
    grids = {r["grid"] for r in result["rows"] if r["nfe"] not in EULER_NFES}
    euler = {r["nfe"]: r for r in result["rows"] if r["method"] == "euler"}
    long = ", ".join(f"{euler[n]['rmse']:.4f} at {n}" for n in EULER_NFES if n in euler)
    few = few_images(euler[n] for n in EULER_NFES if n in euler)
    uniform = [table(result, "uniform")] if "uniform" in grids else []
    tables = {"uniform": "\n".join([*uniform, f"Euler on the uniform grid{few}: {long}"])}
    tables |= {"tuned": table(result, "best")} if "best" in grids else {}
    tables |= {"calibrated": table(result, "calibrated")} if "calibrated" in grids else {}
    if floor := result["floor"]:
        where = "uniform" if "uniform" in grids else "best"
        tables["frechet"] = (
            f"{table(result, where, 'frechet')}\n({floor['images']} images of other seeds: "
            f"{floor['mean']:.0f} ± {floor['std']:.0f})"
        )
    return tables | _budget_tables(result) | {"against": _against(result)}


def beside_the_best(results: Iterable[Mapping[str, Any]]) -> str:
    """The errors of the fitted sampler as shares of the best other sampler's, which is named: for
    every `Evaluation` (as a dict) that has one, every grid and figure, and every NFE."""
    lines = []
    for result in results:
        rows = [r for r in result["rows"] if r["nfe"] not in EULER_NFES]
        for grid, key in (("best", "rmse"), ("calibrated", "rmse"), ("best", "frechet")):
            shares = _shares([r for r in rows if r["grid"] == grid], key)
            if shares:
                head = f"{result['backbone']}, {key}, {GRIDS[grid]}, {guided(result['guidance'])}:"
                cells = (f"{n:>4}: {share:.2f} of {m}" for n, (share, m) in shares.items())
                lines += [head, *cells]
    return "\n".join(lines)


def _shares(rows: Sequence[Mapping[str, Any]], key: str) -> dict[int, tuple[float, str]]:
    """NFE -> the fitted sampler's figure over the least of the others, and whose that is."""
    found = {}
    for fitted in (r for r in rows if r["method"] == "fitted"):
        others = {
            r["method"]: r[key] for r in rows
            if r["nfe"] == fitted["nfe"] and r["method"] != "fitted" and r[key] is not None
        }  # fmt: skip
        if others and fitted[key] is not None:
            name = min(others, key=others.__getitem__)
            found[fitted["nfe"]] = (fitted[key] / others[name], name)
    return dict(sorted(found.items()))


def _budget_tables(result: Mapping[str, Any]) -> dict[str, str]:
    budget = result["budget"]
    if budget is None:
        return {}
    errors = {
        name: {n: column[name]["rmse"] for n, column in budget["error budget"].items()}
        for name in next(iter(budget["error budget"].values()))
    }
    ablation = {
        name: {n: column[name] for n, column in budget["ablation"].items()}
        for name in next(iter(budget["ablation"].values()))
    }
    return {
        "budget": columns(f"RMSE of BA-solver over {budget['images']} images", errors),
        "ablation": columns(f"RMSE over {budget['images']} images", ablation),
    }


def _against(result: Mapping[str, Any]) -> str:
    """What the rows were measured against, and where."""
    sets = f"{result['sets']} sets of " if result["sets"] > 1 else ""
    return (
        f"{sets}{result['images']} images, seed {result['seed']}; the converged solve's own "
        f"error is {result['reference_rmse']:.1e}, its states span {result['data_range']:.2f}; "
        f"{result['features']}; {result['machine']['cores']} {result['machine']['architecture']} "
        f"cores, torch {result['torch']}."
    )


def round_trip_table(editing: Mapping[str, Any]) -> str:
    """data -> noise -> data, from the contents of editing.json."""
    return columns("RMSE of data to data through the noise; NFE of each way", editing["round_trip"])


def overhead_table(editing: Mapping[str, Any]) -> str:
    """Time of an evaluation with and without a SideNet, from the contents of editing.json."""
    lines = [
        f"{'backbone':<14}{'batch':>6}{'Euler ms/NFE':>14}{'BA ms/NFE':>12}{'ratio':>8}"
        f"{'SideNet share':>15}"
    ]
    for name, rows in editing["overhead"].items():
        lines += [
            f"{name:<14}{r['batch']:>6}{r['euler_ms']:>14.1f}{r['bianchor_ms']:>12.1f}"
            f"{r['ratio']:>8.2f}{r['share']:>15.2f}"
            for r in rows
        ]
    return "\n".join(lines)
