"""Measured orders of every kind of error, of windows that choose themselves, and of failures."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import quadflow as qf
from quadflow.adapters.cli.main import make_parser
from quadflow.analysis import get_problem
from quadflow.analysis.exact.mp_backend import ImplicitCollocation
from quadflow.analysis.orders.convergence import measured_order, window
from quadflow.analysis.orders.error_kinds import KINDS, make_kind
from quadflow.analysis.orders.kind import Sample
from quadflow.analysis.orders.measurement import OrderMeasurement
from quadflow.analysis.orders.whole_solves import variational_gradient
from quadflow.analysis.problems.problem import Problem, vector
from quadflow.analysis.solvers.run import Run, Solver
from quadflow.analysis.solvers.solver import as_solver

DRIVEN = get_problem("driven")
LOBATTO4 = qf.collocation(qf.gauss_lobatto(4), 6, guess="extrapolated")


def law(errors) -> Solver:
    """A solver whose endpoint errors are errors(n), so that only the fitting is tried."""

    def fixed(problem: Problem, grid: np.ndarray) -> Run:
        error = errors(len(grid) - 1)
        if error is None:
            return Run(None, 1, 1, 0.0, "told to fail")
        scale = float(problem.end.abs().max())
        shift = torch.zeros_like(problem.end)
        shift[0] = error * scale
        return Run(problem.end + shift, 1, 1, 0.0)

    return Solver("law", 3, fixed, None)


# -- what is measured ------------------------------------------------------------------------------

ORDERS = [
    ("euler", "endpoint", 1),
    ("rk4", "endpoint", 4),
    (LOBATTO4, "endpoint", 6),
    ("dopri8", "endpoint", 8),
    ("rk4", "dense", 4),
    (LOBATTO4, "dense", 5),
    ("rk4", "event", 4),
    ("rk4", "local", 5),
    ("pec3", "local", 5),
    ("lobatto4", "local", 7),
    ("dopri5", "estimate", 5),
    ("pec3", "estimate", 4),
    ("lobatto4", "estimate", 5),
    ("scipy:RK23", "endpoint", 3),
    ("scipy:DOP853", "local", 9),
    ("torchdiffeq:bosh3", "dense", 2),  # its mid-point is y0 + h k2 / 2, which is O(h^2)
]


@pytest.mark.parametrize(("method", "of", "order"), ORDERS)
def test_orders_by_windows_that_choose_themselves(method, of: str, order: int) -> None:
    result = measured_order(method, DRIVEN, of=of)
    assert result.trusted, str(result)
    assert order - 0.16 < result.order < order + 0.16, str(result)
    assert result.half_width < 0.2 and result.residual < 0.06
    # torchdiffeq declares no order between the steps
    assert result.promised == (None if method == "torchdiffeq:bosh3" else order)
    assert result.agrees in (True, None)
    assert result.steps == tuple(sorted(result.steps)) and sum(result.steps) <= 12_000
    if of == "estimate":
        used = [r for r, used in zip(result.ratios, result.used, strict=True) if used]
        # none where the true error, of a higher order, is rounding already
        judged = [r for r in used if not math.isnan(r)]
        assert len(judged) >= 2 and all(0.05 < r < math.inf for r in judged)


@pytest.mark.parametrize(
    ("method", "order"), [("rk4", 4), ("lobatto4", 6), ("torchdiffeq:midpoint", 2)]
)
def test_order_of_the_gradient(method: str, order: int) -> None:
    result = measured_order(method, DRIVEN, (64, 91, 128, 181), of="gradient")
    assert result.promised == order and result.agrees
    assert order - 0.15 < result.order < order + 0.15, str(result)


def test_the_exact_velocity_shows_the_rules_own_local_order() -> None:
    """Local order 7 of 4-point Gauss-Lobatto, 2n-1, where its global order is 6."""

    def velocity(t: float) -> torch.Tensor:
        return DRIVEN.f(torch.tensor(t, dtype=torch.float64), DRIVEN.solution(t))

    for n in (3, 4):
        oracle = qf.anchors(qf.OracleInterpolant(velocity), qf.gauss_lobatto(n), name="oracle")
        result = measured_order(oracle, DRIVEN, of="local")
        assert result.promised == 2 * n - 1
        assert 2 * n - 1.15 < result.order < 2 * n - 0.85, str(result)


def test_a_callable_of_ones_own() -> None:
    def heun(rhs, y0, grid):
        y, h = y0.clone(), grid[1] - grid[0]
        states = [y]
        for t in grid[:-1]:
            first = rhs(t, y)
            y = y + h / 2 * (first + rhs(t + h, y + h * first))
            states.append(y)

        def between(t):
            i = min(int((t - grid[0]) / h), len(grid) - 2)
            x = (t - grid[i]) / h
            return (1 - x) * states[i] + x * states[i + 1]

        return y, between

    end, dense = (measured_order(heun, DRIVEN, of=of) for of in ("endpoint", "dense"))
    assert 1.9 < end.order < 2.1 and 1.9 < dense.order < 2.1
    assert end.promised is None and end.agrees is None and end.verdict == "none is promised"
    gradient = measured_order(heun, DRIVEN, (32, 45, 64, 91), of="gradient")
    assert 1.85 < gradient.order < 2.15, str(gradient)


def test_the_reference_gradient_agrees_with_a_known_one() -> None:
    """y' = A(t) y with y = y0 exp(sin t): the gradient of w·y(T) is w exp(sin T)."""
    problem = Problem("known", "", "", lambda t, y, m: (y[0] * m.cos(t), y[1] * m.cos(t)),
                      vector(1.0, 2.0), (0.0, 2.0))  # fmt: skip
    weights = vector(0.3, -0.7)
    gradient, error = variational_gradient(problem, weights)
    assert torch.allclose(gradient, weights * math.exp(math.sin(2)), rtol=1e-12)
    assert error < 1e-11


def test_estimates_come_with_their_ratio_to_the_true_error() -> None:
    """Euler in Heun: the estimate is O(h²) where the true error is O(h³), so the ratio grows."""
    result = measured_order("heun", DRIVEN, (20, 40, 80, 160), of="estimate")
    ratios = np.array(result.ratios)
    assert 1.8 < ratios[-1] / ratios[-2] < 2.2
    assert "est/true" in str(result)


# -- windows ---------------------------------------------------------------------------------------


def test_the_window_of_step_numbers() -> None:
    steps = [n for n, _ in zip(window(), range(9), strict=False)]
    assert steps == [4, 6, 8, 11, 16, 23, 32, 45, 64]


def test_coarse_and_rounding_points_are_dropped_with_their_reason() -> None:
    result = measured_order(law(lambda n: n**-3.0 * (1 + (8 / n) ** 4) + 1e-11 * (n % 3 + 1)),
                            DRIVEN)  # fmt: skip
    assert 2.9 < result.order < 3.1 and result.agrees
    kinds = list(dict.fromkeys(result.notes))
    assert kinds[0] == "pre-asymptotic" and "used" in kinds
    assert all(u == (n == "used") for u, n in zip(result.used, result.notes, strict=True))
    assert len(result.slopes) == sum(result.used) - 1


def test_a_large_floor_of_rounding_is_found_where_errors_cease_to_fall() -> None:
    result = measured_order(law(lambda n: n**-3.5 * 0.1 + 3e-10 * (1 + (n % 2))), DRIVEN)
    assert 3.4 < result.order < 3.6, str(result)
    assert result.notes.count("rounding") >= 3
    used = [e for e, u in zip(result.errors, result.used, strict=True) if u]
    assert min(used) > 3e-9


def test_a_higher_order_than_promised_is_no_agreement_either() -> None:
    high, low = (measured_order(law(lambda n, p=p: n**-p), DRIVEN) for p in (4.0, 2.0))
    assert high.trusted and high.agrees is False and high.verdict.startswith("higher")
    assert low.trusted and low.agrees is False and low.verdict.startswith("LOWER")


def test_points_off_a_line_have_no_order() -> None:
    result = measured_order(law(lambda n: n**-3.0 * (1 + 0.9 * math.sin(5 * n))), DRIVEN,
                            (10, 14, 20, 28, 40, 57))  # fmt: skip
    assert not result.trusted and math.isnan(result.order) and math.isfinite(result.slope)
    assert "off a line" in result.reason and result.agrees is None
    assert "not measured" in str(result)
    assert all(math.isnan(x) for x in result.interval)


def test_slopes_that_are_on_their_way_elsewhere_have_no_order() -> None:
    """Order 5 whose sixth-order term is a hundred times as large: 5.6 is no order."""
    result = measured_order(law(lambda n: 0.1 * n**-5.0 + 5 * n**-6.0), DRIVEN,
                            (23, 32, 45, 64, 91))  # fmt: skip
    assert 5.3 < result.slope < 5.7
    assert not result.trusted and "slopes still fall, from 5." in result.reason


def test_too_few_points_failures_and_a_bad_reference_are_told_apart() -> None:
    three = measured_order(law(lambda n: n**-3.0), DRIVEN, (10, 20, 40))
    assert three.slope == pytest.approx(3) and math.isnan(three.order)
    assert "3 usable points, 4 are needed" in three.reason
    failing = measured_order(law(lambda n: None if n < 30 else n**-3.0), DRIVEN)
    assert failing.agrees and failing.notes[0] == "failed: told to fail"
    assert failing.errors[0] == math.inf
    never = measured_order(law(lambda n: None), DRIVEN)
    assert math.isnan(never.order) and math.isnan(never.slope) and "told to fail" in never.reason
    vague = dataclasses.replace(DRIVEN, end_error=1e-4)
    lost = measured_order(law(lambda n: n**-3.0), vague)
    assert (
        not lost.trusted or min(e for e, u in zip(lost.errors, lost.used, strict=True) if u) > 1e-3
    )
    assert lost.notes[-1] == "reference"
    worse = measured_order(law(lambda n: n**-3.0), dataclasses.replace(DRIVEN, end_error=1e-2))
    assert not worse.trusted and "the reference is only good to 1.0e-02" in worse.reason


def test_the_confidence_interval_is_students() -> None:
    """Four points by hand: slope 2 ± t(2) s / sqrt(Sxx)."""
    noise = dict(zip((8, 16, 32, 64), (0.02, -0.01, 0.015, -0.02), strict=True))
    result = measured_order(law(lambda n: n**-2.0 * math.exp(noise[n])), DRIVEN, (8, 16, 32, 64))
    x, y = np.log([8, 16, 32, 64]), -2 * np.log([8, 16, 32, 64]) + list(noise.values())
    fit, covariance = np.polyfit(x, y, 1, cov="unscaled")
    rest = y - np.polyval(fit, x)
    expected = 4.302652729 * math.sqrt(covariance[0, 0] * (rest @ rest) / 2)
    assert result.half_width == pytest.approx(expected, rel=1e-8)
    assert result.order == pytest.approx(-fit[0], rel=1e-9)


def test_peer_results_that_are_not_what_they_promise() -> None:
    """dopri8 of torchdiffeq between the steps: a quartic, order 5."""
    result = measured_order("torchdiffeq:dopri8", DRIVEN, (23, 32, 45, 64, 91), of="dense")
    assert 4.8 < result.order < 5.2


# -- what cannot be had ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "of", "reason"),
    [
        ("rk4", "estimate", "has no error estimate"),
        ("scipy:RK45", "estimate", "does not give its error estimates"),
        ("scipy:RK45", "gradient", "carries no gradient"),
        ("scipy:BDF", "endpoint", "cannot be told its steps"),
        (lambda rhs, y0, grid: [rhs(t, y0) for t in grid][-1], "dense", "no states between"),
    ],
)
def test_what_cannot_be_had_is_a_reason_not_a_number(method, of: str, reason: str) -> None:
    result = measured_order(method, DRIVEN, of=of)
    assert result.steps == () and not result.trusted and reason in result.reason
    assert math.isnan(result.order) and math.isnan(result.half_width)
    assert reason in str(result)
    assert OrderMeasurement.from_dict(result.to_dict()) == result


def test_a_problem_without_an_event() -> None:
    bare = dataclasses.replace(DRIVEN, event=None)
    assert "has no event" in measured_order("rk4", bare, of="event").reason


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"of": "endpiont"}, "did you mean 'endpoint'"),
        ({"steps": (10, 20)}, "three ascending"),
        ({"steps": (0, 10, 20)}, "three ascending"),
        ({"budget": 3}, "budget=3"),
        ({"digits": 40, "of": "densee"}, "did you mean 'dense'"),
        ({"digits": 5}, "digits must be an integer >= 16"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measured_order("rk4", DRIVEN, **arguments)


def test_bad_methods() -> None:
    with pytest.raises(ValueError, match="give digits="):
        measured_order(ImplicitCollocation(qf.gauss_legendre(2)), DRIVEN)
    with pytest.raises(ValueError, match="no exact solution"):
        measured_order("rk4", "lotka-volterra", digits=30)
    with pytest.raises(TypeError, match="name or a Method"):
        measured_order(lambda rhs, y0, grid: y0, DRIVEN, digits=30)


# -- keeping it ------------------------------------------------------------------------------------


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    result = measured_order(law(lambda n: None if n < 7 else n**-3.0), DRIVEN)
    result.save(tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    again = OrderMeasurement.load(tmp_path / "m.json")
    assert again == result and again.order == result.order and str(again) == str(result)
    (tmp_path / "m.json").write_text("[1]")
    with pytest.raises(ValueError, match="no order measurement"):
        OrderMeasurement.load(tmp_path / "m.json")
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(ValueError, match="'promised_order' is missing"):
        OrderMeasurement.load(tmp_path / "m.json")


def test_an_interrupt_keeps_what_is_done(tmp_path: Path) -> None:
    def errors(n: int) -> float:
        if n > 40:
            saved = OrderMeasurement.load(tmp_path / "m.json")  # written after every solve
            assert saved.steps[-1] == 32 and "not finished" in saved.remark
            raise KeyboardInterrupt
        return n**-3.0 * (1 + 0.5 * math.sin(n))

    ticks = []
    result = measured_order(law(errors), DRIVEN, path=tmp_path / "m.json",
                            progress=lambda: ticks.append(1))  # fmt: skip
    assert result.remark == "interrupted" and result.steps == (4, 6, 8, 11, 16, 23, 32)
    assert len(ticks) == 7
    assert OrderMeasurement.load(tmp_path / "m.json") == result


def test_the_table_shows_every_point_and_the_verdict() -> None:
    text = str(measured_order("rk4", DRIVEN, (28, 40, 57, 80, 113)))
    assert text.splitlines()[0] == "rk4 on driven, error at the end of the span"
    assert len(text.splitlines()) == 2 + 5 + 1
    assert "agrees with the promised 4" in text


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_drawing(tmp_path: Path, suffix: str) -> None:
    result = measured_order(law(lambda n: None if n < 7 else n**-3.0), DRIVEN)
    path = tmp_path / f"order.{suffix}"
    result.plot(path, command="quadflow order law")
    data = path.read_bytes()
    assert data.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix])
    assert b"quadflow order law" in data


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no measurement to draw: .*has no error estimate"):
        measured_order("rk4", DRIVEN, of="estimate").plot(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"must end in .*\.pdf"):
        measured_order(law(lambda n: n**-3.0), DRIVEN).plot(tmp_path / "x.bmp")


# -- extended precision ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "steps"), [(4, (45, 64, 91, 128)), (5, (32, 45, 64, 91)), (6, (23, 32, 45, 64))]
)
def test_orders_eight_to_twelve_to_a_tenth(nodes: int, steps: tuple[int, ...]) -> None:
    """Gauss with sweeps to spare, so that the collocation method itself shows."""
    method = qf.collocation(qf.gauss_legendre(nodes), 2 * nodes + 2, guess="extrapolated")
    result = measured_order(method, DRIVEN, steps, digits=40)
    assert result.promised == 2 * nodes and result.agrees
    assert 2 * nodes - 0.1 < result.order < 2 * nodes + 0.1, str(result)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [4, 5, 6, 7, 8])
def test_orders_eight_to_sixteen_of_implicit_collocation(nodes: int) -> None:
    method = ImplicitCollocation(qf.gauss_legendre(nodes))
    result = measured_order(method, DRIVEN, digits=50)
    assert 2 * nodes - 0.1 < result.order < 2 * nodes + 0.1, str(result)


def test_local_and_dense_order_in_extended_precision() -> None:
    method = ImplicitCollocation(qf.gauss_lobatto(3))
    local = measured_order(method, DRIVEN, (32, 45, 64, 91), of="local", digits=30)
    assert 4.9 < local.order < 5.1 and local.promised == 5
    dense = measured_order(method, DRIVEN, (32, 45, 64, 91), of="dense", digits=30)
    assert 3.9 < dense.order < 4.1 and dense.promised == 4


def test_coefficients_that_are_float64_limit_the_digits_and_are_remarked() -> None:
    result = measured_order("dopri8", DRIVEN, digits=40)
    assert 7.85 < result.order < 8.15 and "no rational form" in result.remark
    used = [e for e, u in zip(result.errors, result.used, strict=True) if u]
    assert min(used) > 1e-14 and "rounding" in result.notes
    assert "float64 only" in measured_order("rk4", DRIVEN, digits=40, of="gradient").reason


def test_exact_starts_that_leave_no_step_are_a_failure() -> None:
    result = measured_order(qf.adams(8), DRIVEN, (4, 6, 64), digits=30)
    assert result.notes[0].startswith("failed: 4 steps are all taken up by exact starting values")


# -- kinds -----------------------------------------------------------------------------------------


def test_a_kind_gives_a_sample_with_its_cost() -> None:
    sample = make_kind("endpoint", as_solver("rk4"), DRIVEN).sample(10)
    assert isinstance(sample, Sample) and sample.nfe == sample.calls == 40
    assert set(KINDS) == {"endpoint", "dense", "estimate", "event", "gradient", "local"}


def test_problems_without_a_formula_have_a_reference_with_an_error() -> None:
    kind = make_kind("dense", as_solver("rk4"), get_problem("lotka-volterra"))
    assert 0 < kind.reference < 1e-9
    result = measured_order("rk4", "lotka-volterra", (181, 256, 362, 512), of="dense")
    assert 3.85 < result.slope < 4.35, str(result)


# -- the command -----------------------------------------------------------------------------------


def order_command(*words: str) -> None:
    arguments = make_parser(["order"]).parse_args(["order", *words])
    arguments.run(arguments)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, figures = tmp_path / "o.svg", tmp_path / "o.json"
    order_command("gauss-lobatto", "--nodes", "4", "--out", str(out), "--json", str(figures))
    printed = capsys.readouterr().out
    assert "agrees with the promised 6" in printed and "6 sweeps from the extrapolated" in printed
    saved = json.loads(figures.read_text())
    assert saved["command"].startswith("quadflow order gauss-lobatto --nodes 4")
    result = OrderMeasurement.from_dict(saved["orders"][0])
    assert 5.85 < result.order < 6.15
    assert "quadflow order gauss-lobatto" in out.read_text()


def test_the_command_on_several_kinds_and_a_peer(capsys: pytest.CaptureFixture) -> None:
    order_command("scipy:RK45", "--of", "endpoint,estimate", "--steps", "23,32,45,64")
    printed = capsys.readouterr().out
    assert "does not give its error estimates" in printed
    assert printed.count("scipy:RK45") >= 4


def test_the_command_in_extended_precision(capsys: pytest.CaptureFixture) -> None:
    order_command("gauss-legendre", "--nodes", "2", "--digits", "30", "--steps", "32,45,64,91")
    printed = capsys.readouterr().out
    assert "implicit gauss-legendre-2 on driven" in printed and "30 digits" in printed
    assert "agrees with the promised 4" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rk4", "--of", "ends"], "--of 'ends' is unknown"),
        (["rk5"], "METHOD 'rk5' is unknown"),
        (["rk4", "--problem", "drivn"], "problem='drivn' is unknown: did you mean 'driven'"),
        (["scipy:RK45", "--digits", "30"], "runs in float64 only"),
        (["scipy:RK45", "--nodes", "3"], "--nodes 3"),
        (["rk4", "--out", "x.bmp"], "must end in "),
    ],
)
def test_the_command_refuses(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        order_command(*words)
