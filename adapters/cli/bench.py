"""`quadflow bench`."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import nearest
from ...extras import progress
from .arguments import above_zero, output_files, retyped, separated_names
from .methods import OWN, read_solver
from .problems import read_problem

QUICK = ("lotka-volterra", "kepler", "euler-body", "van-der-pol")
"""Names of the problems of SET "quick"."""
METHODS = ("dopri5", "dopri8", "pece4", "lobatto4", "gauss4", "scipy:DOP853")
"""Methods measured without --methods; torchdiffeq:dopri5 where it is installed, and scipy:Radau
where a problem is stiff, come besides."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def chosen_problems(text: str) -> dict[str, Any]:
    """name -> Problem of a comma list of problems and sets of problems.

    Raises:
        ValueError: a word that is neither; the nearest are named.
    """
    from ...analysis.problems.problem import get_problem, problem_names, problems

    names = problem_names()
    found: dict[str, Any] = {}
    library: dict[str, Any] = {}
    for word in (w.strip() for w in text.split(",")):
        if word == "quick":
            found |= {name: get_problem(name) for name in QUICK}
            continue
        if ":" in word or word in names:
            found[word] = read_problem(word, "SET")
            continue
        library = library or problems()
        sets = {s for p in library.values() for s in p.sets} | {"quick"}
        if word not in sets:
            raise ValueError(
                f"SET {word!r} is no set of problems and no problem: "
                f"{nearest(word, sets.union(names))}"
            )
        found |= {name: p for name, p in library.items() if word in p.sets}
    return found


def default_methods(stiff: bool) -> tuple[str, ...]:
    """`METHODS`, and peers that are installed."""
    peers = ("torchdiffeq:dopri5",) if importlib.util.find_spec("torchdiffeq") else ()
    return (*METHODS, *peers, *(("scipy:Radau",) if stiff else ()))


def _bench(arguments: argparse.Namespace) -> None:
    from ...analysis.cost.work_precision import row_count, work_precision
    from ...analysis.reliability.estimates import reliabilities

    problems = chosen_problems(arguments.set)
    solvers = _solvers(arguments, any(p.stiff for p in problems.values()))
    json_file = _files(arguments).get("json")
    levels = {"tolerances": arguments.tolerances, "steps": arguments.steps}
    count = row_count(solvers, problems, **levels) * (1 + arguments.repeats)
    told = len(solvers) * len(problems) if arguments.reliability else 0
    diagrams: list[Any] = []
    try:
        with progress(count + told, "bench", "analysis") as bar:
            tick: Callable[[], None] = lambda: bar.update(1)  # noqa: E731
            study = work_precision(
                solvers, problems, **levels, repeats=arguments.repeats,
                atol_ratio=arguments.atol_ratio, budget=arguments.budget, progress=tick,
                save=json_file, resume=not arguments.fresh, command=_command(arguments),
            )  # fmt: skip
            if study.complete and arguments.reliability:
                diagrams = reliabilities(
                    solvers, list(problems.values()), arguments.reliability_tolerance,
                    atol_ratio=arguments.atol_ratio, budget=arguments.budget, progress=tick,
                )  # fmt: skip
    except ValueError as error:
        # the same refusal in the words of the command line
        raise ValueError(str(error).replace("resume=False", "--fresh")) from error
    _print_study(arguments, study, diagrams)
    _draw_study(arguments, study, diagrams)
    if json_file is not None:
        print(f"-> {json_file}")
    if not study.complete or len(diagrams) < told:
        go_on = "; the same command goes on from there" if json_file is not None else ""
        print(f"interrupted: what was finished is above{go_on}")
        raise SystemExit(INTERRUPTED)


def _solvers(arguments: argparse.Namespace, stiff: bool) -> list[Any]:
    """What is measured, --peer being one of them."""
    names = arguments.methods or default_methods(stiff)
    solvers = [read_solver(name, "--methods") for name in names]
    known = [s.name for s in solvers]
    if arguments.peer is not None and arguments.peer not in known:
        raise ValueError(f"--peer {arguments.peer!r}: {nearest(arguments.peer, known)}")
    return solvers


def _files(arguments: argparse.Namespace) -> dict[str, Path]:
    """The files that are asked for: refused before the work where they cannot be written after."""
    drawn, written = ["out", "proportionality"], ["json"]
    (drawn if _is_figure(arguments.reliability) else written).append("reliability")
    return output_files(arguments, drawn, **dict.fromkeys(written, ()))


def _print_study(arguments: argparse.Namespace, study: Any, diagrams: list[Any]) -> None:
    from ...analysis.cost.rows import proportionality_text
    from ...analysis.reliability.estimates import reliability_text

    print(study if arguments.rows else study.cost_table(arguments.at, arguments.cost))
    for name, reference in study.references.items():
        if "failure" in reference:
            print(f"\n{name}: not measured, no reference: {reference['failure']}")
    if arguments.peer is not None and study.rows:
        print("\n" + study.ratio_table(arguments.at, arguments.peer, arguments.cost))
    if study.proportionality():
        print("\n" + proportionality_text(study.proportionality()))
    if study.failures and not arguments.rows:
        print("\n" + _failures_text(study.failures))
    if diagrams:
        print("\n" + reliability_text(diagrams))


def _draw_study(arguments: argparse.Namespace, study: Any, diagrams: list[Any]) -> None:
    if study.rows and arguments.out:
        study.plot(arguments.out, arguments.cost)
        print(f"-> {arguments.out}")
    if arguments.proportionality:
        if study.proportionality():
            study.plot_proportionality(arguments.proportionality)
            print(f"-> {arguments.proportionality}")
        else:
            print(f"no {arguments.proportionality}: no solver has error control")
    if diagrams and _is_figure(arguments.reliability):
        if any(m.judged.any() for m in diagrams):
            from ...analysis.reliability.figures import reliability_plot

            reliability_plot(arguments.reliability, diagrams, command=study.command)
            print(f"-> {arguments.reliability}")
        else:
            print(f"no {arguments.reliability}: no solver tells estimates")
    elif diagrams:
        from ...analysis.reliability.estimates import save_reliabilities

        save_reliabilities(arguments.reliability, diagrams, command=study.command)
        print(f"-> {arguments.reliability}")


def _failures_text(rows: Any) -> str:
    """The failures, equal reasons of a solver on a problem in one line."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for r in rows:
        at = f"{r.tolerance:.0e}" if r.steps is None else f"{r.steps} steps"
        reasons.setdefault((r.solver, r.problem, r.failure or ""), []).append(at)
    return "\n".join([
        "failures",
        *(f"{s} on {p} at {', '.join(at)}: {why}" for (s, p, why), at in reasons.items()),
    ])  # fmt: skip


def _is_figure(path: str | None) -> bool:
    return path is not None and not path.lower().endswith(".json")


def _command(arguments: argparse.Namespace) -> str:
    """The command that makes the same figures."""
    given = [
        name
        for name, default in vars(arguments.defaults).items()
        if name not in ("set", "json", "fresh", "rows") and getattr(arguments, name) != default
    ]
    return retyped(arguments.set, arguments, given, _word)


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        if len(value) > 2 and isinstance(value[0], float):
            ends = f"{_word(value[0])}..{_word(value[-1])}"
            if _is_decades(ends, value):
                return ends
        return ",".join(_word(v) for v in value)
    if not isinstance(value, float):
        return str(value)
    mantissa, _, exponent = f"{value:.15e}".partition("e")
    short = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return min(str(value), short, key=len)


def _is_decades(text: str, values: tuple[float, ...]) -> bool:
    try:
        return decades(text) == values
    except argparse.ArgumentTypeError:
        return False


# -- arguments ------------------------------------------------------------------------------------


def decades(text: str) -> tuple[float, ...]:
    """ "1e-3..1e-10", a number a decade, or "1e-4,1e-6" as positive numbers.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    values: list[float] = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        try:
            ends = [float(first)] + ([float(last)] if dots else [])
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"must look like 1e-3..1e-10 or 1e-4,1e-6, got {text!r}"
            ) from None
        if any(not (v > 0 and math.isfinite(v)) for v in ends):
            raise argparse.ArgumentTypeError(f"must be positive numbers, got {text!r}")
        if not dots:
            values += ends
            continue
        span = math.log10(ends[1] / ends[0])
        if abs(span - round(span)) > 1e-9:
            raise argparse.ArgumentTypeError(f"{part!r} does not span whole decades")
        sign = 1 if span > 0 else -1
        # read as decimal, so that every number is the one that its text means
        mantissa, _, exponent = f"{ends[0]:.15e}".partition("e")
        values += [
            float(f"{mantissa}e{int(exponent) + sign * k}") for k in range(abs(round(span)) + 1)
        ]
    return tuple(values)


_whole = functools.partial(above_zero, kind=int, what="a whole number from 1")
_positive = functools.partial(above_zero, kind=float, what="a positive number")


def _steps(text: str) -> tuple[int, ...]:
    return tuple(_whole(part) for part in text.split(","))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.description = (
        f"{parser.description} Wall times are medians of interleaved runs. Ctrl-C keeps what is "
        "finished; with --json the same command goes on from there."
    )
    add = parser.add_argument
    add("set", metavar="SET", nargs="?", default="quick",
        help="problems or sets of them, with commas between: quick (default: "
        f"{', '.join(QUICK)}), nonstiff, detest, stiff, ...; see `quadflow problems`; or "
        "MODULE:NAME, a Problem of one's own")  # fmt: skip
    add("--methods", type=separated_names, metavar="A,B",
        help="registered methods and peers' such as scipy:DOP853, torchdiffeq:dopri5, "
        f"diffrax:Dopri5; adams:K, of orders up to K; gauss:N, on N nodes; {OWN}, or a callable "
        f"solve(rhs, y0, grid); default: {', '.join(METHODS)}, torchdiffeq:dopri5 where installed, "
        "scipy:Radau for stiff problems")  # fmt: skip
    add("--tolerances", type=decades, default="1e-3..1e-10",
        help="relative, such as 1e-3..1e-10 (default) or 1e-4,1e-6")  # fmt: skip
    add("--steps", type=_steps, default=tuple(2**k for k in range(6, 14)),
        help="steps of methods without error control (64,128,...,8192)")  # fmt: skip
    add("--repeats", type=_whole, default=3,
        help="timed runs of every row, after one that warms up (3)")  # fmt: skip
    add("--atol-ratio", type=_positive, default=1e-2,
        help="absolute over relative tolerance (0.01)")  # fmt: skip
    add("--budget", type=_whole, metavar="N", default=30_000,
        help="calls of f after which a solve has failed (30000)")  # fmt: skip
    add("--cost", choices=("nfe", "calls", "seconds"), default="nfe", help="what is shown (nfe)")
    add("--at", type=decades, metavar="ERRORS", default="1e-3,1e-6,1e-9",
        help="achieved errors at which costs are compared (1e-3,1e-6,1e-9)")  # fmt: skip
    add("--peer", metavar="METHOD", help="show every cost over this one's, too")
    add("--rows", action="store_true", help="print every row")
    add("--json", metavar="FILE", help="keep every row here, and go on from what is there")
    add("--fresh", action="store_true", help="measure anew what --json holds")
    add("--out", metavar="FILE", help="draw cost against achieved error: .pdf, .svg or .png")
    add("--proportionality", metavar="FILE", help="draw achieved error against tolerance")
    add("--reliability", metavar="FILE",
        help="estimated against true local errors, drawn, or all of them as .json")  # fmt: skip
    add("--reliability-tolerance", type=_positive, metavar="TOL", default=1e-6,
        help="for it (1e-6)")  # fmt: skip
    parser.set_defaults(run=_bench, defaults=parser.parse_known_args([])[0])
