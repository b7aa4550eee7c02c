"""The figures of docs/judged.md: every sampler on the three backbones, editing, overhead.

Run by `make judge` in the repository's root; about an hour of one core. Results go to
docs/figures/judged; `make figures` puts them into the page.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ....adapters.backbones.registry import load_named, load_named_sidenet
from ....adapters.data.images import save_png, tile
from ....storage import write_json
from ...benchmarks.sidenet_overhead import overhead
from ...images.evaluation import Evaluation, JudgedBackbone, add_budget
from ...images.round_trip import edit_grid, round_trip_errors

FIGURES = Path("docs/figures/judged")
PICTURED = ("fashion-unet-guided", "mnist-sit-guided")
RUNS = {
    "fashion-unet": ("fashion-unet", "1"),
    "fashion-unet-guided": ("fashion-unet", "2"),
    "mnist-sit": ("mnist-sit", "1"),
    "mnist-sit-guided": ("mnist-sit", "2"),
    "galaxy-hsc-32": ("galaxygrad:hsc-32", "1"),
}


def evaluations() -> None:
    for name, (backbone, guidance) in RUNS.items():
        stem = str(FIGURES / f"evaluate-{name}")
        pictures = ["--pictures", f"{stem}.png"] if name in PICTURED else []
        subprocess.run(
            [sys.executable, "-m", "quadflow", "evaluate", "--backbone", backbone, "--guidance",
             guidance, "--features", "efficientnet", "--budget", *pictures, "--out",
             f"{stem}.json"],
            check=True,
        )  # fmt: skip


def budgets() -> None:
    """The error budgets alone, again, into the recorded evaluations."""
    for name, (key, guidance) in RUNS.items():
        path = FIGURES / f"evaluate-{name}.json"
        kept = json.loads(path.read_text(encoding="utf-8"))
        backbone = load_named(key)
        subject = JudgedBackbone(backbone, load_named_sidenet(backbone, None, "bianchor"))
        result = Evaluation(
            name, float(guidance), kept["images"], kept["seed"], kept["reference_rmse"],
            kept["reference_nfe"], kept["data_range"],
        )  # fmt: skip
        add_budget(subject, result, [int(n) for n in kept["budget"]["error budget"]])
        write_json(path, kept | {"budget": result.budget})


def editing() -> None:
    backbone = load_named("fashion-unet")
    sidenet = load_named_sidenet(backbone, None, "bianchor")
    errors = round_trip_errors(
        backbone, sidenet, nfes=(3, 5, 7, 10, 20),
        methods=("euler", "heun", "ab2", "ab3", "pec2", "pec3", "bianchor"),
    )  # fmt: skip
    pairs = ((7, 9), (9, 5), (0, 4), (3, 1))
    grid = edit_grid(
        backbone, sidenet, pairs, method="bianchor", nfe=10, strength=0.9, guidance=2.0
    )
    save_png(FIGURES / "edits.png", tile(grid, 10), scale=3)
    shares = {}
    for name in ("fashion-unet", "mnist-sit"):
        named = load_named(name)
        net = load_named_sidenet(named, None, "bianchor")
        assert net is not None
        shares[name] = [
            overhead(named.model, net, named.shape, named.num_classes, batch=batch)
            for batch in (1, 16, 64)
        ]
    write_json(FIGURES / "editing.json", {"round_trip": errors, "overhead": shares})


if __name__ == "__main__":
    parts = {"--evaluations": evaluations, "--budgets": budgets, "--editing": editing}
    if unknown := set(sys.argv[1:]) - set(parts):
        sys.exit(f"{sorted(unknown)}: give some of {', '.join(parts)}, or nothing for all")
    for option, run in parts.items():
        if option in sys.argv or (len(sys.argv) == 1 and option != "--budgets"):
            run()
