"""Every method of the registry is proved to be what it says it is; none gets in without."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from textbook_formulas import adams_bashforth, adams_moulton, bdf

import quadflow as qf
from quadflow.adapters.cli.main import main
from quadflow.analysis.exact import multistep
from quadflow.analysis.exact.methods import exact_step
from quadflow.analysis.exact.multistep import LinearMultistep
from quadflow.analysis.exact.order_conditions import order_conditions
from quadflow.analysis.exact.rational_numbers import rational, rational_array
from quadflow.analysis.exact.rules import exact_rule
from quadflow.analysis.exact.runge_kutta import exact_runge_kutta, inertia
from quadflow.analysis.exact.trees import all_trees
from quadflow.analysis.proofs.certificates import certify, certify_solver
from quadflow.analysis.solvers.run import Solver
from quadflow.analysis.solvers.solver import as_solver
from quadflow.plans.adams.method import VariableOrderMethod
from quadflow.plans.anchors.method import AnchorsMethod
from quadflow.plans.stages.method import StagesMethod
from quadflow.plans.sweeps.method import SweepsMethod
from quadflow.rules.pairs import DOPRI5, TSIT5
from quadflow.rules.quadrature import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore::quadflow.NegativeWeightsWarning")


# of variable order: tests/core/plans/test_variable_order.py
FIXED_ORDER = sorted(set(qf.methods()) - {"adams"})


@pytest.mark.parametrize("name", FIXED_ORDER)
def test_every_registered_method_is_proved(name: str) -> None:
    """Order, dense order, estimate, properties: declared and proved are the same, both ways.

    A method that is registered appears here by itself.
    """
    certificate = certify(name)
    assert certificate.agrees, certificate
    assert certificate.order == qf.get_method(name).order
    assert certificate.failing is not None, "an upper bound must be shown, not assumed"


@pytest.mark.parametrize("name", FIXED_ORDER)
def test_the_code_that_runs_has_the_order_that_is_proved(name: str) -> None:
    """One solve of the tree problem by `quadflow.solve` itself, start-up included."""
    method = qf.get_method(name)
    assert method.order is not None
    steps = 6 if isinstance(method, AnchorsMethod) else 3
    highest = min(method.order + 1, 9)
    found = certify_solver(name, highest=highest, steps=steps)
    assert found.order == min(method.order, highest), found
    assert (found.failing is None) == (method.order >= highest)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_collocation_on_every_family(family: str) -> None:
    """Order d + 1, both bounds, by exact arithmetic; the float64 arrays say the same."""
    info = FAMILIES[family]
    for n in range(info.minimum, 6):
        rule = info.function(n)
        certificate = certify(rule, highest=7)
        assert certificate.agrees, certificate
        assert certificate.order == rule.degree + 1
        assert certificate.arithmetic == "exact rational numbers"
        assert certificate.failing is not None
        numeric = order_conditions(rule.integration_matrix, rule.weights, highest=7)
        assert numeric.order == min(rule.degree + 1, 7)


@pytest.mark.parametrize("family", ["gauss-legendre", "gauss-lobatto", "radau-right", "fejer-2"])
@pytest.mark.parametrize("guess", ["constant", "extrapolated"])
def test_sweeps_of_every_number(family: str, guess: str) -> None:
    """min(K+1, d+1) and min(K+n, d+1), K past saturation; on varying steps as well."""
    for n in (2, 3):
        rule = FAMILIES[family].function(n)
        least = 0 if guess == "constant" else 1
        for sweeps in range(least, rule.degree + 2):
            certificate = certify(qf.collocation(rule, sweeps, guess=guess))
            assert certificate.agrees, certificate
            expected = min(sweeps + (1 if guess == "constant" else n), rule.degree + 1)
            assert certificate.order == expected
            if guess == "extrapolated":
                assert certificate.varying_order == expected


def test_orders_beyond_the_trees_follow_from_theorems() -> None:
    """Gauss-8 has order 16 as collocation; nine sweeps short of that, what the sweeps reach."""
    full = certify(qf.gauss_legendre(8), highest=6)
    assert full.order == 16 and "B(16), C(8), D(8)" in full.proof
    assert full.defect == pytest.approx(
        float(-(Fraction(math.factorial(8)) ** 4) / (17 * Fraction(math.factorial(16)) ** 2))
    )
    fewer = certify(qf.collocation(qf.gauss_legendre(8), 3, guess="extrapolated"), highest=6)
    assert fewer.order == 11 and fewer.defect != 0
    constant = certify(qf.collocation(qf.gauss_legendre(8), 11), highest=6)
    assert constant.order == 12
    # where every tree is in reach, the theorem and the trees say the same
    for sweeps in (1, 2, 3):
        method = qf.collocation(qf.gauss_legendre(3), sweeps, guess="extrapolated")
        by_theorem, by_trees = certify(method, highest=2), certify(method, highest=8)
        assert by_theorem.order == by_trees.order == 3 + sweeps


def test_principal_errors_of_the_literature() -> None:
    """Kutta's method 0.01450, Dormand & Prince 3.991e-4 (their 1980 paper)."""
    assert certify("rk4").principal_error == pytest.approx(1.4504e-2, rel=1e-4)
    assert certify("dopri5").principal_error == pytest.approx(3.991e-4, rel=1e-3)
    assert certify("dopri5").arithmetic == "exact rational numbers"
    # Tsitouras's aim: a smaller one than Dormand & Prince's
    assert certify("tsit5").principal_error < certify("dopri5").principal_error / 2
    assert "float64" in certify("dopri8").arithmetic


def test_local_seven_against_global_six() -> None:
    """Lobatto-4: pure quadrature fails first at order 7 (local O(h^7)), and so does the method."""
    rule = qf.gauss_lobatto(4)
    certificate = certify(rule)
    assert certificate.order == 6
    exact = exact_rule(rule)
    power = exact.reduce((Fraction(0),) * 6 + (Fraction(1),))
    assert exact.degree == 5 and exact.weigh(power) != Fraction(1, 7)


# -- what is wrong is found ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "field", "value", "words"),
    [
        ("rk4", "order", 5, "order declared 5, proved 4"),
        ("dopri5", "order", 4, "order declared 4, proved 5"),
        ("dopri5", "dense_order", 4, "dense_order declared 4, proved 5"),
        ("dopri8", "error_order", 7, "error_order declared 7, proved 8"),
        ("pec2", "order", 2, "order declared 2, proved 3"),
        ("gauss3", "error_order", 3, "error_order declared 3, proved 4"),
        ("gauss3", "order", 5, "order declared 5, proved 6"),
    ],
)
def test_wrong_declarations_are_named(name: str, field: str, value: int, words: str) -> None:
    certificate = certify(dataclasses.replace(qf.get_method(name), **{field: value}))
    assert not certificate.agrees
    assert words in certificate.disagreements, certificate.disagreements


def test_a_rule_of_too_low_degree_shows() -> None:
    """Adams-Bashforth 4 integrated by the midpoint rule has order 2, and says so."""
    method = qf.adams(4, rule=qf.midpoint_rule())
    certificate = certify(method)
    assert certificate.order == 2 and certificate.agrees
    predictor, corrector = multistep.predictor_and_corrector(method)
    assert predictor.order == 2 and corrector is None


@pytest.mark.parametrize("faulty", ["nodes", "matrix", "weights"])
def test_a_fault_in_running_code_shows(faulty: str) -> None:
    """Kutta's method as a callable with one number off: the black box sees it."""

    def solver(f, y0, grid):  # type: ignore[no-untyped-def]
        y = y0
        for t, t1 in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
            h, off = t1 - t, 1e-6
            c3 = 0.5 + off * (faulty == "nodes")
            a32 = 0.5 + off * (faulty == "matrix")
            b4 = 1 / 6 + off * (faulty == "weights")
            time = [torch.tensor(t + c * h, dtype=y.dtype) for c in (0, 0.5, c3, 1)]
            k1 = f(time[0], y)
            k2 = f(time[1], y + h / 2 * k1)
            k3 = f(time[2], y + h * a32 * k2)
            k4 = f(time[3], y + h * k3)
            y = y + h * (k1 / 6 + k2 / 3 + k3 / 3 + b4 * k4)
        return y

    found = certify_solver(solver, highest=5)
    assert found.order is not None and found.order < 4, found


@pytest.mark.parametrize(
    ("name", "order"),
    [("torchdiffeq:rk4", 4), ("torchdiffeq:dopri5", 5), ("torchdiffeq:dopri8", 8),
     ("torchdiffeq:bosh3", 3), ("scipy:RK23", 3), ("scipy:RK45", 5), ("scipy:DOP853", 8)],
)  # fmt: skip
def test_peers(name: str, order: int) -> None:
    found = certify_solver(name, highest=9)
    assert found.order == order, found
    assert str(found).startswith(f"{name}: order {order}")


def test_a_solver_that_gives_nothing_is_reported() -> None:
    def broken(f, y0, grid):  # type: ignore[no-untyped-def]
        raise RuntimeError("no luck")

    found = certify_solver(broken)
    assert found.order is None and found.failure is not None and "no luck" in found.failure
    with pytest.raises(ValueError, match="takes no fixed steps"):
        certify_solver("scipy:LSODA")
    with pytest.raises(ValueError, match="must be >= 1"):
        certify_solver("rk4", steps=0)


def test_what_cannot_be_certified_is_refused() -> None:
    with pytest.raises(ValueError, match="declares no order"):
        certify(qf.anchors(qf.OracleInterpolant(lambda t: torch.zeros(1)), qf.gauss_lobatto(4)))
    with pytest.raises(TypeError, match="method must be a name or a Method"):
        certify(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="highest must be an order >= 2"):
        certify("rk4", highest=1)
    with pytest.raises(TypeError, match="must be a QuadratureRule or a Method"):
        exact_step("rk4", all_trees(3))


def test_certificates_print_and_serialise() -> None:
    for method in ("dopri5", "pec3", qf.radau_right(3)):
        certificate = certify(method)
        again = json.loads(json.dumps(certificate.to_dict()))
        assert again["order"] == certificate.order
        text = str(certificate)
        assert f"order                   {certificate.order}" in text and "verdict" in text


# -- the pieces ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_exact_rules_are_the_rules(family: str) -> None:
    """Nodal polynomial, degree, symmetry and sign of weights against the float64 rule."""
    info = FAMILIES[family]
    for n in range(info.minimum, 13):
        rule = info.function(n)
        exact = exact_rule(rule)
        assert exact.exact and exact.n == n and exact.degree == rule.degree
        algebra = exact_runge_kutta(rule)
        assert algebra.is_symmetric() == rule.is_symmetric
        assert (inertia(algebra.gram) == (n, 0, 0)) == rule.has_positive_weights
        nodes = np.array([float(c) for c in exact.nodes(30)])  # type: ignore[arg-type]
        assert np.abs(nodes - rule.nodes).max() < 2e-16
        # A and b acting on x^k, seen at the nodes
        for k in range(n):
            power = exact.reduce((Fraction(0),) * k + (Fraction(1),))
            integral = np.polynomial.Polynomial([float(a) for a in exact.integrate(power)])
            want = rule.integration_matrix @ rule.nodes**k
            assert np.abs(integral(rule.nodes) - want).max() < 1e-9
            assert float(exact.weigh(power)) == pytest.approx(rule.weights @ rule.nodes**k)


def test_a_borrowed_family_name_is_not_believed() -> None:
    rule = qf.rule_from_nodes([0.2, 0.8], family="gauss-legendre")
    assert not exact_rule(rule).exact
    assert certify(rule).order == 2


def test_reduction_of_high_powers() -> None:
    """x^k modulo M has the values of x^k at rational nodes."""
    exact = exact_rule(qf.newton_cotes(4))
    for k in (3, 4, 7, 8, 9, 15):
        reduced = exact.reduce((Fraction(0),) * k + (Fraction(1),))
        for i in range(4):
            x = Fraction(i, 3)
            assert sum(a * x**j for j, a in enumerate(reduced)) == x**k


def test_rationals_are_recovered_or_not() -> None:
    assert rational(44 / 45) == Fraction(44, 45)
    assert rational(-25360 / 2187) == Fraction(-25360, 2187)
    numbers, exact = rational_array(DOPRI5.b)
    assert exact and numbers[4] == Fraction(-2187, 6784) and sum(numbers) == 1
    numbers, exact = rational_array(TSIT5.b)  # published as decimals of irrational numbers
    assert not exact and all(float(x) == y for x, y in zip(numbers, TSIT5.b, strict=True))
    assert rational(math.sqrt(2)) is None


@pytest.mark.parametrize("k", range(1, 8))
def test_adams_and_bdf_formulas(k: int) -> None:
    """Orders and error constants of the textbooks; Dahlquist's barrier for BDF-7."""
    bashforth, moulton = adams_bashforth(k), adams_moulton(k)
    assert (bashforth.order, moulton.order) == (k, k + 1)
    constants = [Fraction(1, 2), Fraction(5, 12), Fraction(3, 8), Fraction(251, 720),
                 Fraction(95, 288), Fraction(19087, 60480), Fraction(5257, 17280)]  # fmt: skip
    assert bashforth.error_constant == constants[k - 1]
    assert bashforth.zero_stable and moulton.zero_stable
    backward = bdf(k)
    assert backward.order == k and backward.error_constant == Fraction(-1, k + 1)
    assert backward.zero_stable == (k <= 6)


def test_the_root_condition() -> None:
    """Unstable though of order 3; double root on the circle; Milne's weakly stable rule."""
    explosive = LinearMultistep((-5, 4, 1), (2, 4, 0))  # type: ignore[arg-type]
    assert explosive.order == 3 and not explosive.zero_stable
    double = LinearMultistep((1, -2, 1), (0, 0, 0))  # type: ignore[arg-type]
    assert [m for _, _, m in double.roots()] == [2] and not double.zero_stable
    third = Fraction(1, 3)
    milne = LinearMultistep((-1, 0, 1), (third, 4 * third, third))  # type: ignore[arg-type]
    assert milne.order == 4 and milne.zero_stable
    with pytest.raises(ValueError, match="last alpha must be 1, got 2"):
        LinearMultistep((-2, 2), (1, 0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got 2 and 3"):
        LinearMultistep((-1, 1), (1, 0, 0))  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("correction", [None, "PEC", "PECE"])
def test_the_anchors_plan_is_adams(k: int, correction: str | None) -> None:
    """Its formulas, worked out from rule and interpolant, are Adams-Bashforth and -Moulton."""
    predictor, corrector = multistep.predictor_and_corrector(qf.adams(k, correction))
    assert predictor.beta == adams_bashforth(k).beta
    if correction is not None:
        assert corrector is not None and corrector.beta == adams_moulton(k).beta
    certificate = certify(qf.adams(k, correction))
    assert certificate.agrees and certificate.zero_stable


def test_every_plan_occurs_in_the_registry() -> None:
    plans = {type(m) for m in qf.methods().values()}
    assert plans == {StagesMethod, SweepsMethod, AnchorsMethod, VariableOrderMethod}
    solver = as_solver("rk4")
    assert isinstance(solver, Solver) and solver.order == 4


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.json"
    arguments = ["certify", "gauss-lobatto", "--nodes", "4", "--json", str(file)]
    assert main(arguments) == 0
    assert "order                   6" in capsys.readouterr().out
    assert json.loads(file.read_text(encoding="utf-8"))[0]["order"] == 6
    assert main(["certify", "gauss-legendre", "--nodes", "2", "--sweeps", "2"]) == 0
    assert "order                   3" in capsys.readouterr().out
    assert main(["certify", "scipy:RK45", "--highest", "6", "--json", str(file)]) == 0
    assert "scipy:RK45: order 5" in capsys.readouterr().out
    assert json.loads(file.read_text(encoding="utf-8"))["failing"] == "[[[[[*]]]]]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("certify rk5", "did you mean 'rk4'"),
        ("certify rk4 --nodes 3", "--nodes 3: rk4 is a registered method"),
        ("certify all --sweeps 2", "--sweeps 2: all is every registered method"),
        ("certify scipy:RK45 --nodes 3", "another library's solver"),
        ("certify scipy:RK46", "did you mean 'RK45'"),
        ("certify gauss-lobatto", "say how many nodes"),
        ("certify rk4 --json nowhere/c.json", "--json nowhere/c.json: the folder nowhere"),
        ("certify rk4 --highest 1", "highest must be an order >= 2, got 1"),
    ],
)
def test_the_command_refuses(
    arguments: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    assert words in capsys.readouterr().err


def test_the_command_fails_where_declared_and_proved_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A method that is registered with a wrong order: seen by name, with exit code 2."""
    registry = importlib.import_module("quadflow.plans.registry")._REGISTRY
    wrong = dataclasses.replace(qf.get_method("rk4"), order=5)
    monkeypatch.setitem(registry, "braggart", lambda: dataclasses.replace(wrong, name="braggart"))
    assert main(["certify", "braggart"]) == 2
    printed = capsys.readouterr()
    assert "order declared 5, proved 4" in printed.out
    assert "declared and proved differ: braggart" in printed.err
