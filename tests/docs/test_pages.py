"""The README and the docs say what the demo measured, and their snippets run."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
from paths import ROOT

from quadflow.adapters.cli import main
from quadflow.analysis.report.site import pages

DOCS = sorted((ROOT / "docs").rglob("*.md"))
FIGURES = json.loads((ROOT / "docs/figures/demo/demo.json").read_text(encoding="utf-8"))


def test_tables_are_the_recorded_ones() -> None:
    filled = pages.filled(ROOT)
    assert len(filled) >= 8
    for page, text in filled.items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name}: run `make figures`"
        assert "@" not in re.sub(r"`[^`]*`", "", text), f"{page.name}: a placeholder was left"


def test_recorded_orders_are_the_promised_ones() -> None:
    """The pictures in the README show the proven orders: 4, 6 and 8, within a third."""
    assert len(FIGURES["orders"]) == 9
    for entry in FIGURES["orders"]:
        assert abs(entry["measured_order"] - entry["promised_order"]) < 0.35, entry
        assert entry["residual_decades"] < 0.1


METHODS = ("euler", "heun", "ab2", "dpmpp-2m", "pec2", "bianchor")
FITTED_NFES = (3, 5, 7, 10)
SCALES = {entry["guidance"]: entry for entry in FIGURES["sampling"]}
SAID_ON = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/sampling.md")]


def recorded(scale: float) -> dict[str, dict[int, float]]:
    """The demo's table at a guidance scale: method -> NFE -> RMSE."""
    rows = SCALES[scale]["rmse"]
    return {m: {int(n): error for n, error in row.items()} for m, row in rows.items()}


def said(sentence: str) -> None:
    """Both pages that have the demo's tables say this, apart from line ends and bold type."""
    for text in SAID_ON:
        assert sentence in re.sub(r"\s+", " ", text.replace("**", "")), sentence


def test_recorded_sampling_is_complete() -> None:
    assert set(SCALES) == {1, 2}
    for scale, entry in SCALES.items():
        rows = recorded(scale)
        assert tuple(m for m in rows if m != "fitted") == METHODS
        assert all(set(rows[m]) == {3, 5, 7, 10, 20} for m in METHODS)
        # no figure stands nearer to the reference than the reference is to the truth
        assert min(min(row.values()) for row in rows.values()) > 5 * entry["reference_rmse"]


@pytest.mark.parametrize("scale", SCALES)
def test_what_the_pages_say_of_the_fitted_sampler(scale: float) -> None:
    rows = recorded(scale)
    own = rows["fitted"]
    assert tuple(own) == FITTED_NFES
    said("itted sampler is the closest at every number of evaluations that it was fitted to")
    for nfe in FITTED_NFES:
        assert own[nfe] < min(rows[m][nfe] for m in METHODS), nfe
    said("evaluations it is closer than Euler, Heun and DPM-Solver++")
    for method in ("euler", "heun", "dpmpp-2m"):
        assert own[5] < rows[method][10] and own[10] < rows[method][20], method


@pytest.mark.parametrize("scale", SCALES)
def test_what_the_pages_say_of_the_others(scale: float) -> None:
    rows = recorded(scale)
    best = {n: min(METHODS, key=lambda m, n=n: rows[m][n]) for n in (3, 5, 7, 10, 20)}
    said("Of the others BA-solver is the closest at 3 evaluations")
    assert best == {3: "bianchor", 5: "pec2", 7: "pec2", 10: "pec2", 20: "pec2"}
    for nfe in (3, 5, 7, 10):
        better = rows["bianchor"][nfe] < rows["ab2"][nfe]
        assert better != (nfe == 5 and scale == 2), "except at 5 evaluations with guidance"
        farthest = max(METHODS, key=lambda m, n=nfe: rows[m][n])
        assert nfe == 3 or farthest == "heun", "Heun is the farthest at 5 to 10"


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


WITH_CODE = [page for page in (ROOT / "README.md", *DOCS) if _blocks(page, "python")]


def test_guides_have_code() -> None:
    """What finds the snippets finds them."""
    names = {page.stem for page in WITH_CODE}
    assert {"README", "index", "solving", "events", "gradients", "extending", "sampling"} <= names


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All python blocks of a page, one after the other; one that begins with a comment that names
    a file is that file as well, for the page's commands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    library = importlib.import_module("quadflow.analysis.problems.problem")
    library.problem_names()  # all are there before the copy, which keeps a snippet's own problem
    monkeypatch.setattr(library, "_PROBLEMS", dict(library._PROBLEMS))
    namespace: dict[str, object] = {}
    for snippet in _blocks(page, "python"):
        if named := re.match(r"# (\w+\.py)$", snippet, re.MULTILINE):
            Path(named[1]).write_text(snippet, encoding="utf-8")
        exec(snippet, namespace)
    for command in "".join(_blocks(page, "console")).splitlines():
        prompt, program, *arguments = shlex.split(command, comments=True)
        assert (prompt, program) == ("$", "quadflow"), command
        assert main(arguments) == 0, command


def test_links_and_pictures_exist() -> None:
    for page in [ROOT / "README.md", *DOCS]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_that_pages_name_exist() -> None:
    named = r"(?<![/\w.])(?:quadflow|adapters|analysis|tests)/[\w/]+\.py"
    for page in [ROOT / "README.md", *DOCS]:
        for path in re.findall(named, page.read_text(encoding="utf-8")):
            assert (ROOT / path).is_file(), f"{page.name}: {path}"


def _judged(name: str) -> dict:
    path = ROOT / f"docs/figures/judged/evaluate-{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


RENEWED = ("fashion-unet", "galaxy-hsc-32")
OLDER = ("fashion-unet-guided", "mnist-sit", "mnist-sit-guided")


@pytest.mark.parametrize("name", RENEWED)
def test_what_the_page_says_of_the_newest_tables(name: str) -> None:
    result = _judged(name)
    assert result["images"] == 512
    rows = [r for r in result["rows"] if r["nfe"] <= 10]
    assert {r["grid"] for r in rows} == {"best", "calibrated"}
    euler = {r["nfe"]: r["rmse"] for r in result["rows"] if r["method"] == "euler"}
    for nfe in (3, 5, 7, 10):
        for key in ("rmse", "frechet"):
            found = {r["method"]: r[key] for r in rows if r["grid"] == "best" and r["nfe"] == nfe}
            own = found.pop("fitted")
            assert len(found) == 12 and own < min(found.values()), (nfe, key)
            if key == "rmse":
                best = min(found, key=found.__getitem__)
                assert best in {3: ("bianchor",), 5: ("pec2", "bianchor")}.get(
                    nfe, ("pec2", "pec3")
                )
                # the reference's own error is no part of any figure
                assert own > 3 * result["reference_rmse"]
                if name.startswith("galaxy"):
                    assert {5: own < euler[50], 10: own < euler[100]}.get(nfe, True)


@pytest.mark.parametrize("name", OLDER)
def test_what_the_page_says_of_the_older_tables(name: str) -> None:
    result = _judged(name)
    assert result["images"] == 48
    uniform = {(r["method"], r["nfe"]): r["rmse"] for r in result["rows"] if r["grid"] == "uniform"}
    methods = {method for method, _ in uniform}
    assert len(methods) == 11
    # no figure stands nearer to the reference than the reference is to the truth
    assert min(uniform.values()) > 5 * result["reference_rmse"]
    assert min(methods, key=lambda m: uniform[m, 3]) == "bianchor"
    guided_sit = name == "mnist-sit-guided"
    assert (uniform["pec2", 5] < uniform["bianchor", 5]) != guided_sit
    assert all(uniform["pec2", nfe] < uniform["bianchor", nfe] for nfe in (7, 10))


@pytest.mark.parametrize("name", (*RENEWED, *OLDER))
def test_what_the_page_says_of_budgets(name: str) -> None:
    result = _judged(name)
    budget = result["budget"]["error budget"]
    exact = "exact guided SideNet" if name.endswith("guided") else "exact SideNet"
    assert 2.8 < budget["5"]["as it is"]["rmse"] / budget["5"][exact]["rmse"] < 14.5
    for column in budget.values():
        assert column["last interval corrected"]["rmse"] > column["as it is"]["rmse"]
        drift = column["no drift"]["rmse"] / column["as it is"]["rmse"]
        assert drift < (0.9 if name.startswith("galaxy") else 0.6)
    # nine evaluations of PECE do less than ten of BA-solver
    assert budget["5"]["PECE"]["rmse"] > budget["10"]["as it is"]["rmse"]
    for column in result["budget"]["ablation"].values():
        assert column["single anchor"] > column["bi-anchor"]
        assert column["one interior node"] > column["bi-anchor"]
