"""The package as one tree, for the API reference, which reads sources and does not import them.

In the repository `quadflow`, `quadflow.adapters` and `quadflow.analysis` are three folders beside
each other (`package-dir` in pyproject.toml); here they are copied into the places that they are
installed to.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TREE = ROOT / "build" / "source" / "quadflow"
FOLDERS = {"quadflow": "", "adapters": "adapters", "analysis": "analysis"}


def on_startup(**kwargs: Any) -> None:
    TREE.mkdir(parents=True, exist_ok=True)  # a search path that is not there yet is left out


def on_config(config: Any) -> Any:
    shutil.rmtree(TREE, ignore_errors=True)
    for folder, place in FOLDERS.items():
        shutil.copytree(
            ROOT / folder, TREE / place, dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__", "weights"),
        )  # fmt: skip
    config["watch"].extend(str(ROOT / folder) for folder in FOLDERS)
    return config
