"""Pictures of samples with maps of their distances, and tables where a method lacks a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from quadflow.analysis.report.figures import sample_grid
from quadflow.analysis.report.tables import columns, starred

GREY = np.full((8, 24), 90, np.uint8)


def drawn(path: Path, **changes: Any) -> np.ndarray:
    """The pixels (H, W, 3) of a picture of two methods, of which "far" alone has NFE 3."""
    cells = {"near": {5: GREY}, "far": {3: GREY, 5: GREY}}
    errors = {"near": {5: 0.1}, "far": {3: 0.2, 5: 0.4}}
    sample_grid(path, cells, GREY, errors, "a title", **changes)
    return np.asarray(Image.open(path).convert("RGB"))


def colour(part: float) -> tuple[int, ...]:
    """The colour of a distance that is so large a part of its column's scale."""
    return tuple(colormaps["inferno"](part, bytes=True)[:3])


def count(pixels: np.ndarray, wanted: tuple[int, ...]) -> int:
    """How many pixels are of a colour, up to the rounding of a colour map."""
    return int((np.abs(pixels.astype(int) - wanted) <= 1).all(-1).sum())


def halves(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two columns of a picture, cut at the widest gap between grey tiles."""
    tiles = np.flatnonzero((np.abs(pixels.astype(int) - 90).max(-1) <= 1).sum(0) > 20)
    gap = int(np.argmax(np.diff(tiles)))
    return pixels[:, : tiles[gap] + 1], pixels[:, tiles[gap] + 1 :]


def test_without_maps_there_are_no_colours(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "x.png").astype(int)
    assert (np.ptp(pixels, axis=-1) == 0).all()
    # two tiles on the left and three on the right, with the converged ones
    left, right = (count(half, (90,) * 3) for half in halves(pixels))
    assert 0.9 * 1.5 < right / left < 1.1 * 1.5


def test_one_scale_for_all_methods_of_a_column(tmp_path: Path) -> None:
    def flat(distance: float) -> np.ndarray:
        return np.full(GREY.shape, distance)

    maps = {"near": {5: flat(0.2)}, "far": {3: flat(0.2), 5: flat(0.8)}}
    pixels = drawn(tmp_path / "x.png", differences=maps)
    tile = count(pixels, (90,) * 3) / 5  # five tiles with the converged ones, as large as a map
    three, five = halves(pixels)
    # the same distance is the largest of the one column, and a quarter of the largest of the other
    assert count(three, colour(1.0)) > 0.9 * tile and count(three, colour(0.25)) < 0.1 * tile
    assert count(five, colour(1.0)) > 0.9 * tile and count(five, colour(0.25)) > 0.9 * tile


def test_all_black_where_nothing_differs(tmp_path: Path) -> None:
    none = np.zeros(GREY.shape)
    pixels = drawn(tmp_path / "x.png", differences={"near": {5: none}, "far": {3: none, 5: none}})
    assert count(pixels, colour(0.0)) > 2.5 * count(pixels, (90,) * 3) / 5


@pytest.mark.parametrize("found", [{}, {5: np.zeros((8, 23))}, {5: np.zeros((8, 24, 3))}])
def test_a_tile_without_its_map_is_refused(found: dict[int, np.ndarray], tmp_path: Path) -> None:
    maps = {"near": found, "far": {n: np.zeros(GREY.shape) for n in (3, 5)}}
    with pytest.raises(ValueError, match=r"differences of 'near' at NFE 5 must be of shape \(8,"):
        drawn(tmp_path / "x.png", differences=maps)
    assert not list(tmp_path.iterdir())


def test_a_budget_that_a_method_lacks() -> None:
    rows = {"euler": {"3": 0.5, "20": 0.25}, "fitted": {"3": 0.125}, "lost": {"20": float("nan")}}
    header, *lines = (line.split() for line in starred(rows, 8))
    assert header == ["method", "NFE", "3", "NFE", "20"]
    assert lines == [["euler", "0.5000", "0.2500*"], ["fitted", "0.1250*", "–"], ["lost", "–", "–"]]
    assert columns("title", rows).splitlines()[2:] == [
        "euler               0.5000    0.2500",
        "fitted              0.1250         –",
        "lost                     –         –",
    ]
