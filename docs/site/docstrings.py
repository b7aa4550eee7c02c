"""The docstrings of this project, made into what the API reference knows how to show.

Here an entry of `Args:` may name several arguments ("rtol, atol: ..."), entries may follow each
other in one paragraph, and a class describes its fields in running text ("t: the times. y: the
states there."). All of these become lists with an entry a line. Names that the reference
shows become links where they stand in backticks. Signatures are those that callers meet: what a
decorator makes of a function, and no private fields; so the type that is returned stands there,
and `Returns:` is a paragraph.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import griffe

PAGES = Path(__file__).parents[1] / "reference"
SHOWN = re.compile(r"^::: (\S+)$", re.MULTILINE)
NO_BREAK = "\N{NO-BREAK SPACE}"
ENTRIES = ("Args", "Attributes")
MADE_BY_DECORATOR = re.compile(r"Callable\[\[.*\], Callable\[\[.*\], (\w+)\]\]")
NAMED = re.compile(r"(?:(?<=^)|(?<=[.;:)] ))((?:\*{0,2}\w+, )*\*{0,2}\w+): ")
ERRORS = re.compile(r"(?:(?<=^)|(?<=[.;] ))((?:[A-Z]\w+(?:Error|Warning|Interrupt)(?:, )?)+): ")


def joined(lines: Iterable[str]) -> str:
    return " ".join(line.strip() for line in lines).strip()


def entries(text: str, pattern: re.Pattern[str], names: set[str] | None) -> list[str]:
    """`text` cut before every "name: " or "name, name: " of the `names` (of any, where None).

    What stands before the first is the first entry, and may be empty.
    """
    cuts = [
        match.start(1)
        for match in pattern.finditer(text)
        if names is None or set(match.group(1).replace("*", "").split(", ")) <= names
    ]
    edges = [0, *cuts, len(text)]
    return [text[a:b].strip() for a, b in itertools.pairwise(edges)]


def section(title: str, block: list[str], names: set[str]) -> list[str]:
    """A section with one entry a line; what stands before its entries is a paragraph."""
    if title == "Returns":
        return [f"**{title}:** {joined(block)}", ""]
    begun: list[list[str]] = [[]]  # the lines of what has no name, then of every entry
    for line in block:
        if re.match(r" {4}(\*{0,2}\w+, )*\*{0,2}\w+: ", line):
            begun.append([])
        begun[-1].append(line)
    pattern, known = (NAMED, names) if title in ENTRIES else (ERRORS, None)
    found = [entry for lines in begun for entry in entries(joined(lines), pattern, known)]
    listed = [entry for entry in found if re.match(r"[*\w]+(, [*\w]+)*: ", entry)]
    rest = " ".join(entry for entry in found if entry not in listed).strip("; ")
    if rest and not listed:
        return [f"**{title}:** {rest}", ""]
    besides = [f"Besides: {rest[0].lower()}{rest[1:]}.", ""] if rest else []
    return [*listing(title, listed), *besides]


def listing(title: str, listed: list[str]) -> list[str]:
    """The lines of a section. A blank between names must not look like a type, and attributes
    described together have no type (left out, griffe takes that of the entry before)."""
    if not listed:
        return []
    lines = [f"{title}:"]
    for entry in listed:
        names, _, text = entry.partition(": ")
        untyped = " ()" if title == "Attributes" and "," in names else ""
        text = re.sub(r"^[>#]|^[-+](?= )", r"\\\g<0>", text)  # ">= 1" is no quotation
        lines.append(f"    {names.replace(' ', NO_BREAK)}{untyped}: {text}")
    return [*lines, ""]


def prose(paragraph: list[str], names: set[str]) -> list[str]:
    """A paragraph of a class's docstring, with the fields that it describes as a list."""
    first, *rest = entries(joined(paragraph), NAMED, names)
    if not rest:
        return [*paragraph, ""]
    return [*([first, ""] if first else []), *listing("Attributes", rest)]


def paragraphs(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The docstring's paragraphs and sections: (title or "", lines)."""
    heading = re.compile(r"^(Args|Attributes|Raises|Returns|Warns)(?:[ ,(][^:]*)?:$")
    at = 0
    while at < len(lines):
        titled = heading.match(lines[at])
        begin = at + 1 if titled else at
        at = begin
        while at < len(lines) and (lines[at].startswith("    ") if titled else lines[at].strip()):
            at += 1
            if titled is None and at < len(lines) and heading.match(lines[at]):
                break
        yield (titled.group(1) if titled else ""), lines[begin:at]
        while at < len(lines) and not lines[at].strip():
            at += 1


def readable(text: str, names: set[str], *, is_class: bool) -> str:
    """A docstring with one entry a line."""
    if re.search(r"^-{4,}$", text, re.MULTILINE):  # sections as NumPy has them
        return text
    result: list[str] = []
    for title, lines in paragraphs(text.splitlines()):
        if title:
            result += section(title, lines, names)
        elif is_class:
            result += prose(lines, names)
        else:
            result += [*lines, ""]
    return "\n".join(result).strip()


class Docstrings(griffe.Extension):
    """Reads the docstrings of the public names as they are written here."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        shown = [
            path for page in PAGES.rglob("*.md") for path in SHOWN.findall(page.read_text("utf-8"))
        ]
        if pkg.path != shown[0].split(".")[0]:
            return
        links = {path.rpartition(".")[2]: path for path in shown}
        for member in _members(pkg):
            if member.docstring is not None:
                self._rewrite(member, links)
            if member.is_function:
                _as_called(member)
        meant = {path: found for path in shown if (found := _shadowed(pkg, path)) is not None}
        for path in shown:  # while the way to what they stand for goes through modules
            if (member := pkg[path.split(".")[1:]]).is_alias:
                _ = member.final_target
        for path, found in meant.items():
            *folders, name = path.split(".")[1:]
            owner = pkg[folders] if folders else pkg
            owner.members[name] = griffe.Alias(name, found, parent=owner)

    def _rewrite(self, member: Any, links: dict[str, str]) -> None:
        names = {p.name for p in getattr(member, "parameters", ())}
        if member.is_class:
            names |= {name for name, m in member.members.items() if m.is_attribute}
            text = readable(member.docstring.value, names, is_class=True) + _choices(member)
        else:
            text = readable(member.docstring.value, names, is_class=False)
        member.docstring.value = re.sub(
            r"(?<!\[)`(\w+)(\(\))?`",
            lambda m: f"[{m[0]}][{links[m[1]]}]" if m[1] in links and m[1] != member.name else m[0],
            text,
        )


def _choices(kind: griffe.Class) -> str:
    """The members of an enumeration; nothing for other classes."""
    if not any(str(base).rpartition(".")[2] == "Enum" for base in kind.bases):
        return ""
    members = [f"`{name}` ({m.value})" for name, m in kind.members.items() if m.is_attribute]
    return f"\n\nOne of {', '.join(members)}."


def _as_called(function: griffe.Function) -> None:
    """Leave out private arguments, and say what a decorator's function returns instead."""
    for name in [p.name for p in function.parameters if p.name.startswith("_")]:
        del function.parameters[name]
    for decorator in function.decorators:
        try:  # decorators of other packages are not in the tree
            maker = function.parent[decorator.callable_path.rpartition(".")[2]]
            made = MADE_BY_DECORATOR.fullmatch(str(maker.returns)) if maker.is_function else None
        except (KeyError, griffe.AliasResolutionError):
            continue
        if made:
            function.returns = griffe.ExprName(made[1], parent=function.parent)


def _members(owner: Any) -> Iterator[Any]:
    """Everything that is defined below a module or class."""
    for member in owner.members.values():
        if not member.is_alias:
            yield member
            yield from _members(member)


def _shadowed(pkg: griffe.Module, path: str) -> Any:
    """What a package imports under the name of one of its own modules (`quadflow.solve`)."""
    *folders, name = path.split(".")[1:]
    owner = pkg[folders] if folders else pkg
    found = owner.members[name]
    if found.is_alias or not found.is_module or name not in owner.imports:
        return None
    return pkg[owner.imports[name].split(".")[1:]]
