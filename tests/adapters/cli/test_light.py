"""What costs no torch: importing quadflow, --version, --help; and what the lazy packages answer."""

from __future__ import annotations

import copy
import doctest
import inspect
import pickle
import pydoc
import rlcompleter
import subprocess
import sys
from pathlib import Path

import pytest

import quadflow
import quadflow.adapters
import quadflow.analysis
from quadflow.adapters.cli.main import COMMANDS

HEAVY = ("torch", "scipy", "matplotlib", "sympy", "mpmath")
PACKAGES = (quadflow, quadflow.adapters, quadflow.analysis)


def python(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_of_everything_costs_no_torch(tmp_path: Path) -> None:
    """One process asks for everything, so that whatever loads torch is caught once."""
    calls = [["--version"], ["--help"], *([command, "-h"] for command in COMMANDS)]
    calls += [["train", network, "-h"] for network in ("unet", "sit", "sidenet")]
    code = (
        "import contextlib, io, sys\n"
        "import quadflow, quadflow.adapters, quadflow.analysis\n"
        f"heavy = lambda: [m for m in {HEAVY!r} if m in sys.modules]\n"
        "print('import', heavy(), 'numpy' in sys.modules)\n"
        "from quadflow.adapters.cli import main\n"
        f"for argv in {calls!r}:\n"
        "    said = io.StringIO()\n"
        "    with contextlib.redirect_stdout(said):\n"
        "        try:\n"
        "            main(argv)\n"
        "        except SystemExit as leaving:\n"
        "            code = leaving.code\n"
        "    print(*argv, code, heavy(), len(said.getvalue()) > 10)\n"
    )
    first, *lines = python(code, tmp_path).splitlines()
    assert first == "import [] False"
    assert lines == [f"{' '.join(argv)} 0 [] True" for argv in calls]


def test_python_m_quadflow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "quadflow", "--version"], cwd=tmp_path, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"quadflow {quadflow.__version__}\n"


@pytest.mark.parametrize(
    "first",
    [
        "import quadflow.solve, quadflow.torchdiffeq_api.odeint, quadflow.adapters.sampling.sample",
        "import quadflow.analysis.problems.problem, quadflow.analysis.reliability.estimates",
        "from quadflow import *",
    ],
)
def test_names_are_what_they_are_whatever_is_imported_first(first: str, tmp_path: Path) -> None:
    code = (
        f"{first}\n"
        "import quadflow, quadflow.adapters, quadflow.analysis\n"
        "assert callable(quadflow.solve) and callable(quadflow.odeint)\n"
        "assert quadflow.solve is quadflow.solve\n"
        "assert callable(quadflow.adapters.sample) and callable(quadflow.analysis.problems)\n"
        "assert callable(quadflow.analysis.reliability)\n"
        "import quadflow.analysis.problems as problems\n"
        "assert problems is quadflow.analysis.problems\n"
        "from quadflow.analysis.problems.library import classic\n"
        "from quadflow.analysis.problems import get_problem\n"
        "print(classic.__name__)\n"
    )
    assert python(code, tmp_path).endswith("quadflow.analysis.problems.library.classic\n")


def test_a_star_brings_every_public_name() -> None:
    for package in PACKAGES:
        space: dict[str, object] = {}
        exec(f"from {package.__name__} import *", space)
        names = set(space) - {"__builtins__"}
        assert names == set(package.__all__) == set(dir(package))
        assert not any(name.startswith("_") for name in dir(package))
        for name in names:
            assert getattr(package, name) is space[name]


@pytest.mark.parametrize(
    ("package", "name", "hint"),
    [
        (quadflow, "slove", "did you mean 'solve'?"),
        (quadflow, "tableau", "did you mean 'Tableau'?"),
        (quadflow.adapters, "samples", "did you mean 'sample'?"),
        (quadflow.analysis, "certfy", "did you mean 'certify'?"),
        (quadflow, "qqq", "dir() lists what it has"),
        (quadflow, "torchdiffeq_apis", ""),
    ],
)
def test_an_unknown_name_is_answered_by_the_nearest(package, name: str, hint: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(package, name)
    assert str(caught.value).startswith(f"module {package.__name__!r} has no attribute {name!r}")
    assert hint in str(caught.value)
    assert not hasattr(package, "__wrapped__") and not hasattr(package, "_no")


def test_a_package_inside_that_is_not_imported_is_named(tmp_path: Path) -> None:
    code = "import quadflow\ntry: quadflow.analysis\nexcept AttributeError as e: print(e)"
    assert "import quadflow.analysis" in python(code, tmp_path)


def test_tools_that_look_into_modules() -> None:
    assert pickle.loads(pickle.dumps(quadflow.solve)) is quadflow.solve
    assert pickle.loads(pickle.dumps(quadflow.adapters.FlowField)) is quadflow.adapters.FlowField
    method = copy.deepcopy(quadflow.get_method("rk4"))
    assert method.description == quadflow.get_method("rk4").description
    text = pydoc.plain(pydoc.render_doc(quadflow))
    assert "solve(" in text and "ODEs by quadrature" in text
    members = dict(inspect.getmembers(quadflow))
    assert members["solve"] is quadflow.solve and set(dir(quadflow)) <= set(members)
    assert inspect.getmodule(quadflow.solve).__name__ == "quadflow.solve"
    assert inspect.signature(quadflow.solve).parameters["func"]
    assert doctest.testmod(quadflow).failed == 0
    completer = rlcompleter.Completer({"quadflow": quadflow})
    assert completer.complete("quadflow.odeint_adj", 0) == "quadflow.odeint_adjoint("
