"""Explicit Runge-Kutta tableaus: the figures of the literature, checked when they are made."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, eq=False, init=False)
class Tableau:
    """An explicit Runge-Kutta method, its error estimate and its interpolant.

    Numbers may be given as lists, tuples or arrays; they are kept as here, copied and read-only.

    a: s rows of i numbers each (row i is stage i). b: weights (s,). order: p.
    errors: rows of weights (e, s or s+1) whose velocity combinations estimate the local error; one
    row is the usual embedded difference, two rows are Hairer's combined estimate of DOP853
    (fifth-order row first). A column s+1 is the velocity at the end of the step, which then is kept
    as one more stage, the same as the first of the next step.
    error_order: q, the local error estimate being O(h^q). dense: coefficients (m, degree) with
    y(t0 + θh) = y0 + h Σ_j (Σ_i dense[j, i] θ^(i+1)) v_j; rows past s are the end velocity and then
    the velocities of `extra` stages, (c, row of a) each, evaluated only when a time inside the step
    is wanted; an end velocity without a row has the weight zero. Without dense it is cubic Hermite
    interpolation of states and velocities at the ends of the step. dense_order: q of the error
    O(h^q) of the solution between the steps, over the whole span: min(p, local order of the
    interpolant), since its own error does not accumulate; that of the cubic is min(4, p).
    first_same_as_last: stage s is f at the end of the step.

    Raises:
        TypeError: an argument that is no number, or no rows of numbers.
        ValueError: an argument of another shape, not finite, or at odds with the others; the
            message names it.
    """

    a: tuple[tuple[float, ...], ...]
    b: np.ndarray
    order: int
    dense: np.ndarray
    dense_order: int
    errors: tuple[np.ndarray, ...]
    error_order: int | None
    extra: tuple[tuple[float, tuple[float, ...]], ...]
    first_same_as_last: bool

    def __init__(
        self,
        a: Sequence[ArrayLike],
        b: ArrayLike,
        order: int,
        dense: ArrayLike | None = None,
        dense_order: int | None = None,
        errors: Sequence[ArrayLike] | ArrayLike = (),
        error_order: int | None = None,
        extra: Sequence[tuple[float, ArrayLike]] = (),
        first_same_as_last: bool = False,
    ) -> None:
        if not isinstance(first_same_as_last, (bool, np.bool_)):
            raise TypeError(f"first_same_as_last must be True or False, got {first_same_as_last!r}")
        stages, weights, fsal = _stages(a), _numbers(b, "b"), bool(first_same_as_last)
        _check_step(stages, weights, fsal)
        s, p = len(stages), _count(order, "order")
        estimates, more = _estimates(errors, s, fsal), _extra_stages(extra, s + (not fsal))
        rows, q = _interpolant(dense, dense_order, p, weights, len(more), fsal)
        if any(len(row) > s for row in estimates):
            # f at the end of the step, evaluated in every step: a stage like the others
            stages, weights, fsal = (*stages, tuple(weights.tolist())), np.append(weights, 0), True
            estimates = [np.append(row, 0) if len(row) == s else row for row in estimates]
        if bool(estimates) != (error_order is not None):
            raise ValueError(
                f"error_order must be given with errors, and only with them: got {error_order!r} "
                f"and {len(estimates)} rows of errors"
            )
        values = {
            "a": stages, "b": weights, "order": p, "dense": rows, "dense_order": q,
            "errors": tuple(estimates), "extra": more, "first_same_as_last": fsal,
            "error_order": None if error_order is None else _count(error_order, "error_order"),
        }  # fmt: skip
        for array in (weights, rows, *estimates):
            array.setflags(write=False)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # through the constructor, which makes the arrays read-only
        return type(self), tuple(getattr(self, one.name) for one in fields(self))

    @functools.cached_property
    def c(self) -> np.ndarray:
        """Nodes (s,): the row sums of a; exactly 1 at a step's end, which f is not to be past."""
        sums = np.array([math.fsum(row) for row in self.a])
        return np.where(np.abs(sums - 1) < 1e-14, 1.0, sums)

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """a with its zeros, (s, s)."""
        s = len(self.a)
        return np.array([[*row, *[0.0] * (s - len(row))] for row in self.a])

    @functools.cached_property
    def numbers(self) -> tuple[list[float], list[float], list[list[float]]]:
        """c, b and errors as Python's numbers, which a step multiplies tensors with."""
        return self.c.tolist(), self.b.tolist(), [row.tolist() for row in self.errors]

    @functools.cached_property
    def probe(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Weights (s,) of the stage velocities, and those (s,) that make h times the matching
        difference of the stage states, to see how f changes with the state; None without any.

        The difference of the last two stages where both are at the end of the step (Hairer &
        Wanner, Solving ODEs II, section IV.2), else the highest divided difference over the stages
        of a method with four, of which little is left of f's change with time.
        """
        s, c = len(self.a), self.c
        if not self.first_same_as_last:
            return None
        weights = np.zeros(s)
        if abs(c[-2] - 1) < 1e-12:
            weights[-2:] = -1.0, 1.0
        elif len(set(c)) == s:
            weights[:] = [1 / np.prod(np.delete(c[i] - c, i)) for i in range(s)]
        else:
            return None
        return tuple(weights.tolist()), tuple((weights @ self.matrix).tolist())

    @functools.cached_property
    def misses(self) -> list[list[float]]:
        """Weights (of all velocities that the interpolant is made of) whose combinations, times h,
        tell by how much it misses what the step knows; none where it is made of the step's own
        stages, which the error estimate has judged.

        At every extra node: the state at which f was evaluated there less the interpolant. Both are
        right where f is smooth. For the velocity at the end where that is no stage: the cubic with
        it less the parabola without it (both meet y0, v0 and y1), where they differ most.
        """
        rows: list[np.ndarray] = []
        width = len(self.dense)
        powers = np.arange(1, self.dense.shape[1] + 1)
        for node, row in self.extra:
            state = np.zeros(width)
            state[: len(row)] = row
            rows.append(state - self.dense @ node**powers)
        s = len(self.a)
        if not self.first_same_as_last and self.dense[s].any():
            end = np.zeros(width)
            end[:s] = -2.0 * self.b
            end[0] += 1.0
            end[s] += 1.0
            rows.append(4 / 27 * end)
        return [row.tolist() for row in rows]


def _items(value: Any, name: str) -> list[Any]:
    """The rows or numbers of an argument."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError("text")
        return list(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a sequence, got {value!r}") from error


def _numbers(value: Any, name: str, axes: int = 1) -> np.ndarray:
    """A copy of an argument as float64, of so many axes."""
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


def _count(value: Any, name: str) -> int:
    """An order as an int."""
    if not isinstance(value, (bool, np.bool_)):
        try:
            count = operator.index(value)
        except TypeError:
            pass
        else:
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
            return count
    raise TypeError(f"{name} must be an integer, got {value!r}")


def _stages(a: Any) -> tuple[tuple[float, ...], ...]:
    rows = [_numbers(row, f"a[{i}]") for i, row in enumerate(_items(a, "a"))]
    if not rows:
        raise ValueError("a has no rows: it must have one for each stage, the first of them empty")
    for i, row in enumerate(rows):
        if len(row) != i:
            raise ValueError(
                f"row {i} of a has {len(row)} entries; explicit stages need {i} (no zeros on and "
                "above the diagonal)"
            )
    return tuple(tuple(row.tolist()) for row in rows)


def _check_step(a: tuple[tuple[float, ...], ...], b: np.ndarray, first_same_as_last: bool) -> None:
    if b.shape != (len(a),):
        raise ValueError(f"b has shape {b.shape} for {len(a)} stages, it must be ({len(a)},)")
    if abs(b.sum() - 1) > 1e-14:
        raise ValueError(f"the weights b sum to {float(b.sum())!r}, must be 1")
    if first_same_as_last and (
        b[-1] != 0 or np.abs(np.array(a[-1]) - b[:-1]).max(initial=0) > 1e-15
    ):
        raise ValueError("first_same_as_last needs the last row of a to be b, and b to end in 0")


def _estimates(errors: Any, s: int, fsal: bool) -> list[np.ndarray]:
    items = _items(errors, "errors")
    if items and all(np.ndim(item) == 0 for item in items):
        items = [items]  # one row
    rows = [_numbers(item, f"errors[{i}]") for i, item in enumerate(items)]
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


def _extra_stages(extra: Any, known: int) -> tuple[tuple[float, tuple[float, ...]], ...]:
    """known: velocities before the first of them."""
    stages = []
    for i, item in enumerate(_items(extra, "extra")):
        pair = _items(item, f"extra[{i}]")
        if len(pair) != 2:
            raise ValueError(f"extra[{i}] must be a node and a row of a, got {item!r}")
        node, row = _numbers(pair[0], f"extra[{i}][0]", 0), _numbers(pair[1], f"extra[{i}][1]")
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


def _interpolant(
    dense: Any, dense_order: Any, order: int, b: np.ndarray, extra: int, first_same_as_last: bool
) -> tuple[np.ndarray, int]:
    """Coefficients, a row for every velocity there is, and their order."""
    q = None if dense_order is None else _count(dense_order, "dense_order")
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
    rows = _numbers(dense, "dense", 2)
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


def _simple(
    a: Sequence[Sequence[float]],
    b: Sequence[float],
    order: int,
    errors: Sequence[float] | None = None,
    error_order: int | None = None,
) -> Tableau:
    """Cubic Hermite between the steps; an embedded estimate where its weights are given."""
    rows = () if errors is None else (errors,)
    return Tableau(a, b, order, errors=rows, error_order=error_order)


MIDPOINT = _simple([[], [1 / 2]], [0, 1], 2)
"""The explicit midpoint rule (Runge 1895)."""

RK4 = _simple([[], [1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6], 4)
"""The classical fourth-order method (Kutta 1901)."""

RK4_THREE_EIGHTHS = _simple([[], [1 / 3], [-1 / 3, 1], [1, -1, 1]], [1 / 8, 3 / 8, 3 / 8, 1 / 8], 4)
"""The 3/8 rule (Kutta 1901): fourth order, smaller error constants than `RK4`."""

HEUN = _simple([[], [1.0]], [1 / 2, 1 / 2], 2, errors=[-1 / 2, 1 / 2], error_order=2)
"""Heun's second-order method (explicit trapezoid) with Euler embedded."""

HEUN3 = _simple([[], [1 / 3], [0, 2 / 3]], [1 / 4, 0, 3 / 4], 3)
"""Heun's third-order method (Heun 1900)."""

FEHLBERG2 = _simple(
    [[], [1 / 2], [1 / 256, 255 / 256]],
    [1 / 512, 255 / 256, 1 / 512],
    2,
    errors=[1 / 512, 0, -1 / 512],
    error_order=2,
)
"""Fehlberg 1969 (NASA TR R-315), order 2(1): the last stage is the embedded first-order step."""

_BOSH3_B = (2 / 9, 1 / 3, 4 / 9)

BOSH3 = Tableau(
    a=((), (1 / 2,), (0.0, 3 / 4), _BOSH3_B),
    b=np.array([*_BOSH3_B, 0.0]),
    order=3,
    errors=(np.array([-5 / 72, 1 / 12, 1 / 9, -1 / 8]),),
    error_order=3,
    first_same_as_last=True,
)
"""Bogacki & Shampine 1989 (Applied Mathematics Letters 2), order 3(2), cubic Hermite between."""

DOPRI5 = Tableau(
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=np.array([35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0]),
    order=5,
    errors=(np.array([71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40]),),
    error_order=5,
    dense=np.array(
        [
            [1, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432],
            [0, 0, 0, 0],
            [0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799],
            [0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072],
            [
                0,
                127303824393 / 49829197408,
                -318862633887 / 49829197408,
                701980252875 / 199316789632,
            ],
            [0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844],
            [0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423],
        ]
    ),
    dense_order=5,
    first_same_as_last=True,
)
"""Dormand & Prince 1980, order 5(4), with Shampine's fourth-order interpolant (1986)."""


def _tsit5_dense() -> np.ndarray:
    def product(*factors: Sequence[float]) -> np.ndarray:
        result = np.array([1.0])
        for factor in factors:
            result = np.convolve(result, factor)
        return result

    # each b_j(θ) factored as published, highest power of θ first
    polynomials = [
        product([-1.0530884977290216], [1, 0], [1, -1.3299890189751412],
                [1, -1.4364028541716351, 0.7139816917074209]),
        product([0.1017], [1, 0, 0], [1, -2.1966568338249754, 1.2949852507374631]),
        product([2.490627285651252793], [1, 0, 0], [1, -2.38535645472061657, 1.57803468208092486]),
        product([-16.54810288924490272], [1, -1.21712927295533244], [1, -0.61620406037800089],
                [1, 0, 0]),
        product([47.37952196281928122], [1, -1.203071208372362603], [1, -0.658047292653547382],
                [1, 0, 0]),
        product([-34.87065786149660974], [1, -1.2], [1, -0.666666666666666667], [1, 0, 0]),
        product([2.5], [1, -1], [1, -0.6], [1, 0, 0]),
    ]  # fmt: skip
    return np.array([p[-2::-1] for p in polynomials])


_TSIT5_B = (
    0.09646076681806523,
    0.01,
    0.4798896504144996,
    1.379008574103742,
    -3.290069515436081,
    2.324710524099774,
)

TSIT5 = Tableau(
    a=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (
            5.86145544294642,
            -12.92096931784711,
            8.159367898576159,
            -0.071584973281401,
            -0.028269050394068383,
        ),
        _TSIT5_B,
    ),
    b=np.array([*_TSIT5_B, 0.0]),
    order=5,
    errors=(
        np.array(
            [
                -0.00178001105222577714,
                -0.0008164344596567469,
                0.007880878010261995,
                -0.1447110071732629,
                0.5823571654525552,
                -0.45808210592918697,
                1 / 66,
            ]
        ),
    ),
    error_order=5,
    dense=_tsit5_dense(),
    dense_order=5,
    first_same_as_last=True,
)
"""Tsitouras 2011 (Computers & Mathematics with Applications 62): 5(4), with its interpolant."""

# Hairer's DOP853; stages 13-15 serve the interpolant alone.
_DOP853_A: tuple[tuple[float, ...], ...] = (
    (),
    (0.05260015195876773,),
    (
        0.0197250569845379,
        0.0591751709536137,
    ),
    (
        0.02958758547680685,
        0.0,
        0.08876275643042054,
    ),
    (
        0.2413651341592667,
        0.0,
        -0.8845494793282861,
        0.924834003261792,
    ),
    (
        0.037037037037037035,
        0.0,
        0.0,
        0.17082860872947386,
        0.12546768756682242,
    ),
    (
        0.037109375,
        0.0,
        0.0,
        0.17025221101954405,
        0.06021653898045596,
        -0.017578125,
    ),
    (
        0.03709200011850479,
        0.0,
        0.0,
        0.17038392571223998,
        0.10726203044637328,
        -0.015319437748624402,
        0.008273789163814023,
    ),
    (
        0.6241109587160757,
        0.0,
        0.0,
        -3.3608926294469414,
        -0.868219346841726,
        27.59209969944671,
        20.154067550477894,
        -43.48988418106996,
    ),
    (
        0.47766253643826434,
        0.0,
        0.0,
        -2.4881146199716677,
        -0.590290826836843,
        21.230051448181193,
        15.279233632882423,
        -33.28821096898486,
        -0.020331201708508627,
    ),
    (
        -0.9371424300859873,
        0.0,
        0.0,
        5.186372428844064,
        1.0914373489967295,
        -8.149787010746927,
        -18.52006565999696,
        22.739487099350505,
        2.4936055526796523,
        -3.0467644718982196,
    ),
    (
        2.273310147516538,
        0.0,
        0.0,
        -10.53449546673725,
        -2.0008720582248625,
        -17.9589318631188,
        27.94888452941996,
        -2.8589982771350235,
        -8.87285693353063,
        12.360567175794303,
        0.6433927460157636,
    ),
    (
        0.054293734116568765,
        0.0,
        0.0,
        0.0,
        0.0,
        4.450312892752409,
        1.8915178993145003,
        -5.801203960010585,
        0.3111643669578199,
        -0.1521609496625161,
        0.20136540080403034,
        0.04471061572777259,
    ),
    (
        0.056167502283047954,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.25350021021662483,
        -0.2462390374708025,
        -0.12419142326381637,
        0.15329179827876568,
        0.00820105229563469,
        0.007567897660545699,
        -0.008298,
    ),
    (
        0.03183464816350214,
        0.0,
        0.0,
        0.0,
        0.0,
        0.028300909672366776,
        0.053541988307438566,
        -0.05492374857139099,
        0.0,
        0.0,
        -0.00010834732869724932,
        0.0003825710908356584,
        -0.00034046500868740456,
        0.1413124436746325,
    ),
    (
        -0.42889630158379194,
        0.0,
        0.0,
        0.0,
        0.0,
        -4.697621415361164,
        7.683421196062599,
        4.06898981839711,
        0.3567271874552811,
        0.0,
        0.0,
        0.0,
        -0.0013990241651590145,
        2.9475147891527724,
        -9.15095847217987,
    ),
)
_DOP853_E3 = np.array(
    [
        -0.18980075407240762,
        0.0,
        0.0,
        0.0,
        0.0,
        4.450312892752409,
        1.8915178993145003,
        -5.801203960010585,
        -0.4226823213237919,
        -0.1521609496625161,
        0.20136540080403034,
        0.02265179219836082,
        0.0,
    ]
)
_DOP853_E5 = np.array(
    [
        0.01312004499419488,
        0.0,
        0.0,
        0.0,
        0.0,
        -1.2251564463762044,
        -0.4957589496572502,
        1.6643771824549864,
        -0.35032884874997366,
        0.3341791187130175,
        0.08192320648511571,
        -0.022355307863886294,
        0.0,
    ]
)
_DOP853_D = np.array(
    [
        [
            -8.428938276109013,
            0.0,
            0.0,
            0.0,
            0.0,
            0.5667149535193777,
            -3.0689499459498917,
            2.38466765651207,
            2.117034582445028,
            -0.871391583777973,
            2.2404374302607883,
            0.6315787787694688,
            -0.08899033645133331,
            18.148505520854727,
            -9.194632392478356,
            -4.436036387594894,
        ],
        [
            10.427508642579134,
            0.0,
            0.0,
            0.0,
            0.0,
            242.28349177525817,
            165.20045171727028,
            -374.5467547226902,
            -22.113666853125306,
            7.733432668472264,
            -30.674084731089398,
            -9.332130526430229,
            15.697238121770845,
            -31.139403219565178,
            -9.35292435884448,
            35.81684148639408,
        ],
        [
            19.985053242002433,
            0.0,
            0.0,
            0.0,
            0.0,
            -387.0373087493518,
            -189.17813819516758,
            527.8081592054236,
            -11.57390253995963,
            6.8812326946963,
            -1.0006050966910838,
            0.7777137798053443,
            -2.778205752353508,
            -60.19669523126412,
            84.32040550667716,
            11.99229113618279,
        ],
        [
            -25.69393346270375,
            0.0,
            0.0,
            0.0,
            0.0,
            -154.18974869023643,
            -231.5293791760455,
            357.6391179106141,
            93.40532418362432,
            -37.45832313645163,
            104.0996495089623,
            29.8402934266605,
            -43.53345659001114,
            96.32455395918828,
            -39.17726167561544,
            -149.72683625798564,
        ],
    ]
)


def _dop853_dense() -> np.ndarray:
    # y = y0 + θ(F0 + (1-θ)(F1 + θ(F2 + (1-θ)(F3 + θ(F4 + (1-θ)(F5 + θ F6)))))) with F0..F2 the
    # cubic Hermite data and F3..F6 = h D v: Hairer's nested form, expanded in powers of θ.
    s = 13
    b = np.zeros(s + 3)
    b[: s - 1] = _DOP853_A[s - 1]
    start, end = np.eye(s + 3)[0], np.eye(s + 3)[s - 1]
    data = [b, start - b, 2 * b - start - end, *_DOP853_D]
    dense = np.zeros((s + 3, len(data)))
    basis = np.array([1.0])  # lowest power first
    for i, values in enumerate(data):
        basis = np.convolve(basis, [0.0, 1.0] if i % 2 == 0 else [1.0, -1.0])
        dense[:, : len(basis) - 1] += np.outer(values, basis[1:])
    return dense


DOPRI8 = Tableau(
    a=_DOP853_A[:13],
    b=np.array([*_DOP853_A[12], 0.0]),
    order=8,
    errors=(_DOP853_E5, _DOP853_E3),
    error_order=8,
    dense=_dop853_dense(),
    dense_order=8,
    extra=tuple((sum(row), row) for row in _DOP853_A[13:]),
    first_same_as_last=True,
)
"""DOP853, order 8(5, 3) with its seventh-order interpolant (Hairer, Nørsett & Wanner, Solving ODEs
I, 2nd ed., section II.5 and II.6; after Dormand & Prince)."""
