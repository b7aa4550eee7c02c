"""Random calls of `solve`, each with what must come of it; see test_fuzzing.py.

A call is drawn as plain values (`Call`), so that hypothesis shows and shrinks it. `run` makes it
and judges it: a right answer, or an error that was to be expected and names what is wrong.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from closed_forms import CLOSED_FORMS, ClosedForm
from hypothesis import strategies as st

import quadflow as qf
from quadflow.rules.quadrature import FAMILIES
from quadflow.rules.rule import QuadratureRule

Array = np.ndarray

DTYPES = {
    "float64": torch.float64, "float32": torch.float32, "complex128": torch.complex128,
    "complex64": torch.complex64, "float16": torch.float16, "bfloat16": torch.bfloat16,
}  # fmt: skip


class FuncFailedError(Exception):
    """Raised by the user's function: it must come out as it is."""


@functools.cache
def rule_of(family: str, n: int) -> QuadratureRule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", qf.NegativeWeightsWarning)
        return FAMILIES[family].function(n)


@dataclass(frozen=True)
class Call:
    """A call of `solve`. Times are in s, from 0 to end; sizes too."""

    form: str = "decay"
    dtype: str = "float64"
    accumulation: str | None = None
    structure: str = "tensor"
    shape: tuple[int, ...] = (2,)
    seed: int = 0
    # ("name", registered name) or ("collocation", family, n, sweeps, guess) or ("adams", k, ...)
    method: tuple[Any, ...] = ("name", "dopri5")
    end: float = 1.0
    backward: bool = False
    scale: float = 1.0
    offset: float = 0.0
    inner: tuple[float, ...] = ()
    container: str = "list"
    steps: tuple[Any, ...] = ("adaptive",)
    rtol: float = 1e-5
    atol: float = 1e-7
    tolerance_shape: str = "float"
    initial_step: float | None = None
    min_step: float = 0.0
    max_step: float = math.inf
    max_steps: int = 400
    dense_output: bool = False
    breakpoints: tuple[float, ...] = ()
    land_on: tuple[float, ...] = ()
    perturb: bool = False
    batch_dims: int = 0
    args: bool = False
    callbacks: bool = False
    record_steps: bool = True
    node_evaluation: str = "auto"
    throw: bool = True
    grad: str | None = None
    event: float | None = None
    fault: tuple[str, float] | None = None
    bad: tuple[str, Any, str] | None = None


# -- drawing -----------------------------------------------------------------------------------

EXCESS = st.sampled_from((1e-300, 1e-18, 1e-15, 1.0, 1e6))

_METHODS = st.one_of(
    st.sampled_from(sorted(qf.methods())).map(lambda name: ("name", name)),
    st.sampled_from(("dopri5", "dopri8", "tsit5", "gauss", "adams")).map(lambda n: ("name", n)),
    st.builds(
        lambda family, n, sweeps, guess: (
            "collocation", family, max(n, FAMILIES[family].minimum), sweeps, guess,
        ),
        st.sampled_from(sorted(FAMILIES)),
        st.integers(1, 6),
        st.sampled_from((None, "converged", 1, 2, 4)),
        st.sampled_from(("constant", "extrapolated")),
    ),
    st.tuples(
        st.just("adams"), st.integers(1, 6), st.sampled_from((None, "PEC", "PECE")),
        st.sampled_from(("rising", "dopri5")),
    ),
)  # fmt: skip

_SHAPES = st.sampled_from(((), (1,), (2,), (3,), (2, 3), (3, 1, 2), (2, 2, 2, 2)))
_NUMBERS = st.sampled_from((0.25, 0.5, 1.0, 3.0))
_FRACTIONS = st.floats(0.001, 0.999)

BAD: tuple[tuple[str, Any, str], ...] = (
    ("t", "nonsense", "t"), ("t", (0.0,), "t"), ("t", (0.0, 0.0), "t"), ("t", None, "t"),
    ("t", (0.0, math.nan), "t"), ("t", [[0.0, 1.0]], "t"), ("t", (0.0, 1.0, 0.5), "t"),
    ("t", (0.0, math.inf), "t"), ("t", 1.0, "t"), ("t", (), "t"), ("t", (0.0, 1j), "t"),
    ("t", (0.0, "1s"), "t"), ("t", {}, "t"), ("t", torch.zeros(2, 3, 4), "t"),
    ("t", torch.tensor([0.0, 1j]), "t"),
    ("y0", 1.0, "y0"), ("y0", [1.0], "y0"), ("y0", (), "y0"), ("y0", {}, "y0"),
    ("y0", torch.zeros(0), "y0"), ("y0", torch.zeros(2, 0), "y0"), ("y0", None, "y0"),
    ("y0", torch.tensor([1, 2]), "y0"), ("y0", torch.tensor([1.0, math.nan]), "y0"),
    ("y0", torch.tensor([True]), "y0"), ("y0", (torch.ones(2), 1.0), "y0"),
    ("y0", {"a": torch.ones(2), "b": torch.ones(2).double()}, "y0"),
    ("y0", torch.ones(2).to_sparse(), "y0"), ("y0", np.ones(2), "y0"),
    ("method", "dopri6", "method"), ("method", 5, "method"), ("method", ["dopri5"], "method"),
    ("method", qf.gauss_legendre(3), "method"),
    ("rtol", 0.0, "rtol"), ("rtol", -1.0, "rtol"), ("rtol", math.nan, "rtol"),
    ("rtol", math.inf, "rtol"), ("rtol", "tight", "rtol"), ("rtol", {}, "rtol"),
    ("rtol", 1j, "rtol"), ("rtol", torch.tensor(1j), "rtol"), ("rtol", torch.zeros(0), "rtol"),
    ("rtol", torch.tensor([1e-3, math.nan]), "rtol"), ("rtol", torch.full((7, 5), 1e-3), "rtol"),
    ("rtol", (1e-3, 1e-3), "rtol"), ("rtol", torch.tensor(-1e-3), "rtol"),
    ("atol", 0.0, "atol"), ("atol", -1e-9, "atol"), ("atol", torch.zeros(()), "atol"),
    ("atol", [1e-3], "atol"), ("atol", torch.full((7,), 1e-3), "atol"), ("atol", {}, "atol"),
    ("step_size", 0.0, "step_size"), ("step_size", math.nan, "step_size"),
    ("step_size", math.inf, "step_size"), ("step_size", "small", "step_size"),
    ("step_size", 1e-300, "step_size"), ("step_size", 1j, "step_size"),
    ("step_size", torch.ones(3), "step_size"), ("step_size", (0.1,), "step_size"),
    ("grid", "points", "grid"), ("grid", (0.0,), "grid"), ("grid", (-1e99, 1e99), "grid"),
    ("grid", 3, "grid"), ("grid", (math.nan, 1.0), "grid"), ("grid", torch.zeros(3, 2), "grid"),
    ("initial_step", 0.0, "initial_step"), ("initial_step", -1.0, "initial_step"),
    ("initial_step", math.nan, "initial_step"), ("initial_step", "x", "initial_step"),
    ("initial_step", torch.ones(2), "initial_step"), ("initial_step", 1j, "initial_step"),
    ("min_step", -1.0, "min_step"), ("min_step", math.nan, "min_step"),
    ("min_step", None, "min_step"), ("min_step", "x", "min_step"),
    ("max_step", 0.0, "max_step"), ("max_step", -1.0, "max_step"), ("max_step", "x", "max_step"),
    ("max_step", None, "max_step"), ("max_step", math.nan, "max_step"),
    ("max_steps", 0, "max_steps"), ("max_steps", 2.5, "max_steps"),
    ("max_steps", True, "max_steps"),
    ("max_steps", None, "max_steps"), ("max_steps", "many", "max_steps"),
    ("norm", "rms", "norm"), ("norm", lambda x: "large", "norm"), ("norm", lambda x: x, "norm"),
    ("norm", None, "norm"), ("norm", lambda x: None, "norm"),
    ("controller", "PI", "controller"), ("controller", 0.9, "controller"),
    ("node_evaluation", "brodcast", "node_evaluation"),
    ("node_evaluation", None, "node_evaluation"),
    ("node_evaluation", 3, "node_evaluation"), ("node_evaluation", ["loop"], "node_evaluation"),
    ("events", 5, "events"), ("events", "zero", "events"), ("events", [None], "events"),
    ("batch_dims", 2, "batch_dims"), ("batch_dims", -1, "batch_dims"),
    ("batch_dims", True, "batch_dims"), ("batch_dims", None, "batch_dims"),
    ("batch_dims", "one", "batch_dims"), ("batch_dims", [1], "batch_dims"),
    ("breakpoints", "noon", "breakpoints"), ("breakpoints", 0.5, "breakpoints"),
    ("breakpoints", None, "breakpoints"), ("breakpoints", (math.nan,), "breakpoints"),
    ("breakpoints", [[0.5]], "breakpoints"), ("breakpoints", (1j,), "breakpoints"),
    ("breakpoints", torch.tensor(0.5), "breakpoints"),
    ("land_on", "noon", "land_on"), ("land_on", 0.5, "land_on"), ("land_on", None, "land_on"),
    ("land_on", (math.nan,), "land_on"), ("land_on", torch.tensor([0.5j]), "land_on"),
    ("callback", 3, "callback"), ("attempt_callback", "x", "attempt_callback"),
    ("reject_callback", [], "reject_callback"),
    ("accumulation_dtype", "float64", "accumulation_dtype"),
    ("accumulation_dtype", torch.float16, "accumulation_dtype"),
    ("accumulation_dtype", torch.int64, "accumulation_dtype"),
    ("accumulation_dtype", 64, "accumulation_dtype"),
    ("on_stiff", "never", "on_stiff"), ("on_stiff", None, "on_stiff"), ("on_stiff", 1, "on_stiff"),
    ("progress", 3, "progress"), ("dense_output", "no", "dense_output"),
    ("record_steps", None, "record_steps"), ("throw", 0, "throw"), ("perturb", 1, "perturb"),
    ("compile", "inductor", "compile"), ("compile", 3, "compile"), ("compile", None, "compile"),
    ("args", 5, "args"), ("args", "ab", "args"), ("args", None, "args"),
    ("args", torch.ones(2), "args"),
    ("func", 3, "func"), ("func", None, "func"), ("func", "f", "func"),
    ("func", lambda t, y, *a: None, "func"), ("func", lambda t, y, *a: 1.0, "func"),
    ("func", lambda t, y, *a: [y], "func"), ("func", lambda t, y, *a: (y, y, y), "func"),
    ("func", lambda t, y, *a: {}, "func"),
)  # fmt: skip
"""(argument, value, what the message must name): none of them is to be accepted."""


@st.composite
def calls(draw: Any) -> Call:
    """A call: mostly sound, some asking for too much, some with one bad argument."""
    form = CLOSED_FORMS[draw(st.sampled_from(sorted(CLOSED_FORMS)))]
    kinds = ["float64", "float64", "float32", "complex128", "complex64", "float16", "bfloat16"]
    dtype = draw(st.sampled_from([k for k in kinds if form.complex or "complex" not in k]))
    half = dtype in ("float16", "bfloat16")
    accumulation = "float32" if half else draw(
        st.sampled_from((None, None, None, "complex128" if "complex" in dtype else "float64"))
    )  # fmt: skip
    shape = draw(_SHAPES)
    if form.name == "linear" and not shape:
        shape = (2,)
    end = draw(st.floats(0.05, 4.0))
    steps = draw(
        st.sampled_from(
            (("adaptive",),) * 4 + (("step_size", 20), ("step_size", 7.3), ("grid", 12))
        )
    )
    adaptive = steps == ("adaptive",)
    choices = _METHODS
    if adaptive and draw(st.integers(0, 9)):
        choices = _METHODS.filter(lambda method: made_of(method).error_order is not None)
    method = draw(choices)
    batch = draw(st.sampled_from((0, 0, 0, 0, 1)))
    if form.name == "linear" and batch and len(shape) < 2:
        shape = (2, 3)  # its last axis is coupled, so that it cannot count samples
    bad = draw(st.sampled_from(BAD)) if draw(st.sampled_from(range(12))) == 5 else None
    fault = draw(
        st.one_of(
            st.none(), st.none(), st.none(), st.none(),
            st.tuples(
                st.sampled_from(("nan", "inf", "shape", "dtype", "raise")), st.floats(0.0, 0.9)
            ),
        )
    )  # fmt: skip
    return Call(
        form=form.name,
        dtype=dtype,
        accumulation=accumulation,
        structure=draw(st.sampled_from(("tensor", "tensor", "tensor", "tuple", "dict"))),
        shape=shape,
        seed=draw(st.integers(0, 99)),
        method=method,
        end=end,
        backward=draw(st.booleans()),
        # slopes beyond 1e5 overflow in float16
        scale=draw(st.sampled_from((1.0, 1.0, 1e-3, 1e3) + (() if half else (1e-8, 1e8)))),
        offset=draw(st.sampled_from((0.0, 0.0, 1.0, -3.0, 100.0))),
        inner=tuple(sorted(set(draw(st.lists(_FRACTIONS, max_size=5))))),
        container=draw(st.sampled_from(("list", "tuple", "array", "tensor64", "tensor32"))),
        steps=steps,
        rtol=draw(st.sampled_from((1e-2, 1e-3, 1e-5, 1e-7, 1e-10)) | EXCESS),
        atol=draw(st.sampled_from((1e-3, 1e-5, 1e-7, 1e-10)) | EXCESS),
        tolerance_shape=draw(st.sampled_from(("float", "float", "scalar", "full"))),
        initial_step=draw(st.none() | st.none() | st.sampled_from((1e-6, 0.01, 0.3, 50.0))),
        min_step=draw(st.sampled_from((0.0, 0.0, 0.0, 1e-9, 0.1))),
        max_step=draw(st.sampled_from((math.inf, math.inf, 1.0, 0.1))),
        max_steps=draw(st.sampled_from((400, 400, 400, 400, 1, 7))),
        dense_output=draw(st.booleans()),
        breakpoints=tuple(draw(st.lists(st.floats(-0.5, 1.5) | st.just(1e-18), max_size=2)))
        if draw(st.booleans()) else (),
        land_on=tuple(draw(st.lists(st.floats(-0.5, 1.5) | st.just(1e-17), max_size=2)))
        if draw(st.booleans()) else (),
        perturb=draw(st.sampled_from((False, False, not adaptive, not adaptive))),
        batch_dims=batch,
        args=draw(st.booleans()),
        callbacks=draw(st.booleans()),
        record_steps=draw(st.booleans()),
        node_evaluation=draw(
            st.sampled_from(
                # a func that decides on numbers is not for vmap
                ("auto", "auto", "broadcast", "loop")
                + (() if fault and fault[0] not in ("nan", "inf") else ("vmap",))
            )
        ),
        throw=draw(st.booleans()),
        grad=draw(st.sampled_from((None, None, None, "y0", "t", "args"))),
        # with events t may end at infinity
        event=None if bad and bad[0] == "t" else draw(st.none() | st.none() | _FRACTIONS),
        fault=fault,
        bad=bad,
    )  # fmt: skip


# -- making ------------------------------------------------------------------------------------


def made_of(method: tuple[Any, ...]) -> qf.Method:
    """The method of a call's description of it."""
    kind, *what = method
    if kind == "name":
        return qf.get_method(what[0])
    if kind == "adams":
        k, correction, startup = what
        return qf.adams(k, correction, startup=startup)
    family, n, sweeps, guess = what
    return qf.collocation(rule_of(family, n), sweeps, guess=guess)


def first_state(call: Call, form: ClosedForm) -> Array:
    """The start, of the size that the formulas are for, and as the dtype holds it."""
    random = np.random.default_rng(call.seed)
    if form.name in ("logistic", "blow-up"):
        y0 = random.uniform(0.1, 0.9, call.shape)
    else:
        y0 = random.standard_normal(call.shape)
    if "complex" in call.dtype:
        y0 = y0 + 1j * random.standard_normal(call.shape)
    tensor = torch.tensor(np.asarray(y0)).to(DTYPES[call.dtype])
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    return np.asarray(tensor.to(wide).numpy())


def _copies(call: Call) -> int:
    return 1 if call.structure == "tensor" else 2


def _structured(call: Call, parts: list[Any]) -> Any:
    if call.structure == "tuple":
        return tuple(parts)
    return dict(zip("ab", parts, strict=True)) if call.structure == "dict" else parts[0]


def _parts(call: Call, state: Any) -> list[Any]:
    if call.structure == "dict":
        return [state["a"], state["b"]]
    return list(state) if call.structure == "tuple" else [state]


class Function:
    """func of a call: the form's slope on every tensor of the state, and what goes wrong in it."""

    def __init__(self, call: Call, t0: float, t1: float, scale: float) -> None:
        self.call, self.form = call, CLOSED_FORMS[call.form]
        self.sign = -1.0 if call.backward else 1.0
        self.t0, self.scale, self.calls = t0, scale, 0
        self.fault_at = None if call.fault is None else t0 + call.fault[1] * (t1 - t0)

    def __call__(self, t: Any, y: Any, *args: Any) -> Any:
        self.calls += 1
        s = (t - self.t0) * self.sign / self.scale
        rate = self.sign / self.scale * (args[0] if args else 1.0)
        slopes = [(self.form.slope(s, part) * rate).to(part) for part in _parts(self.call, y)]
        if self.fault_at is not None:
            assert self.call.fault is not None
            fault, late = self.call.fault[0], self.sign * t >= self.sign * self.fault_at
            if fault in ("nan", "inf"):
                slopes = [torch.where(late, float(fault), slope) for slope in slopes]
            elif bool(late.any()):
                if fault == "raise":
                    raise FuncFailedError("the function fails here")
                wrong = slopes[0]
                if fault == "shape":
                    slopes[0] = torch.cat((wrong[None], wrong[None]))
                else:
                    other = torch.float32 if wrong.dtype is torch.float64 else torch.float64
                    slopes[0] = wrong.to(other)
        return _structured(self.call, slopes)


@dataclass
class Made:
    """Arguments of a call, and what is needed to judge what comes of it."""

    func: Function
    positional: dict[str, Any]
    keywords: dict[str, Any]
    method: qf.Method
    times: list[float]
    elapsed: Array  # s at the times
    y0: Array
    step: float  # longest fixed step, in s; NaN where steps are adaptive
    counts: dict[str, int]
    parameter: torch.Tensor | None = None


def make(call: Call) -> Made:
    form, sign = CLOSED_FORMS[call.form], -1.0 if call.backward else 1.0
    scale = call.scale
    t0 = call.offset * scale
    times = [t0 + sign * x * call.end * scale for x in (0.0, *call.inner, 1.0)]
    if call.container == "tensor32":
        times = torch.tensor(times, dtype=torch.float32).double().tolist()
    if call.container == "tensor32" or len(set(times)) < len(times):
        times = sorted(set(times), key=lambda t: sign * t)
    t0, t1 = times[0], times[-1]

    def point(fraction: float) -> float:
        return t0 + fraction * (t1 - t0)

    t: Any = times
    if call.container == "tuple":
        t = tuple(times)
    elif call.container == "array":
        t = np.array(times)
    elif call.container.startswith("tensor"):
        kind = torch.float32 if call.container == "tensor32" else torch.float64
        t = torch.tensor(times, dtype=torch.float64).to(kind)
    y0 = first_state(call, form)
    start = torch.tensor(y0).to(DTYPES[call.dtype])
    if call.grad == "t":
        t = torch.as_tensor(t, dtype=torch.float64) if not isinstance(t, torch.Tensor) else t
        t.requires_grad_()
    if call.grad == "y0":
        start.requires_grad_()
    func = Function(call, t0, t1, scale)
    parameter = None
    method = made_of(call.method)
    keywords: dict[str, Any] = {"method": method}
    if call.args or call.grad == "args":
        kind = torch.float64 if call.dtype in ("float64", "complex128") else torch.float32
        parameter = torch.ones((), dtype=kind, requires_grad=call.grad == "args")
        keywords["args"] = (parameter,)
    keywords["rtol"], keywords["atol"] = call.rtol, call.atol
    if call.tolerance_shape != "float":
        shape = call.shape if call.tolerance_shape == "full" and call.structure == "tensor" else ()
        for name in ("rtol", "atol"):
            keywords[name] = torch.full(shape, keywords[name], dtype=torch.float64)
    step = math.nan
    elapsed = np.abs(np.array(times) - t0) / scale
    end = float(elapsed[-1])
    if call.steps[0] == "step_size":
        step = end / call.steps[1]
        keywords["step_size"] = abs(t1 - t0) / call.steps[1]
    elif call.steps[0] == "grid":
        fractions = np.linspace(0, 1, call.steps[1] + 1)
        fractions[1:-1] += 0.2 / call.steps[1] * np.sin(7 * np.arange(1, call.steps[1]))
        step = float(np.diff(fractions).max()) * end
        keywords["grid"] = [t0, *(point(x) for x in fractions[1:-1]), t1]
    if call.initial_step is not None:
        keywords["initial_step"] = call.initial_step * scale
    keywords["min_step"], keywords["max_step"] = call.min_step * scale, call.max_step * scale
    for name in ("breakpoints", "land_on"):
        points = getattr(call, name)
        if points:
            keywords[name] = [point(x) for x in points]
    for name in ("max_steps", "dense_output", "perturb", "batch_dims", "record_steps",
                 "node_evaluation", "throw"):  # fmt: skip
        keywords[name] = getattr(call, name)
    if call.accumulation is not None:
        keywords["accumulation_dtype"] = DTYPES[call.accumulation]
    counts = {"accepted": 0, "tried": 0, "rejected": 0}
    if call.callbacks:

        def count(what: str) -> Any:
            def add(*_: Any) -> None:
                counts[what] += 1

            return add

        keywords["callback"] = count("accepted")
        if not call.batch_dims:
            keywords["attempt_callback"] = count("tried")
            keywords["reject_callback"] = count("rejected")
    if call.event is not None:
        event_t = point(call.event)
        keywords["events"] = qf.Event(lambda t, y: (t - event_t) / scale, terminal=True)
    state = _structured(call, [start] * _copies(call))
    positional = {"func": func, "y0": state, "t": t}
    if call.bad is not None:
        name, value, _ = call.bad
        (positional if name in positional else keywords)[name] = value
    return Made(
        func, positional, keywords, method, times, elapsed, y0, step, counts, parameter
    )  # fmt: skip


# -- judging -----------------------------------------------------------------------------------

REFUSALS = (ValueError, TypeError, NotImplementedError)
_ARGUMENTS = (
    "func", "y0", "t", "args", "method", "rtol", "atol", "step_size", "grid", "initial_step",
    "min_step", "max_step", "max_steps", "norm", "controller", "node_evaluation", "dense_output",
    "events", "batch_dims", "breakpoints", "land_on", "perturb", "callback", "attempt_callback",
    "reject_callback", "accumulation_dtype", "record_steps", "throw",
)  # fmt: skip


def names(message: str, argument: str) -> bool:
    """Whether a message names the argument, as a word of its own."""
    return re.search(rf"(?<![\w.]){argument}(?!\w)", message) is not None


@dataclass(frozen=True)
class Verdict:
    """outcome: "right", "refused", a status, or an error of the user's function. ratio: the largest
    error over the bound on it with constant 1, where there was an answer."""

    outcome: str
    ratio: float = 0.0
    what: str = ""


def refusal(call: Call, made: Made) -> str | None:
    """The argument that must be refused for being at odds with the others."""
    adaptive, method = call.steps[0] == "adaptive", made.method
    if call.min_step > call.max_step:
        return "min_step"
    if call.batch_dims and not call.shape:
        return "batch_dims"
    if call.batch_dims:
        return None
    if adaptive and method.error_order is None:
        return "method"
    if adaptive and call.perturb:
        return "perturb"
    if not adaptive and isinstance(method, qf.VariableOrderMethod):
        return "method"
    return None


def run(call: Call) -> Verdict:
    """Make the call and judge it.

    Raises:
        AssertionError: it ended neither in a right answer nor in an error that was due.
    """
    made = make(call)
    must = refusal(call, made)
    try:
        solution = qf.solve(**made.positional, **made.keywords)
    except qf.VelocityError as error:
        assert names(str(error), "func") or "func's" in str(error), error
        if call.bad is not None and call.bad[0] == "func":
            return Verdict("refused", what="func")
        assert call.fault is not None and call.fault[0] in ("shape", "dtype"), error
        return Verdict("wrong velocity")
    except FuncFailedError:
        assert call.fault is not None and call.fault[0] == "raise"
        return Verdict("func failed")
    except REFUSALS as error:
        return _judge_refusal(call, must, error)
    except qf.SolveError as error:
        assert call.throw, "throw=False raised"
        assert error.status is error.solution.status and not error.solution.success
        assert str(error) == error.solution.message
        solution = error.solution
    else:
        assert solution.success or not call.throw, "an error was not raised"
    if call.bad is not None:
        # what a norm returns is looked at where it is used
        assert call.bad[0] == "norm", f"{call.bad} was accepted: {solution.message}"
        assert callable(call.bad[1]) and (call.steps[0] != "adaptive" or call.batch_dims)
    assert must is None, f"{must} was not refused"
    return judge(call, made, solution)


def _judge_refusal(call: Call, must: str | None, error: Exception) -> Verdict:
    message = str(error)
    due = [name for name in (call.bad and call.bad[2], must) if name]
    if call.batch_dims:  # which may not go together with some others
        due += [name for name in _ARGUMENTS if names(message, name)]
    if call.grad == "t" and (call.batch_dims or call.event is not None):
        due.append("t")
    assert due, f"refused for no reason: {type(error).__name__}: {error}"
    assert any(names(message, name) for name in due), (
        f"{type(error).__name__} does not name {due}: {message}"
    )
    return Verdict("refused", what=due[0])


def judge(call: Call, made: Made, solution: qf.Solution) -> Verdict:
    """Look at everything that a solution says."""
    form = CLOSED_FORMS[call.form]
    stats, status = solution.stats, solution.status
    assert solution.message
    _judge_counts(call, made, solution)
    if call.batch_dims:
        return _judge_samples(call, made, solution)
    reached = solution.t.tolist()
    event = made.times[0] + call.event * (made.times[-1] - made.times[0]) if call.event else None
    if status is qf.Status.SUCCESS:
        assert reached == made.times, "times"
        assert event is None, "the event was missed"
    elif status is qf.Status.EVENT:
        assert event is not None
        room = 1e-12 * max(abs(t) for t in made.times) + 1e-6 * call.scale * (
            "32" in str(DTYPES[call.dtype]) or (call.dtype[-2:] == "64" and "complex" in call.dtype)
            or "16" in call.dtype
        )  # fmt: skip
        assert abs(reached[-1] - event) <= max(room, 4e-7 * abs(event)), "the event's time"
    else:
        assert reached == made.times[: len(reached)], "times"
        _judge_failure(call, made, solution)
    if form.last(made.y0) <= _elapsed(made, reached[-1]):
        # fixed steps see nothing of a pole; nor need those whose error may be as large as y
        assert call.steps[0] != "adaptive" or max(call.rtol, call.atol) >= 1e-2, "across a pole"
        return Verdict(status.value)
    worst = max(
        _error(call, made, part, reached, "times") for part in _parts(call, solution.y)
    )  # fmt: skip
    # fixed steps go on in what is not finite, and dense output may look at the end of a step
    if call.dense_output and len(reached) > 1 and (solution.success or math.isnan(made.step)):
        inside = np.random.default_rng(call.seed).uniform(0, 1, 4)
        last = solution.steps[-1] if solution.success else reached[-1]
        span = last - reached[0]
        when = [reached[0], *(reached[0] + x * span for x in inside), last]
        got = solution(when)
        worst = max(worst, *(_error(call, made, p, when, "between") for p in _parts(call, got)))
    if solution.success:
        worst = max(worst, _gradient_error(call, made, solution))
    scale = bound(call, made, stats, float(made.elapsed[-1]))
    return Verdict("right" if solution.success else status.value, worst / scale)


def _elapsed(made: Made, t: float) -> float:
    return abs(t - made.times[0]) / made.func.scale


def _error(call: Call, made: Made, got: torch.Tensor, times: list[float], where: str) -> float:
    form = CLOSED_FORMS[call.form]
    assert got.shape == (len(times), *call.shape), (where, got.shape)
    assert got.dtype is DTYPES[call.dtype], (where, got.dtype)
    exact = np.stack([form.exact(_elapsed(made, t), made.y0) for t in times])
    wide = torch.complex128 if got.is_complex() else torch.float64
    found = got.detach().to(wide).numpy()
    assert np.isfinite(found).all(), f"not finite at {where}"
    return float(np.abs(found - exact).max(initial=0.0))


def _gradient_error(call: Call, made: Made, solution: qf.Solution) -> float:
    """Error of the derivative of the end's sum, taken along (1, ..., 1) where it is in y0."""
    form, s = CLOSED_FORMS[call.form], _elapsed(made, float(solution.t[-1]))
    if call.grad is None or call.event is not None or form.last(made.y0) <= s:
        return 0.0
    if "16" in call.dtype and max(call.rtol, call.atol) >= 0.1:
        return 0.0  # on steps beyond stability gradients may overflow
    ends = [part[-1].sum() for part in _parts(call, solution.y)]
    total = torch.stack([end.real if end.is_complex() else end for end in ends]).sum()
    wrt = {"t": made.positional["t"], "args": made.parameter}.get(call.grad)
    if call.grad == "y0":
        wrt = _parts(call, made.positional["y0"])[0]
    assert wrt is not None
    if not total.requires_grad:
        raise AssertionError(f"no gradient in {call.grad}")
    (gradient,) = torch.autograd.grad(total, wrt, allow_unused=True)
    if gradient is None:
        gradient = torch.zeros_like(wrt)
    assert gradient.isfinite().all(), "gradient is not finite"
    copies = _copies(call)
    end = form.exact(s, made.y0)
    if call.grad == "y0":
        if "complex" in call.dtype:
            return 0.0
        exact = form.exact(s, made.y0 + 1e-30j).imag.sum() / 1e-30 * copies
        return abs(float(gradient.sum()) - exact) / (copies * made.y0.size)
    slope = form.slope(torch.tensor(s, dtype=torch.float64), torch.tensor(np.asarray(end))).sum()
    exact = float(slope.real if slope.is_complex() else slope) * copies
    if call.grad == "t":
        off = abs(float(gradient[-1]) * made.func.scale * made.func.sign - exact)
        # a gradient has its tensor's dtype, whatever the state's
        return max(0.0, off - torch.finfo(gradient.dtype).eps * abs(exact)) / made.y0.size
    if not form.autonomous:
        return 0.0
    return abs(float(gradient) - s * exact) / made.y0.size


def _judge_counts(call: Call, made: Made, solution: qf.Solution) -> None:
    stats, sign = solution.stats, made.func.sign
    # calls through vmap are one each; a loop over the nodes that a raising function ends while the
    # node evaluation is found out counts as if it had been finished
    unmade = stats.calls - made.func.calls
    raising = call.fault is not None and call.fault[0] not in ("nan", "inf")
    assert 0 <= unmade <= (stats.probe_nfe if raising else 0), ("calls", unmade)
    assert stats.nfe >= stats.calls and stats.probe_nfe <= stats.nfe
    if call.callbacks and not call.batch_dims:
        assert made.counts["accepted"] == stats.accepted
        assert made.counts["rejected"] == stats.rejected
        tried = made.counts["tried"]
        assert stats.accepted + stats.rejected <= tried <= stats.accepted + stats.rejected + 1
    if call.batch_dims:
        return
    if call.steps[0] == "adaptive":
        assert stats.accepted + stats.rejected <= call.max_steps, "max_steps"
    steps = solution.steps
    assert steps[0] == made.times[0]
    assert all(sign * a < sign * b for a, b in itertools.pairwise(steps)), "steps"
    if solution.status is qf.Status.SUCCESS:
        assert steps[-1] == made.times[-1], "the end"
    if call.record_steps or call.dense_output:
        assert len(steps) == stats.accepted + 1
        if call.steps[0] == "adaptive":
            longest = max((abs(b - a) for a, b in itertools.pairwise(steps)), default=0)
            room = 4 * math.ulp(max(abs(t) for t in made.times))
            assert longest <= made.keywords["max_step"] + room, "max_step"
        for name in ("land_on", "breakpoints"):
            for point in made.keywords.get(name, ()):
                if sign * steps[0] < sign * point < sign * steps[-1]:
                    assert point in steps, f"{name}: no step ends at {point}"
    else:
        assert len(steps) <= 2


def least_rtol(call: Call) -> float:
    """What a lower rtol is raised to."""
    own, of_func = (
        torch.finfo(DTYPES[name]).eps for name in (call.accumulation or call.dtype, call.dtype)
    )
    return max(100 * own, of_func)


def least_tolerance(call: Call) -> float:
    """What the tolerance may be without asking for more than the dtype holds, relative to y."""
    return 100 * torch.finfo(DTYPES[call.dtype]).eps


def _judge_failure(call: Call, made: Made, solution: qf.Solution) -> None:
    status, stats, form = solution.status, solution.stats, CLOSED_FORMS[call.form]
    assert names(solution.message, "t") or call.batch_dims, solution.message
    pole = form.last(made.y0) <= made.elapsed[-1]
    faulty = call.fault is not None
    strict = min(call.rtol, 1.0) < least_tolerance(call) and call.atol < 1e-2
    if not form.linear and max(call.rtol, call.atol) >= 0.1:
        return  # the tolerance lets it go anywhere, to a pole of another solution for one
    if status is qf.Status.MAX_STEPS:
        assert stats.accepted + stats.rejected == call.max_steps
        order = made.method.error_order or 1
        wanted = min(1.0, max(call.rtol, call.atol))
        needed = 12 * (wanted ** -(1 / order) + 10) * made.elapsed[-1]
        variable = isinstance(made.method, qf.VariableOrderMethod)
        assert (
            pole or faulty or strict or needed > call.max_steps or variable
            or call.max_steps < 100 or call.max_step < 1
        ), f"{stats.accepted} + {stats.rejected} steps were not enough: {needed}"  # fmt: skip
    elif status is qf.Status.STEP_COLLAPSE:
        assert pole or strict or call.min_step > 0, solution.message
    elif status is qf.Status.NON_FINITE:
        # an error over tolerances of 1e-300 may overflow, which the message says
        tiny = max(call.rtol, call.atol) < 1e-14
        unstable = amplification(made.method) * torch.finfo(DTYPES[call.dtype]).eps > 0.1
        assert (
            pole or tiny or unstable or (faulty and call.fault[0] in ("nan", "inf"))
        ), solution.message  # fmt: skip
    elif status is qf.Status.NOT_CONTRACTING:
        assert pole or faulty, solution.message
    else:
        raise AssertionError(f"{status}: {solution.message}")


def _judge_samples(call: Call, made: Made, solution: qf.Solution) -> Verdict:
    form = CLOSED_FORMS[call.form]
    assert solution.statuses is not None and len(solution.statuses) == call.shape[0]
    worst = 0.0
    for part in _parts(call, solution.y):
        assert part.shape == (len(made.times), *call.shape)
        for i, status in enumerate(solution.statuses):
            good = torch.isfinite(part[:, i]).reshape(len(made.times), -1).all(1).tolist()
            reached = len(good) if all(good) else good.index(False)
            if status is qf.Status.SUCCESS:
                # in float16 what is beyond a pole may overflow
                across = form.last(made.y0[i]) <= made.elapsed[-1]
                assert reached == len(made.times) or across, f"sample {i}"
            last = form.last(made.y0[i])
            for j in range(reached):
                s = float(made.elapsed[j])
                if s >= last:
                    assert max(call.rtol, call.atol) >= 1e-2, "across a pole"
                    return Verdict(solution.status.value)
                exact = form.exact(s, made.y0[i : i + 1])[0]
                wide = torch.complex128 if part.is_complex() else torch.float64
                error = np.abs(part[j, i].detach().to(wide).numpy() - exact).max(initial=0.0)
                worst = max(worst, float(error))
    scale = bound(call, made, solution.stats, float(made.elapsed[-1]))
    return Verdict("right" if solution.success else solution.status.value, worst / scale)


def _stable(method: qf.AnchorsMethod) -> float:
    """Where Adams methods of k anchors are stable, as those of Adams-Bashforth: the real interval
    halves with every anchor, from 2."""
    return 2.0 ** (2 - method.interpolant.anchors)


def amplification(method: qf.Method) -> float:
    """What extrapolating a start guess makes of rounding, from a step as long as the last."""
    if isinstance(method, qf.SweepsMethod) and method.guess == "extrapolated":
        return (3 + 2 * math.sqrt(2)) ** method.rule.n
    return 1.0


def bound(call: Call, made: Made, stats: qf.Statistics, end: float) -> float:
    """What the error may be, up to a constant: see test_fuzzing.py for that, and for why."""
    form, y0 = CLOSED_FORMS[call.form], made.y0
    end = min(end, 0.999 * form.last(y0))
    if solution_end := getattr(stats, "end", None):
        end = min(end, solution_end)
    moments = np.linspace(0.0, end, 33)
    size = max(float(np.abs(form.exact(s, y0)).max()) for s in moments.tolist())
    growth = form.growth(end, y0)
    steps = max(1, stats.accepted)
    func_eps = float(torch.finfo(DTYPES[call.dtype]).eps)
    rounding = func_eps * max(size, 1e-3) * (steps + 10)
    rounding *= amplification(made.method)
    if isinstance(made.method, qf.SweepsMethod) and made.method.converged:
        rounding *= 64
    if not form.autonomous:
        time = torch.empty((), dtype=DTYPES[call.accumulation or call.dtype]).real.dtype
        rounding += float(torch.finfo(time).eps) * max(map(abs, made.times)) / call.scale
    if call.steps[0] == "adaptive":
        held = max(call.rtol, least_rtol(call))  # which is what was used
        allowed = (call.atol + held * size) * steps * math.sqrt(_copies(call) * y0.size)
    else:
        order = min(made.method.order or 1, made.method.dense_order or 1)
        rate = size if form.name == "blow-up" else 1.2
        # one step at the start, and one behind every breakpoint, may be of lower order
        starts = 0.0
        if isinstance(made.method, qf.AnchorsMethod) and made.step * rate > _stable(made.method):
            return math.inf
        if isinstance(made.method, qf.AnchorsMethod) and made.method.startup == "rising":
            starts = 1.0 + len(call.breakpoints)
            if call.perturb:  # every step starts anew
                order = 1
        allowed = max(size, 1.0) * (end + starts) * (made.step * rate) ** order
        if form.name == "blow-up":  # of which the derivatives are p! y^(p+1)
            allowed *= math.factorial(order)
    if not form.linear and growth * allowed > 0.01 * size:
        return math.inf  # errors that large do not grow as small ones do
    return growth * (allowed + rounding)
