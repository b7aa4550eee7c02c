"""Stability certificates against the literature, against closed forms and against real solves."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from textbook_formulas import pade

import quadflow as qf
from quadflow.analysis.exact.rational_functions import (
    RationalFunction,
    all_roots_left,
    derivative,
    first_negative,
    never_negative,
    odd_part,
    positive_roots,
)
from quadflow.analysis.exact.recurrences import recurrence
from quadflow.analysis.exact.rules import poly_add, poly_mul, poly_scale
from quadflow.analysis.exact.runge_kutta import (
    IMPLICIT,
    exact_runge_kutta,
    implicit_method,
    inertia,
)
from quadflow.analysis.stability import report as st
from quadflow.analysis.stability.lebesgue import lebesgue_constant, lebesgue_function
from quadflow.plans.anchors.method import anchors
from quadflow.plans.interpolants import OracleInterpolant
from quadflow.rules.chebyshev import clenshaw_curtis, fejer_first
from quadflow.rules.classical import RK4
from quadflow.rules.from_nodes import rule_from_nodes
from quadflow.rules.gauss import gauss_legendre, gauss_lobatto, radau_left, radau_right
from quadflow.rules.newton_cotes import newton_cotes_closed
from quadflow.rules.quadrature import FAMILIES
from quadflow.rules.tableau import Tableau

F = Fraction
pytestmark = pytest.mark.filterwarnings("ignore::quadflow.rules.families.NegativeWeightsWarning")

ONE_STEP = (
    "euler", "midpoint", "heun", "heun3", "rk4", "rk4_38", "bosh3", "dopri5", "tsit5", "dopri8",
    "pece1",
)  # fmt: skip
MULTISTEP = tuple(name for name in qf.methods() if name not in (*ONE_STEP, "adams"))
SIZES = range(2, 9)


def from_roots(*roots: int | Fraction) -> tuple[Fraction, ...]:
    p: tuple[Fraction, ...] = (F(1),)
    for root in roots:
        p = poly_mul(p, (-F(root), F(1)))
    return p


# -- polynomials ---------------------------------------------------------------------------------


def test_sign_changes_are_found_between_double_roots() -> None:
    p = from_roots(1, 1, 2, F(7, 2), F(7, 2), F(7, 2), 9)  # an odd number: negative at 0
    assert first_negative(p) == 0
    p = poly_scale(p, F(-1))
    assert first_negative(p) == 2
    assert sorted(np.roots([float(a) for a in odd_part(p)[::-1]]).real) == pytest.approx(
        [2, 3.5, 9]
    )
    assert positive_roots(p) == 4
    assert never_negative(from_roots(3, 3, -1))
    assert not never_negative(from_roots(3, 4))
    assert first_negative(from_roots(3, 4)) == 3
    assert first_negative((F(0), F(0), F(1))) is None and first_negative(()) is None
    assert first_negative((F(0), F(-1), F(1))) == 0


def test_an_irrational_end_is_a_lower_bound_to_the_digits_asked_for() -> None:
    end = first_negative((F(2), F(0), F(-1)), digits=30)
    assert end is not None and end**2 < 2 < (end + F(2, 10**30)) ** 2


def test_half_planes_against_the_roots() -> None:
    random = np.random.default_rng(0)
    seen = {True: 0, False: 0}
    for _ in range(300):
        p = [int(a) for a in random.integers(1, 9, size=random.integers(2, 6))]
        largest = np.roots(p[::-1]).real.max()
        if abs(largest) > 1e-6:
            assert all_roots_left([F(a) for a in p]) == (largest < 0)
            seen[bool(largest < 0)] += 1
    assert min(seen.values()) > 50
    assert not all_roots_left([F(1), F(0), F(1)])  # on the axis is not to its left
    assert all_roots_left([F(-3), F(-1)]) and not all_roots_left([F(0), F(1)])


def test_inertia_against_eigenvalues() -> None:
    random = np.random.default_rng(1)
    for size in (1, 2, 3, 5, 6):
        for _ in range(20):
            low = random.integers(-2, 3, size=(size, random.integers(1, size + 1)))
            form = low @ np.diag(random.choice([-1, 1], low.shape[1])) @ low.T
            values = np.linalg.eigvalsh(form)
            expected = ((values > 1e-9).sum(), (values < -1e-9).sum())
            assert inertia([[F(int(a)) for a in row] for row in form])[:2] == expected
    assert inertia([[F(0), F(1)], [F(1), F(0)]]) == (1, 1, 0)


def test_rational_functions() -> None:
    f = RationalFunction.of(from_roots(1, 2, 3), from_roots(2, 5))
    assert f.degrees == (2, 1) and f.at_infinity is None
    assert f(F(7)) == F(6 * 4, 2)
    z = np.array([[0.5 + 1j, -3.0]])
    assert f(z) == pytest.approx((z - 1) * (z - 3) / (z - 5))
    assert f.series(3) == (F(-3, 5), F(17, 25), F(-8, 125))
    assert str(pade(1, 2)) == "(1 + 1/3 z) / (1 - 2/3 z + 1/6 z^2)"
    with pytest.raises(ZeroDivisionError):
        RationalFunction.of((F(1),), ())
    with pytest.raises(ValueError, match="denominator is a degree and must be >= 0, got -1"):
        pade(2, -1)


# -- R(z) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "j"), list(itertools.product(range(5), range(5))))
def test_pade_order_and_error_constant(k: int, j: int) -> None:
    f = pade(k, j)
    assert f.degrees == (k, j)
    errors = [F(1, math.factorial(i)) - a for i, a in enumerate(f.series(k + j + 2))]
    assert not any(errors[:-1])
    top = (-1) ** j * math.factorial(k) * math.factorial(j)
    assert errors[-1] == F(top, math.factorial(k + j) * math.factorial(k + j + 1))


@pytest.mark.parametrize("n", SIZES)
def test_every_classical_family_is_its_pade_approximant(n: int) -> None:
    found = {"gauss": gauss_legendre(n), **{f: implicit_method(f, n) for f in IMPLICIT}}
    expected = {
        "gauss": (n, n),
        "radau-ia": (n - 1, n),
        "radau-iia": (n - 1, n),
        "lobatto-iiia": (n - 1, n - 1),
        "lobatto-iiib": (n - 1, n - 1),
        "lobatto-iiic": (n - 2, n),
    }
    for family, method in found.items():
        assert st.stability_function(method) == pade(*expected[family]), family


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_collocation_by_derivatives_of_the_nodal_polynomial(family: str, n: int) -> None:
    """Hairer & Wanner, theorem IV.3.10: Σ M^(s-j)(1) z^j over Σ M^(s-j)(0) z^j."""
    n = max(n, FAMILIES[family].minimum)
    rule = FAMILIES[family].function(n)
    derivatives = [exact_runge_kutta(rule).rule.nodal]
    for _ in range(n):
        derivatives.append(derivative(derivatives[-1]))
    at = [[sum(p), p[0] if p else F(0)] for p in reversed(derivatives)]
    numerator, denominator = zip(*at, strict=True)
    function = st.stability_function(rule)
    assert function == RationalFunction.of(numerator, denominator)
    z = 0.7 - 1.3j  # and the float64 rule has the same
    solved = np.linalg.solve(np.eye(n) - z * rule.integration_matrix, np.ones(n))
    assert function(z) == pytest.approx(1 + z * rule.weights @ solved, rel=1e-12)


@pytest.mark.parametrize("family", IMPLICIT)
@pytest.mark.parametrize("n", [2, 3, 5])
def test_float_coefficients_of_implicit_methods(family: str, n: int) -> None:
    method = implicit_method(family, n)
    a, b = method.coefficients, method.rule.weights
    z = -2.1 + 0.9j
    value = 1 + z * b @ np.linalg.solve(np.eye(n) - z * a, np.ones(n))
    assert st.stability_function(method)(z) == pytest.approx(value, rel=1e-12)
    m = np.diag(b) @ a + a.T @ np.diag(b) - np.outer(b, b)
    values = np.linalg.eigvalsh(m)
    expected = st.stability_report(method).stability_inertia
    assert ((values > 1e-12).sum(), (values < -1e-12).sum()) == expected[:2]


def test_published_coefficients() -> None:
    """Hairer & Wanner, tables IV.5.3, 5.9 and 5.10, Radau IA of order 3, Lobatto IIIB/C order 4."""
    ia = implicit_method("radau-ia", 2).coefficients
    assert ia == pytest.approx(np.array([[1 / 4, -1 / 4], [1 / 4, 5 / 12]]), abs=1e-15)
    b = implicit_method("lobatto-iiib", 3).coefficients
    assert 6 * b == pytest.approx(np.array([[1, -1, 0], [1, 2, 0], [1, 5, 0]]), abs=1e-14)
    c = implicit_method("lobatto-iiic", 3).coefficients
    assert 12 * c == pytest.approx(np.array([[2, -4, 2], [2, 5, -1], [2, 8, 2]]), abs=1e-14)


@pytest.mark.parametrize("name", ["rk4", "heun", "dopri5"])
def test_simple_tableaus_are_recovered_exactly(name: str) -> None:
    method = qf.get_method(name)
    report = st.stability_report(method)
    assert report.exact and report.order == method.order
    taylor = [F(1, math.factorial(k)) for k in range(method.order + 1)]
    assert list(report.function.numerator[: method.order + 1]) == taylor
    extra = {"dopri5": (F(1, 600),)}.get(name, ())
    assert report.function.numerator[method.order + 1 :] == extra


@pytest.mark.parametrize(("name", "degree"), [("tsit5", 6), ("dopri8", 12)])
def test_float_tableaus_say_so(name: str, degree: int) -> None:
    report = st.stability_report(qf.get_method(name))
    assert not report.exact and "1/k!" in report.notes[0]
    assert report.function.degrees == (degree, 0)
    assert report.order == qf.get_method(name).order


def test_a_corrupted_tableau_loses_its_order() -> None:
    a = [list(row) for row in RK4.a]
    a[2][1] += 1 / 128
    wrong = Tableau(tuple(map(tuple, a)), RK4.b, 4, RK4.dense, 4)
    assert st.stability_report(wrong).order == 1  # b·c is no longer 1/2
    assert st.stability_report(RK4).order == 4


@pytest.mark.parametrize("sweeps", range(8))
@pytest.mark.parametrize("maker", [gauss_lobatto, gauss_legendre, radau_right])
def test_sweeps_are_taylor_polynomials_up_to_their_order(maker, sweeps: int) -> None:
    rule = maker(3)
    function = st.stability_function(qf.collocation(rule, sweeps))
    assert function.degrees[1] == 0
    order = min(sweeps + 1, rule.degree + 1)
    taylor = tuple(F(1, math.factorial(k)) for k in range(order + 1))
    assert function.numerator[: order + 1] == taylor
    if sweeps + 1 > order:
        assert function.numerator[order + 1] != F(1, math.factorial(order + 1))
    # more sweeps than order continue the series of the implicit method
    implicit = st.stability_function(rule).series(sweeps + 2)
    padding = (F(0),) * (sweeps + 2 - len(function.numerator))
    assert function.numerator + padding == implicit


# -- what quadflow does ----------------------------------------------------------------------------


def linear_run(method: str | qf.Method, z: complex, steps: int) -> np.ndarray:
    """y_0 ... y_steps of y' = z y with steps of length 1."""
    reached: list[complex] = [1.0]
    qf.solve(
        lambda t, y: z * y,
        torch.tensor([1.0 + 0j], dtype=torch.complex128),
        [0.0, float(steps)],
        method=method,
        step_size=1.0,
        callback=lambda t, y: reached.append(complex(y[0])),
    )
    assert len(reached) == steps + 1
    return np.array(reached)


SWEEPS = (
    *(qf.collocation(gauss_lobatto(4), k) for k in (0, 1, 4, 7)),
    qf.collocation(gauss_legendre(2), 3),
)


@pytest.mark.parametrize("method", (*ONE_STEP, *SWEEPS), ids=str)
@pytest.mark.parametrize("z", [-0.9 + 0.4j, 1.7j])
def test_one_step_methods_multiply_by_their_function(method, z: complex) -> None:
    method = qf.get_method(method)
    reached = linear_run(method, z, 3)
    assert reached[1:] / reached[:-1] == pytest.approx(
        np.full(3, st.stability_function(method)(z)), rel=1e-13
    )
    assert st.characteristic(method, np.array([z, 0])).shape == (2, 1)


@pytest.mark.parametrize("name", MULTISTEP)
@pytest.mark.parametrize("z", [-0.25 + 0.2j, 0.6j, -2 + 1j])
def test_multistep_methods_follow_their_recurrence(name: str, z: complex) -> None:
    roots = st.characteristic(qf.get_method(name), z)
    coefficients = np.poly(roots)  # Σ c_j y_(n-j) = 0 along a solve, once it has started
    size = len(coefficients)
    start = 5
    reached = linear_run(name, z, start + size + 6)
    scale = np.abs(reached).max() * np.abs(coefficients).sum()
    for n in range(start + size - 1, len(reached)):
        defect = coefficients @ reached[n - size + 1 : n + 1][::-1]
        assert abs(defect) < 1e-13 * scale
    # and neither that of another z nor a shorter one, where the second root is large enough to see
    other = np.poly(st.characteristic(qf.get_method(name), 1.01 * z))
    assert abs(other @ reached[start : start + size][::-1]) > 1e-4 * abs(reached[start + size - 1])
    sorted_roots = roots[np.argsort(-np.abs(roots))]
    if size > 2 and abs(sorted_roots[1]) > 0.3:
        fewer = np.poly(np.delete(sorted_roots, 1))
        defect = fewer @ reached[start : start + size - 1][::-1]
        assert abs(defect) > 1e-9 * np.abs(reached[start : start + size]).max()


@pytest.mark.parametrize("name", ["ab2", "ab4", "pec3", "pece2", "gauss3", "lobatto4", "radau5"])
def test_exact_and_numeric_recurrence_agree(name: str) -> None:
    steps = recurrence(qf.get_method(name))
    z = -0.6 + 0.8j
    matrix = np.array(
        [[sum(float(a) * z**k for k, a in enumerate(p)) for p in row] for row in steps.rows]
    )
    assert np.poly(matrix) == pytest.approx(np.poly(steps.roots(z)), abs=1e-11)


@pytest.mark.parametrize("name", MULTISTEP)
def test_principal_roots_have_the_declared_order(name: str) -> None:
    method = qf.get_method(name)
    report = st.stability_report(method)
    assert report.kind == "multistep" and report.function is None
    assert report.order == method.order
    z = np.array(0.05 + 0.02j)
    if method.order <= 6:
        roots = st.characteristic(method, z)
        error = np.exp(z) - roots[np.abs(roots - np.exp(z)).argmin()]
        ratio = error / (float(report.error_constant) * z ** (method.order + 1))
        assert abs(ratio - 1) < 0.5


def test_adams_error_constants() -> None:
    """Hairer, Nørsett & Wanner, table III.1.1 and section III.2."""
    for name, constant in {"ab2": F(5, 12), "ab3": F(3, 8), "ab4": F(251, 720)}.items():
        assert st.stability_report(qf.get_method(name)).error_constant == constant


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pec_is_adams_bashforth_of_one_order_more_on_linear_problems(k: int) -> None:
    z = np.array([-0.2 + 0.1j, 0.4j, -1.0])
    for point in z:
        pec = np.poly(st.characteristic(qf.get_method(f"pec{k}"), point))
        assert pec == pytest.approx(
            np.poly(st.characteristic(qf.get_method(f"ab{k + 1}"), point)), abs=1e-12
        )


# -- properties of the literature ----------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("family", "properties"),
    [
        # A, L, algebraic, symmetric, symplectic, stiffly accurate
        ("gauss", (True, False, True, True, True, False)),
        ("radau-ia", (True, True, True, False, False, False)),
        ("radau-iia", (True, True, True, False, False, True)),
        ("lobatto-iiia", (True, False, False, True, False, True)),
        ("lobatto-iiib", (True, False, False, True, False, False)),
        ("lobatto-iiic", (True, True, True, False, False, True)),
    ],
)
def test_implicit_methods(family: str, properties: tuple[bool, ...], n: int) -> None:
    """Hairer & Wanner, Solving ODEs II, table IV.5.13; Geometric Numerical Integration, IV.2."""
    method = gauss_legendre(n) if family == "gauss" else implicit_method(family, n)
    r = st.stability_report(method)
    assert (
        r.a_stable, r.l_stable, r.algebraically_stable, r.symmetric, r.symplectic,
        r.stiffly_accurate,
    ) == properties  # fmt: skip
    assert r.exact and r.kind == "implicit" and r.weights == (n, 0, 0)
    assert r.real_interval == r.imaginary_interval == math.inf and r.alpha == 90
    order = {"gauss": 2 * n, "radau": 2 * n - 1, "lobatto": 2 * n - 2}[family.partition("-")[0]]
    assert r.order == order
    assert (r.dissipation is None) == r.symmetric


def test_radau_left_collocation_is_not_a_stable() -> None:
    r = st.stability_report(radau_left(2))
    assert (r.a_stable, r.alpha, r.at_infinity) == (False, None, None)
    assert r.real_interval == 6 and r.imaginary_interval == 0


@pytest.mark.parametrize(
    ("family", "stable"),
    [
        ("newton-cotes-closed", range(2, 10)),  # Watts & Shampine 1972 (BIT 12)
        ("newton-cotes-open", range(1, 6)),
        ("clenshaw-curtis", range(2, 13)),
        ("fejer-1", range(1, 13)),
        ("fejer-2", range(1, 13)),
    ],
)
def test_which_interpolatory_families_are_a_stable(family: str, stable: range) -> None:
    for n in range(FAMILIES[family].minimum, 13):
        rule = FAMILIES[family].function(n)
        function = st.stability_function(rule)
        r = st.stability_report(rule)
        assert r.a_stable == (n in stable), n
        assert r.symmetric and not r.l_stable and r.imaginary_interval == math.inf
        assert (function.poles().real.min() > 0) == r.a_stable
        # of these only the midpoint rule is a Gauss method
        assert r.algebraically_stable == (n == 1)
        assert (r.alpha == 90) == r.a_stable


@pytest.mark.parametrize("n", [10, 12, 14])
def test_the_angle_separates_stable_from_unstable_rays(n: int) -> None:
    rule = newton_cotes_closed(n)
    alpha = st.stability_report(rule).alpha
    assert alpha is not None and 70 < alpha < 90
    r = np.geomspace(1e-1, 1e4, 200_001)
    for angle, stable in ((alpha - 0.01, True), (alpha + 0.01, False)):
        z = -r * np.exp(1j * np.deg2rad(angle))
        assert (st.spectral_radius(rule, z).max() <= 1 + 1e-12) == stable


@pytest.mark.parametrize(
    ("method", "real", "imaginary"),
    [
        ("euler", 2, 0),
        ("heun", 2, 0),
        ("midpoint", 2, 0),
        ("rk4", 2.785293563405282, 2 * math.sqrt(2)),
        (qf.collocation(gauss_lobatto(4), 2), 2.512745326618332, math.sqrt(3)),
        (qf.collocation(gauss_legendre(2), 3), 2.785293563405282, 2 * math.sqrt(2)),
        ("dopri5", 3.306567892634, 0.99718900863),
        ("ab2", 1, 0),
        ("ab3", 6 / 11, 0.723627226987),
        ("ab4", 3 / 10, 0.429987079910),
        ("pece1", 2, 0),
    ],
    ids=str,
)
def test_intervals(method, real: float, imaginary: float) -> None:
    """Closed forms, Hairer & Wanner, section IV.2 and V.1, and the scan of a fine grid below."""
    method = qf.get_method(method)
    r = st.stability_report(method)
    assert r.real_interval == pytest.approx(real, rel=2e-11)
    assert r.imaginary_interval == pytest.approx(imaginary, rel=2e-11)
    for direction, end in ((-1, r.real_interval), (1j, r.imaginary_interval)):
        inside = st.spectral_radius(method, direction * np.linspace(0, end, 1001))
        assert inside.max() <= 1 + 1e-11
        outside = st.spectral_radius(method, direction * (end + 1e-2))
        assert outside > 1


@pytest.mark.parametrize("name", MULTISTEP)
def test_intervals_of_multistep_methods_end_where_a_root_leaves(name: str) -> None:
    method = qf.get_method(name)
    r = st.stability_report(method)
    assert 0 < r.real_interval < 10
    for direction, end in ((-1, r.real_interval), (1j, r.imaginary_interval)):
        inside = st.spectral_radius(method, direction * np.linspace(0, end, 501))
        assert inside.max() <= 1 + 1e-10
        beyond = st.spectral_radius(method, direction * (end + np.linspace(0.01, 1, 100)))
        assert beyond.max() > 1 + 1e-9
        if end:  # where it ends, a root is on the circle
            assert inside[-1] == pytest.approx(1, abs=1e-9)
    if r.imaginary_interval == 0:  # decided by the exact sign of the dissipation
        assert r.dissipation is not None and r.dissipation[1] > 0


@pytest.mark.parametrize("method", ["rk4", "dopri5", radau_right(2), clenshaw_curtis(5)], ids=str)
def test_dissipation_and_dispersion(method) -> None:
    method = qf.get_method(method) if isinstance(method, str) else method
    r = st.stability_report(method)
    y = 0.05
    value = st.stability_function(method)(1j * y)
    if r.dissipation is None:
        assert abs(value) == pytest.approx(1, abs=1e-15)
    else:
        power, constant = r.dissipation
        assert (abs(value) - 1) == pytest.approx(float(constant) * y**power, rel=0.05, abs=4e-16)
    power, constant = r.dispersion
    assert np.angle(value) - y == pytest.approx(float(constant) * y**power, rel=0.05, abs=4e-17)


# -- nodes taken as the float64 numbers they are ---------------------------------------------------


def test_a_rule_from_float_nodes_is_not_called_exact() -> None:
    nodes = gauss_legendre(3).nodes
    r = st.stability_report(rule_from_nodes(nodes))
    assert not r.exact and "rounding" in r.notes[0]
    assert st.stability_function(rule_from_nodes(nodes)) != pade(3, 3)
    assert r.order is not None and r.order < 6
    moved = nodes.copy()
    moved[1] += 1e-3
    z = 1 + 2j
    near, far = (
        abs(st.stability_function(rule_from_nodes(c))(z) - pade(3, 3)(z)) for c in (nodes, moved)
    )
    assert near < 1e-14 < 1e-6 < far


def test_lebesgue_constants() -> None:
    assert lebesgue_constant(np.array([0.4])) == 1
    assert lebesgue_constant(np.linspace(0, 1, 3)) == pytest.approx(1.25, rel=1e-12)
    # the cubic case in closed form: (14 sqrt(7) + 7) / 27
    assert lebesgue_constant(np.linspace(0, 1, 4)) == pytest.approx(
        (14 * math.sqrt(7) + 7) / 27, rel=1e-12
    )
    for n in (2, 5, 12):  # at an end, for the zeros of T_n (Rivlin, The Chebyshev Polynomials)
        k = np.arange(1, n + 1)
        expected = (1 / np.tan((2 * k - 1) * np.pi / (4 * n))).sum() / n
        assert lebesgue_constant(fejer_first(n).nodes) == pytest.approx(expected, rel=1e-12)
    x = np.linspace(0, 1, 20001)
    for nodes in (gauss_lobatto(9).nodes, newton_cotes_closed(12).nodes):
        sampled = lebesgue_function(nodes, x).max()
        constant = lebesgue_constant(nodes)
        assert sampled * (1 - 1e-12) <= constant <= sampled * (1 + 1e-5)


def test_negative_weights_are_counted() -> None:
    assert st.stability_report(newton_cotes_closed(9)).weights == (6, 3, 0)
    assert st.stability_report(newton_cotes_closed(10)).weights == (10, 0, 0)


# -- reports and refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    ["euler", "tsit5", "ab3", "gauss2", gauss_lobatto(4), newton_cotes_closed(10)],
    ids=str,
)
def test_reports_print_and_serialise(method) -> None:
    method = qf.get_method(method) if isinstance(method, str) else method
    report = st.stability_report(method)
    text = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert text["name"] == report.name and text["a_stable"] == report.a_stable
    if report.function is not None:
        read = [tuple(map(F, text["function"][k])) for k in ("numerator", "denominator")]
        assert RationalFunction(*read) == report.function
    printed = str(report)
    assert report.name in printed and "real interval" in printed and "None" not in printed


def test_a_flat_crossing_admits_its_error() -> None:
    r = st.stability_report(qf.get_method("gauss8"))
    # by the exact recurrence in 60 digits the largest root passes 1 between these
    assert 2.15 < r.imaginary_interval < 2.16
    error = float(r.notes[1].rpartition("and ")[2].split()[0])
    assert 1e-9 < error < 1e-6


def test_the_printed_report_of_lobatto() -> None:
    printed = str(st.stability_report(gauss_lobatto(3)))
    assert "(1 + 1/2 z + 1/12 z^2) / (1 - 1/2 z + 1/12 z^2)" in printed
    assert "4: exp(z) - R = 1/720 z^5 + ..." in printed
    assert (
        "algebraically stable    no: BA + A'B - bb' has 1 positive, 1 negative, 1 zero" in printed
    )


def test_refusals() -> None:
    with pytest.raises(TypeError, match=r"ab2 is a multistep method .* characteristic"):
        st.stability_function(qf.get_method("ab2"))
    oracle = anchors(OracleInterpolant(lambda t: torch.zeros(1)), gauss_legendre(2), name="oracle")
    for refused in (st.stability_report, lambda m: st.characteristic(m, 1j)):
        with pytest.raises(TypeError, match=r"oracle: its interpolant is .*Oracle"):
            refused(oracle)
    with pytest.raises(TypeError, match="must be a QuadratureRule"):
        st.stability_report("rk4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'lobatto-iiid' is unknown: did you mean 'lobatto-iii"):
        implicit_method("lobatto-iiid", 3)
    with pytest.raises(ValueError, match="gauss-lobatto needs n >= 2, got 1"):
        implicit_method("lobatto-iiic", 1)


def test_sums_of_rational_polynomials() -> None:
    """|Q|² - |P|² of a symmetric R is the zero polynomial, not a small one."""
    p = st.stability_function(clenshaw_curtis(6))
    mirror = tuple(a * (-1) ** k for k, a in enumerate(p.numerator))
    assert not any(poly_add(mirror, poly_scale(p.denominator, F(-1))))
