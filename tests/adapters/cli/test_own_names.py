"""MODULE:NAME and FILE.py:NAME in every command that takes a method, a sampler or a problem."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import quadflow as qf
from quadflow.adapters import sample
from quadflow.adapters.cli.main import main
from quadflow.adapters.sampling.sample import intervals_for

MINE = """
import torch
import quadflow as qf
from quadflow.analysis import Problem

ralston = qf.Tableau(a=((), (2 / 3,)), b=(1 / 4, 3 / 4), order=2)
collocated = qf.collocation(qf.gauss_legendre(2))
rule = qf.radau_right(2)
number = 3.5


def made():
    return qf.stages(ralston)


def broken():
    raise KeyError("nothing here")


def needs(a, b):
    return a + b


def lost(a, b, c):
    raise KeyError("nothing\\nthere")


class Wants:
    def __init__(self, size):
        pass


def halves(field, nfe, sidenet):
    return nfe, nfe


def heun(rhs, y0, grid):
    y = y0
    for t0, t1 in zip(grid[:-1], grid[1:]):
        k = rhs(t0, y)
        y = y + (t1 - t0) / 2 * (k + rhs(t1, y + (t1 - t0) * k))
    return y


def decay(rate=1.0):
    return Problem(
        "decay", "y' = -rate y", "", lambda t, y, m: [-rate * y[0]],
        torch.ones(1, dtype=torch.float64), (0.0, 1.0), exact=lambda t: [__import__("mpmath").exp(-t)],
    )


fading = decay()


def breaks(t, y, m):
    raise IndexError("nothing")


broken_problem = Problem("p", "", "", breaks, torch.ones(1, dtype=torch.float64), (0.0, 1.0))


def plain(field, nfe, sidenet):
    return "no"


def plan(field, nfe, sidenet):
    return qf.adams(1), nfe
"""  # noqa: E501


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module's name; it lies in the current folder, which sys.path does not hold."""
    name = f"mine_{abs(hash(str(tmp_path))) % 10**8}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    return name


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_certify(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (f"{mine}:ralston", f"{mine}:made", f"{mine}.py:made"):
        out = said(capsys, "certify", name)
        assert out.startswith(f"{name}\n") and "order                   2" in out
    assert "order                   4" in said(capsys, "certify", f"{mine}:collocated")
    out = said(capsys, "certify", f"{mine}:rule")
    assert out.startswith("collocation on radau-right, n = 2")
    assert "order                   3  " in out
    out = said(capsys, "certify", f"{mine}:rule", "--sweeps", "1")
    assert "1 explicit sweeps" in out and "order                   2" in out
    out = said(capsys, "certify", f"{mine}:heun", "--highest", "4")
    assert out.startswith(f"{mine}:heun: order 2; tree")


def test_order_and_problems(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (f"{mine}:ralston", f"{mine}:heun"):
        out = said(
            capsys, "order", name, "--problem", f"{mine}:decay", "--steps", "8,16,32,64",
            "--json", "o.json",
        )  # fmt: skip
        assert f"{name} on decay" in out
        (found,) = json.loads(Path("o.json").read_text())["orders"]
        assert abs(found["measured_order"] - 2) < 0.1
        assert found["promised_order"] == (2 if name.endswith("ralston") else None)
    assert "decay: 1 components over [0, 1]" in said(capsys, "problems", f"{mine}:fading")


def test_stability(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "stability", f"{mine}:ralston")
    assert "R(z)                    1 + z + 1/2 z^2" in out
    assert "A-stable                yes" in said(capsys, "stability", f"{mine}:rule")
    assert "known by what it returns" in refused(capsys, "stability", f"{mine}:heun")


def test_bench(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = f"{mine}:made,{mine}.py:heun,adams:4,gauss:5"
    out = said(
        capsys, "bench", f"{mine}:decay,driven", "--methods", names, "--tolerances", "1e-4",
        "--steps", "16", "--repeats", "1", "--peer", f"{mine}:made", "--json", "b.json",
    )  # fmt: skip
    assert f"calls over {mine}:made" in out or f"{mine}:made's" in out
    study = json.loads(Path("b.json").read_text())
    rows = {(row["solver"], row["problem"]): row for row in study["rows"]}
    assert {solver for solver, _ in rows} == set(names.split(","))
    assert len(rows) == 8 and all(row["failure"] is None for row in rows.values())
    # the order of adams is held at four at the most, so it needs more steps than without a limit
    assert rows["adams:4", "driven"]["error"] < 1e-2


def test_samplers(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = {}
    for method in ("euler", f"{mine}:plan", "heun", f"{mine}:made", f"{mine}.py:ralston"):
        said(capsys, "sample", "--method", method, "--nfe", "4", "--labels", "3", "--out", "s.png")
        pictures[method] = Image.open("s.png").tobytes()
    assert pictures[f"{mine}:plan"] == pictures["euler"] != pictures["heun"]
    assert pictures[f"{mine}:made"] == pictures[f"{mine}.py:ralston"] != pictures["heun"]
    Image.new("L", (28, 28)).save("in.png")
    out = said(capsys, "edit", "in.png", "--from", "1", "--to", "2", "--nfe", "4", "--method",
               f"{mine}:made")  # fmt: skip
    assert "4 + 4 evaluations" in out
    out = said(
        capsys, "evaluate", "--methods", f"euler,{mine}:plan", "--nfe", "3", "--euler", "",
        "--images", "2", "--uniform-only", "--reference-steps", "4", "--npz", ".",
    )  # fmt: skip
    rows = {row["method"]: row for row in json.loads(Path("evaluation.json").read_text())["rows"]}
    assert rows[f"{mine}:plan"]["rmse"] == rows["euler"]["rmse"]


def test_a_method_as_a_sampler_takes_its_budget_or_says_which_there_are() -> None:
    noise = torch.ones(2, 3)
    calls = []

    def model(x, t):
        calls.append(t)
        return -x

    for name, nfe, intervals in (("rk4", 8, 2), ("ab2", 9, 4), ("lobatto3", 10, 2)):
        calls.clear()
        method = qf.get_method(name)
        result = sample(model, noise, method=method, nfe=nfe)
        assert (len(calls), result.stats.nfe, result.stats.accepted) == (nfe, nfe, intervals)
        assert intervals_for(method, nfe) == intervals
    with pytest.raises(ValueError, match=r"nfe=6: no number of .* rk4 costs that; 4 and 8 can be"):
        sample(model, noise, method=qf.get_method("rk4"), nfe=6)
    with pytest.raises(ValueError, match=r"nfe=3: no number of intervals of method rk4 .*; 4 can"):
        sample(model, noise, method=qf.get_method("rk4"), nfe=3)
    with pytest.raises(ValueError, match="chooses its steps"):
        sample(model, noise, method=qf.get_method("adams"), nfe=6)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("certify MINE:ralstn", "has no 'ralstn': did you mean 'ralston'?"),
        (
            "certify MIN:ralston",
            "no module 'MIN' in this folder or installed: did you mean 'MINE'?",
        ),
        ("certify gone.py:x", "METHOD gone.py:x: no file gone.py"),
        ("certify MINE:", "METHOD MINE:: must be MODULE:NAME or FILE.py:NAME"),
        ("certify MINE:number", "is of type float: must be a Method, a Tableau, a QuadratureRule"),
        ("certify MINE:broken", "called without arguments it raised KeyError: 'nothing here'"),
        ("certify MINE:needs", "MINE:needs is a function of (a, b): must be a Method, a Tableau"),
        ("certify MINE:Wants", "MINE:Wants is the class Wants: must be a Method"),
        ("certify MINE:lost", "MINE:lost: no certificate: KeyError: 'nothing\\nthere'"),
        ("certify leaves:x", "importing leaves failed: SystemExit: 3"),
        ("certify leaves.py:x", "running leaves.py failed: SystemExit: 3"),
        ("certify tells:x", "importing tells failed: OSError: one line and another"),
        (
            "certify ./MINE:made",
            "./MINE is neither a module's name nor a FILE.py: did you mean ./MINE.py:made?",
        ),
        ("certify a/b:made", "METHOD a/b:made: a/b is neither a module's name nor a FILE.py"),
        ("certify MINE.py", "METHOD MINE.py: must be MODULE:NAME or FILE.py:NAME"),
        ("certify adams:", "METHOD adams:: adams chooses among 1, 2, 3,"),
        ("order adams:-1", "METHOD adams:-1: adams chooses among 1, 2, 3,"),
        ("sample --method MINE:needs", "--method MINE:needs is a function of (a, b): must be"),
        ("sample --method MINE:lost", "MINE.py, line 25: KeyError: "),
        ("sample --method MINE:plain", "must give (Method, number of intervals), gave 'no'"),
        ("problems MINE:broken_problem", "MINE.py, line 56: IndexError: nothing"),
        (
            "sample --method MINE:halves --nfe 4",
            "must give (Method, number of intervals), gave (4, 4)",
        ),
        ("certify bad.py:x", "running bad.py failed: ZeroDivisionError: division by zero"),
        ("certify worse:x", "importing worse failed: ModuleNotFoundError: No module"),
        ("certify MINE:ralston --nodes 2", "--nodes 2: MINE:ralston is a method of its own"),
        ("certify MINE:rule --nodes 2", "--nodes 2: MINE:rule is a rule, whose nodes are fixed"),
        ("certify gauss --nodes 6", "hold it at one of its choices: gauss:4, gauss:5, gauss:6"),
        ("certify adams:13", "METHOD adams:13: adams chooses among 1, 2, 3,"),
        ("certify rk4:3", "METHOD rk4:3: rk4 chooses neither an order nor nodes to hold"),
        ("order MINE:heun --digits 30", "--digits 30: MINE:heun runs in float64 only"),
        ("order rk4 --problem MINE:rule", "--problem MINE:rule is of type QuadratureRule: must be"),
        ("bench MINE:number", "SET MINE:number is of type float: must be a Problem"),
        ("bench driven --methods MINE:rule", "is a QuadratureRule: quadflow.collocation makes"),
        ("sample --method MINE:number", "--method MINE:number is of type float: must be a Method"),
        ("evaluate --methods MINE:ralstn", "did you mean 'ralston'?"),
    ],
)
def test_what_cannot_be_is_named(words: str, why: str, mine: str, capsys) -> None:
    Path("bad.py").write_text("1 / 0")
    Path("worse.py").write_text("import not_there")
    Path("leaves.py").write_text("import sys; sys.exit(3)")
    Path("tells.py").write_text("raise OSError('one line\\nand another')")
    if "MIN:" in words:  # a slip in the last place
        words, why = words.replace("MIN:", f"{mine[:-1]}:"), why.replace("'MIN'", f"'{mine[:-1]}'")
    got = refused(capsys, *words.replace("MINE", mine).split())
    assert why.replace("MINE", mine) in got


def test_the_script_finds_the_current_folder(mine: str) -> None:
    """As the installed command runs: sys.path holds the script's folder, not the current one."""
    code = f"import sys; sys.path.remove(''); from quadflow.adapters.cli import main; " \
           f"sys.exit(main(['certify', '{mine}:ralston']))"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"{mine}:ralston\n"), done.stderr
