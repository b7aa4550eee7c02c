"""Work-precision studies: on solvers whose errors and costs are known, and on real ones."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from quadflow.analysis.cost.rows import Row, cost_at, proportionality
from quadflow.analysis.cost.work_precision import WorkPrecision, row_count, work_precision
from quadflow.analysis.problems.problem import Problem, get_problem
from quadflow.analysis.report.machine import machine
from quadflow.analysis.solvers.counting import Counter
from quadflow.analysis.solvers.run import Run, Solver

TOLERANCES = (1e-2, 1e-4, 1e-6)

study_module = importlib.import_module("quadflow.analysis.cost.work_precision")  # not the function


def decay(name: str = "decay", rate: float = 1.0) -> Problem:
    """y' = -rate y: end 1 in the second component, which a solver's error is added to."""
    return Problem(
        name, "y' = -rate y", "textbook", lambda t, y, m: (-rate * y[0], 0 * y[1]),
        torch.tensor([1.0, 1.0], dtype=torch.float64), (0.0, 1.0),
        end=torch.tensor([math.exp(-rate), 1.0], dtype=torch.float64), parameters={"rate": rate},
    )  # fmt: skip


class Pretended:
    """A solver whose error is factor * tol^slope and whose cost is nfe = tol^-power."""

    def __init__(
        self, name: str, *, factor: float = 1.0, slope: float = 1.0, power: float = 0.25,
        seconds: tuple[float, ...] = (1.0,), log: list[str] | None = None, stop: int | None = None,
    ) -> None:  # fmt: skip
        self.name, self.factor, self.slope, self.power = name, factor, slope, power
        self.seconds, self.log, self.stop, self.count = seconds, log, stop, 0

    def _run(self, problem: Problem, tolerance: float) -> Run:
        if self.count == self.stop:
            raise KeyboardInterrupt
        seconds = self.seconds[self.count % len(self.seconds)]
        self.count += 1
        if self.log is not None:
            self.log.append(self.name)
        assert problem.end is not None
        end = problem.end.clone()
        end[0] += self.factor * tolerance**self.slope
        return Run(end, round(tolerance**-self.power), 7, seconds, steps=(0.0, 0.5, 1.0))

    def solver(self) -> Solver:
        return Solver(self.name, 4, None, lambda p, rtol, atol: self._run(p, rtol))


def row(error: float | None, nfe: int, tolerance: float = 1e-3, **more: Any) -> Row:
    values: dict[str, Any] = {
        "solver": "a", "problem": "p", "tolerance": tolerance, "steps": None, "error": error,
        "reference_error": 1e-16, "nfe": nfe, "calls": nfe, "seconds": 1e-3 * nfe,
    }  # fmt: skip
    return Row(**{**values, **more})


# -- the rows -------------------------------------------------------------------------------------


def test_rows_of_a_real_solver_are_what_scipy_says_itself() -> None:
    problem = get_problem("driven")
    study = work_precision("scipy:DOP853", "driven", tolerances=(1e-4, 1e-8), repeats=1)
    assert study.complete and [r.tolerance for r in study.rows] == [1e-4, 1e-8]
    for r in study.rows:
        assert r.tolerance is not None
        own = solve_ivp(
            problem.f_numpy, problem.span, problem.y0.numpy(), method="DOP853", rtol=r.tolerance,
            atol=1e-2 * r.tolerance,
        )  # fmt: skip
        exact = problem.solution(problem.span[1]).numpy()
        error = np.abs(own.y[:, -1] - exact).max() / np.abs(exact).max()
        assert r.error == pytest.approx(error, rel=1e-9)
        assert (r.nfe, r.calls, r.accepted) == (own.nfev, own.nfev, len(own.t) - 1)
        assert r.failure is None and not r.at_reference and r.seconds is not None


def test_solvers_without_error_control_run_over_steps() -> None:
    study = work_precision(
        ["rk4", "dopri5"], "driven", tolerances=(1e-3,), steps=(16, 8, 32), repeats=1
    )
    assert [(r.tolerance, r.steps) for r in study.of("rk4", "driven")] == [
        (None, 8), (None, 16), (None, 32),
    ]  # fmt: skip
    assert [r.nfe for r in study.of("rk4", "driven")] == [32, 64, 128]
    errors = [r.error or 0.0 for r in study.of("rk4", "driven")]
    assert 10 < errors[1] / errors[2] < 26  # order 4: 16
    assert [r.tolerance for r in study.of("dopri5", "driven")] == [1e-3]
    assert row_count(["rk4", "dopri5"], "driven", tolerances=(1e-3,), steps=(16, 8, 32)) == 4


def test_runs_are_interleaved_and_the_first_is_not_timed() -> None:
    log: list[str] = []
    times = (100.0, 3.0, 1.0, 2.0)  # the first is a warm-up
    solvers = [Pretended(n, log=log, seconds=times).solver() for n in "abc"]
    ticks: list[int] = []
    study = work_precision(
        solvers, decay(), tolerances=(1e-3,), repeats=3, progress=lambda: ticks.append(1)
    )
    assert "".join(log) == "abc" * 4
    assert [r.times for r in study.rows] == [(3.0, 1.0, 2.0)] * 3
    assert [r.seconds for r in study.rows] == [2.0] * 3
    assert len(ticks) == 12 == row_count(solvers, decay(), tolerances=(1e-3,)) * 4


def test_errors_near_the_reference_are_flagged_and_take_no_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = decay().end
    monkeypatch.setattr(study_module, "reference_end", lambda p: (end, 1e-6, "a poor one"))
    study = work_precision(Pretended("a").solver(), decay(), tolerances=TOLERANCES)
    assert [r.at_reference for r in study.rows] == [False, False, True]  # below 1e-5
    assert "at the reference's accuracy" in str(study) and "a poor one" in str(study)
    assert study.cost_at(1e-5)["decay"]["a"] is None
    assert study.proportionality()[0].points == 2


def test_a_problem_without_reference_is_reported_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    genuine = study_module.reference_end

    def broken(problem: Problem) -> Any:
        if problem.name == "lost":
            raise ArithmeticError("two solves disagree")
        return genuine(problem)

    monkeypatch.setattr(study_module, "reference_end", broken)
    ticks: list[int] = []
    study = work_precision(
        Pretended("a").solver(), [decay("lost"), decay()], tolerances=TOLERANCES,
        progress=lambda: ticks.append(1),
    )  # fmt: skip
    assert study.problems == ("decay",) and study.complete and len(ticks) == 24
    assert "two solves disagree" in study.references["lost"]["failure"]
    assert "two solves disagree" in str(study)


def test_failures_are_rows_with_a_reason() -> None:
    def run(problem: Problem, rtol: float, atol: float) -> Run:
        if rtol < 1e-3:
            return Run(None, 11, 10, 0.1, "collapsed at t=0.5")
        return Run(problem.end, 5, 5, 0.1)

    study = work_precision(Solver("frail", None, None, run), decay(), tolerances=(1e-2, 1e-4))
    good, bad = study.rows
    assert good.failure is None and bad.failure == "collapsed at t=0.5"
    assert (bad.error, bad.seconds, bad.nfe, bad.times) == (None, None, 11, ())
    assert study.failures == [bad] and "collapsed" in str(study)


def test_a_solve_over_the_budget_is_stopped_and_tighter_ones_are_not_tried() -> None:
    study = work_precision(
        ["dopri5", "scipy:RK45", "scipy:Radau"], "prothero-robinson", tolerances=(1e-3, 1e-4, 1e-5),
        repeats=1, budget=500,
    )  # fmt: skip
    for name in ("dopri5", "scipy:RK45"):
        first, second, third = study.of(name, "prothero-robinson")
        assert first.failure == "over the budget of 500 calls of f"
        assert first.calls in (500, 501)
        assert second.nfe == third.nfe == 0
        assert second.failure == third.failure == "over the budget: not tried, see tolerance 1e-03"
    assert all(r.failure is None for r in study.of("scipy:Radau", "prothero-robinson"))


def test_looser_tolerances_are_tried_although_tighter_ones_were_too_dear(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    for levels in ((1e-8,), (1e-2, 1e-8, 1e-9)):
        study = work_precision(
            "scipy:RK23", "driven", tolerances=levels, repeats=1, budget=400, save=path
        )
    loose, dear, untried = study.rows
    assert loose.failure is None and loose.error is not None
    assert dear.failure == "over the budget of 400 calls of f"
    assert untried.failure == "over the budget: not tried, see tolerance 1e-08"


def test_a_finished_problem_needs_no_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"tolerances": TOLERANCES, "save": tmp_path / "s.json"}
    before = work_precision(Pretended("a").solver(), decay(), **options)
    monkeypatch.setattr(study_module, "reference_end", lambda p: pytest.fail("worked out again"))
    assert work_precision(Pretended("a").solver(), decay(), **options) == before


def test_a_limited_problem_is_the_same_problem() -> None:
    for name in ("driven", "brusselator"):  # written by components, and on whole arrays
        problem = get_problem(name)
        counter = Counter(problem.dimension, 3)
        limited = counter.in_problem(problem)
        y = torch.stack([problem.y0, 2 * problem.y0])
        time = torch.tensor(0.5, dtype=torch.float64)
        assert torch.equal(limited.f(time, y), problem.f(time, y))
        limited.f_numpy(0.5, problem.y0.numpy())
        limited.f_numpy(0.5, problem.y0.numpy())
        assert counter.calls == 3 and not counter.over
        with pytest.raises(RuntimeError, match="over the budget of 3 calls"):
            limited.f_numpy(0.5, problem.y0.numpy())
        assert counter.over


# -- what they show -------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", ["nfe", "calls", "seconds"])
def test_cost_at_an_error_between_rows_of_a_power_law_is_exact(cost: str) -> None:
    # cost = error^-1/2 of each kind
    rows = [row(10.0**-k, 10 ** (k // 2), calls=2 * 10 ** (k // 2)) for k in (2, 4, 6)]
    scale = {"nfe": 1.0, "calls": 2.0, "seconds": 1e-3}[cost]
    for error in (1e-2, 3e-3, 1e-4, 5e-6, 1e-6):
        assert cost_at(rows, error, cost) == pytest.approx(scale * error**-0.5, rel=1e-12)
    assert cost_at(rows, 1.01e-2, cost) is None  # nothing is extrapolated
    assert cost_at(rows, 0.99e-6, cost) is None


def test_cost_at_takes_the_last_crossing_and_leaps_over_no_failure() -> None:
    lucky = [row(1e-4, 10), row(1e-9, 20), row(1e-7, 40), row(1e-10, 80)]
    assert 40 < (cost_at(lucky, 1e-8) or 0) < 80
    broken = [row(1e-4, 10), row(None, 20, failure="no"), row(1e-8, 40)]
    assert cost_at(broken, 1e-6) is None
    flagged = [row(1e-4, 10), row(1e-8, 40, reference_error=2e-9)]
    assert cost_at(flagged, 1e-6) is None


def test_the_table_bounds_what_the_loosest_row_has_passed_already() -> None:
    good, late = Pretended("good", power=0.5).solver(), Pretended("late", factor=1e3).solver()
    study = work_precision([good, late], decay(), tolerances=(1e-4, 1e-6), repeats=1)
    table = study.cost_table([1e-2, 1e-5]).splitlines()
    assert table[-2].split() == ["good", "≤100", "316"]
    assert table[-1].split() == ["late", "18", "-"]  # from 1e-1 to 1e-3, 10 to 32 evaluations


def test_ratios_against_a_peer() -> None:
    solvers = [Pretended("a", power=0.5).solver(), Pretended("b", power=0.25).solver()]
    late = Pretended("late", factor=1e3).solver()  # never reaches the error
    study = work_precision([*solvers, late], decay(), tolerances=TOLERANCES, repeats=1)
    error = 1e-4  # nfe: 100 and 10
    assert study.cost_at(error)["decay"]["a"] == pytest.approx(100)
    got = study.ratios(error, "b")["decay"]
    assert got["a"] == pytest.approx(10) and got["b"] == 1 and got["late"] is None
    table = study.ratio_table([error], "b")
    assert "10.00" in table and "late" in table and "-" in table.splitlines()[-1]
    assert study.ratios(error, "late")["decay"] == {"a": None, "b": None, "late": None}
    with pytest.raises(ValueError, match=r"peer='c' is not among the solvers: .*late"):
        study.ratios(error, "c")
    with pytest.raises(ValueError, match="cost='nfes' is unknown: did you mean 'nfe'"):
        study.cost_at(error, "nfes")
    with pytest.raises(ValueError, match="error must be positive"):
        study.cost_at(0.0)


def test_proportionality_of_errors_that_follow_a_power_of_the_tolerance() -> None:
    levels = [10.0**-k for k in range(2, 8)]
    rows = [row(3 * t**0.8, 1, t) for t in levels]
    p = proportionality(rows)
    assert p.slope == pytest.approx(0.8) and p.half_width < 1e-9 and p.residual < 1e-9
    assert p.least == pytest.approx(3 * levels[0] ** -0.2)
    assert p.most == pytest.approx(3 * levels[-1] ** -0.2)
    assert p.least < p.median < p.most and p.points == 6 and p.left_out == 0
    # 10 and 1/10 in turn, two tolerances each: off the line by a decade
    jumping = [row(t * 10.0 ** (-1) ** k, 1, t) for k, t in enumerate(levels)]
    assert 0.8 < proportionality(jumping).residual < 1.4
    assert proportionality(jumping).half_width > 0.3


def test_proportionality_leaves_out_rounding_and_does_not_fit_two_points() -> None:
    levels = [10.0**-k for k in range(2, 10)]
    rows = [row(max(t**2, 2e-13), 1, t) for t in levels]
    p = proportionality(rows)  # from 1e-7 on it is rounding
    assert p.slope == pytest.approx(2.0, abs=1e-6) and (p.points, p.left_out) == (5, 3)
    few = proportionality(rows[:2])
    assert math.isnan(few.slope) and few.points == 2
    none = proportionality([row(None, 1, failure="no")])
    assert none.points == 0 and math.isnan(none.median)
    with pytest.raises(ValueError, match="all with tolerances"):
        proportionality([row(1.0, 1, steps=4, tolerance=None)])


def test_tsit5_is_proportional_to_its_tolerance_on_a_real_problem() -> None:
    levels = (1e-4, 1e-5, 1e-6, 1e-7)
    study = work_precision("tsit5", "driven", tolerances=levels, repeats=1)
    (p,) = study.proportionality()
    assert p.points == 4 and 0.7 < p.slope < 1.4 and p.residual < 0.5


# -- files, interruption --------------------------------------------------------------------------


def test_save_and_load_give_the_same_study(tmp_path: Path) -> None:
    solvers = [Pretended("a").solver()]
    study = work_precision(solvers, decay(), tolerances=TOLERANCES, command="quadflow bench decay")
    study.save(tmp_path / "s.json")
    assert WorkPrecision.load(tmp_path / "s.json") == study
    figures = json.loads((tmp_path / "s.json").read_text())
    for key in ("cores", "architecture", "torch", "threads"):
        assert figures["machine"][key] == machine()[key]
    assert figures["rows"][0]["at_reference"] is False
    for text, why in (("[]", "a list"), ("{}", "no kind"), ("{", "no JSON file")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=why):
            WorkPrecision.load(tmp_path / "bad.json")


def test_peers_versions_are_recorded() -> None:
    recorded = machine(["torchdiffeq:dopri5", "mine:own", "dopri5"])
    assert recorded["torchdiffeq"].count(".") == 2 and "mine" not in recorded
    assert "torchdiffeq" not in machine(["dopri5"])


def test_interrupted_and_gone_on_with_is_the_same_as_in_one_go(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    problems = [decay(), decay("second")]

    def run(stop: int | None) -> tuple[WorkPrecision, int]:
        a, b = Pretended("a"), Pretended("b", stop=stop)
        study = work_precision(
            [a.solver(), b.solver()], problems, tolerances=TOLERANCES, repeats=2, save=path
        )
        return study, b.count

    # a row is three runs: b is stopped in its third timed run of the fourth row
    study, _ = run(stop=11)
    assert not study.complete and len(study.rows) == 2 * 3
    assert "interrupted" in str(study)
    assert WorkPrecision.load(path) == study
    study, count = run(stop=None)
    assert study.complete and count == 9  # the three rows that were missing
    whole = work_precision(
        [Pretended(n).solver() for n in "ab"], problems, tolerances=TOLERANCES, repeats=2
    )
    assert study == whole and WorkPrecision.load(path) == whole
    assert run(stop=0)[0] == whole  # nothing is left to be done


def test_every_finished_row_is_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    seen: list[int] = []

    class Watching(Pretended):
        def _run(self, problem: Problem, tolerance: float) -> Run:
            seen.append(len(WorkPrecision.load(path).rows) if path.exists() else 0)
            return super()._run(problem, tolerance)

    work_precision(Watching("a").solver(), decay(), tolerances=TOLERANCES, repeats=1, save=path)
    assert seen == [0, 0, 1, 1, 2, 2]


def test_a_file_of_another_study_is_neither_mixed_in_nor_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.json"
    solvers = [Pretended("a").solver(), Pretended("b").solver()]

    def run(**options: Any) -> WorkPrecision:
        chosen = {"methods": solvers, "problems": decay(), "tolerances": TOLERANCES, "save": path}
        return work_precision(**{**chosen, **options})

    before = run()
    text = path.read_text()
    for options, why in (
        ({"repeats": 4}, "rows of repeats 3, now it is 4"),
        ({"atol_ratio": 1.0}, "rows of atol_ratio 0.01, now it is 1.0"),
        ({"methods": solvers[:1]}, "holds b on decay at tolerance 1e-02, which is not asked for"),
        ({"tolerances": (1e-2,)}, "holds a on decay at tolerance 1e-04"),
    ):
        with pytest.raises(ValueError, match=why):
            run(**options)
    elsewhere = {**before.machine, "processor": "another"}
    monkeypatch.setattr(study_module, "machine", lambda solvers: elsewhere)
    with pytest.raises(ValueError, match=r"rows of processor .* now it is 'another': name another"):
        run()
    assert path.read_text() == text
    assert len(run(resume=False, tolerances=(1e-2,)).rows) == 2
    path.write_text("{")
    with pytest.raises(ValueError, match="no JSON file"):
        run()


def test_more_tolerances_are_added_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    for levels, runs in (((1e-2, 1e-4), 4), (TOLERANCES, 2)):
        a = Pretended("a")
        study = work_precision(a.solver(), decay(), tolerances=levels, repeats=1, save=path)
        assert a.count == runs
    assert [r.tolerance for r in study.rows] == list(TOLERANCES)


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"methods": "dopri"}, "did you mean 'dopri"),
        ({"methods": []}, "methods is empty"),
        ({"methods": ["dopri5", "dopri5"]}, "methods has two of the name 'dopri5'"),
        ({"methods": Solver("idle", 1, None, None)}, "neither at a tolerance nor on given steps"),
        ({"problems": "keplr"}, "did you mean 'kepler'"),
        ({"problems": []}, "problems is empty"),
        ({"problems": ["driven", "driven"]}, "problems has 'driven' twice"),
        ({"tolerances": (1e-3, -1.0)}, "tolerances has -1.0"),
        ({"tolerances": ()}, "at least one number each"),
        ({"steps": (8, 1.5)}, "steps has 1.5"),
        ({"repeats": 0}, "repeats must be an integer >= 1, got 0"),
        ({"atol_ratio": 0.0}, "atol_ratio must be positive"),
        ({"budget": 0}, "budget must be at least 1"),
        ({"save": "no/such/folder/s.json"}, "must be a file in a folder that exists"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        work_precision(**{"methods": "dopri5", "problems": "driven", **options})


def test_problems_with_parameters_of_their_own_are_told_apart() -> None:
    flat, long = get_problem("kepler"), get_problem("kepler", eccentricity=0.9)
    study = work_precision(
        Pretended("a").solver(), {"x": flat, "y": long}, tolerances=(1e-2,), repeats=1
    )
    assert study.problems == ("kepler", "kepler(eccentricity=0.9)")


# -- figures --------------------------------------------------------------------------------------


def a_study() -> WorkPrecision:
    solvers = [Pretended(n, factor=k + 1).solver() for k, n in enumerate("abcdefgh")]
    study = work_precision(solvers, [decay(), decay("second")], tolerances=TOLERANCES, repeats=1)
    failed = dataclasses.replace(
        study.rows[0], error=None, seconds=None, failure="over the budget of 3 calls of f"
    )
    return dataclasses.replace(
        study, rows=[failed, *study.rows[1:]], command="quadflow bench decay --cost calls"
    )


def test_figures_hold_legend_units_failures_and_their_command(tmp_path: Path) -> None:
    study = a_study()
    study.plot(tmp_path / "w.svg", "seconds")
    text = (tmp_path / "w.svg").read_text()
    for needle in (
        "wall time (s)", "achieved relative error", "second", ">h<", "a failed: 1 of 3",
        "quadflow bench decay --cost calls",
    ):  # fmt: skip
        assert needle in text, needle
    study.plot_proportionality(tmp_path / "p.svg")
    text = (tmp_path / "p.svg").read_text()
    assert "error = tolerance" in text and "relative tolerance" in text
    study.plot(tmp_path / "w.pdf", command="another command")
    assert b"another command" in (tmp_path / "w.pdf").read_bytes()
    study.plot(tmp_path / "again.svg", "seconds")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "w.svg").read_bytes()


def test_figures_refuse_what_cannot_be_drawn(tmp_path: Path) -> None:
    study = a_study()
    with pytest.raises(ValueError, match="must end in one of"):
        study.plot(tmp_path / "w.gif")
    with pytest.raises(ValueError, match="folder that exists"):
        study.plot(tmp_path / "no" / "w.png")
    with pytest.raises(ValueError, match="cost='time' is unknown"):
        study.plot(tmp_path / "w.png", "time")
    with pytest.raises(ValueError, match="nothing to draw"):
        WorkPrecision().plot(tmp_path / "w.png")
    assert list(tmp_path.iterdir()) == []
