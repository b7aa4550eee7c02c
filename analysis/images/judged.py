"""The recorded judgements as text tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..report.tables import columns
from .evaluation import EULER_NFES
from .scores import few_images, table


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
