"""The recorded judgements as text tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..report.tables import columns
from .evaluation import EULER_NFES, table


def judgement(result: Mapping[str, Any]) -> dict[str, str]:
    """Tables of one `Evaluation` (as a dict): "uniform", "tuned", "frechet", "budget", "ablation",
    "against"."""
    plain = dict(result)
    euler = {r["nfe"]: r for r in result["rows"] if r["method"] == "euler" and not r["tuned"]}
    long = ", ".join(f"{euler[n]['rmse']:.4f} at {n}" for n in EULER_NFES if n in euler)
    floor = result["floor"]
    budget = result["budget"]
    errors = {
        name: {n: column[name]["rmse"] for n, column in budget["error budget"].items()}
        for name in next(iter(budget["error budget"].values()))
    }
    ablation = {
        name: {n: column[name] for n, column in budget["ablation"].items()}
        for name in next(iter(budget["ablation"].values()))
    }
    return {
        "uniform": f"{table(plain, tuned=False)}\nEuler: {long}",
        "tuned": table(plain, tuned=True),
        "frechet": f"{table(plain, tuned=False, key='frechet')}\n"
        f"({floor['images']} images of other seeds: {floor['mean']:.0f} ± {floor['std']:.0f})",
        "budget": columns(f"RMSE of BA-solver over {budget['images']} images", errors),
        "ablation": columns(f"RMSE over {budget['images']} images", ablation),
        "against": f"{result['images']} images, seed {result['seed']}; the converged solve's own "
        f"error is {result['reference_rmse']:.1e}, its states span {result['data_range']:.2f}; "
        f"{result['features']}; {result['machine']['cores']} {result['machine']['architecture']} "
        f"cores, torch {result['torch']}.",
    }


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
