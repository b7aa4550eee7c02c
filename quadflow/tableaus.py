"""Explicit Runge-Kutta tableaus: the figures of the literature, checked when they are made."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Tableau:
    """An explicit Runge-Kutta method, its error estimate and its interpolant.

    a: s rows of i numbers each (row i is stage i). b: weights (s,). c: nodes (s,). order: p.
    errors: rows of weights (e, s or s+1) whose velocity combinations estimate the local error; one
    row is the usual embedded difference, two rows are Hairer's combined estimate of DOP853
    (fifth-order row first). A column s+1 is the velocity at the end of the step.
    error_order: q, the local error estimate being O(h^q). dense: coefficients (m, degree) with
    y(t0 + θh) = y0 + h Σ_j (Σ_i dense[j, i] θ^(i+1)) v_j; rows past s are the end velocity and then
    the velocities of `extra` stages, (c, row of a) each, evaluated only when a time inside the step
    is wanted. dense_order: q of the error O(h^q) of the solution between the steps, over the whole
    span: min(p, local order of the interpolant), since its own error does not accumulate.
    first_same_as_last: stage s is f at the
    end of the step.
    """

    a: tuple[tuple[float, ...], ...]
    b: np.ndarray
    order: int
    dense: np.ndarray
    dense_order: int
    errors: tuple[np.ndarray, ...] = ()
    error_order: int | None = None
    extra: tuple[tuple[float, tuple[float, ...]], ...] = ()
    first_same_as_last: bool = False

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
        if not self.first_same_as_last:
            end = np.zeros(width)
            end[:s] = -2.0 * self.b
            end[0] += 1.0
            end[s] += 1.0
            rows.append(4 / 27 * end)
        return [row.tolist() for row in rows]

    def __post_init__(self) -> None:
        for i, row in enumerate(self.a):
            if len(row) != i:
                raise ValueError(f"row {i} of a has {len(row)} entries; explicit stages need {i}")
        if self.b.shape != (len(self.a),):
            raise ValueError(f"b has shape {self.b.shape} for {len(self.a)} stages")
        if abs(self.b.sum() - 1) > 1e-14:
            raise ValueError(f"the weights b sum to {float(self.b.sum())!r}, must be 1")
        for weights in self.errors:
            if abs(weights.sum()) > 1e-13:
                raise ValueError(f"error weights sum to {float(weights.sum())!r}, must be 0")
        ends = self.dense.sum(axis=1)
        full = np.zeros(len(ends))
        full[: len(self.b)] = self.b
        if np.abs(ends - full).max() > 1e-13:
            raise ValueError("the interpolant at θ = 1 is not the step: dense rows must sum to b")
        if self.first_same_as_last and (
            self.b[-1] != 0 or np.abs(np.array(self.a[-1]) - self.b[:-1]).max() > 1e-15
        ):
            raise ValueError("first_same_as_last needs the last row of a to be b")


def _hermite(b: Sequence[float]) -> np.ndarray:
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
    rows = tuple(tuple(row) for row in a)
    weights = np.array(b, dtype=np.float64)
    return Tableau(
        rows,
        weights,
        order,
        _hermite(b),
        dense_order=min(4, order),
        errors=() if errors is None else (np.array(errors, dtype=np.float64),),
        error_order=error_order,
    )


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
    dense=_hermite(_BOSH3_B),
    dense_order=3,
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
