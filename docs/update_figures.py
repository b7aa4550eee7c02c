"""Put the results of `make demo`, `make judge` and `make laboratory` into the README and the docs.

Run by `make figures` and `make laboratory`. Tables stand between `<!-- begin NAME -->` and
`<!-- end NAME -->`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from quadflow.analysis.images.judged import judgement, overhead_table, round_trip_table
from quadflow.analysis.report.demo import error_table, order_table
from quadflow.analysis.report.marked_blocks import fill
from quadflow.analysis.report.tables import columns

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
PAGES = ("README.md", "docs/sampling.md", "docs/methods.md", "docs/judged.md", "docs/training.md",
         "docs/laboratory.md", "docs/reliability.md", "docs/choosing.md")  # fmt: skip


def judged_blocks() -> dict[str, str]:
    """The generated pieces of docs/judged.md, by marker name."""
    texts = {}
    for path in sorted(FIGURES.glob("evaluate-*.json")):
        name = path.stem.removeprefix("evaluate-")
        tables = judgement(json.loads(path.read_text(encoding="utf-8")))
        against = tables.pop("against")
        texts |= {f"{name}-{kind}": f"```text\n{text}\n```" for kind, text in tables.items()}
        texts[f"{name}-against"] = against
    editing = json.loads((FIGURES / "editing.json").read_text(encoding="utf-8"))
    for kind, make in (("round-trip", round_trip_table), ("overhead", overhead_table)):
        texts[kind] = f"```text\n{make(editing)}\n```"
    sources = json.loads((FIGURES / "sources.json").read_text(encoding="utf-8"))
    compared = columns(f"RMSE of BA-solver over {sources['images']} images", sources["rmse"])
    texts["with-without-data"] = f"```text\n{compared}\n```"
    return texts


def laboratory_blocks() -> dict[str, str]:
    """The generated pieces of docs/laboratory.md, by marker name."""
    record = json.loads((FIGURES / "laboratory.json").read_text(encoding="utf-8"))
    machine = record["machine"]
    minutes = sum(study["seconds"] for study in record["studies"].values()) / 60
    texts = {
        f"lab-{name}": f"```text\n$ {study['command']}\n{study['text']}\n```"
        for name, study in record["studies"].items()
    }
    return texts | {
        "lab-machine": f"Made on a machine with {machine['cores']} {machine['architecture']} "
        f"cores, torch {machine['torch']} on one thread, in {minutes:.0f} minutes."
    }


def blocks(figures: dict[str, Any]) -> dict[str, str]:
    """The generated pieces of text, by marker name."""
    machine = figures["machine"]
    tables = {"orders": order_table(figures)}
    for result in figures["sampling"]:
        tables[f"sampling-{result['guidance']:g}"] = error_table(result)
    return {name: f"```text\n{text.strip()}\n```" for name, text in tables.items()} | {
        "machine": f"Measured by `make demo` (seed {figures['seed']}, {figures['images']} images) "
        f"on a machine with {machine['cores']} {machine['architecture']} cores, torch "
        f"{figures['torch']}, in {figures['seconds']:.0f} s.",
        **judged_blocks(),
        **laboratory_blocks(),
    }


def rewrite(text: str, figures: dict[str, Any]) -> str:
    """`text` with every marked block that it has replaced."""
    return fill(text, blocks(figures))[0]


def main() -> None:
    target = FIGURES
    target.mkdir(exist_ok=True)
    for name in ("convergence.png", "samples.png", "demo.json"):
        if (ROOT / "demo" / name).exists():  # else what was recorded stays
            shutil.copy(ROOT / "demo" / name, target / name)
    figures = json.loads((target / "demo.json").read_text(encoding="utf-8"))
    for page in PAGES:
        path = ROOT / page
        path.write_text(rewrite(path.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main()
