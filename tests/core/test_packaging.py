"""What is installed, under which names, and what importing it brings along."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from paths import ROOT

EXTRAS = ("matplotlib", "sympy", "mpmath", "safetensors", "tqdm", "PIL", "torchdiffeq",
          "hypothesis", "scipy.special")  # fmt: skip


def run(code: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_the_three_packages_under_their_names(tmp_path: Path) -> None:
    """quadflow, quadflow.adapters and quadflow.analysis; weights and type marker; nothing else."""
    source = tmp_path / "source"
    for name in ("quadflow", "adapters", "analysis"):
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = source / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "-w", str(tmp_path), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("quadflow-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        f"quadflow/{prefix}{path.relative_to(ROOT / folder).as_posix()}"
        for folder, prefix in (("quadflow", ""), ("adapters", "adapters/"),
                               ("analysis", "analysis/"))
        for path in (ROOT / folder).rglob("*.py")
    }  # fmt: skip
    assert modules <= names
    for weights in ("fashion_unet.safetensors", "fashion_sidenet.safetensors", "MODEL_CARD.md"):
        assert f"quadflow/adapters/backbones/weights/{weights}" in names
    assert "quadflow/py.typed" in names
    assert {"quadflow/rules/dop853.json", "quadflow/analysis/problems/references.json"} <= names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"quadflow"}


def test_importing_the_core_loads_no_extra(tmp_path: Path) -> None:
    """Run in an empty folder: the install works from anywhere, and brings only its dependencies."""
    code = (
        "import sys, torch, numpy, scipy\n"
        "before = set(sys.modules)\n"
        "import quadflow\n"
        "new = set(sys.modules) - before\n"
        "print(sorted({m.split('.')[0] for m in new}))\n"
        f"print([m for m in {EXTRAS!r} if m in new])\n"
    )
    tops, extras = run(code, tmp_path).splitlines()
    assert extras == "[]"
    third_party = {
        top
        for top in ast.literal_eval(tops)
        if top not in sys.stdlib_module_names and top != "quadflow"
    }
    assert third_party <= {"torch", "numpy", "scipy"}


@pytest.mark.parametrize(
    ("package", "extra", "code"),
    [
        ("safetensors", "generative", "import quadflow.adapters as a; a.load_unet()"),
        ("PIL", "generative", "import torch; from quadflow.adapters.data.images import *; "
         "save_png('x.png', tile(torch.zeros(1, 1, 2, 2), 1))"),
        ("tqdm", "generative", "from quadflow.extras import progress; progress(1, '')"),
        ("tqdm", "progress", "import torch, quadflow; "
         "quadflow.solve(lambda t, y: -y, torch.ones(1), (0.0, 1.0), progress=True)"),
        ("matplotlib", "analysis", "from pathlib import Path; "
         "from quadflow.analysis.report.figures import *; convergence_plot(Path('x.png'), [])"),
        ("matplotlib", "analysis", "from pathlib import Path; "
         "from quadflow.analysis.report.demo import run_demo; run_demo(Path('demo'))"),
    ],
)  # fmt: skip
def test_a_missing_extra_is_named(package: str, extra: str, code: str, tmp_path: Path) -> None:
    blocked = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "try:\n"
        f"    exec({code!r}, {{}})\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    message = run(blocked, tmp_path)
    assert package in message
    assert f"pip install 'quadflow[{extra}]'" in message


def test_adapters_and_analysis_import_without_extras(tmp_path: Path) -> None:
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in EXTRAS[:-1])
    code = f"import sys\n{blocked}import quadflow.adapters, quadflow.analysis\nprint('fine')\n"
    assert run(code, tmp_path).strip() == "fine"
