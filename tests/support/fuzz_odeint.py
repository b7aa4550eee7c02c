"""Random calls of `odeint`, made of those of `solve`; see test_fuzzing.py."""

from __future__ import annotations

import math
from typing import Any

import torch
from closed_forms import CLOSED_FORMS
from fuzz_cases import (
    REFUSALS,
    Call,
    FuncFailedError,
    Made,
    Verdict,
    _error,
    _parts,
    bound,
    make,
    names,
)

import quadflow as qf
from quadflow.torchdiffeq_api.names import TORCHDIFFEQ_METHODS, StepKind, torchdiffeq_method

_NAMES = [*TORCHDIFFEQ_METHODS, *sorted(qf.methods())]

_BAD_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("speed", 3), ("step_size", "x"), ("step_size", 0.0), ("first_step", -1.0),
    ("max_num_steps", 0), ("safety", "big"), ("safety", 2.0), ("ifactor", 0.5), ("dfactor", 7.0),
    ("norm", "rms"), ("dtype", 3), ("step_t", 0.5), ("jump_t", "noon"), ("interp", "quintic"),
    ("perturb", 7), ("max_order", 0), ("max_order", 40), ("max_iters", 0), ("solver", "LSODE"),
    ("grid_constructor", 3), ("min_step", "x"), ("eps", "x"), ("node_evaluation", "brodcast"),
)  # fmt: skip


def run_odeint(call: Call) -> Verdict:
    """Make the call by way of `odeint` and judge it."""
    # what odeint has no words for
    call = _reduced(call)
    made = make(call)
    span = made.times[-1] - made.times[0]
    method: Any = _NAMES[call.seed % len(_NAMES)] if call.seed % 3 else made.method
    options: dict[str, Any] = {}
    try:
        _, chosen, kind = torchdiffeq_method(method, {"step_size": 1.0} if call.seed % 2 else {})
    except ValueError:
        _, chosen, kind = torchdiffeq_method(method, {})
    if kind in (StepKind.FIXED, StepKind.ADAMS):
        count = call.steps[1] if call.steps[0] != "adaptive" else 20
        options["step_size"] = abs(span) / count
        options["perturb"] = call.perturb
        step = float(made.elapsed[-1]) / count
    elif kind is StepKind.ADAPTIVE:
        options["max_num_steps"] = call.max_steps
        if call.initial_step is not None:
            options["first_step"] = call.initial_step * call.scale
        for ours, theirs in (("land_on", "step_t"), ("breakpoints", "jump_t")):
            points = sorted(set(made.keywords.get(ours, ())))
            if points:
                options[theirs] = torch.tensor(points, dtype=torch.float64)
        step = math.nan
    else:
        step = math.nan
    bad = _BAD_OPTIONS[call.seed % len(_BAD_OPTIONS)] if call.perturb and call.callbacks else None
    if bad is not None:
        options[bad[0]] = bad[1]
    t = made.positional["t"]
    if not isinstance(t, torch.Tensor):
        t = torch.tensor(made.times, dtype=torch.float64)
    rtol, atol = made.keywords["rtol"], made.keywords["atol"]
    try:
        y = qf.odeint(
            made.func, made.positional["y0"], t, rtol=rtol, atol=atol, method=method,
            options=options,
        )  # fmt: skip
    except qf.VelocityError:
        assert call.fault is not None and call.fault[0] in ("shape", "dtype")
        return Verdict("wrong velocity")
    except FuncFailedError:
        return Verdict("func failed")
    except REFUSALS as error:
        message = str(error)
        words = ["options", "method", "t", *options, *_SOLVE_WORDS]
        assert any(names(message, word) for word in words), message
        expected = bad is not None or _at_odds(call, made, kind, chosen, options)
        assert expected, f"refused for no reason: {message}"
        return Verdict("refused", what=message)
    except qf.SolveError as error:
        return Verdict(error.status.value)
    except RuntimeError as error:
        assert kind is StepKind.SCIPY and str(error).startswith("scipy_solver"), error
        return Verdict("failed in scipy")
    if bad is not None:
        assert _harmless(bad, kind, options), f"{bad} was accepted"
        return Verdict("ignored")
    form = CLOSED_FORMS[call.form]
    if form.last(made.y0) <= made.elapsed[-1]:
        return Verdict("across")
    worst = max(_error(call, made, part, made.times, "times") for part in _parts(call, y))
    made.method, made.step = chosen or made.method, step
    if made.method.name == "fehlberg2":  # whose error is some hundred times the tolerance
        return Verdict("not judged")
    steps = qf.Statistics("", accepted=400)
    judged = Call(**{**call.__dict__, "steps": ("adaptive",) if math.isnan(step) else ("grid", 1)})
    return Verdict("right", worst / bound(judged, made, steps, float(made.elapsed[-1])))


_SOLVE_WORDS = ("step_size", "grid", "initial_step", "safety", "max_factor", "min_factor",
                "max_steps", "land_on", "breakpoints", "perturb", "y0")  # fmt: skip


def _harmless(bad: tuple[str, Any], kind: StepKind, options: dict[str, Any]) -> bool:
    """Whether a bad option is one that this call need not look at, or may take for sound."""
    name, value = bad
    if name == "perturb":  # any truth value
        return kind is not StepKind.SCIPY
    return name == "safety" and value == "big" and kind is StepKind.SCIPY


def _at_odds(call: Call, made: Made, kind: StepKind, chosen: Any, options: dict[str, Any]) -> bool:
    """Whether the call must be refused."""
    if kind is StepKind.SCIPY:  # real dense states, its own limits on tolerances
        return True
    if isinstance(chosen, qf.VariableOrderMethod):
        return "step_size" in options
    stops = [options[name] for name in ("step_t", "jump_t") if name in options]
    repeated = [t for points in stops for t in points.tolist()]
    return len(set(repeated)) < len(repeated)


def _reduced(call: Call) -> Call:
    changes: dict[str, Any] = {
        "structure": "tuple" if call.structure == "dict" else call.structure,
        "args": False, "grad": None, "event": None, "batch_dims": 0, "bad": None,
        "accumulation": None, "max_step": math.inf, "min_step": 0.0, "throw": True,
        "dense_output": False, "node_evaluation": "auto",
    }  # fmt: skip
    if call.dtype in ("float16", "bfloat16"):
        changes["dtype"] = "float32"
    if call.tolerance_shape == "full":
        changes["tolerance_shape"] = "scalar"
    return Call(**{**call.__dict__, **changes})
