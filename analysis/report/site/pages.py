"""Put the results of `make demo`, `make judge` and `make laboratory` into the README and the docs.

Run by `make figures` and `make laboratory` in the repository's root. Tables stand between
`<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ....adapters.backbones.pretrained import shipped
from ....adapters.fitted.fitted import FittedSampler
from ....adapters.fitted.report import NAMES, effort_line, table
from ....adapters.fitted.shipped import FILES
from ...images.effort import effort_table
from ...images.equal_time import equal_time_table
from ...images.fitted_budget import budget_table
from ...images.flops import flops_table
from ...images.judged import beside_the_best, judgement, overhead_table, round_trip_table
from ...images.roughness import seen_orders
from ..demo import error_table, order_table
from ..marked_blocks import fill
from ..tables import columns

FIGURES = Path("docs/figures")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _printed(text: str) -> str:
    return f"```text\n{text.strip()}\n```"


def _judged(folder: Path, name: str) -> dict[str, Any]:
    """A record of the judge, empty where that part has not been run."""
    path = folder / f"{name}.json"
    return _read(path) if path.exists() else {}


def judged_blocks(folder: Path) -> dict[str, str]:
    """The generated pieces of docs/judged.md and docs/training.md, by marker name."""
    texts: dict[str, str] = {}
    results = {p.stem.removeprefix("evaluate-"): _read(p) for p in folder.glob("evaluate-*.json")}
    for name, result in sorted(results.items()):
        tables = judgement(result)
        against = tables.pop("against")
        texts |= {f"{name}-{kind}": _printed(text) for kind, text in tables.items()}
        texts[f"{name}-against"] = against
    texts["fitted-judged"] = _printed(beside_the_best(results[name] for name in sorted(results)))
    for name, entry in _judged(folder, "equal-time").items():
        for method, rows in entry["result"].items():
            texts[f"{name}-times-{method}"] = _printed(equal_time_table(rows, method))
    if flops := _judged(folder, "flops"):
        texts["flops"] = _printed(flops_table(flops))
    if rough := _judged(folder, "roughness"):
        studies = {name: entry["result"] for name, entry in rough.items()}
        texts["roughness-orders"] = _printed(seen_orders(studies))
    for entry in _judged(folder, "effort").values():
        texts["fitted-effort"] = _printed(effort_table(entry["result"]))
    if budgets := _judged(folder, "fitted-budget"):
        parts = [f"{name}: {budget_table(entry['result'])}" for name, entry in budgets.items()]
        texts["fitted-budget"] = _printed("\n\n".join(parts))
    editing, sources = _read(folder / "editing.json"), _read(folder / "sources.json")
    compared = columns(f"RMSE of BA-solver over {sources['images']} images", sources["rmse"])
    return texts | {
        "round-trip": _printed(round_trip_table(editing)),
        "overhead": _printed(overhead_table(editing)),
        "with-without-data": _printed(compared),
    }


def laboratory_blocks(record: dict[str, Any]) -> dict[str, str]:
    """The generated pieces of docs/laboratory.md, by marker name."""
    machine = record["machine"]
    minutes = sum(study["seconds"] for study in record["studies"].values()) / 60
    texts = {
        f"lab-{name}": _printed(f"$ {study['command']}\n{study['text']}")
        for name, study in record["studies"].items()
    }
    return texts | {
        "lab-machine": f"Made on a machine with {machine['cores']} {machine['architecture']} "
        f"cores, torch {machine['torch']} on one thread, in {minutes:.0f} minutes."
    }


def shipped_block() -> str:
    """What the shipped fitted samplers say of themselves: the table in docs/sampling.md."""
    parts = []
    for path in (shipped(f"{file}.safetensors") for file in FILES):
        if path.exists():
            figures = FittedSampler.load(path).figures
            parts.append(f"{path.name}\n{table(figures, NAMES)}\n{effort_line(figures)}")
    return _printed("\n\n".join(parts))


def demo_blocks(figures: dict[str, Any]) -> dict[str, str]:
    """The generated pieces of the README and docs/sampling.md, by marker name."""
    machine = figures["machine"]
    tables = {f"sampling-{r['guidance']:g}": _printed(error_table(r)) for r in figures["sampling"]}
    return tables | {
        "orders": _printed(order_table(figures)),
        "machine": f"Measured by `make demo` (seed {figures['seed']}, {figures['images']} images) "
        f"on a machine with {machine['cores']} {machine['architecture']} cores, torch "
        f"{figures['torch']}, in {figures['seconds']:.0f} s.",
    }


def filled(root: Path) -> dict[Path, str]:
    """Page -> its text with the recorded results, for every page that has a place for some."""
    figures = root / FIGURES
    blocks = {
        **demo_blocks(_read(figures / "demo/demo.json")),
        **judged_blocks(figures / "judged"),
        "fitted-shipped": shipped_block(),
        **laboratory_blocks(_read(figures / "laboratory/laboratory.json")),
    }
    pages = {}
    for page in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        text, found = fill(page.read_text(encoding="utf-8"), blocks)
        if found:
            pages[page] = text
    return pages


def main() -> None:
    for name in ("convergence.png", "samples.png", "demo.json"):
        if (made := Path("demo") / name).exists():  # else what was recorded stays
            shutil.copy(made, FIGURES / "demo" / name)
    for page, text in filled(Path()).items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
