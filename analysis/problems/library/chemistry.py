"""Reaction kinetics, all stiff.

End points are those of the float64 rate constants and initial states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..problem import Problem, register_problem, vector
from .checks import real

_TEST_SET = "Test Set for IVP Solvers"
_SETS = ("stiff", "chemistry")


@register_problem("robertson")
def robertson(end: float = 40.0) -> Problem:
    """Three species with rates from 0.04 to 3e7, over t in [0, end]; references at 40 and 1e11.

    Raises:
        ValueError: end not positive.
    """
    end = real("robertson", "end", end, above=0)
    ends = {
        40.0: (0.715827068719405, 9.185534764557764e-06, 0.28416374574583037),
        1e11: (2.083340149701294e-08, 8.333360770334784e-14, 0.9999999791665152),
    }

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        slow = 0.04 * y[0] - 1e4 * y[1] * y[2]
        fast = 3e7 * y[1] * y[1]
        return -slow, slow - fast, fast

    return Problem(
        "robertson",
        "y1' = -0.04 y1 + 1e4 y2 y3, y2' = 0.04 y1 - 1e4 y2 y3 - 3e7 y2^2, y3' = 3e7 y2^2",
        f"Robertson 1966; Hairer & Wanner, Solving ODEs II, IV.1; {_TEST_SET}",
        rhs,
        vector(1.0, 0.0, 0.0),
        (0.0, end),
        vector(*ends[end]) if end in ends else None,
        invariants={"mass": lambda y, m: y[0] + y[1] + y[2]},
        stiff=True,
        parameters={"end": end},
        sets=_SETS,
    )


_HIRES_END = (
    *(0.0007371312573325542, 0.00014424857263161596, 5.888729740967339e-05, 0.0011756513432831254),
    *(0.002386356198830949, 0.0062389682527415995, 0.002849998395185501, 0.0028500016048144993),
)


@register_problem("hires")
def hires() -> Problem:
    """Growth of plant tissue governed by light, eight reactants, over t in [0, 321.8122]."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        bound = 280 * y[5] * y[7]
        freed = bound - 1.81 * y[6]
        return (
            -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
            1.71 * y[0] - 8.75 * y[1],
            -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
            8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
            -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6],
            -bound + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
            freed,
            -freed,
        )

    return Problem(
        "hires",
        "y1' = -1.71 y1 + 0.43 y2 + 8.32 y3 + 0.0007, y2' = 1.71 y1 - 8.75 y2, y3' = -10.03 y3 + "
        "0.43 y4 + 0.035 y5, y4' = 8.32 y2 + 1.71 y3 - 1.12 y4, y5' = -1.745 y5 + 0.43 y6 + "
        "0.43 y7, y6' = -280 y6 y8 + 0.69 y4 + 1.71 y5 - 0.43 y6 + 0.69 y7, "
        "y7' = 280 y6 y8 - 1.81 y7, y8' = -y7'",
        f"Schaefer 1975; Hairer & Wanner, Solving ODEs II, IV.10; {_TEST_SET}",
        rhs,
        vector(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057),
        (0.0, 321.8122),
        vector(*_HIRES_END),
        invariants={"y7 + y8": lambda y, m: y[6] + y[7]},
        stiff=True,
        sets=_SETS,
    )


@register_problem("oregonator")
def oregonator() -> Problem:
    """The Belousov-Zhabotinskii reaction with a limit cycle, over t in [0, 360]."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return (
            77.27 * (y[1] + y[0] * (1 - 8.375e-6 * y[0] - y[1])),
            (y[2] - (1 + y[0]) * y[1]) / 77.27,
            0.161 * (y[0] - y[2]),
        )

    return Problem(
        "oregonator",
        "y1' = 77.27 (y2 + y1 (1 - 8.375e-6 y1 - y2)), y2' = (y3 - (1 + y1) y2)/77.27, "
        "y3' = 0.161 (y1 - y3)",
        f"Field & Noyes 1974; Hairer & Wanner, Solving ODEs II, IV.10; {_TEST_SET}",
        rhs,
        vector(1.0, 2.0, 3.0),
        (0.0, 360.0),
        vector(1.0008148703185227, 1228.1785215498874, 132.05549428465045),
        stiff=True,
        sets=_SETS,
    )


_E5_END = (3.769308219738986e-49, *[1.0192582568142706e-20] * 2, 3.7399012194641956e-65)


@register_problem("e5")
def e5(end: float = 1e11) -> Problem:
    """Pyrolysis with concentrations down to 1e-23, over t in [0, end].

    Raises:
        ValueError: end not positive.
    """
    end = real("e5", "end", end, above=0)

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        one, two = 7.89e-10 * y[0], 1.1e7 * y[0] * y[2]
        three, four = 1.13e9 * y[1] * y[2], 1.13e3 * y[3]
        # y3' as the difference of y2' and y4': otherwise it drowns in cancellation
        second, fourth = one - three, two - four
        return -one - two, second, second - fourth, fourth

    return Problem(
        "e5",
        "y1' = -A y1 - B y1 y3, y2' = A y1 - M C y2 y3, y3' = A y1 - B y1 y3 - M C y2 y3 + C y4, "
        "y4' = B y1 y3 - C y4, A = 7.89e-10, B = 1.1e7, C = 1.13e3, M = 1e6",
        "Enright, Hull & Lindberg 1975, problem E5; Hairer & Wanner, Solving ODEs II, IV.10",
        rhs,
        vector(1.76e-3, 0.0, 0.0, 0.0),
        (0.0, end),
        vector(*_E5_END) if end == 1e11 else None,
        invariants={"y2 - y3 - y4": lambda y, m: y[1] - y[2] - y[3]},
        stiff=True,
        parameters={"end": end},
        sets=_SETS,
    )


_RATES = (
    *(0.35, 26.6, 1.23e4, 8.6e-4, 8.2e-4, 1.5e4, 1.3e-4, 2.4e4, 1.65e4, 9e3, 0.022, 1.2e4, 1.88),
    *(1.63e4, 4.8e6, 3.5e-4, 0.0175, 1e8, 4.44e11, 1240.0, 2.1, 5.78, 0.0474, 1780.0, 3.12),
)
# What each reaction consumes, and what it makes (species 1 to 20).
_REACTIONS = (
    "1 -> 2 + 3, 2 + 4 -> 1, 5 + 2 -> 6 + 1, 7 -> 5 + 5 + 8, 7 -> 8, 7 + 6 -> 5 + 8, "
    "9 -> 10 + 5 + 8, 9 + 6 -> 11, 11 + 2 -> 1 + 10 + 12, 11 + 1 -> 13, 13 -> 11 + 1, "
    "10 + 2 -> 14 + 1, 14 -> 7 + 5, 1 + 6 -> 15, 3 -> 4, 4 -> 16, 4 -> 3, 16 -> 6 + 6, "
    "16 -> 3, 17 + 6 -> 18 + 5, 19 -> 2, 19 -> 1 + 3, 1 + 4 -> 19, 19 + 1 -> 20, 20 -> 19 + 1"
)


def _reactions() -> list[tuple[list[int], list[int]]]:
    sides = (reaction.split(" -> ") for reaction in _REACTIONS.split(", "))
    return [([int(i) for i in a.split(" + ")], [int(i) for i in b.split(" + ")]) for a, b in sides]


_POLLUTION_END = (
    *(0.056462554800227695, 0.13424841304223387, 4.139734331099427e-09, 0.005523140207484359),
    *(2.018977262302196e-07, 1.4645418634939657e-07, 0.07784249118997964, 0.3245075353396018),
    *(0.007494013383880406, 1.6222931573015602e-08, 1.1358638332570748e-08, 0.00223050597572136),
    *(0.00020871628827986302, 1.3969210168401579e-05, 0.008964884856898295, 4.352846369330103e-18),
    *(0.006899219696263405, 0.0001007803037365946, 1.7721465139699842e-06, 5.6829432923163926e-05),
)


@register_problem("pollution")
def pollution() -> Problem:
    """The chemistry of polluted air: 20 species, 25 reactions, over t in [0, 60] minutes."""

    reactions = list(zip(_RATES, _reactions(), strict=True))

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        change: list[Any] = [0] * 20
        for rate, (consumed, made) in reactions:
            flow = rate * y[consumed[0] - 1]
            for species in consumed[1:]:
                flow = flow * y[species - 1]
            for species in consumed:
                change[species - 1] = change[species - 1] - flow
            for species in made:
                change[species - 1] = change[species - 1] + flow
        return change

    start = [0.0] * 20
    for species, amount in ((2, 0.2), (4, 0.04), (7, 0.1), (8, 0.3), (9, 0.01), (17, 0.007)):
        start[species - 1] = amount
    return Problem(
        "pollution",
        "mass action of 25 reactions: "
        + ", ".join(
            f"{' + '.join(f'y{i}' for i in a)} -> {' + '.join(f'y{i}' for i in b)} ({rate:g})"
            for rate, (a, b) in reactions
        ),
        f"Verwer 1994; {_TEST_SET}",
        rhs,
        vector(*start),
        (0.0, 60.0),
        vector(*_POLLUTION_END),
        invariants={
            "nitrogen": lambda y, m: y[0] + y[1] + y[12] + y[14] + y[18] + 2 * y[19],
            "sulphur": lambda y, m: y[16] + y[17],
        },
        stiff=True,
        sets=_SETS,
    )
