"""What an evaluation finds: a row a sampler, NFE and grid; as JSON, and as text tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from ...storage import json_number, read_json_object, write_json
from ..report.machine import machine
from ..report.tables import guided, starred

GRIDS = {
    "uniform": "the uniform grid",
    "best": "its own best shift",
    "calibrated": "the calibrated grid",
}
"""Grid of a row -> what it is called in a title. A sampler with a grid of its own has it in all."""


@dataclass(frozen=True)
class Score:
    """One sampler at one budget on one grid.

    grid: a key of `GRIDS`. shift: of the uniform grid; None on the calibrated one and with a grid
    of the sampler's own. setting: value of the sampler's parameter, None without one. rmse: to the
    converged states, in their units, over the images of all sets (infinite where the sampler
    exploded); rmse_sets: set by set. psnr: decibels, against the peak-to-peak range of the
    converged states. seconds: of sampling one set, on average; sidenet_share: the SideNet's part.
    rows: samples that the network was evaluated on, in one set. frechet, precision, recall: means
    over the sets, frechet_std: deviation between sets; None without features, or for one set.
    tried: shift -> RMSE on the selection noises, where the shift was chosen; edge: the best shift
    was the last one tried. mark: the rival's. times: of the calibrated grid. images: the first so
    many of a set, if the row is measured on them alone.
    """

    method: str
    nfe: int
    grid: str
    shift: float | None
    setting: float | None
    rmse: float
    rmse_sets: tuple[float, ...]
    psnr: float
    seconds: float
    sidenet_share: float
    rows: int
    frechet: float | None = None
    frechet_std: float | None = None
    precision: float | None = None
    recall: float | None = None
    tried: dict[str, float] | None = None
    edge: bool = False
    mark: str = ""
    times: tuple[float, ...] | None = None
    images: int | None = None

    @property
    def key(self) -> tuple[str, int, str]:
        """What tells a row from the others."""
        return self.method, self.nfe, self.grid


@dataclass
class Evaluation:
    """All rows of a subject, and what they are measured against.

    images: a set. settings: all that the rows depend on, by which a file is known again.
    reference_rmse: the converged solve's own error. reference_nfe: its evaluations. data_range:
    peak to peak of its states. floor: Fréchet distance of converged sets that differ by seed,
    None without features.
    """

    backbone: str
    guidance: float
    images: int
    sets: int
    seed: int
    settings: dict[str, Any]
    reference_rmse: float
    reference_nfe: int
    data_range: float
    features: str | None = None
    floor: dict[str, Any] | None = None
    rows: list[Score] = field(default_factory=list)
    budget: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON, where infinite numbers are None."""
        return asdict(self) | {
            "rows": [_finite(asdict(r)) for r in self.rows],
            "torch": torch.__version__,
            "machine": machine(),
        }

    def save(self, path: str | Path) -> None:
        """Write it as JSON; the file appears whole or not at all."""
        write_json(path, self.to_dict())

    def take_over(self, path: Path) -> None:
        """The rows and budget of a file that `save` wrote under the same settings; nothing else."""
        if not path.exists():
            return
        kept = read_json_object(path, "evaluation")
        if kept.get("settings") != self.settings:
            return
        names = {f.name for f in fields(Score)}
        for row in kept["rows"]:
            row = {k: v for k, v in row.items() if k in names}
            row["rmse_sets"] = tuple(math.inf if x is None else x for x in row["rmse_sets"])
            if row.get("times") is not None:
                row["times"] = tuple(row["times"])
            row["rmse"] = math.inf if row["rmse"] is None else row["rmse"]
            if row["psnr"] is None:
                row["psnr"] = math.inf if row["rmse"] == 0 else -math.inf
            self.rows.append(Score(**row))
        self.budget = kept["budget"]


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    tried = row["tried"]
    return row | {
        "rmse": json_number(row["rmse"]),
        "psnr": json_number(row["psnr"]),
        "rmse_sets": [json_number(x) for x in row["rmse_sets"]],
        "tried": None if tried is None else {k: json_number(v) for k, v in tried.items()},
    }


def psnr(error: float, data_range: float) -> float:
    """20 log10(range / RMSE) in decibels; infinite without an error."""
    if error in (0, math.inf):
        return math.inf if error == 0 else -math.inf
    return 20 * math.log10(data_range / error)


def rows_on(result: Mapping[str, Any], grid: str) -> list[dict[str, Any]]:
    """The rows of an `Evaluation` (as a dict) on one grid.

    Where the uniform grid was not judged, its rows are what the search for the best shift measured
    there, on the selection noises.
    """
    rows = [r for r in result["rows"] if r["grid"] == grid]
    if rows or grid != "uniform":
        return rows
    tried = [(r, r["tried"].get("1.0")) for r in result["rows"] if r["tried"] is not None]
    return [r | {"rmse": error, "frechet": None} for r, error in tried if error is not None]


def _figure(row: Mapping[str, Any] | None, key: str) -> float:
    """A figure of a row: nan where the method has no such row, inf where it exploded."""
    if row is None:
        return math.nan
    value = row[key]
    return math.inf if value is None else float(value)


def few_images(rows: Iterable[Mapping[str, Any]]) -> str:
    """What a title says of rows that are measured on fewer images than others."""
    counts = [count for r in rows if (count := r.get("images")) is not None]
    return f", the first {min(counts)} images" if counts else ""


def table(result: Mapping[str, Any], grid: str, key: str = "rmse") -> str:
    """One figure of an `Evaluation` (as a dict) by method and NFE, as text; the best of a column is
    starred."""
    rows = rows_on(result, grid)
    cells = {(r["method"], r["nfe"]): r for r in rows}
    methods = list(dict.fromkeys(r["method"] for r in rows))
    # the long runs of Euler have no column
    alone = len(methods) == 1
    nfes = sorted({nfe for method, nfe in cells if method != "euler" or alone})
    figures = {m: {n: _figure(cells.get((m, n)), key) for n in nfes} for m in methods}
    title = (
        f"{result['backbone']}: {key} to the converged solve, {guided(result['guidance'])}, "
        f"{GRIDS[grid]}{few_images(rows)}"
    )
    return "\n".join([title, *starred(figures, 15)])
