"""Golden traces: what every registered method does on three small problems, number by number.

    python tests/support/golden.py compare OLD_TREE NEW_TREE   bits of two checkouts
    python tests/support/golden.py record                      write tests/data/golden.json
    python tests/support/golden.py shake                       are the decisions far from an edge?

`compare` and `shake` exit with 1 on any difference, with 2 where they could not be made. `compare`
takes --rounding (equal counts, values within `VALUES`), --method NAME (several times) and --traced.

Compiled steps run under the stance "force_eager" of torch.compile: the step as it is written for a
graph, and its bookkeeping, without a graph. --traced makes the graphs (backend "eager", minutes)
and counts no host reads there, since Dynamo makes none while operations are watched. The compiler
behind the graph is left to test_compile.py.

Only the public API is used, so the same file drives trees whose insides differ.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from host_waits import CountWaits
from torch import Tensor
from trees import environment_of

import quadflow as qf

FILE = Path(__file__).parents[1] / "data/golden.json"
COUNTS = ("nfe", "calls", "accepted", "rejected", "refined", "probe_nfe")
Trace = dict[str, Any]


class Problem(NamedTuple):
    """An initial value problem whose func takes states and times with any leading axes."""

    func: Callable[[Tensor, Any], Any]
    start: Any
    times: tuple[float, ...]
    node_evaluation: str


def _pendulum(t: Tensor, y: Tensor) -> Tensor:
    angle, speed = y.unbind(-1)
    return torch.stack((speed, -2 * torch.sin(angle) - 0.2 * speed), -1)


def _oscillator(t: Tensor, y: Tensor) -> Tensor:
    position, speed = y.unbind(-1)
    return torch.stack((speed, -4 * position), -1)


def _pushed(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
    """A damped oscillator, pushed once and shortly; damped in the direction of falling times."""
    push = 2 * torch.exp(-20 * (t - 1) ** 2)
    return {"x": y["v"], "v": push - y["x"] + 0.2 * y["v"]}


def _state(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


PROBLEMS = {
    "pendulum": Problem(_pendulum, _state(1.1, -0.3), (0.0, 0.43, 1.3), "auto"),
    "oscillator": Problem(_oscillator, _state(0.7, 0.4), (0.0, 1.1), "loop"),
    "pushed": Problem(
        _pushed, {"x": _state(0.6), "v": _state(-0.2)}, (1.75, 1.33, 0.81, 0.35), "auto"
    ),
}

MODES = (
    "adaptive",
    "fixed",
    "per sample",
    "compiled",
    "compiled fixed",
    "vmap",
    "float32",
    "complex",
    "gradients",
)


def _each(change: Callable[[Tensor], Tensor], y: Any) -> Any:
    return {key: change(part) for key, part in y.items()} if isinstance(y, dict) else change(y)


def _parts(y: Any) -> list[Tensor]:
    return list(y.values()) if isinstance(y, dict) else [y]


def _numbers(tensors: list[Tensor]) -> list[float]:
    """Their numbers one after another; of complex ones real and imaginary parts in turn."""
    real = [torch.view_as_real(x) if x.is_complex() else x for x in tensors]
    return [number for x in real for number in x.detach().reshape(-1).double().tolist()]


def _own(func: Callable[..., Any], shaken: int) -> Callable[..., Any]:
    """func under an identity of its own, so that no compiled step of another case is found again.

    shaken: if not 0, a seed by which every value is off by up to one rounding.
    """

    def shake(v: Tensor) -> Tensor:
        real = v.detach().real if v.is_complex() else v.detach()
        return v * (1 + torch.finfo(real.dtype).eps * torch.sin(1e6 * real + shaken))

    return lambda t, y: _each(shake, func(t, y)) if shaken else func(t, y)


def _steps(name: str, mode: str) -> dict[str, Any]:
    """The arguments by which steps are chosen.

    Fixed steps where the mode says so, or leaves it open to a method without an estimate. Else a
    tolerance 10^-q for an estimate of order q, which leads to ten steps or some more. At most four
    digits, three where the order follows the errors, two in float32: the rounding in an estimate,
    large against a small tolerance, moves the steps, and must neither change a count nor show in
    the values (`shake`).
    """
    method = qf.get_method(name)
    without = method.error_order is None and mode not in ("adaptive", "per sample", "compiled")
    if without or mode.endswith("fixed"):
        return {"step_size": 0.15}
    digits = 3 if method.order is None else min(method.error_order or 4, 4)
    tolerance = 10.0 ** -(min(digits, 2) if mode == "float32" else digits)
    return {"rtol": tolerance, "atol": tolerance}


def trace(name: str, problem: str, mode: str, traced: bool = False, shaken: int = 0) -> Trace:
    """What one solve does.

    name: of a method. problem, mode: of `PROBLEMS`, `MODES`. traced: compile graphs. shaken: if not
    0, the seed by which func's values are off by a rounding.

    Returns:
        "refused" with the error's type; or "counts" (`COUNTS`), "reads" (how often the host read
        numbers of a tensor), "warned" (categories, if any), "steps" (accepted times; where samples
        have steps of their own, all samples' times after every step) and "values" (states at the
        requested times but the first; in mode "gradients" the gradient in y0 as well).
    """
    func, start, times, node_evaluation = PROBLEMS[problem]
    own = _own(func, shaken)
    arguments: dict[str, Any] = {"method": name, "node_evaluation": node_evaluation}
    arguments.update(_steps(name, mode))
    solutions: list[qf.Solution] = []
    own_times: list[Tensor] = []

    def solve(y0: Any) -> Any:
        solutions.append(qf.solve(own, y0, times, **arguments))
        return _each(lambda y: y[1:], solutions[-1].y)

    if mode in ("per sample", "vmap"):
        start = _each(lambda y: torch.stack((y, 0.6 * y - 0.1)), start)
    if mode == "per sample":
        arguments.update(batch_dims=1, callback=lambda t, y: own_times.append(t.clone()))
    elif mode.startswith("compiled"):
        arguments["compile"] = {"backend": "eager"}
    elif mode == "float32":
        start = _each(lambda y: y.float(), start)
    elif mode == "complex":
        start = _each(lambda y: y + 0.25j * y.flip(-1), start)
    elif mode == "gradients":
        start = _each(lambda y: y.clone().requires_grad_(), start)
    run = torch.func.vmap(solve, out_dims=1) if mode == "vmap" else solve
    watched = not (traced and mode.startswith("compiled"))
    counter = CountWaits()
    torch.compiler.set_stance("force_eager" if watched else "default")
    try:
        with (
            warnings.catch_warnings(record=True) as warned,
            counter if watched else contextlib.nullcontext(),
        ):
            warnings.simplefilter("always")
            values = _parts(run(start))
    except Exception as refusal:
        return {"refused": type(refusal).__name__}
    finally:
        torch.compiler.set_stance("default")
    if mode == "gradients":
        end = torch.cat([y[-1] for y in values])
        values += torch.autograd.grad(end @ _state(1.0, 0.5), _parts(start))
    (solution,) = solutions
    return {
        "counts": [getattr(solution.stats, count) for count in COUNTS],
        "reads": counter.waits,
        **({"warned": sorted({one.category.__name__ for one in warned})} if warned else {}),
        "steps": _numbers(own_times) if own_times else list(map(float, solution.steps)),
        "values": _numbers(values),
    }


def cases(names: list[str] | None = None) -> Iterator[tuple[str, str, str]]:
    """Method, problem and mode of every case, of the methods named or of all."""
    return itertools.product(names or qf.methods(), PROBLEMS, MODES)


def traces(
    names: list[str] | None = None, traced: bool = False, shaken: int = 0
) -> dict[str, dict[str, Trace]]:
    """Method -> "problem, mode" -> `trace`."""
    found: dict[str, dict[str, Trace]] = {}
    for name, problem, mode in cases(names):
        one = trace(name, problem, mode, traced, shaken)
        found.setdefault(name, {})[f"{problem}, {mode}"] = one
    return found


def short(found: Trace) -> Trace:
    """The part of a trace that is committed: of the steps their number and three within, since a
    change of one moves all that follow."""
    if "refused" in found:
        return found
    steps = found["steps"]
    return {**found, "steps": [len(steps), *(steps[len(steps) * i // 4] for i in (1, 2, 3))]}


VALUES = {"float64": 1e-12, "float32": 2e-4}
"""By how much values may differ where only rounding does, relative to the largest of a case.
In float32 a rounding in the error estimate moves steps by up to a hundredth, and values by the like
part of the tolerance, which is 1e-2."""

TIMES = {"float64": 1e-8, "float32": 3e-2}
"""The same of accepted times, which follow the estimates."""


def differences(case: str, old: Trace, new: Trace, rounding: bool) -> Iterator[str]:
    """Words for everything in which two traces of a case differ.

    rounding: let values and accepted times differ within `VALUES` and `TIMES`; the rest may not.
    """
    dtype = "float32" if case.endswith("float32") else "float64"
    for field in sorted(old.keys() | new.keys()):
        a, b = old.get(field), new.get(field)
        bounds = {"values": VALUES, "steps": TIMES}.get(field)
        if a == b and bounds is None:
            continue
        if bounds is None or a is None or b is None or len(a) != len(b):
            yield f"{field}: {_told(a)} -> {_told(b)}"
        elif np.array(a).tobytes() != np.array(b).tobytes():
            distance = relative(a, b)
            if not (rounding and distance <= bounds[dtype]):
                yield f"{field}: apart by {distance:.2g} of the largest"


def relative(a: list[float], b: list[float]) -> float:
    """The largest difference of two lists against the largest number of the first."""
    return float(np.abs(np.array(a) - b).max() / np.abs(a).max())


def _told(field: Any) -> str:
    return f"{len(field)} numbers" if isinstance(field, list) and len(field) > 6 else str(field)


def report(old: dict[str, Any], new: dict[str, Any], rounding: bool) -> bool:
    """Print what differs between two `traces`, and how much of them is equal; whether all is."""
    count = differing = 0
    for name in {**old, **new}:
        before, after = old.get(name, {}), new.get(name, {})
        for case in {**before, **after}:
            count += 1
            one, other = before.get(case, MISSING), after.get(case, MISSING)
            found = list(differences(case, one, other, rounding))
            differing += bool(found)
            for words in found:
                print(f"{name}, {case}: {words}")
    how = "to rounding" if rounding else "to the last bit"
    print(f"{count} cases, {count - differing} equal {how}, {differing} not")
    return count > 0 and not differing


MISSING: Trace = {"refused": "no such case"}


def of_tree(tree: Path, names: list[str], traced: bool) -> dict[str, dict[str, Trace]]:
    """`traces` by the quadflow of a checkout, in a process of its own.

    Raises:
        subprocess.CalledProcessError: the process failed, and has said why.
    """
    with environment_of(tree) as environment, tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "traces.json")
        command = [sys.executable, __file__, "trace", str(out), str(tree.resolve())]
        command += [word for name in names for word in ("--method", name)]
        command += ["--traced"] * traced
        subprocess.run(command, check=True, env=environment)
        return json.loads(out.read_text(encoding="utf-8"))


def check_tree(tree: str) -> None:
    """Raise ImportError if a module of quadflow comes from outside a checkout."""
    for name, module in list(sys.modules.items()):
        place = getattr(module, "__file__", None)
        if name.partition(".")[0] == "quadflow" and place is not None:
            place = Path(place).resolve()
            if not place.is_relative_to(tree):
                raise ImportError(f"{name} comes from {place}, not from {tree}")


def write() -> None:
    """Write what test_golden.py compares with, a case a line."""
    lines = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(
            f" {json.dumps(case)}: {json.dumps(short(one), separators=(',', ':'))}"
            for case, one in found.items()
        )
        + "\n}"
        for name, found in traces().items()
    ]
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def shake(names: list[str], seeds: int) -> bool:
    """Print what one rounding in every value of func changes; whether that is values and times
    within their bounds alone."""
    plain, held = traces(names), True
    for seed in range(1, seeds + 1):
        print(f"seed {seed}")
        held &= report(plain, traces(names, shaken=seed), rounding=True)
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("compare", help="the bits of two checkouts")
    compare.add_argument("old", type=Path)
    compare.add_argument("new", type=Path)
    compare.add_argument("--rounding", action="store_true")
    one_tree = commands.add_parser("trace", help="what `compare` runs for each of them")
    one_tree.add_argument("out", type=Path)
    one_tree.add_argument("tree")
    for command in (compare, one_tree):
        command.add_argument("--traced", action="store_true")
    commands.add_parser("record", help=f"write {FILE.name}")
    shaken = commands.add_parser("shake", help="one rounding in every value of func")
    shaken.add_argument("--seeds", type=int, default=3)
    for command in (compare, one_tree, shaken):
        command.add_argument("--method", action="append", default=[])
    chosen = parser.parse_args()
    if chosen.command in ("trace", "shake"):
        for name in chosen.method:
            if name not in qf.methods():
                parser.error(f"--method {name}: not a registered name: {', '.join(qf.methods())}")
    if chosen.command == "shake" and chosen.seeds < 1:
        parser.error(f"--seeds {chosen.seeds}: must be 1 or more")
    torch.set_num_threads(1)
    if chosen.command == "compare":
        for tree in (chosen.old, chosen.new):
            if not (tree / "quadflow/__init__.py").is_file():
                parser.error(f"{tree} is no checkout: it has no quadflow/__init__.py")
        try:
            old, new = (
                of_tree(tree, chosen.method, chosen.traced) for tree in (chosen.old, chosen.new)
            )
        except subprocess.CalledProcessError as error:  # the tree's process has said why
            return max(2, error.returncode)
        return 0 if report(old, new, chosen.rounding) else 1
    if chosen.command == "shake":
        return 0 if shake(chosen.method, chosen.seeds) else 1
    if chosen.command == "record":
        write()
    else:
        check_tree(chosen.tree)
        found = traces(chosen.method, chosen.traced)
        chosen.out.write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
