"""What solves return and raise, pickled, copied, saved, and sent between processes."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import io
import multiprocessing
import pickle
import pkgutil
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from in_tensors import InTensors
from pool_members import asked, blows_up, member
from small_sidenets import LABELS, STATE, Backbone, random_sidenet
from torch import Tensor
from toyflow import seeded

import quadflow as qf
from quadflow import adapters, analysis
from quadflow.adapters import BiAnchor, FlowField
from quadflow.analysis.problems.problem import get_problem, problem_names
from quadflow.control.control import Tolerance
from quadflow.plans.state import NotContracting
from quadflow.rules.dop853 import DOPRI8

F64 = torch.float64
Y0 = torch.tensor([1.0, 0.3], dtype=F64)


def swing(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((y[..., 1], -torch.sin(y[..., 0])), -1)


def height(t: Tensor, y: Tensor) -> Tensor:
    return y[..., 0]


def by_sidenet() -> qf.Solution:
    network = FlowField(Backbone(0), labels=LABELS)
    return qf.solve(
        network, seeded(*STATE), (1.0, 0.2), method=BiAnchor(random_sidenet(1), network),
        step_size=0.25, dense_output=True,
    )  # fmt: skip


def solved(y0: Any = Y0, func: Any = swing, end: float = 3.0, **keywords: Any) -> qf.Solution:
    settings = {"dense_output": True, "rtol": 1e-6, "atol": 1e-8, "t": (0.0, 0.4, end)}
    return qf.solve(func, y0, **{**settings, **keywords})


SAMPLES = torch.tensor([[1.0, 0.3], [0.2, 2.0], [-3.0, 0.1]], dtype=F64)
SOLVES: dict[str, Callable[[], qf.Solution]] = {
    "default": solved,
    "dopri5": lambda: solved(method="dopri5"),
    "dopri8, with stages of its interpolant": lambda: solved(method="dopri8"),
    "bosh3, backward": lambda: solved(method="bosh3", end=-2.0, t=(0.0, -0.4, -2.0)),
    "rk4, fixed": lambda: solved(method="rk4", step_size=0.1),
    "gauss": lambda: solved(method="gauss"),
    "lobatto": lambda: solved(method="lobatto"),
    "radau3, a constant guess": lambda: solved(method=qf.collocation(qf.radau_right(3), 2)),
    "converged": lambda: solved(
        method=qf.collocation(qf.gauss_legendre(4), "converged"), step_size=0.3
    ),
    "ab3": lambda: solved(method="ab3", step_size=0.1),
    "ab4, a folded rule": lambda: solved(
        method=qf.adams(4, rule=qf.gauss_legendre(1)), step_size=0.1
    ),
    "pec3": lambda: solved(method="pec3"),
    "pece4": lambda: solved(method="pece4", step_size=0.1),
    "adams of order 4": lambda: solved(method=qf.adams_variable(qf.OrderControl(max_order=4))),
    "SideNet": by_sidenet,
    "samples": lambda: solved(SAMPLES, batch_dims=1),
    "samples, gauss": lambda: solved(SAMPLES, batch_dims=1, method="gauss"),
    "samples and events": lambda: solved(
        SAMPLES, batch_dims=1, events=[qf.Event(height, terminal=2), height]
    ),
    "events": lambda: solved(events=[height, qf.Event(lambda t, y: y[1], terminal=True)]),
    "tuple": lambda: solved((Y0, Y0[:1]), lambda t, y: (-y[0], y[1] * torch.cos(t))),
    "dict": lambda: solved({"a": Y0, 3: Y0[:1]}, lambda t, y: {"a": -y["a"], 3: y[3] - 1}),
    "complex": lambda: solved(Y0 + 1j, lambda t, y: 1j * y),
    "float32": lambda: solved(Y0.float(), rtol=1e-4, atol=1e-5),
    "bfloat16": lambda: solved(
        Y0.bfloat16(), accumulation_dtype=torch.float32, rtol=1e-2, atol=1e-2, method="dopri5"
    ),
    "one number": lambda: solved(torch.tensor(0.5, dtype=F64), lambda t, y: y * torch.cos(t)),
    "a time for every sample": lambda: qf.solve(
        swing, SAMPLES, (0.0, 1.0), method=qf.adams(2, startup="rising"),
        grid=torch.linspace(0, 1, 6, dtype=F64)[:, None, None] * torch.ones(3, 1, dtype=F64),
    ),
    "failed": lambda: solved(Y0.abs(), blows_up, throw=False, max_steps=30),
    "failed at once": lambda: solved(Y0, lambda t, y: y * torch.nan, throw=False),
}  # fmt: skip


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same to the last bit, NaN included."""
    if isinstance(a, Tensor):
        kinds = [(x.dtype, x.shape, x.device, x.requires_grad) for x in (a, b)]
        return kinds[0] == kinds[1] and bool(((a == b) | (a.isnan() & b.isnan())).all())
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if type(a) is not type(b):
        return False
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float):
        return a == b or (a != a and b != b)
    if hasattr(a, "__dict__") and not isinstance(a, type) and type(a).__eq__ is object.__eq__:
        return same(vars(a), vars(b))
    return bool(a == b)


def saved(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


ROUTES: dict[str, Callable[[Any], Any]] = {
    **{
        f"protocol {p}": lambda x, p=p: pickle.loads(pickle.dumps(x, p))
        for p in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "torch.save": saved,
}


@pytest.mark.parametrize("name", SOLVES)
def test_solutions_are_the_same_to_the_last_bit(name: str) -> None:
    solution = SOLVES[name]()
    for route, there_and_back in ROUTES.items():
        got = there_and_back(solution)
        assert same(got, solution), route
        assert got.success == solution.success
        if solution._segments:
            steps = torch.linspace(float(solution.t.flatten()[0]), 0.99, 7, dtype=F64).tolist()
            last = float(solution.t[-1].abs().min())
            times = [min(abs(when), last) * (-1 if solution.t[1].min() < 0 else 1)
                     for when in steps]  # fmt: skip
            if name in ("SideNet",):
                times = [0.9, 0.61, 0.2]
            assert same(got(times), solution(times)), route
        else:
            with pytest.raises(ValueError, match=r"no step was accepted|no dense output"):
                got(0.0)


def test_a_copy_shares_and_a_deepcopy_does_not() -> None:
    solution = solved()
    shallow, deep = copy.copy(solution), copy.deepcopy(solution)
    assert shallow.y is solution.y and shallow is not solution
    before = float(solution(0.7)[0])
    deep.y.zero_()
    assert float(solution.y[0, 0]) == 1.0 and float(deep(0.7)[0]) == before


# -- gradients -----------------------------------------------------------------------------------

GRAPHS: dict[str, Callable[[Tensor], qf.Solution]] = {
    "backprop": lambda y: solved(y),
    "gauss": lambda y: solved(y, method="gauss"),
    "samples": lambda y: solved(y.expand(2, 2), batch_dims=1),
    "event": lambda y: solved(y, events=qf.Event(height, terminal=True)),
    "times": lambda y: solved(y, t=torch.tensor([0.0, 1.0, 2.0], dtype=F64, requires_grad=True)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_stays_where_it_is(name: str) -> None:
    """torch would refuse to copy its tensors, and to send them to another process."""
    y0 = Y0.clone().requires_grad_()
    solution = GRAPHS[name](y0)
    assert solution.y.requires_grad
    with torch.no_grad(), InTensors():
        plain = GRAPHS[name](Y0.clone())
    for route, there_and_back in ROUTES.items():
        got = there_and_back(solution)
        if route == "copy":
            assert got.y is solution.y
            continue
        assert same(got.y, solution.y.detach())
        assert same(got(0.37), plain(0.37)) and same(got.t_events, plain.t_events)
    (gradient,) = torch.autograd.grad(solution.y.sum(), y0)
    assert float(gradient.abs().max()) > 0


def test_in_inference_mode() -> None:
    with torch.inference_mode():
        solution = solved()
    got = pickle.loads(pickle.dumps(solution))
    assert same(got(0.5), solved()(0.5)) and same(copy.deepcopy(solution).y, got.y)


# -- sizes ---------------------------------------------------------------------------------------


def big(t: Tensor, y: Tensor) -> Tensor:
    return -y * torch.cos(t)


@pytest.mark.parametrize(
    ("method", "velocities"), [("dopri5", 6), ("adams", 13), ("gauss", 9), ("pec3", 4)]
)
def test_a_pickled_solution_holds_what_it_needs(method: str, velocities: int) -> None:
    """States and velocities of the steps once each, whatever func holds; small ones cost their
    places as well, not a file of torch's each."""
    world = torch.zeros(10**6)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return big(t, y) + 0 * world[0].to(y)

    for n, overhead in ((500, 1.15), (2, 12.0)):
        y0 = torch.linspace(1, 2, n, dtype=F64)
        wide = torch.zeros(10**5, dtype=F64)
        wide[:n] = y0
        solution = solved(wide[:n], func, method=method, end=6.0)
        steps = solution.stats.accepted
        assert steps > 10
        bound = 8 * n * (steps + 1) * (velocities + 2) * overhead + 4000
        assert len(pickle.dumps(solution)) < bound
        file = io.BytesIO()
        torch.save(solution, file)
        assert file.tell() < bound + 2000
    assert len(pickle.dumps(qf.solve(func, y0, (0.0, 6.0)))) < 4000


def test_numbers_of_tensors_do_not_grow_with_the_steps() -> None:
    """On the way to another process a tensor may be a file descriptor each."""
    for method in ("dopri5", "gauss", "adams"):
        packed = solved(method=method, end=40.0).__getstate__()
        assert len(packed.stacks) < 12


# -- errors and warnings ---------------------------------------------------------------------------


def failure(**keywords: Any) -> qf.SolveError:
    with pytest.raises(qf.SolveError) as caught:
        solved(**keywords)
    return caught.value


FAILURES: dict[str, Callable[[], qf.SolveError]] = {
    "collapse": lambda: failure(y0=Y0.abs(), func=blows_up),
    "cap": lambda: failure(max_steps=3),
    "not finite": lambda: failure(func=lambda t, y: y / (t < 0.5).to(y)),
    "samples": lambda: failure(y0=SAMPLES, func=blows_up, batch_dims=1, max_steps=20),
    "not contracting": lambda: failure(
        func=lambda t, y: -100 * y, step_size=1.0,
        method=qf.collocation(qf.gauss_legendre(2), "converged"),
    ),
    "with a graph": lambda: failure(y0=Y0.abs().requires_grad_(), func=blows_up),
    "tuple": lambda: failure(y0=(Y0, Y0), func=lambda t, y: (y[0] ** 2, y[1]), max_steps=5),
    "stiff": lambda: failure(
        y0=Y0[:1], func=lambda t, y: -1e4 * (y - torch.cos(t)), method="dopri5", on_stiff="stop",
        end=50.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_survives(name: str) -> None:
    error = FAILURES[name]()
    error.add_note("in the third member")
    for route, there_and_back in ROUTES.items():
        got = there_and_back(error)
        assert type(got) is qf.SolveError and str(got) == str(error), route
        assert got.status is error.status is got.solution.status
        assert got.args == error.args and got.__notes__ == ["in the third member"]
        assert "the third member" in "".join(traceback.format_exception(got))
        assert same(got.solution.steps, error.solution.steps)
        assert same(got.solution.stats, error.solution.stats)


def exception_classes() -> list[type[BaseException]]:
    found = {}
    for package in (qf, adapters, analysis):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if module.name.endswith("__main__"):
                continue
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, BaseException):
                    found[value] = value.__module__.startswith("quadflow")
    return sorted((cls for cls, own in found.items() if own), key=lambda cls: cls.__qualname__)


def test_every_exception_and_warning_survives() -> None:
    classes = exception_classes()
    assert {qf.SolveError, qf.VelocityError, qf.CompileError, qf.StiffnessWarning} <= set(classes)
    assert NotContracting in classes and len(classes) >= 15
    solution = solved(throw=False)
    for cls in classes:
        error = cls("why", solution) if issubclass(cls, qf.SolveError) else cls("why")
        for route, there_and_back in ROUTES.items():
            got = there_and_back(error)
            assert type(got) is cls and str(got) == "why" and got.args == ("why",), route


# -- methods and other objects ---------------------------------------------------------------------


def order_two(t: Tensor) -> Tensor:
    return torch.full((2,), 0.1, dtype=F64)


@pytest.mark.parametrize("name", sorted(qf.methods()))
def test_methods_survive(name: str) -> None:
    """A method that came back takes the same steps."""
    method = qf.get_method(name)
    fixed = {} if method.error_order is not None else {"step_size": 0.25}
    for there_and_back in (ROUTES["protocol 2"], ROUTES["protocol 5"], copy.copy, copy.deepcopy):
        got = there_and_back(method)
        assert type(got) is type(method) and repr(got) == repr(method)
    assert len(pickle.dumps(method)) < 8000
    a, b = (solved(end=1.0, rtol=1e-3, atol=1e-3, method=m, **fixed) for m in (method, got))
    assert same(a.y, b.y) and same(a.steps, b.steps)


def test_other_objects_survive() -> None:
    objects: list[Any] = [
        qf.Event(height, terminal=3, direction=-1), solved().stats, qf.Status.EVENT,
        qf.StepController(safety=0.8), qf.OrderControl(max_order=5), Tolerance(1e-3, Y0),
        qf.gauss_lobatto(5), DOPRI8, qf.PolynomialInterpolant(3), qf.OracleInterpolant(order_two),
        qf.anchors(qf.OracleInterpolant(order_two), qf.gauss_lobatto(4), name="oracle"),
        qf.Anchor(0.0, Y0, Y0), analysis.certify(qf.get_method("heun")),
        analysis.stability_report(qf.get_method("rk4")),
        analysis.measured_order("rk4", "driven", (8, 11, 16, 23)),
    ]  # fmt: skip
    for one in objects:
        for route, there_and_back in ROUTES.items():
            assert same(there_and_back(one), one), (one, route)
    assert not ROUTES["protocol 5"](DOPRI8).b.flags.writeable


def test_problems_survive() -> None:
    for name in problem_names():
        problem = get_problem(name)
        for there_and_back in (ROUTES["protocol 4"], copy.deepcopy):
            got = there_and_back(problem)
            assert got.name == name and same(got.y0, problem.y0) and got.span == problem.span
    got = copy.deepcopy(get_problem("kepler", eccentricity=0.3))
    assert got.parameters["eccentricity"] == 0.3
    changed = dataclasses.replace(got, span=(0.0, 1.0))  # of no recipe: never made from the old one
    with pytest.raises(Exception, match="rhs"):
        pickle.dumps(changed)
    assert copy.copy(changed).span == (0.0, 1.0)


def test_what_torch_load_takes_by_default() -> None:
    """weights_only=True wants tensors alone, and says so of anything else."""
    solution = solved(Y0.clone().requires_grad_())
    file = io.BytesIO()
    torch.save(solution, file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        torch.load(file, weights_only=True)
    file = io.BytesIO()
    torch.save({"t": solution.t, "y": solution.y.detach()}, file)
    file.seek(0)
    assert same(torch.load(file, weights_only=True)["y"], solution.y.detach())


# -- other processes -----------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_pools(start: str) -> None:
    """Solutions, with gradients too, and failures come back from a pool, and go into one; a worker
    that is gone when its answer is read loses nothing."""
    context = multiprocessing.get_context(start)
    with context.Pool(1, maxtasksperchild=None if start == "spawn" else 1) as pool:
        ones = pool.map_async(member, [1.0, -1.0], 1).get(60)
        assert [same(one.y, member(s).y.detach()) for one, s in zip(ones, (1.0, -1.0), strict=True)]
        assert pool.map_async(asked, ones, 1).get(60) == [asked(one) for one in ones]
        with pytest.raises(qf.SolveError, match="step") as caught:
            pool.map_async(member, [1.0, 7.0], 1).get(60)  # 1 / (1/7 - t)
    error = caught.value
    assert error.status is qf.Status.STEP_COLLAPSE and "member" in str(error.__cause__)
    assert abs(error.solution.steps[-1] - 1 / 7) < 1e-6
    assert abs(float(error.solution(0.1)[0]) - 1 / (1 / 7 - 0.1)) < 1e-4
