"""Linear multistep methods: order by their conditions, zero-stability by the root condition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ...plans.anchors.method import AnchorsMethod
from .multiprecision import multiprecision
from .rational_functions import square_free_factors
from .rules import exact_rule


@dataclass(frozen=True)
class LinearMultistep:
    """Σ_j α_j y_{n+j} = h Σ_j β_j f_{n+j}, j = 0 ... k, on a uniform grid, α_k = 1.

    alpha, beta: k+1 Fractions each, oldest first.

    Raises:
        ValueError: lengths that differ, or α_k other than 1.

    Source: Hairer, Nørsett & Wanner, Solving ODEs I, sections III.2 and III.3.
    """

    alpha: tuple[Fraction, ...]
    beta: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            object.__setattr__(self, name, tuple(Fraction(a) for a in getattr(self, name)))
        if len(self.alpha) != len(self.beta) or len(self.alpha) < 2:
            raise ValueError(
                "alpha and beta must both have k+1 >= 2 entries, got "
                f"{len(self.alpha)} and {len(self.beta)}"
            )
        if self.alpha[-1] != 1:
            raise ValueError(f"the last alpha must be 1, got {self.alpha[-1]}")

    def condition(self, q: int) -> Fraction:
        """C_q = (Σ α_j j^q - q Σ β_j j^(q-1)) / q!, zero up to q = p."""
        total = sum((a * Fraction(j) ** q for j, a in enumerate(self.alpha)), Fraction(0))
        if q:
            total -= q * sum(
                (b * Fraction(j) ** (q - 1) for j, b in enumerate(self.beta)), Fraction(0)
            )
        return total / math.factorial(q)

    @property
    def order(self) -> int:
        """p, from the conditions, exactly; -1 for a method that is not even consistent at q = 0."""
        q = 0
        while not self.condition(q):
            q += 1
        return q - 1

    @property
    def error_constant(self) -> Fraction:
        """C_{p+1} / σ(1): what multiplies h^p y^(p+1) in the global error."""
        return self.condition(self.order + 1) / sum(self.beta, Fraction(0))

    def roots(self, digits: int = 50) -> list[tuple[complex, float, int]]:
        """Zeros of ρ(ξ) = Σ α_j ξ^j: (root, |root|, multiplicity), multiplicities exactly."""
        mp = multiprecision()
        found = []
        with mp.workdps(digits):
            for factor, multiplicity in square_free_factors(self.alpha):
                for root in mp.polyroots(
                    [mp.mpf(a.numerator) / a.denominator for a in reversed(factor)],
                    maxsteps=500,
                    extraprec=500,
                ):
                    found.append((complex(root), float(abs(root)), multiplicity))
        return found

    @property
    def zero_stable(self) -> bool:
        """The root condition: no zero of ρ outside the unit circle, simple ones on it.

        Multiplicities are found exactly; a modulus within 1e-15 of 1 counts as 1.
        """
        return all(
            size < 1 - 1e-15 or (size < 1 + 1e-15 and multiplicity == 1)
            for _, size, multiplicity in self.roots()
        )


def predictor_and_corrector(
    method: AnchorsMethod,
) -> tuple[LinearMultistep, LinearMultistep | None]:
    """The linear multistep formulas that a method of the anchors plan uses on a uniform grid.

    They are worked out from the method's own rule and interpolant, so that a rule of too low a
    degree shows.
    """
    k, rule = method.interpolant.anchors, exact_rule(method.rule)
    alpha = (*[Fraction(0)] * (k - 1), Fraction(-1), Fraction(1))

    def formula(positions: Sequence[int]) -> LinearMultistep:
        beta = rule.interpolant_weights([Fraction(p) for p in positions])
        return LinearMultistep(alpha, tuple(beta + [Fraction(0)] * (k + 1 - len(beta))))

    predictor = formula(range(1 - k, 1))
    return predictor, formula(range(1 - k, 2)) if method.correction is not None else None
