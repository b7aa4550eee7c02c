"""What wall times depend on, for every record."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import quadflow as qf


def machine(solvers: Iterable[str] = ()) -> dict[str, Any]:
    """Cores, processor, architecture, versions of all that was used, and torch's threads.

    solvers: names; the versions of peers among them are recorded too.
    """
    try:
        cores = len(os.sched_getaffinity(0))  # those this process may use
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    peers = {name.partition(":")[0] for name in solvers if ":" in name} - {"scipy"}
    versions = {}
    for package in ("torch", "numpy", "scipy", *sorted(peers)):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a name of the user's own with a colon in it
            continue
    return {
        "cores": cores,
        "architecture": platform.machine(),
        "processor": _processor(),
        "system": platform.system(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "quadflow": qf.__version__,
        **versions,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
