"""`quadflow bench`."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from quadflow.adapters.cli import bench as cli_bench
from quadflow.adapters.cli.bench import chosen_problems, decades
from quadflow.adapters.cli.main import make_parser
from quadflow.analysis.cost.work_precision import BUDGET, STEPS, TOLERANCES, WorkPrecision

study_module = importlib.import_module("quadflow.analysis.cost.work_precision")  # not the function

QUICK = ["--tolerances", "1e-3..1e-5", "--steps", "16,32", "--repeats", "1"]


def parsed(*words: str) -> argparse.Namespace:
    return make_parser(["bench"]).parse_args(["bench", *words])


def bench(*words: str) -> None:
    arguments = parsed(*words)
    arguments.run(arguments)


def test_one_command_measures_prints_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["driven", *QUICK, "--methods", "dopri5,rk4,scipy:DOP853", "--at", "2e-4",
             "--peer", "scipy:DOP853", "--out", "w.svg", "--proportionality", "p.svg",
             "--reliability", "r.svg", "--reliability-tolerance", "1e-4", "--json", "w.json",
             "--cost", "calls"]  # fmt: skip
    bench(*words)
    out = capsys.readouterr().out
    study = WorkPrecision.load("w.json")
    assert study.complete and study.solvers == ("dopri5", "scipy:DOP853", "rk4")
    assert len(study.rows) == 3 + 3 + 2
    cost = study.cost_at(2e-4, "calls")["driven"]["dopri5"]
    assert cost is not None
    line = next(line for line in out.splitlines() if line.startswith("dopri5"))
    assert line.split() == ["dopri5", f"{cost:.0f}"]
    assert "calls over scipy:DOP853's at error 2e-04" in out
    assert "achieved error against tolerance" in out and "estimated over true" in out
    assert "rk4                     driven" in out and "none: it has no error control" in out
    for name in ("w.svg", "p.svg", "r.svg", "w.json"):
        assert f"-> {name}" in out and Path(name).stat().st_size > 500
    assert "sequential calls of f" in Path("w.svg").read_text()
    # what the figure says makes it is what was asked for
    again = parsed(*shlex.split(study.command)[2:])
    asked = parsed(*words)
    for name in vars(asked):
        if name not in ("json", "run"):
            assert getattr(again, name) == getattr(asked, name), name

    # the same once more: nothing is measured, all is printed
    monkeypatch.setattr(study_module._Bench, "rows", lambda *_: pytest.fail("measured again"))
    bench(*words[:-2], "--rows", "--reliability", "r.json")
    assert "(reference: closed form" in capsys.readouterr().out
    diagrams = json.loads(Path("r.json").read_text())["diagrams"]
    assert [m["solver"] for m in diagrams] == ["dopri5", "rk4", "scipy:DOP853"]


def test_interrupted_it_keeps_the_rows_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, count = study_module._Bench.rows, 0

    def rows(self: Any, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return genuine(self, *arguments)

    monkeypatch.setattr(study_module._Bench, "rows", rows)
    path = tmp_path / "w.json"
    words = ["driven", *QUICK, "--methods", "tsit5", "--json", str(path)]
    with pytest.raises(SystemExit) as leaving:
        bench(*words, "--reliability", str(tmp_path / "r.svg"))
    assert leaving.value.code == 130
    assert "interrupted: what was finished is above; the same command" in capsys.readouterr().out
    before = json.loads(path.read_text())
    assert before["complete"] is False and len(before["rows"]) == 2
    bench(*words)
    after = json.loads(path.read_text())
    assert after["complete"] is True and after["rows"][:2] == before["rows"]
    with pytest.raises(ValueError, match=r"rows of repeats 1, now it is 2: .*--fresh"):
        bench(*words, "--repeats", "2")
    bench(*words, "--repeats", "2", "--fresh")
    assert json.loads(path.read_text())["settings"]["repeats"] == 2


def test_failures_are_told_in_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    bench("prothero-robinson", *QUICK, "--methods", "scipy:RK45", "--budget", "300")
    out = capsys.readouterr().out
    assert "scipy:RK45 on prothero-robinson at 1e-03: over the budget of 300 calls of f" in out
    assert "at 1e-04, 1e-05: over the budget: not tried, see tolerance 1e-03" in out


def test_a_problem_without_reference_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(problem: Any) -> Any:
        raise ArithmeticError("two solves disagree")

    monkeypatch.setattr(study_module, "reference_end", broken)
    figure = tmp_path / "w.png"
    bench("driven", *QUICK, "--methods", "tsit5", "--out", str(figure))
    out = capsys.readouterr().out
    assert "driven: not measured, no reference: ArithmeticError: two solves disagree" in out
    assert not figure.exists() and "-> " not in out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["keplr"], "SET 'keplr' is no set of problems and no problem: did you mean 'kepler'"),
        (["nonstif"], "did you mean 'nonstiff'"),
        (["driven", "--methods", "dopri"], "--methods 'dopri' is unknown: did you mean 'dopri"),
        (
            ["driven", "--methods", "scypi:RK45"],
            "--methods scypi:RK45: no module 'scypi' .*: did you mean 'scipy'",
        ),
        (["driven", "--peer", "scipy:RK45"], "--peer 'scipy:RK45': .*known"),
        (["driven", "--out", "w.gif"], r"--out w.gif: must end in"),
        (["driven", "--reliability", "r.txt"], r"--reliability r.txt: must end in"),
        (["driven", "--proportionality", "no/p.svg"], "--proportionality .*does not exist"),
        (["driven", "--json", "no/w.json"], "--json no/w.json: the folder no does not exist"),
    ],
)
def test_mistakes_are_named_before_any_work(
    words: list[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "reference_end", lambda p: pytest.fail("worked"))
    with pytest.raises(ValueError, match=why):
        bench(*words)


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--tolerances", "1e-3..2e-5", "does not span whole decades"),
        ("--tolerances", "tight", "must look like 1e-3..1e-10"),
        ("--tolerances", "0", "must be positive"),
        ("--steps", "8,0", "whole number from 1"),
        ("--repeats", "x", "whole number from 1, got 'x'"),
        ("--atol-ratio", "-1", "must be a positive number"),
        ("--methods", "dopri5,,rk4", "names with commas between"),
        ("--cost", "time", "invalid choice"),
    ],
)
def test_bad_values_are_refused(
    option: str, value: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        parsed("driven", option, value)
    assert leaving.value.code == 2 and why in capsys.readouterr().err


def test_decades_are_the_numbers_that_their_text_means() -> None:
    assert decades("1e-3..1e-6") == (1e-3, 1e-4, 1e-5, 1e-6)
    assert decades("1e-8..1e-6,2e-3") == (1e-8, 1e-7, 1e-6, 2e-3)
    assert decades("3e-2..3e-4") == (3e-2, 3e-3, 3e-4)


def test_sets_problems_and_defaults() -> None:
    assert tuple(chosen_problems("quick")) == cli_bench.QUICK
    chosen = chosen_problems("driven, mechanics,driven")
    assert next(iter(chosen)) == "driven" and {"kepler", "pleiades"} <= set(chosen)
    assert "van-der-pol" not in chosen
    assert "scipy:Radau" in cli_bench.default_methods(True)
    assert "scipy:Radau" not in cli_bench.default_methods(False)
    arguments = parsed()
    assert (arguments.set, arguments.tolerances, arguments.steps, arguments.budget) == (
        "quick", TOLERANCES, STEPS, BUDGET,
    )  # fmt: skip
