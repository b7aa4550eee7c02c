"""Linear and algebraic stability of a method, decided exactly wherever it is decidable exactly.

Everything about one-step methods comes from rational coefficients: R(z), A-stability by Routh's
scheme and Sturm sequences, algebraic stability by the inertia of a rational form, intervals by root
isolation. What is numerical (Lebesgue constants, the angle of A(α)-stability, the intervals of
multistep methods) is said to be so where it is documented.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from ...plans.adams.method import VariableOrderMethod
from ...plans.anchors.method import AnchorsMethod
from ...plans.method import Method
from ...plans.stages.method import StagesMethod
from ...plans.sweeps.method import SweepsMethod
from ...rules.rule import QuadratureRule
from ...rules.tableau import Tableau
from ..exact.held import formula_of
from ..exact.rational_functions import (
    RationalFunction,
    all_roots_left,
    exponential_series,
    first_negative,
    logarithm_series,
    mirrored,
    never_negative,
    squared_modulus_on_axis,
)
from ..exact.recurrences import Recurrence, recurrence
from ..exact.rules import Poly, poly_add, poly_mul, poly_scale
from ..exact.runge_kutta import (
    ExactRungeKutta,
    ImplicitMethod,
    exact_runge_kutta,
    inertia,
)
from .lebesgue import lebesgue_constant

StabilitySubject = QuadratureRule | ImplicitMethod | Method | Tableau
"""What has a stability region: a rule means implicit collocation on it, solved to convergence."""

_SNAP = 1e-13  # what rounding of float64 coefficients does to a Taylor coefficient, with room
_RHO = 1e-12  # above 1 by more than this, a float64 spectral radius is seen to be unstable
_ROUNDING = 1e-14  # what a float64 spectral radius may be off


def is_multistep(method: StabilitySubject) -> bool:
    """Whether the method remembers earlier steps, so that it has a recurrence and no R(z)."""
    method = formula_of(method)
    if isinstance(method, AnchorsMethod):
        return recurrence(method).size > 1
    return isinstance(method, SweepsMethod) and method.guess == "extrapolated"


def method_title(method: StabilitySubject) -> str:
    """A short name for headings and legends."""
    if isinstance(method, QuadratureRule):
        return f"{method.family}-{method.n}"
    if isinstance(method, Tableau):
        return f"tableau of {len(method.a)} stages"
    if isinstance(method, SweepsMethod) and method.name == f"{method.rule.family}-{method.rule.n}":
        many = "sweep" if method.sweeps == 1 else "sweeps"
        return f"{method.name}, {method.sweeps} {many} from {method.guess}"
    return method.name


def stability_function(method: StabilitySubject) -> RationalFunction:
    """The exact stability function of a one-step method: y_(n+1) = R(hλ) y_n on y' = λy.

    Args:
        method: a rule (implicit collocation, solved to convergence), an `ImplicitMethod` (Radau
            IA/IIA, Lobatto IIIA/IIIB/IIIC), explicit stages or a tableau, sweeps from a constant
            guess (then R(z) = 1 + Σ_{k<=K} z^(k+1) b·A^k 1), or an anchors method of one anchor.
            Where a tableau's float64 entries are no simple fractions, the coefficients up to its
            declared order are set to 1/k! if they agree with it to 1e-13, as its order says;
            the others are those of the float64 numbers.

    Raises:
        TypeError: a multistep method; `characteristic` gives the roots of its polynomial.

    Source: Hairer & Wanner, Solving ODEs II, section IV.3.
    """
    method = formula_of(method)
    if isinstance(method, SweepsMethod) and method.guess == "constant":
        moments = exact_runge_kutta(method).moments(method.sweeps + 1)
        return RationalFunction.of((Fraction(1), *moments))
    if isinstance(method, AnchorsMethod):
        steps = recurrence(method)
        if steps.size == 1:
            return RationalFunction.of(steps.rows[0][0])
    if is_multistep(method):
        raise TypeError(
            f"{method_title(method)} is a multistep method and has no stability function; "
            "characteristic(method, z) gives the roots of its stability polynomial"
        )
    algebra = exact_runge_kutta(method)
    function = algebra.stability_function()
    tableau = method.tableau if isinstance(method, StagesMethod) else method
    if isinstance(tableau, Tableau) and not algebra.exact:
        function = _with_order(function, tableau.order)
    return function


def _with_order(function: RationalFunction, order: int) -> RationalFunction:
    coefficients = list(function.numerator)
    for k, exact in enumerate(exponential_series(min(order + 1, len(coefficients)))):
        if abs(coefficients[k] - exact) <= _SNAP:
            coefficients[k] = exact
    return RationalFunction.of(coefficients)


def characteristic(method: StabilitySubject, z: Any) -> np.ndarray:
    """The roots of the stability polynomial at z = hλ, on a uniform grid.

    Args:
        method: any; a one-step method has the one root R(z).
        z: complex, any shape.

    Returns:
        complex128, (*z.shape, m): the numbers by which the m modes of y' = λy grow a step. m is
        the length of the method's state (see `recurrences.Recurrence`).

    Raises:
        TypeError: a method without a known recurrence (its interpolant is no polynomial).
    """
    return _roots(method)(np.asarray(z, dtype=np.complex128))


def spectral_radius(method: StabilitySubject, z: Any) -> np.ndarray:
    """The largest modulus of `characteristic`: float64, of the shape of z."""
    return np.abs(characteristic(method, z)).max(axis=-1)


def _roots(method: StabilitySubject) -> Callable[[np.ndarray], np.ndarray]:
    method = formula_of(method)
    if is_multistep(method):
        assert isinstance(method, Method)
        return recurrence(method).roots
    function = stability_function(method)
    return lambda z: np.asarray(function(z))[..., None]


@dataclass(frozen=True, kw_only=True)
class StabilityReport:
    """Stability of one method; None where a property is not defined for its kind.

    name, kind: kind is "implicit", "explicit" or "multistep". exact: whether the method's own
    numbers were used (rational or algebraic), or those of its float64 coefficients.
    function: R(z). order, error_constant: exp(z) - R(z) = error_constant z^(order+1) + ..., for
    multistep methods of the principal root; of the linear problem only, so the order of the method
    may be lower. dissipation, dispersion: (power of y, coefficient) of the first even and odd
    terms of log R(iy) - iy: |R(iy)| = 1 + coefficient y^power, phase of R(iy) - y = coefficient
    y^power; None where no such term was found (for dissipation: |R(iy)| = 1).
    a_stable, a_stability: the decision and its reason. alpha: angle of A(α)-stability in degrees
    (90 if A-stable; None if no sector is stable), numerical. l_stable: A-stable and R(∞) = 0.
    at_infinity: R(∞), None where infinite. stiffly_accurate: a row of A is b.
    algebraically_stable: no negative weight and BA + AᵀB - bbᵀ positive semidefinite (Burrage &
    Butcher 1979, Crouzeix 1979; it implies B-stability); stability_inertia: numbers of positive,
    negative and zero squares of that form. symmetric: self-adjoint. symplectic: that form is zero.
    weights: numbers of positive, negative and zero weights. lebesgue: the Lebesgue
    constant of the nodes on [0, 1], numerical. matrix_norm: largest absolute row sum of the
    integration matrix, numerical. real_interval: largest r with |R| <= 1 on [-r, 0]; inf where
    unbounded. imaginary_interval: largest r with |R(iy)| <= 1 for |y| <= r. Both intervals come
    from exact root isolation for one-step methods, from a scan of the spectral radius with
    bisection for multistep ones.
    notes: what a reader must know besides.
    """

    name: str
    kind: str
    exact: bool
    function: RationalFunction | None = None
    order: int | None
    error_constant: Fraction | None
    dissipation: tuple[int, Fraction] | None
    dispersion: tuple[int, Fraction] | None
    a_stable: bool | None
    a_stability: str
    alpha: float | None = None
    l_stable: bool | None
    at_infinity: Fraction | None = None
    stiffly_accurate: bool | None = None
    algebraically_stable: bool | None = None
    stability_inertia: tuple[int, int, int] | None = None
    symmetric: bool | None = None
    symplectic: bool | None = None
    weights: tuple[int, int, int] | None = None
    lebesgue: float | None = None
    matrix_norm: float | None = None
    real_interval: float
    imaginary_interval: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: fractions as "p/q", R as its coefficients, inf as "inf"."""
        result = {name: _plain(value) for name, value in asdict(self).items()}
        if self.function is not None:
            result["function"] = {
                "text": str(self.function),
                "numerator": _plain(self.function.numerator),
                "denominator": _plain(self.function.denominator),
            }
        return result

    def __str__(self) -> str:
        lines = [f"{self.name} ({self.kind})"]
        for label, text in self._rows():
            lines.append(f"  {label:<24}{text}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, str]]:
        letter, what = ("root", "the root") if self.function is None else ("R", "R")
        order = limit = angle = algebraic = None
        if self.order is not None and self.error_constant is not None:
            term = f"{_number(self.error_constant)} z^{self.order + 1}"
            order = f"{self.order}: exp(z) - {letter} = {term} + ..."
        if self.a_stable is False and self.kind == "implicit":
            angle = "no sector is stable" if self.alpha is None else f"{self.alpha:.4f} degrees"
        if self.kind != "multistep":
            limit = "infinite" if self.at_infinity is None else _number(self.at_infinity)
            limit = f"{_yes(self.l_stable)}: R(inf) = {limit}"
        if self.algebraically_stable is not None:
            form = _signs(self.stability_inertia, "BA + A'B - bb' has ", " squares")
            algebraic = ": ".join(filter(None, (_yes(self.algebraically_stable), form)))
        undamped = f"none: |{letter}(iy)| = 1" if self.symmetric else None
        rows = [
            ("R(z)", None if self.function is None else str(self.function)),
            (f"order of {what}", order),
            ("dissipation", _leading(self.dissipation, f"|{letter}(iy)| = 1") or undamped),
            ("dispersion", _leading(self.dispersion, "phase - y =")),
            ("A-stable", f"{_yes(self.a_stable)}: {self.a_stability}"),
            ("A(alpha)", angle),
            ("L-stable", limit),
            ("stiffly accurate", _known(self.stiffly_accurate)),
            ("algebraically stable", algebraic),
            ("symmetric", _known(self.symmetric)),
            ("symplectic", _known(self.symplectic)),
            ("weights", _signs(self.weights)),
            ("Lebesgue constant", _figure(self.lebesgue)),
            ("largest row sum of |A|", _figure(self.matrix_norm)),
            ("real interval", _interval(self.real_interval, "-{}, 0")),
            ("imaginary interval", _interval(self.imaginary_interval, "-{0}i, {0}i")),
        ]
        return [(label, text) for label, text in rows if text is not None]


def stability_report(method: StabilitySubject) -> StabilityReport:
    """Everything this module can decide about a method; see `StabilityReport`.

    Args:
        method: see `stability_function` and `characteristic`.

    Raises:
        TypeError: a method without a known stability function or recurrence; one that chooses its
            order (`held_methods` holds it at one).
    """
    method = formula_of(method)
    if isinstance(method, VariableOrderMethod):
        raise TypeError(
            f"{method.name} chooses its order, and each order has its own stability: take one, "
            f"as in `quadflow stability {method.name}:5` or held_methods(method)[5]"
        )
    if is_multistep(method):
        assert isinstance(method, Method)
        return _multistep_report(method, recurrence(method))
    function = stability_function(method)
    near_exponential = _against_exponential(function.series(2 * sum(function.degrees) + 4))
    rule = _rule(method)
    notes: list[str] = []
    if isinstance(method, AnchorsMethod):
        algebra, explicit = None, True
    else:
        algebra = exact_runge_kutta(method)
        explicit = algebra.explicit or isinstance(method, SweepsMethod)
    exact = algebra is None or algebra.exact
    if not exact:
        notes.append(
            "the coefficients are float64 numbers that are no simple fractions: R and what "
            "follows from it are exact for these numbers"
            + (", with the terms up to the declared order set to 1/k!" if rule is None else
               "; equalities (symmetry, symplecticity, R(inf) = 0) fail by rounding")
        )  # fmt: skip
    real = _real_interval(function)
    a_stable, reason = _a_stability(function, explicit)
    squares = form = stiff = None
    # an explicit method has no zero form: its diagonal is -b_i²
    symmetric = symplectic = algebraic = False
    if algebra is not None:
        squares = inertia(algebra.gram)
        if not explicit:
            form = inertia(algebra.stability_matrix())
            algebraic = form[1] == 0 and squares[1] == 0
            symplectic = form[0] == form[1] == 0
            symmetric = algebra.is_symmetric()
            stiff = algebra.is_stiffly_accurate()
    return StabilityReport(
        name=method_title(method),
        kind="explicit" if explicit else "implicit",
        exact=exact,
        function=function,
        **near_exponential,
        a_stable=a_stable,
        a_stability=reason,
        alpha=90.0 if a_stable else _alpha(function, real),
        l_stable=a_stable and function.at_infinity == 0,
        at_infinity=function.at_infinity,
        stiffly_accurate=stiff,
        algebraically_stable=algebraic,
        stability_inertia=form,
        symmetric=symmetric,
        symplectic=symplectic,
        weights=squares,
        lebesgue=None if rule is None else lebesgue_constant(rule.nodes),
        matrix_norm=_matrix_norm(method, algebra),
        real_interval=real,
        imaginary_interval=_imaginary_interval(function),
        notes=tuple(notes),
    )


def limits_table(reports: Sequence[StabilityReport]) -> str:
    """A line a method: order and error constant of its principal root, intervals of stability."""
    lines = [
        f"{'method':<12}{'order':>6}  {'error constant':<16}{'|root(iy)|':<14}{'real interval':<22}"
        "imaginary interval"
    ]
    for r in reports:
        constant = "-" if r.error_constant is None else f"{float(r.error_constant):.4g}"
        grows = "-" if r.dissipation is None else "grows" if r.dissipation[1] > 0 else "decays"
        lines.append(
            f"{r.name:<12}{'-' if r.order is None else r.order:>6}  {constant:<16}{grows:<14}"
            f"{_interval(r.real_interval, '-{}, 0'):<22}"
            f"{_interval(r.imaginary_interval, '-{0}i, {0}i')}"
        )
    return "\n".join(lines)


# -- one-step methods ----------------------------------------------------------------------------


def _rule(method: StabilitySubject) -> QuadratureRule | None:
    if isinstance(method, QuadratureRule):
        return method
    return method.rule if isinstance(method, (ImplicitMethod, SweepsMethod)) else None


def _matrix_norm(method: StabilitySubject, algebra: ExactRungeKutta | None) -> float | None:
    if isinstance(method, ImplicitMethod):
        matrix = method.coefficients
    elif isinstance(method, (QuadratureRule, SweepsMethod)):
        matrix = (method.rule if isinstance(method, SweepsMethod) else method).integration_matrix
    elif algebra is None:
        return None
    else:
        matrix = np.array([[float(a) for a in row] for row in algebra.matrix])
    return float(np.abs(matrix).sum(axis=1).max())


def _against_exponential(series: Poly) -> dict[str, Any]:
    """Order, error constant, dissipation and dispersion of a series close to exp, by name."""
    names = "order", "error_constant", "dissipation", "dispersion"
    errors = [e - a for e, a in zip(exponential_series(len(series)), series, strict=True)]
    first = next((k for k, error in enumerate(errors) if error), None)
    if not first:
        return dict.fromkeys(names)
    log = list(logarithm_series(series))
    log[1] -= 1

    def leading(odd: int) -> tuple[int, Fraction] | None:
        found = next(((k, a) for k, a in enumerate(log) if a and k % 2 == odd), None)
        # (iy)^k is y^k times (-1)^(k/2), and i times (-1)^((k-1)/2) for odd k
        return None if found is None else (found[0], found[1] * (-1) ** (found[0] // 2))

    found = first - 1, errors[first], leading(0), leading(1)
    return dict(zip(names, found, strict=True))


def _a_stability(function: RationalFunction, explicit: bool) -> tuple[bool, str]:
    top, bottom = function.degrees
    if top > bottom:
        what = "explicit, " if explicit else ""
        return False, f"{what}R is unbounded at infinity"
    if not all_roots_left(mirrored(function.denominator)):
        return False, "R has poles with real part <= 0"
    if not never_negative(_axis_defect(function)):
        return False, "|R| > 1 somewhere on the imaginary axis"
    return True, "poles in the right half-plane, |R| <= 1 on the imaginary axis"


def _axis_defect(function: RationalFunction) -> Poly:
    """E = |Q(iy)|² - |P(iy)|² as a polynomial in y²."""
    numerator = squared_modulus_on_axis(function.numerator)
    return poly_add(
        squared_modulus_on_axis(function.denominator), poly_scale(numerator, Fraction(-1))
    )


def _real_interval(function: RationalFunction) -> float:
    p, q = mirrored(function.numerator), mirrored(function.denominator)
    end = first_negative(
        poly_add(poly_mul(q, q), poly_scale(poly_mul(p, p), Fraction(-1))), digits=18
    )
    return math.inf if end is None else float(end)


def _imaginary_interval(function: RationalFunction) -> float:
    end = first_negative(_axis_defect(function), digits=36)
    if end is None:
        return math.inf
    digits = 10**40
    return math.isqrt(int(end * digits)) / math.isqrt(digits)


def _ray_defect(function: RationalFunction, slope: Fraction) -> Poly:
    """|Q|² - |P|² on the ray z = -r (1 - m² + 2mi), a polynomial in r; m = tan(angle / 2)."""
    re, im = -(1 - slope**2), 2 * slope

    def squared(p: Poly) -> Poly:
        x, y = Fraction(1), Fraction(0)
        real, imaginary = [], []
        for a in p:
            real.append(a * x)
            imaginary.append(a * y)
            x, y = x * re - y * im, x * im + y * re
        return poly_add(poly_mul(real, real), poly_mul(imaginary, imaginary))

    return poly_add(
        squared(function.denominator), poly_scale(squared(function.numerator), Fraction(-1))
    )


def _alpha(function: RationalFunction, real_interval: float) -> float | None:
    """The angle of A(α)-stability in degrees, from the curve |R| = 1; None where there is none.

    The curve R(z) = e^(iθ) bounds the unstable set; the smallest angle of its points in the left
    half-plane to the negative real axis is α, if the ray just below it is stable as well, which is
    decided exactly.
    """
    top, bottom = function.degrees
    if top > bottom or not math.isinf(real_interval):
        return None
    length = max(top, bottom) + 1
    p, q = (
        np.array([float(c[k]) if k < len(c) else 0.0 for k in reversed(range(length))])
        for c in (function.numerator, function.denominator)
    )

    def smallest(theta: float) -> float:
        z = np.roots(p - np.exp(1j * theta) * q)
        z = z[(z.real < -1e-9 * np.abs(z)) & (np.abs(z) > 1e-6)]
        return float(np.abs(np.angle(-z)).min()) if z.size else math.pi / 2

    angles = np.linspace(0, math.pi, 361)  # conjugate roots for the other half
    best = int(np.argmin([smallest(theta) for theta in angles]))
    step = angles[1]
    found = minimize_scalar(
        smallest,
        bounds=(angles[best] - step, angles[best] + step),
        method="bounded",
        options={"xatol": 1e-12},
    )
    alpha = min(float(found.fun), smallest(float(angles[best])))
    for fraction in (0.25, 0.5, 0.75, 0.999):
        slope = Fraction(math.tan(fraction * alpha / 2)).limit_denominator(10**6)
        if not never_negative(_ray_defect(function, slope)):
            return None
    return math.degrees(alpha)


# -- multistep methods -----------------------------------------------------------------------------


def _multistep_report(method: Method, steps: Recurrence) -> StabilityReport:
    near_exponential = _against_exponential(steps.principal_series((method.order or 4) + 5))
    dissipation = near_exponential["dissipation"]
    rule = method.rule if isinstance(method, SweepsMethod) else None
    grows = dissipation is not None and dissipation[1] > 0
    real, real_error = _scan(steps, -1.0)
    imaginary, imaginary_error = (0.0, 0.0) if grows else _scan(steps, 1j)
    return StabilityReport(
        name=method_title(method),
        kind="multistep",
        exact=steps.exact,
        **near_exponential,
        a_stable=False,
        a_stability="explicit, the roots are unbounded at infinity",
        l_stable=False,
        weights=None if rule is None else inertia(exact_runge_kutta(rule).gram),
        lebesgue=None if rule is None else lebesgue_constant(rule.nodes),
        matrix_norm=None if rule is None else _matrix_norm(rule, None),
        real_interval=real,
        imaginary_interval=imaginary,
        notes=(
            f"{steps.size} roots; state: {steps.state}",
            "equal steps; intervals by scanning the spectral radius in float64, to about "
            f"{real_error:.0e} (real) and {imaginary_error:.0e} (imaginary)",
        ),
    )


def _scan(steps: Recurrence, direction: complex) -> tuple[float, float]:
    """The first r at which the spectral radius at r·direction exceeds 1, and how far it may be off.

    The radius is known to about 1e-14, so a flat crossing is known less well than a steep one.
    """

    def excess(r: float | np.ndarray) -> np.ndarray:
        return np.abs(steps.roots(np.asarray(r) * direction)).max(axis=-1) - 1

    width, low = 1e-3, 0.0
    while low < 1e3:
        points = low + width * np.arange(1, 2001)
        bad = np.flatnonzero(excess(points) > _RHO)
        if bad.size:
            high = float(points[bad[0]])
            low = high - width
            break
        low = float(points[-1])
    else:
        return math.inf, 0.0
    beyond = high
    while low > 0 and excess(low) > _ROUNDING:  # a crossing so flat that it was passed unseen
        low -= width
    for _ in range(60):
        middle = (low + high) / 2
        if excess(middle) > _ROUNDING:
            high = middle
        else:
            low = middle
    slope = float(excess(beyond + width) - excess(low)) / (beyond + width - low)
    return low, max(_ROUNDING / slope, 1e-15) if slope > 0 else width


# -- text ------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _number(value: Fraction) -> str:
    return str(value) if value.denominator < 10**15 else f"{float(value):.10g}"


def _yes(value: bool | None) -> str:
    return "does not apply" if value is None else "yes" if value else "no"


def _known(value: bool | None) -> str | None:
    return None if value is None else _yes(value)


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.10g}"


def _leading(term: tuple[int, Fraction] | None, before: str) -> str | None:
    if term is None:
        return None
    sign = "-" if term[1] < 0 else "+"
    return f"{before} {sign} {_number(abs(term[1]))} y^{term[0]} + ..."


def _signs(inertia: tuple[int, int, int] | None, before: str = "", after: str = "") -> str | None:
    if inertia is None:
        return None
    return f"{before}{inertia[0]} positive, {inertia[1]} negative, {inertia[2]} zero{after}"


def _interval(size: float, text: str) -> str:
    if math.isinf(size):
        return "unbounded"
    return "0 alone" if size == 0 else f"[{text.format(f'{size:.12g}')}]"
