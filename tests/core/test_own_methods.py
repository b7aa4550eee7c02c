"""Tableaus that users give, as lists and with what is left out; and the registry of methods."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
import torch
import torchdiffeq
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import quadflow as qf
from quadflow import analysis
from quadflow.adapters.cli.main import main
from quadflow.rules.classical import RK4
from quadflow.rules.dop853 import DOPRI8
from quadflow.rules.pairs import BOSH3, DOPRI5
from quadflow.rules.tableau import Tableau

F64 = torch.float64

BS_A = [[], [F(1, 2)], [0, F(3, 4)]]
BS_B = [F(2, 9), F(1, 3), F(4, 9)]

# each as its source has it, in lists and without what may be left out
TABLEAUS: dict[str, dict[str, Any]] = {
    "euler": {"a": [[]], "b": [1], "order": 1},
    "ralston 2": {"a": ((), (2 / 3,)), "b": (1 / 4, 3 / 4), "order": 2},
    "ssp 3": {"a": [[], [1], [1 / 4, 1 / 4]], "b": [1 / 6, 1 / 6, 2 / 3], "order": 3},
    "kutta 3": {"a": [[], [0.5], [-1, 2]], "b": [1 / 6, 2 / 3, 1 / 6], "order": 3},
    "ralston 3, tensors": {
        "a": [[], torch.tensor([0.5]), torch.tensor([0.0, 0.75])],
        "b": torch.tensor([2 / 9, 1 / 3, 4 / 9], dtype=F64), "order": np.int64(3),
    },
    "heun 2(1), a dense row for each stage": {
        "a": [[], [1.0]], "b": [0.5, 0.5], "order": 2, "dense": [[1, -0.5], [0, 0.5]],
        "dense_order": 2, "errors": [[-0.5, 0.5]], "error_order": 2,
    },
    "midpoint, a dense row for each stage": {
        "a": [[], [0.5]], "b": [0, 1], "order": 2, "dense": [[1, -1], [0, 1]], "dense_order": 2,
    },
    "rk4, dense of order 3": {
        "a": [[], [0.5], [0, 0.5], [0, 0, 1]], "b": [1 / 6, 1 / 3, 1 / 3, 1 / 6], "order": 4,
        "dense": [[1, -3 / 2, 2 / 3], [0, 1, -2 / 3], [0, 1, -2 / 3], [0, -1 / 2, 2 / 3]],
        "dense_order": 4,
    },
    "bogacki-shampine, estimate with the end velocity": {
        "a": BS_A, "b": BS_B, "order": 3, "errors": [[F(-5, 72), F(1, 12), F(1, 9), F(-1, 8)]],
        "error_order": 3,
    },
    "bogacki-shampine, first same as last": {
        "a": [*BS_A, BS_B], "b": [*BS_B, 0], "order": 3, "first_same_as_last": True,
        "errors": np.array([[-5 / 72, 1 / 12, 1 / 9, -1 / 8]]), "error_order": 3,
    },
    "fehlberg 4(5), one row of errors": {
        "a": [[], [1 / 4], [3 / 32, 9 / 32], [1932 / 2197, -7200 / 2197, 7296 / 2197],
              [439 / 216, -8, 3680 / 513, -845 / 4104],
              [-8 / 27, 2, -3544 / 2565, 1859 / 4104, -11 / 40]],
        "b": [25 / 216, 0, 1408 / 2565, 2197 / 4104, -1 / 5, 0], "order": 4,
        "errors": [1 / 360, 0, -128 / 4275, -2197 / 75240, 1 / 50, 2 / 55], "error_order": 5,
    },
    "cash-karp 5(4)": {
        "a": [[], [1 / 5], [3 / 40, 9 / 40], [3 / 10, -9 / 10, 6 / 5],
              [-11 / 54, 5 / 2, -70 / 27, 35 / 27],
              [1631 / 55296, 175 / 512, 575 / 13824, 44275 / 110592, 253 / 4096]],
        "b": [37 / 378, 0, 250 / 621, 125 / 594, 0, 512 / 1771], "order": 5,
        "errors": [[37 / 378 - 2825 / 27648, 0, 250 / 621 - 18575 / 48384,
                    125 / 594 - 13525 / 55296, -277 / 14336, 512 / 1771 - 1 / 4]],
        "error_order": 5,
    },
    "dormand-prince, a cubic": {
        "a": DOPRI5.a, "b": DOPRI5.b.tolist(), "order": 5, "first_same_as_last": True,
        "errors": DOPRI5.errors, "error_order": 5,
    },
}  # fmt: skip


def made(name: str) -> qf.StagesMethod:
    return qf.stages(Tableau(**TABLEAUS[name]), name)


def field(t: Tensor, y: Tensor) -> Tensor:
    return y * torch.cos(t)


def exact(t: Any) -> Tensor:
    return torch.exp(torch.sin(torch.as_tensor(t, dtype=F64)))


@pytest.mark.parametrize("name", TABLEAUS)
def test_what_is_declared_is_proved(name: str) -> None:
    certificate = analysis.certify(made(name))
    assert certificate.agrees, str(certificate)


@pytest.mark.parametrize("name", TABLEAUS)
def test_they_solve(name: str) -> None:
    """Fixed and adaptive steps, between them, backward, with events, samples, in float32; twice as
    many steps are as much better as the order says."""
    method, y0 = made(name), torch.tensor([1.0], dtype=F64)
    order, times = method.order, [0.0, 0.33, 1.1, 1.95]
    assert order is not None

    def error(steps: int, sign: float = 1.0) -> float:
        sol = qf.solve(
            lambda t, y: sign * field(sign * t, y), y0, (0.0, 2.0), method=method,
            step_size=2 / steps, dense_output=True,
        )  # fmt: skip
        inside = sol([sign * 0 + when for when in times]).flatten()
        assert float((inside - exact(times)).abs().max()) < 5 * (2 / steps) ** min(order, 4)
        return abs(float(sol.y[-1]) - float(exact(2.0)))

    assert error(20) / error(40) > 0.7 * 2**order
    back = qf.solve(field, exact(2.0)[None], (2.0, 0.0), method=method, step_size=0.05)
    assert abs(float(back.y[-1]) - 1) < 4 * 0.05**order
    if method.error_order is None:
        with pytest.raises(ValueError, match="no error estimate"):
            qf.solve(field, y0, (0.0, 2.0), method=method)
        return
    level = float(exact(0.4))
    sol = qf.solve(
        field, y0, (0.0, 1.2), method=method, rtol=1e-6, atol=1e-6, dense_output=True,
        events=lambda t, y: y[0] - level,
    )  # fmt: skip
    assert abs(float(sol.t_events[0][0]) - 0.4) < 1e-4
    assert float((sol(times[:3]).flatten() - exact(times[:3])).abs().max()) < 1e-4
    samples = qf.solve(
        field, torch.ones(2, 1), [0.0, 0.3, 1.2], method=method, rtol=1e-4, atol=1e-4,
        batch_dims=1, dense_output=True,
    )  # fmt: skip
    assert float((samples(0.7)[:, 0] - exact(0.7)).abs().max()) < 3e-3


def test_an_end_velocity_in_the_estimate_is_a_stage() -> None:
    plain, known = (
        made(f"bogacki-shampine, {how}").tableau
        for how in ("estimate with the end velocity", "first same as last")
    )
    for tableau in (plain, known):
        assert tableau.first_same_as_last
        for name in ("b", "dense", "errors", "c"):
            np.testing.assert_allclose(getattr(tableau, name), getattr(BOSH3, name), atol=1e-16)
        assert tableau.dense_order == BOSH3.dense_order == 3


def test_a_dense_row_that_is_left_out_is_zero() -> None:
    tableau = made("rk4, dense of order 3").tableau
    assert tableau.dense.shape == (5, 3) and not tableau.dense[-1].any()
    same = qf.stages(Tableau(**{**TABLEAUS["rk4, dense of order 3"], "dense": tableau.dense}))
    y0 = torch.tensor([1.0, 2.0], dtype=F64)
    a, b = (
        qf.solve(field, y0, (0.0, 1.0), method=m, step_size=0.2, dense_output=True)(0.31)
        for m in (made("rk4, dense of order 3"), same)
    )
    assert torch.equal(a, b)


def test_in_other_interfaces() -> None:
    """odeint and its adjoint."""
    method = made("cash-karp 5(4)")
    t = torch.linspace(0, 1.5, 4, dtype=F64)
    y0 = torch.tensor([0.8, -0.5], dtype=F64, requires_grad=True)
    found = [
        torch.autograd.grad(library(field, y0, t, method=method, **more).sum(), y0)[0]
        for library, more in ((qf.odeint, {}), (qf.odeint_adjoint, {"adjoint_params": ()}))
    ]
    assert torch.allclose(*found, rtol=1e-6)


def test_arguments_are_copied() -> None:
    a, b = [[], [1.0]], np.array([0.5, 0.5])
    tableau = Tableau(a, b, 2)
    a[1][0], b[0] = 7.0, 7.0
    assert tableau.a == ((), (1.0,)) and tableau.b.tolist() == [0.5, 0.5]
    for array in (tableau.b, tableau.dense):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


HEUN = {"a": [[], [1.0]], "b": [0.5, 0.5], "order": 2}
ESTIMATE = {"errors": [[-0.5, 0.5]], "error_order": 2}
NAN = float("nan")
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"a": []}, ValueError, "a has no rows"),
    ({"a": 3}, TypeError, "a must be a sequence, got 3"),
    ({"a": "rk4"}, TypeError, "a must be a sequence, got 'rk4'"),
    ({"a": [[], ["half"]]}, TypeError, r"a\[1\] must be a sequence of real numbers"),
    ({"a": [[], ["0.5"]]}, TypeError, r"a\[1\] must be a sequence of real numbers"),
    ({"a": [[], [1j]]}, TypeError, r"a\[1\] must be a sequence of real numbers"),
    ({"a": [[], 1.0]}, ValueError, r"a\[1\] must be one sequence of numbers"),
    ({"a": [[], [NAN]]}, ValueError, r"a\[1\] must be finite"),
    ({"a": [[0, 0], [1, 0]]}, ValueError, "row 0 of a has 2 entries; explicit stages need 0"),
    ({"a": np.eye(2)}, ValueError, "row 0 of a has 2 entries"),
    ({"a": [[], [1.0], [0.5]]}, ValueError, "row 2 of a has 1 entries"),
    ({"b": [0.5, 0.25, 0.25]}, ValueError, r"b has shape \(3,\) for 2 stages"),
    ({"b": [[0.5, 0.5]]}, ValueError, "b must be one sequence of numbers"),
    ({"b": None}, TypeError, "b must be a sequence of real numbers"),
    ({"b": [None, 1.0]}, TypeError, "b must be a sequence of real numbers"),
    ({"b": [F(1, 2), "0.5"]}, TypeError, "b must be a sequence of real numbers"),
    ({"b": [0.5, 0.6]}, ValueError, "weights b sum to 1.1"),
    ({"b": [float("inf"), 0.5]}, ValueError, "b must be finite"),
    ({"b": torch.tensor([0.5, 0.5], requires_grad=True)}, TypeError, "b must be a sequence"),
    ({"order": 2.0}, TypeError, "order must be an integer, got 2.0"),
    ({"order": True}, TypeError, "order must be an integer, got True"),
    ({"order": "2"}, TypeError, "order must be an integer, got '2'"),
    ({"order": 0}, ValueError, "order must be an integer >= 1, got 0"),
    ({"dense": [[1, -0.5]], "dense_order": 2}, ValueError, r"dense has shape \(1, 2\)"),
    ({"dense": [[1, -0.5], [0, 0.5], [0, 0], [0, 0]], "dense_order": 2}, ValueError,
     r"dense has shape \(4, 2\).* each of 3 velocities"),
    ({"dense": [[], []], "dense_order": 2}, ValueError, r"dense has shape \(2, 0\)"),
    ({"dense": [1, -0.5], "dense_order": 2}, ValueError, "dense must be rows of numbers"),
    ({"dense": [[1, -0.5], [0.5]], "dense_order": 2}, TypeError, "dense must be rows of real"),
    ({"dense": [[1, -0.5], [0, 0.6]], "dense_order": 2}, ValueError, "at θ = 1 is not the step"),
    ({"dense": [[1, -0.5], [0, NAN]], "dense_order": 2}, ValueError, "dense must be finite"),
    ({"dense": [[1, -0.5], [0, 0.5]]}, ValueError, "dense_order must be given with dense"),
    ({"dense": [[1, -0.5], [0, 0.5]], "dense_order": 3}, ValueError, "dense_order=3 must be"),
    ({"dense": [[1, -0.5], [0, 0.5]], "dense_order": "2"}, TypeError, "dense_order must be an"),
    ({"dense_order": 3}, ValueError, "dense_order=3 is more than a cubic"),
    ({"errors": [[-0.5, 0.5]]}, ValueError, "error_order must be given with errors"),
    ({"error_order": 2}, ValueError, "error_order must be given with errors"),
    ({**ESTIMATE, "error_order": 1.5}, TypeError, "error_order must be an integer"),
    ({**ESTIMATE, "errors": [[0.5]]}, ValueError, r"errors\[0\] has 1 entries .* 2, or 3"),
    ({**ESTIMATE, "errors": [[0.5, -0.5, 0, 0]]}, ValueError, r"errors\[0\] has 4 entries"),
    ({**ESTIMATE, "errors": [[0.5, 0.5]]}, ValueError, "error weights sum to 1.0"),
    ({**ESTIMATE, "errors": [[0.0, 0.0]]}, ValueError, r"errors\[0\] is zero"),
    ({**ESTIMATE, "errors": [[0.5, NAN]]}, ValueError, r"errors\[0\] must be finite"),
    ({**ESTIMATE, "errors": [[-0.5, 0.5]] * 3}, ValueError, "errors has 3 rows"),
    ({**ESTIMATE, "errors": 0.5}, TypeError, "errors must be a sequence"),
    ({"extra": [(0.5, [0.25, 0.25, 0])]}, ValueError, "extra stages are for dense"),
    ({"first_same_as_last": True}, ValueError, "first_same_as_last needs"),
    ({"first_same_as_last": "yes"}, TypeError, "first_same_as_last must be True or False"),
    ({"first_same_as_last": None}, TypeError, "first_same_as_last must be True or False"),
]  # fmt: skip
DENSE = {"dense": [[1, -0.5], [0, 0.5], [0, 0], [0, 0]], "dense_order": 2}
BAD += [
    ({**DENSE, "extra": extra}, error, match)
    for extra, error, match in (
        ([(0.5, [0.25, 0.25])], ValueError, r"extra\[0\]\[1\] has 2 entries, it must have 3"),
        ([(0.5, [0.25, 0.25, 0.25])], ValueError, r"extra\[0\] has the node 0.5"),
        ([(NAN, [0.25, 0.25, 0])], ValueError, r"extra\[0\]\[0\] must be finite"),
        ([0.5], TypeError, r"extra\[0\] must be a sequence"),
        ([(0.5,)], ValueError, r"extra\[0\] must be a node and a row"),
        (7, TypeError, "extra must be a sequence"),
        ([(0.5, [0.25, 0.25, 0])] * 2, ValueError, r"extra\[1\]\[1\] has 3 entries"),
    )
]


@pytest.mark.parametrize(
    ("changes", "error", "match"), BAD, ids=[f"{i}-{'-'.join(c)}" for i, (c, *_) in enumerate(BAD)]
)
def test_malformed_tableaus_are_refused_by_name(
    changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    Tableau(**HEUN)
    with pytest.raises(error, match=match):
        Tableau(**{**HEUN, **changes})


def test_every_tableau_of_the_library_may_be_given_as_lists() -> None:
    for source in (RK4, BOSH3, DOPRI5, DOPRI8):
        extra = [(node, list(row)) for node, row in source.extra]
        again = Tableau(
            [list(row) for row in source.a], source.b.tolist(), source.order,
            source.dense.tolist(), source.dense_order, [e.tolist() for e in source.errors],
            source.error_order, extra, source.first_same_as_last,
        )  # fmt: skip
        assert again.a == source.a and again.extra == source.extra
        assert np.array_equal(again.dense, source.dense) and np.array_equal(again.c, source.c)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_a_tableau_works_or_is_refused(data: st.DataObject) -> None:
    """Whatever shapes dense rows, error weights and extra stages come in: what is made solves, with
    dense output; what is not says which argument is at fault."""
    s = data.draw(st.integers(1, 3))
    a = [[1.0 / max(i, 1)] * i for i in range(s)]
    b = [1 / s] * s
    n, degree = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 3))
    dense = np.zeros((n, degree))
    dense[: min(n, s), 0] = b[: min(n, s)]
    width = data.draw(st.integers(0, 5))
    errors = [[1.0, -1.0, *[0.0] * (width - 2)]] if width > 1 else [[0.0] * width]
    extra = [(1.0, [1.0, *[0.0] * k]) for k in range(s, s + data.draw(st.integers(0, 2)))]
    arguments: list[dict[str, Any]] = [
        {"dense": dense.tolist(), "dense_order": 1}, {"errors": errors, "error_order": 1},
        {"extra": extra},
    ]  # fmt: skip
    chosen: dict[str, Any] = {}
    for one in arguments:
        chosen |= one if data.draw(st.booleans()) else {}
    try:
        method = qf.stages(Tableau(a, b, 1, **chosen))
    except ValueError as error:
        assert str(error).startswith(("dense", "error", "extra", "the interpolant"))
        return
    steps = {"rtol": 1e-2, "atol": 1e-2} if method.error_order else {"step_size": 0.1}
    for more in ({}, {"batch_dims": 1}):
        if more and method.error_order is None:
            continue
        sol = qf.solve(
            field, torch.ones(1, 1, dtype=F64), (0.0, 0.4), method=method, dense_output=True,
            **steps, **more,
        )  # fmt: skip
        assert abs(float(sol(0.23)) - float(exact(0.23))) < 0.1


# -- the registry --------------------------------------------------------------------------------


@contextlib.contextmanager
def registered(name: str, method: Any) -> Iterator[None]:
    qf.register(name, method)
    try:
        yield
    finally:
        qf.unregister(name)


@pytest.mark.parametrize(
    "method",
    [
        qf.stages(Tableau(**HEUN)), qf.adams(3), qf.adams_variable(qf.OrderControl(max_order=5)),
        qf.collocation(qf.clenshaw_curtis(4), 3), qf.get_method("gauss"),
        lambda: qf.adams(2, "PEC"), qf.adams_variable, lambda: qf.get_method("dopri5"),
    ],
)  # fmt: skip
def test_a_method_as_it_is(method: Any) -> None:
    before = qf.methods()
    with registered("mine", method):
        found = qf.methods()
        assert list(found) == [*before, "mine"]
        mine = found["mine"]
        assert isinstance(mine, qf.Method) and mine.name == "mine"
        assert mine is qf.get_method("mine") is qf.get_method(mine)
        own = method if isinstance(method, qf.Method) else method()
        steps = {} if not mine.takes_fixed_steps else {"step_size": 0.25}
        a, b = (
            qf.solve(field, torch.ones(2), (0.0, 1.0), method=m, **steps) for m in ("mine", own)
        )
        assert torch.equal(a.y, b.y) and a.stats.method == "mine"
        assert (
            qf.odeint(field, torch.ones(2), torch.tensor([0.0, 1.0]), method="mine")
            .isfinite()
            .all()
        )
    assert qf.methods().keys() == before.keys()
    with pytest.raises(ValueError, match="method='mine' is unknown"):
        qf.get_method("mine")


class Named(qf.StagesMethod):
    """A Method whose constructor takes something else."""

    def __init__(self) -> None:
        super().__init__("named", 2, 2, 2, 10.0, Tableau(**{**HEUN, **ESTIMATE}))


def test_a_method_of_a_class_of_ones_own() -> None:
    with registered("mine", Named):
        mine = qf.methods()["mine"]
        assert type(mine) is Named and mine.name == "mine" and Named().name == "named"
        assert qf.solve(field, torch.ones(1), (0.0, 1.0), method="mine", rtol=1e-3).success


@pytest.mark.parametrize(
    "method",
    [None, "rk4", 3, RK4, qf.gauss_legendre(3), {"order": 2}, [qf.adams(2)], 4.5],
    ids=lambda method: type(method).__name__,
)
def test_what_is_no_method_is_refused_at_once(method: Any) -> None:
    with pytest.raises(TypeError, match="method must be a Method or a function that makes one"):
        qf.register("mine", method)
    assert "mine" not in qf.methods()


def raising(error: BaseException) -> Any:
    def make() -> qf.Method:
        raise error

    return make


FAILING: list[tuple[Any, type[Exception], str]] = [
    (raising(ValueError("no such rule")), RuntimeError, "'mine' could not be made.*no such rule"),
    (raising(KeyError("x")), RuntimeError, "KeyError"),
    (raising(StopIteration()), RuntimeError, "StopIteration"),
    (raising(ImportError("no module")), RuntimeError, "no module"),
    (lambda: qf.get_method("mine"), RuntimeError, "recursion"),
    (qf.adams, RuntimeError, "required positional argument"),
    (qf.StagesMethod, RuntimeError, "required positional argument"),
    (lambda: None, TypeError, "must return a Method, got None"),
    (lambda: "rk4", TypeError, "must return a Method, got 'rk4'"),
    (lambda: RK4, TypeError, "must return a Method"),
    (lambda: qf.adams, TypeError, "must return a Method"),
    (dict, TypeError, r"must return a Method, got \{\}"),
]


@pytest.mark.parametrize(("make", "error", "match"), FAILING, ids=[str(i) for i in range(12)])
def test_one_that_fails_fails_alone(make: Any, error: type[Exception], match: str) -> None:
    before = qf.methods().keys()
    with registered("mine", make):
        with pytest.warns(UserWarning, match="left out: method 'mine'"):
            assert qf.methods().keys() == before
        for ask in (
            qf.get_method,
            lambda name: qf.solve(field, torch.ones(1), (0.0, 1.0), method=name),
            lambda name: qf.odeint(field, torch.ones(1), torch.tensor([0.0, 1.0]), method=name),
        ):
            with pytest.raises(error, match=match):
                ask("mine")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing else makes it
            qf.solve(field, torch.ones(1), (0.0, 1.0))
            with pytest.raises(ValueError, match=r"unknown: did you mean 'mine'\?"):
                qf.get_method("mime")


def test_the_function_is_called_once_and_late() -> None:
    calls = 0

    def make() -> qf.Method:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("busy")
        return qf.adams(2)

    with registered("late", make):
        assert calls == 0
        with pytest.raises(RuntimeError, match="busy"):
            qf.get_method("late")
        assert qf.get_method("late") is qf.get_method("late") and calls == 2


@pytest.mark.parametrize(
    ("name", "error"),
    [("", ValueError), (" ", ValueError), ("rk4 ", ValueError), ("\tx", ValueError),
     ("a\nb", ValueError), ("\x00", ValueError), (None, TypeError), (3, TypeError),
     (b"rk4", TypeError), (("a",), TypeError), ("rk4", ValueError), ("adams", ValueError)],
)  # fmt: skip
def test_names_that_are_refused(name: Any, error: type[Exception]) -> None:
    before = qf.methods().keys()
    with pytest.raises(error, match=r"name|registered already"):
        qf.register(name, qf.adams(2))
    assert qf.methods().keys() == before


@pytest.mark.parametrize("name", ["Gauß-4", "my method", "rk4*", "a/b:c", "日本", "%s {0}", "RK4"])
def test_names_that_are_odd(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with registered(name, qf.adams(2)):
        assert qf.methods()[name].name == name
        assert main(["methods"]) == 0
        assert name in capsys.readouterr().out


def test_twice_and_not_at_all() -> None:
    with registered("mine", qf.adams(2)):
        with pytest.raises(ValueError, match="'mine' is registered already"):
            qf.register("mine", qf.adams(3))
        assert qf.get_method("mine").order == 2
        with pytest.raises(ValueError, match=r"'mime' is none.*did you mean 'mine'"):
            qf.unregister("mime")
    with registered("mine", qf.adams(3)):  # free again
        assert qf.get_method("mine").order == 3
    for name in ("mine", "rk4", "", None):
        with pytest.raises(ValueError, match="none of the methods that were added: there are none"):
            qf.unregister(name)  # type: ignore[arg-type]
    assert "rk4" in qf.methods()


def test_a_registered_name_is_not_torchdiffeqs() -> None:
    """Where both have a name, torchdiffeq's meaning counts in odeint."""
    with registered("euler_of_mine", qf.adams(1)):
        t, y0 = torch.linspace(0, 1, 11, dtype=F64), torch.ones(1, dtype=F64)
        theirs = torchdiffeq.odeint(field, y0, t, method="euler")
        mine = qf.odeint(field, y0, t, method="euler_of_mine", options={"step_size": 0.1})
        assert torch.allclose(mine, theirs, atol=1e-12)
