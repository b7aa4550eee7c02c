"""The site's own tools: the reference is complete, and what checks and typesets pages does so."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
from collections import Counter
from pathlib import Path
from typing import Any

import griffe
import markdown
import pytest
import yaml
from paths import ROOT

PAGES = sorted((ROOT / "docs/reference").rglob("*.md"))
PACKAGES = ("quadflow", "quadflow.adapters", "quadflow.analysis")


def tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / f"docs/site/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(page: Path) -> list[str]:
    return re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


# -- the reference ---------------------------------------------------------------------------------


def test_every_public_name_is_shown_once() -> None:
    public = {
        f"{package}.{name}"
        for package in PACKAGES
        for name in importlib.import_module(package).__all__
    }
    counts = Counter(path for page in PAGES for path in shown(page))
    assert sorted(public - set(counts)) == [], "missing from docs/reference"
    assert [path for path, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_of_a_page_exist(page: Path) -> None:
    for path in shown(page):
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path


def test_every_page_is_in_the_navigation() -> None:
    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [page for part in parts for page in pages(part)]

    # the file's tags of Python objects are not needed
    config = yaml.load((ROOT / ".mkdocs.yml").read_text("utf-8"), Loader=yaml.BaseLoader)
    files = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    listed = pages(config["nav"])
    assert len(listed) == len(set(listed)) and set(listed) == files


def test_every_room_of_the_code_is_described() -> None:
    text = (ROOT / "docs/inside.md").read_text(encoding="utf-8")
    for folder in ("quadflow", "adapters", "analysis"):
        _, _, table = text.partition(f"| `{folder}/` | holds |")
        described = re.findall(r"^\| `(\w+)/` \|", table.partition("\n\n")[0], re.MULTILINE)
        rooms = {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
        assert sorted(described) == sorted(rooms), folder


# -- docstrings ------------------------------------------------------------------------------------


def test_fields_in_running_text_become_a_list() -> None:
    text = "What it cost.\n\nnfe: evaluations, of\none state. calls: of f: all. a, b: both. no: x."
    found = tool("docstrings").readable(text, {"nfe", "calls", "a", "b"}, is_class=True)
    assert found.splitlines() == [
        "What it cost.",
        "",
        "Attributes:",
        "    nfe: evaluations, of one state.",
        "    calls: of f: all.",
        "    a,\N{NO-BREAK SPACE}b (): both. no: x.",
    ]


def test_entries_of_a_section_stand_alone() -> None:
    text = (
        "Do it.\n\nArgs:\n    x, y: numbers;\n        real ones. z: one more.\n    w: the last.\n\n"
        "Raises:\n    As `solve`; ValueError: bad. TypeError: worse.\n\n"
        "Warns, once:\n    UserWarning: so."
    )
    found = tool("docstrings").readable(text, {"x", "y", "z"}, is_class=False)
    assert found.splitlines() == [
        "Do it.",
        "",
        "Args:",
        "    x,\N{NO-BREAK SPACE}y: numbers; real ones.",
        "    z: one more.",
        "    w: the last.",
        "",
        "Raises:",
        "    ValueError: bad.",
        "    TypeError: worse.",
        "",
        "Besides: as `solve`.",
        "",
        "Warns:",
        "    UserWarning: so.",
    ]


def test_a_section_of_values_is_a_paragraph_and_bounds_are_no_quotations() -> None:
    text = "Do it.\n\nArgs:\n    n: >= 1.\n\nReturns:\n    (a, b): both\n    of them."
    found = tool("docstrings").readable(text, {"n"}, is_class=False)
    assert found.splitlines() == [
        "Do it.", "", "Args:", "    n: \\>= 1.", "", "**Returns:** (a, b): both of them.",
    ]  # fmt: skip


SOURCE = """
import enum
from collections.abc import Callable


def registered(name: str) -> Callable[[Nodes], Callable[[int], Rule]]: ...


@registered("gauss")
def gauss(n: int, _cache: bool = False) -> list[float]: ...


class Status(enum.Enum):
    DONE = "done"
    LOST = "lost"
"""


def test_what_is_shown_is_what_callers_meet(tmp_path: Path) -> None:
    docstrings = tool("docstrings")
    (tmp_path / "rules.py").write_text(SOURCE)
    module = griffe.load("rules", search_paths=[tmp_path], allow_inspection=False)
    docstrings._as_called(module["gauss"])
    assert [p.name for p in module["gauss"].parameters] == ["n"]
    assert str(module["gauss"].returns) == "Rule"
    members = docstrings._choices(module["Status"])
    assert members.strip() == "One of `DONE` ('done'), `LOST` ('lost')."


# -- formulas --------------------------------------------------------------------------------------


def test_formulas_become_mathml() -> None:
    mathematics = tool("mathematics")
    text = "If ($a_i < 1$), `$x$` costs $5 or $6 more.\n\n$$ \\frac{a}{b} $$"
    found = markdown.markdown(text, extensions=[mathematics.Mathematics()])
    assert found.count("<math") == 2 and found.count('display="block"') == 1
    assert '<span class="formula">(<math' in found and "</math>),</span>" in found
    assert "<msub><mi>a</mi><mi>i</mi></msub><mo>&#x0003C;</mo><mn>1</mn>" in found
    assert "<mfrac>" in found
    assert "<code>$x$</code> costs $5 or $6 more" in found


def test_formulas_of_the_pages_are_read() -> None:
    """Nothing that is meant for a formula stays in the pages as its source."""
    mathematics = tool("mathematics")
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        plain = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        for pattern in (mathematics.DISPLAYED, mathematics.INLINE):
            plain = re.sub(pattern, "", plain, flags=re.DOTALL)
        assert "$" not in plain, page.name


# -- the command line ------------------------------------------------------------------------------


def test_every_command_and_option_is_on_the_page() -> None:
    command_line = tool("command_line")
    text = command_line.commands()

    def check(parser: argparse.ArgumentParser) -> int:
        assert f"`{parser.prog}`" in text
        for action in parser._actions:
            for option in set(action.option_strings) - {"-h", "--help"}:
                assert option in text, f"{parser.prog} {option}"
                assert re.match(r"\w", action.help or ""), f"{parser.prog} {option} is not told"
        return 1 + sum(check(command) for command, _ in command_line.subcommands(parser))

    assert sum(check(command) for command, _ in command_line.complete_commands()) > 15


def test_a_default_is_told_once() -> None:
    command_line = tool("command_line")
    parser = argparse.ArgumentParser()
    options = {
        "steps (%(default)s)": (24, "steps (24)"),
        "ends (1,2)": ((1, 2), "ends (1,2)"),
        "all (default)": ("x", "all (default)"),
        "of (B, D)": ("none", "of (B, D) (default: none)"),
        "labels": ([0, 1], "labels (default: 0,1)"),
        "left out": (None, "left out"),
    }
    for i, (text, (default, told)) in enumerate(options.items()):
        action = parser.add_argument(f"--a{i}", help=text, default=default)
        assert command_line.shown(action, parser) == (f"--a{i} A{i}", told)
    action = parser.add_argument("--which", choices=("no", "yes"), help="no or yes")
    assert command_line.shown(action, parser)[1] == "no or yes"
    action = parser.add_argument("--what", choices=("no", "yes"), help="it does")
    assert command_line.shown(action, parser)[1] == "it does; one of no, yes"


# -- links and requests ----------------------------------------------------------------------------


def site(folder: Path, **files: str) -> list[str]:
    """What is found wrong with a site of these files (their dots written as double underscores)."""
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(text, encoding="utf-8")
    return tool("checks").faults(folder)


GOOD = '<h1 id="top">x</h1><a href="other.html#there">y</a><a href="https://example.org">z</a>'


def test_a_good_site_has_no_faults(tmp_path: Path) -> None:
    other = '<p id="there"><img src="picture.svg"></p><a href="index.html#top">x</a>'
    css = "/* https://example.org */ a { background: url('picture.svg') }"
    assert site(tmp_path, index__html=GOOD, other__html=other, a__css=css, picture__svg="") == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('<a href="nowhere.html">', "index.html: nowhere.html does not exist"),
        ('<a href="#nowhere">', "index.html: #nowhere has no such anchor"),
        ('<img src="nowhere.png">', "index.html: nowhere.png does not exist"),
        ('<img src="https://a.b/c.png">', "index.html: loads https://a.b/c.png"),
        ('<script src="//a.b/c.js"></script>', "index.html: loads //a.b/c.js"),
        ('<link rel="stylesheet" href="http://a.b/c.css">', "index.html: loads http://a.b/c.css"),
        ('<link rel="preconnect" href="https://a.b">', "index.html: loads https://a.b"),
        ("<style>@import 'https://a.b/c.css'</style>", "index.html: loads https://a.b/c.css"),
        ("<p>Attributes:\nx: y", "index.html: 'Attributes:' of a docstring was not read"),
        ('<p style="background: url(https://a.b/c)">', "index.html: loads https://a.b/c"),
    ],
)
def test_faults_of_a_page_are_found(text: str, fault: str, tmp_path: Path) -> None:
    assert site(tmp_path, index__html=text) == [fault]


def test_faults_of_styles_and_scripts_are_found(tmp_path: Path) -> None:
    css = "@font-face { src: url(https://fonts.gstatic.com/a.woff2) }"
    assert site(tmp_path, a__css=css) == ["a.css: loads https://fonts.gstatic.com/a.woff2"]
    (tmp_path / "a.css").unlink()
    script = 'load("https://unpkg.com/library@1")'
    assert site(tmp_path, bundle__x__js=script) == [
        'bundle.x.js: loads "https://unpkg.com/library@1"'
    ]
    tool("checks").keep_scripts_at_home(tmp_path)
    assert tool("checks").faults(tmp_path) == []
