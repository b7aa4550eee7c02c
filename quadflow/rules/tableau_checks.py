"""What a tableau is made of, checked: each part is refused by its own name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checks import as_integer, integer_from


def _items(value: Any, name: str) -> list[Any]:
    """The rows or numbers of an argument."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError("text")
        return list(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a sequence, got {value!r}") from error


def numbers(value: Any, name: str, axes: int = 1) -> np.ndarray:
    """A copy of an argument as float64, with this number of axes."""
    try:
        given = np.asarray(value)
        if given.dtype.kind not in "fiuO" or not all(
            hasattr(x, "__float__") for x in given.flat if given.dtype.kind == "O"
        ):
            raise TypeError(f"of dtype {given.dtype}")
        array = np.array(given, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        what = ("a real number", "a sequence of real numbers", "rows of real numbers")[axes]
        raise TypeError(f"{name} must be {what}, got {value!r}") from error
    if array.ndim != axes:
        what = ("one number", "one sequence of numbers", "rows of numbers")[axes]
        raise ValueError(f"{name} must be {what}, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array.tolist()!r}")
    return array


def positive_integer(value: Any, name: str) -> int:
    """An order as an int."""
    return integer_from(1, as_integer(value, name), name)


def stage_rows(a: Any) -> tuple[tuple[float, ...], ...]:
    rows = [numbers(row, f"a[{i}]") for i, row in enumerate(_items(a, "a"))]
    if not rows:
        raise ValueError("a has no rows: it must have one for each stage, the first of them empty")
    for i, row in enumerate(rows):
        if len(row) != i:
            raise ValueError(
                f"row {i} of a has {len(row)} entries; explicit stages need {i} (no zeros on and "
                "above the diagonal)"
            )
    return tuple(tuple(row.tolist()) for row in rows)


def check_step(a: tuple[tuple[float, ...], ...], b: np.ndarray, first_same_as_last: bool) -> None:
    if b.shape != (len(a),):
        raise ValueError(f"b has shape {b.shape} for {len(a)} stages, it must be ({len(a)},)")
    if abs(b.sum() - 1) > 1e-14:
        raise ValueError(f"the weights b sum to {float(b.sum())!r}, must be 1")
    if first_same_as_last and (
        b[-1] != 0 or np.abs(np.array(a[-1]) - b[:-1]).max(initial=0) > 1e-15
    ):
        raise ValueError("first_same_as_last needs the last row of a to be b, and b to end in 0")


def estimate_rows(errors: Any, s: int, fsal: bool) -> list[np.ndarray]:
    items = _items(errors, "errors")
    if items and all(np.ndim(item) == 0 for item in items):
        items = [items]  # one row
    rows = [numbers(item, f"errors[{i}]") for i, item in enumerate(items)]
    if len(rows) > 2:
        raise ValueError(f"errors has {len(rows)} rows; it must have one, or two that are combined")
    for i, row in enumerate(rows):
        if len(row) != s and (fsal or len(row) != s + 1):
            wanted = f"{s}" if fsal else f"{s}, or {s + 1} with that of the end velocity"
            raise ValueError(
                f"errors[{i}] has {len(row)} entries for {s} stages, it must have {wanted}"
            )
        if abs(row.sum()) > 1e-13:
            raise ValueError(f"error weights sum to {float(row.sum())!r} in errors[{i}], must be 0")
        if not row.any():
            raise ValueError(f"errors[{i}] is zero, it would take every step for exact")
    return rows


def extra_stages(extra: Any, known: int) -> tuple[tuple[float, tuple[float, ...]], ...]:
    """The extra stages as (node, row of a). known: how many velocities there are before the
    first."""
    stages = []
    for i, item in enumerate(_items(extra, "extra")):
        pair = _items(item, f"extra[{i}]")
        if len(pair) != 2:
            raise ValueError(f"extra[{i}] must be a node and a row of a, got {item!r}")
        node, row = numbers(pair[0], f"extra[{i}][0]", 0), numbers(pair[1], f"extra[{i}][1]")
        if len(row) != known + i:
            raise ValueError(
                f"extra[{i}][1] has {len(row)} entries, it must have {known + i}: one for every "
                "stage, for the end velocity and for the extra stages before it"
            )
        if abs(node - row.sum()) > 1e-12:
            raise ValueError(
                f"extra[{i}] has the node {float(node)!r}, which must be the sum of its row, "
                f"{float(row.sum())!r}"
            )
        stages.append((float(node), tuple(row.tolist())))
    return tuple(stages)


def interpolant(
    dense: Any, dense_order: Any, order: int, b: np.ndarray, extra: int, first_same_as_last: bool
) -> tuple[np.ndarray, int]:
    """Coefficients, one row for every velocity there is, and the order of the interpolant."""
    q = None if dense_order is None else positive_integer(dense_order, "dense_order")
    if dense is None:
        if extra:
            raise ValueError("extra stages are for dense, which is not given")
        highest = min(4, order)
        if q is not None and q > highest:
            raise ValueError(
                f"dense_order={q} is more than a cubic between the ends of a step of order {order} "
                f"has ({highest}): leave it out, or give dense"
            )
        return _hermite(b[:-1] if first_same_as_last else b), highest if q is None else q
    if q is None:
        raise ValueError("dense_order must be given with dense")
    if q > order:
        raise ValueError(f"dense_order={q} must be at most order={order}")
    rows = numbers(dense, "dense", 2)
    if len(rows) == len(b) and not first_same_as_last and not extra:
        rows = np.vstack((rows, np.zeros_like(rows[:1])))  # of the end velocity
    velocities = len(b) + (not first_same_as_last) + extra
    if len(rows) != velocities or not rows.shape[1]:
        raise ValueError(
            f"dense has shape {np.shape(dense)}; it must have a row of coefficients for each of "
            f"{velocities} velocities: of the stages, of the end of the step (the last stage where "
            "first_same_as_last=True) and of the extra stages"
        )
    ends = rows.sum(axis=1)
    ends[: len(b)] -= b
    if np.abs(ends).max() > 1e-13:
        raise ValueError("the interpolant at θ = 1 is not the step: dense rows must sum to b")
    return rows, q


def _hermite(b: Sequence[float] | np.ndarray) -> np.ndarray:
    """Cubic Hermite interpolation on the step's ends as `dense` coefficients.

    Rows: the stages, then the end velocity.
    """
    dense = np.zeros((len(b) + 1, 3))
    dense[: len(b)] = np.outer(b, [0.0, 3.0, -2.0])
    dense[0] += [1.0, -2.0, 1.0]
    dense[-1] += [0.0, -1.0, 1.0]
    return dense
