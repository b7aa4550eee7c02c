"""The speed benchmarks measure what they say: counts, errors and structure; never how long."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import quadflow as qf
from quadflow.analysis.benchmarks import __main__ as everything
from quadflow.analysis.benchmarks import (
    batches,
    default_method,
    growth,
    overhead,
    report,
    scientific,
    training_step,
)
from quadflow.analysis.cost import memory, timing
from quadflow.analysis.cost.equal_error import HALF_DECADES, bound, cheapest, compare, sweep
from quadflow.analysis.cost.rows import Row, geometric_mean
from quadflow.analysis.problems.problem import get_problem
from quadflow.analysis.problems.subjects import SCIENTIFIC, Subject, ring, subject, torch_subject
from quadflow.analysis.solvers import solver as solvers
from quadflow.analysis.solvers.counting import Counter, OverBudgetError
from quadflow.analysis.solvers.diffrax import diffrax_solver
from quadflow.analysis.solvers.quadflow import quadflow_solver
from quadflow.analysis.solvers.run import Solver, quietly
from quadflow.analysis.solvers.scipy import scipy_solver
from quadflow.analysis.solvers.solver import missing, other_solvers, quadflow_solvers
from quadflow.analysis.solvers.torchode import torchode_solver

DOPRI5 = quadflow_solver("dopri5")
GAUSS4 = quadflow_solver("gauss4")
DOP853 = scipy_solver("DOP853")
JOINT = scipy_solver("DOP853", joint=True)


# -- subjects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCIENTIFIC)
def test_every_form_of_a_problem_is_the_problem_itself(name: str) -> None:
    chosen, problem = subject(name), get_problem(name)
    generator = torch.Generator().manual_seed(3)
    states = problem.y0 + 0.1 * torch.rand(2, 3, problem.dimension, generator=generator).double()
    t = torch.tensor(0.3, dtype=torch.float64)
    wanted = problem.f(t, states)
    # on its own, and on nodes together
    torch.testing.assert_close(chosen.torch_f(t, states), wanted, rtol=1e-13, atol=1e-13)
    for state, row in zip(states.reshape(-1, problem.dimension), wanted.flatten(0, 1), strict=True):
        np.testing.assert_allclose(chosen.numpy_f(0.3, state.numpy()), row, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", SCIENTIFIC)
def test_the_form_for_jax_is_the_problem_itself(name: str) -> None:
    jax = pytest.importorskip("jax")
    problem = get_problem(name)
    with jax.enable_x64(True):
        y = jax.numpy.asarray(problem.y0.numpy())
        value = np.asarray(jax.jit(lambda y: subject(name).jax_f(0.3, y, jax.numpy))(y))
    wanted = problem.f(torch.tensor(0.3, dtype=torch.float64), problem.y0)
    np.testing.assert_allclose(value, wanted.numpy(), rtol=1e-13, atol=1e-13)


def test_a_ring_is_independent_trajectories_with_known_ends() -> None:
    batch = ring(3, end=2.0)
    assert batch.y0.shape == (3, 8)
    assert batch.states == 3
    assert batch.end_error < 1e-11
    t = torch.tensor(0.0)
    alone = torch.stack([batch.torch_f(t, y) for y in batch.y0])
    torch.testing.assert_close(batch.torch_f(t, batch.y0), alone)
    np.testing.assert_allclose(batch.numpy_f(0.0, batch.y0.numpy()), alone.numpy(), rtol=1e-14)
    found = qf.solve(batch.torch_f, batch.y0, batch.span, method="dopri8", rtol=1e-11, atol=1e-13)
    assert batch.error(found.y[-1]) < 1e-9
    with pytest.raises(ValueError, match="batch must be an integer >= 1, got 0"):
        ring(0)


def test_the_error_of_a_batch_is_that_of_its_worst_trajectory() -> None:
    end = torch.tensor([[1.0, 2.0], [4.0, 0.0]], dtype=torch.float64)
    nothing: Callable[..., Any] = lambda *_: None  # noqa: E731
    chosen = Subject("", nothing, nothing, nothing, end, (0.0, 1.0), end, 0.0)
    off = end + torch.tensor([[0.0, 0.02], [0.1, 0.0]])
    assert chosen.error(off) == pytest.approx(0.025)
    assert chosen.error(end.numpy()) == 0
    assert chosen.error(end * float("nan")) == float("inf")


# -- solvers --------------------------------------------------------------------------------------


def _all_solvers() -> list[Solver]:
    found = [*quadflow_solvers(compiled=False), *other_solvers(compiled=False)]
    if "diffrax" not in missing():
        found.append(diffrax_solver("Tsit5"))
    return found


@pytest.mark.parametrize("solver", _all_solvers(), ids=lambda s: s.title)
def test_a_bare_solve_is_counted(solver: Solver) -> None:
    chosen = subject("lotka-volterra")
    counter = Counter(2)
    counted = quietly(lambda: bound(solver, chosen, counter)(1e-6))
    assert chosen.error(counted) < 1e-3
    assert counter.nfe >= counter.calls > 50
    # what is timed is the same solve: no counter between, the same numbers out
    bare = quietly(lambda: bound(solver, chosen)(1e-6))
    np.testing.assert_array_equal(np.asarray(counted), np.asarray(bare))


@pytest.mark.parametrize(
    "solver",
    [DOPRI5, GAUSS4, DOP853, JOINT, *(
        [torchode_solver("Dopri5")] if "torchode" not in missing() else []
    )],
    ids=lambda s: s.title,
)  # fmt: skip
def test_a_batch_is_solved(solver: Solver) -> None:
    chosen = ring(3, end=2.0)
    counter = Counter(8)
    reached = quietly(lambda: bound(solver, chosen, counter)(1e-6))
    assert np.asarray(reached).shape == (3, 8)
    assert chosen.error(reached) < 1e-4
    alone = solver.per_sample and solver.library == "scipy"
    assert counter.nfe >= counter.calls * (1 if alone else 3)


def test_diffrax_counts_a_batch_by_its_longest_trajectory() -> None:
    pytest.importorskip("diffrax")
    chosen, counter = ring(3, end=2.0), Counter(8)
    solve = bound(diffrax_solver("Tsit5"), chosen, counter)
    assert chosen.error(quietly(lambda: solve(1e-6))) < 1e-4
    assert counter.nfe == 3 * counter.calls > 0


def test_a_solve_over_its_budget_is_stopped() -> None:
    for solver in (DOPRI5, DOP853):
        solve = bound(solver, subject("lotka-volterra"), Counter(2, limit=100))
        with pytest.raises(OverBudgetError, match="over the budget of 100 calls of f"):
            solve(1e-9)
    with pytest.raises(ValueError, match="rk4 has no bare solve"):
        bound(solvers.as_solver("torchdiffeq:rk4"), subject("lotka-volterra"))


# -- equal error ----------------------------------------------------------------------------------


def test_sweeps_go_on_until_the_targets_are_reached() -> None:
    assert HALF_DECADES[:4] == (1e-2, 3.16e-3, 1e-3, 3.16e-4)
    trials = sweep(DOPRI5, subject("lotka-volterra"), [1e-3, 1e-5])
    assert [t.tolerance for t in trials] == list(HALF_DECADES[: len(trials)])
    errors = [t.error for t in trials]
    assert errors[-1] is not None and errors[-1] <= 1e-5
    assert all(e is not None and e > 1e-5 for e in errors[:-1])
    few = sweep(DOPRI5, subject("lotka-volterra"), [1e-9], budget=300)
    assert few[-1].error is None
    assert few[-1].failure == "over the budget of 300 calls of f"


def test_the_cheapest_trial_that_reaches_the_target() -> None:
    trials = [
        Row("a", "p", 1.0, None, error, 0.0, nfe, calls, None)
        for error, calls, nfe in ((None, 1, 1), (1e-3, 10, 40), (1e-6, 30, 30), (1e-5, 20, 60),
                                  (1e-7, 40, 40))
    ]  # fmt: skip
    assert cheapest(trials, 1e-5) is trials[3]
    assert cheapest(trials, 1e-6) is trials[2]
    assert cheapest(trials, 1e-8) is None


def test_comparison_is_at_equal_achieved_error() -> None:
    entries = compare([DOPRI5, GAUSS4, DOP853], subject("lotka-volterra"), [1e-3, 1e-5], repeats=2)
    assert [(e.target, e.solver) for e in entries] == [
        (target, s.title) for target in (1e-3, 1e-5) for s in (DOPRI5, GAUSS4, DOP853)
    ]
    for entry in entries:
        assert entry.trial is not None and entry.trial.error is not None
        assert entry.trial.error <= entry.target
        assert entry.timing is not None and len(entry.timing.times) == 2
        row = entry.to_dict()
        assert row["wall"] == entry.timing.best <= row["median"]
    json.dumps([e.to_dict() for e in entries])


def test_a_target_out_of_reach_is_told_not_timed() -> None:
    (entry,) = compare([DOPRI5], subject("lotka-volterra"), [1e-10], budget=200, repeats=2)
    assert entry.trial is None and entry.timing is None and entry.wall is None
    assert entry.failure == "over the budget of 200 calls of f"


def test_a_part_of_the_job_is_scaled_up() -> None:
    whole = subject("lotka-volterra")
    (entry,) = compare([DOP853], whole, [1e-3], repeats=2, parts={"scipy DOP853": (whole, 0.1)})
    row = entry.to_dict()
    assert entry.trial is not None and entry.timing is not None
    assert row["calls"] == 10 * entry.trial.calls
    assert row["wall"] == pytest.approx(10 * entry.timing.best)


def test_runs_take_turns() -> None:
    order: list[str] = []
    found = timing.interleaved(
        {name: lambda n=name: order.append(n) for name in "ab"}, repeats=3, warm_ups={"b": 7.0}
    )
    assert "".join(order) == "a" + "ab" * 3
    assert found["b"].warm_up == 7.0
    assert all(len(t.times) == 3 and t.best <= t.median for t in found.values())
    with pytest.raises(ValueError, match="repeats must be an integer >= 1, got 0"):
        timing.interleaved({}, repeats=0)


# -- the benchmarks -------------------------------------------------------------------------------


def _recorded(record: report.Record) -> report.Record:
    """As it comes back from the file."""
    full = {"benchmark": "x", "command": "c", "environment": report.environment(), "seconds": 1.0}
    again: report.Record = json.loads(json.dumps({**full, **record}))
    return again


def test_scientific() -> None:
    record = _recorded(
        scientific.measure(
            problems=["lotka-volterra"], targets=[1e-3], solvers=[DOPRI5, GAUSS4, DOP853]
        )
    )
    rows = {r["solver"]: r for r in record["rows"]}
    assert set(rows) == {DOPRI5.title, GAUSS4.title, DOP853.title}
    (found,) = scientific.ratios(record, GAUSS4.title)
    peer, mine = rows[DOP853.title], rows[GAUSS4.title]
    assert found["calls"] == mine["calls"] / peer["calls"] < 1 < found["nfe"]
    assert found["DOP853"] == peer["wall"] / mine["wall"]
    assert found["torchdiffeq"] is None
    texts = scientific.tables(record)
    assert set(texts) == {"scientific", "scientific-problems"}
    assert texts["scientific-problems"].count("\n") == 1 + 3
    assert f"| {mine['calls']} | {mine['nfe']} |" in texts["scientific-problems"]


def test_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LOOPED", 2)
    record = _recorded(batches.measure(sizes=[1, 4], solvers=[DOPRI5, DOP853, JOINT]))
    rows = {(r["solver"], r["size"]): r for r in record["rows"]}
    assert all(r["error"] <= record["target"] for r in record["rows"])
    assert rows[DOP853.title, 1]["share"] == 1
    assert rows[DOP853.title, 4]["share"] == 0.5
    assert rows[DOP853.title, 4]["per_sample"] and not rows[JOINT.title, 4]["per_sample"]
    ratios = batches.best_ratios(record)
    assert set(ratios["scipy loop / quadflow eager"]) == {1, 4}
    text = batches.tables(record)["batches"]
    assert "| scipy DOP853 | own |" in text and "| ~" in text
    assert "Not reached" not in text
    for row in record["rows"]:
        if row["solver"] == DOPRI5.title:
            row["failure"] = "method 'dopri5' cannot"
    text = batches.tables(record)["batches"]
    assert "| quadflow dopri5 |" not in text
    assert "- Not reached: quadflow dopri5 (x1, x4): method '…' cannot" in text


def test_overhead_compares_the_same_calls() -> None:
    chosen = subject("lotka-volterra")
    seen: list[tuple[int, ...]] = []

    def f(t: Any, y: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(y.shape))
        return chosen.torch_f(t, y)

    load = overhead.Load(torch_subject("cheap", f, chosen.y0, (0.0, 1.0)), 1e-4)
    record = _recorded(overhead.measure(quick=True, chosen=[load]))
    names = [r["solver"] for r in record["rows"]]
    assert {"quadflow adams", "quadflow dopri5", "quadflow gauss8"} <= set(names)
    for row in record["rows"]:
        assert row["calls"] > 0 and row["ratio"] == row["wall"] / row["bare"]
    gauss8 = next(r for r in record["rows"] if r["solver"] == "quadflow gauss8")
    assert gauss8["states"] > 4 * gauss8["calls"]  # nodes go together
    assert "cheap" in overhead.tables(record)["overhead"]
    # the bare calls are those of the solve, shape by shape
    shapes = overhead.shapes_seen(GAUSS4, load)
    seen.clear()
    overhead.bare_calls(load.subject, shapes)()
    assert seen == shapes
    assert {len(s) for s in shapes} == {1, 2}


def test_training_step() -> None:
    pytest.importorskip("torchdiffeq")
    exact = training_step.reference()
    assert exact.shape == (2 * 64 + 64 + 64 * 2 + 2,)
    names = ["torchdiffeq dopri5 backprop", "quadflow dopri5 backprop"]
    record = _recorded(
        training_step.measure(quick=True, names=names, tolerances=(1e-2, 1e-4, 1e-6), memory=False)
    )
    assert len(record["rows"]) == 2 * 3
    for row in record["rows"]:
        assert row["failure"] is None
        if row["kind"].startswith("error"):
            assert row["error"] <= float(row["kind"].split()[1])
    assert "quadflow dopri5 backprop" in training_step.tables(record)["training-step"]


def _grow(mebibytes: int) -> int:
    kept = torch.ones(mebibytes * 2**20 // 8, dtype=torch.float64)
    return len(kept)


def test_memory_of_a_job() -> None:
    value, grown = memory.in_own_process(_grow, 64, warm_up=(1,))
    assert value == 64 * 2**17
    assert 55 < grown < 80
    with pytest.raises(memory.JobFailed, match="negative dimension"):
        memory.in_own_process(_grow, -1)


def test_default_method() -> None:
    record = _recorded(
        default_method.measure(quick=True, methods=("tsit5", "adams"), kinds=("short",))
    )
    regrets = default_method.regrets(record)
    for cost in default_method.COSTS:
        assert min(by["short", cost] or 0.0 for by in regrets.values()) >= 1
    # both costs are evaluations where nodes are not evaluated together
    for by in regrets.values():
        assert by["short", "calls"] == by["short", "nfe"]
    assert set(default_method.largest_regrets(record)) == {"tsit5", "adams"}
    assert default_method.tables(record)["default-method"].count("\n") == 1 + 2


def test_a_method_that_misses_an_error_is_not_ranked_by_the_others() -> None:
    def row(method: str, target: float, calls: int | None) -> dict[str, Any]:
        costs = {} if calls is None else {"calls": calls, "nfe": 2 * calls, "wall": 1.0}
        return {"kind": "smooth", "problem": "p", "method": method, "target": target,
                "failure": "over the budget" if calls is None else None, **costs}  # fmt: skip

    record = {"rows": [row("a", 1e-3, 10), row("b", 1e-3, 20), row("a", 1e-6, None),
                       row("b", 1e-6, 80)]}  # fmt: skip
    assert default_method.largest_regrets(record) == {"a": np.inf, "b": pytest.approx(2**0.5)}
    assert default_method.missed(record) == {"a": 1, "b": 0}


def test_growth(tmp_path: Path) -> None:
    for kind in growth.SIZES:
        for name in growth.solvers(kind):
            size = {"tolerance": 1e-4, "span": 2.0}.get(kind, 3.0)
            found = growth.point(kind, size, name, repeat=False)
            assert found["nfe"] >= found["calls"] > 0, (kind, name)
            assert (found["error"] is None) == (kind == "batch")
            assert found["error"] is None or found["error"] < 1e-2
    record = _recorded(growth.measure(sizes={"dimension": (10.0,)}))
    assert all(r["failure"] is None and r["memory_mib"] >= 0 for r in record["rows"])
    table, _, _ = growth.tables(record)["growth"].partition("\n\n")
    assert table.count("\n") == 1 + 1
    drawn = growth.figures(record, tmp_path)
    assert [p.name for p in drawn] == ["growth-wall.svg", "growth-calls.svg", "growth-memory.svg"]
    assert all("quadflow dopri5" in p.read_text("utf-8") for p in drawn)


# -- the report -----------------------------------------------------------------------------------


def test_tables_and_markers() -> None:
    text = report.table(["a", "b"], [["x", "1"]])
    assert text == "| a | b |\n| :-- | --: |\n| x | 1 |"
    page = "<!-- begin one -->\nold\n<!-- end one -->\nkept"
    assert report.replace_blocks(page, {"one": text}) == (
        f"<!-- begin one -->\n{text}\n<!-- end one -->\nkept"
    )
    with pytest.raises(ValueError, match="no <!-- begin two -->"):
        report.replace_blocks(page, {"two": text})
    assert [report.ratio(x) for x in (None, 0.123, 2.345, 123.4)] == ["–", "0.12", "2.3", "123"]
    assert report.milliseconds(0.01234) == "12.3"
    assert report.quotient(1.0, None) is None
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)


def test_missing_peers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers.importlib.util, "find_spec", lambda name: None)
    assert missing() == solvers.LIBRARIES
    assert {s.library for s in other_solvers()} == {"scipy"}
    record = _recorded({"rows": [], "targets": []})
    record["environment"]["missing"] = list(missing())
    assert report.left_out(record) == "Not installed, left out: torchdiffeq, torchode, diffrax."


def test_the_command_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "figures/benchmarks").mkdir(parents=True)
    page = tmp_path / "benchmarks.md"
    page.write_text(
        "<!-- begin benchmarks-scientific -->\n<!-- end benchmarks-scientific -->\n"
        "<!-- begin benchmarks-scientific-problems -->\n<!-- end benchmarks-scientific-problems -->"
        "\n<!-- begin benchmarks-scientific-machine -->\n<!-- end benchmarks-scientific-machine -->"
    )
    nothing: report.Record = {"rows": [], "f": {}, "targets": []}
    monkeypatch.setattr(scientific, "measure", lambda quick, say: dict(nothing))
    everything.main(["--only", "scientific", "--docs", str(tmp_path)])
    record = json.loads((tmp_path / "figures/benchmarks/benchmarks.json").read_text("utf-8"))
    assert list(record) == ["scientific"]
    assert record["scientific"]["command"] == "python -m quadflow.analysis.benchmarks.scientific"
    assert "one thread of a machine" in page.read_text("utf-8")
    with pytest.raises(SystemExit):
        everything.main(["--docs", str(tmp_path / "nowhere")])
