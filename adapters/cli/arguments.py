"""Arguments that several commands share, read and checked."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...extras import require

Config = TypeVar("Config")


def from_options(kind: type[Config], arguments: argparse.Namespace, **given: Any) -> Config:
    """A dataclass with the values of the options that have its fields' names; `given` overrides."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    options = {name: value for name, value in vars(arguments).items() if name in names}
    return kind(**{**options, **given})


def parse_labels(text: str) -> list[int]:
    """ "0..9", "7" or "1,3,5..7" as a list of labels.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    labels: list[int] = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        try:
            low = int(first)
            high = int(last) if dots else low
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"labels must look like 0..9, 7 or 1,3,5..7, got {text!r}"
            ) from None
        if high < low:
            raise argparse.ArgumentTypeError(f"labels run backwards in {part!r}")
        labels += range(low, high + 1)
    return labels


def above_zero(text: str, kind: type, what: str) -> Any:
    """A number of this kind above zero; `what` it must be is shown to who writes something else.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
    return value


def whole_numbers(text: str, example: str) -> tuple[int, ...]:
    """Whole numbers from 1 with commas between; `example` is shown to who writes something else.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like {example}, got {text!r}") from None
    if any(v < 1 for v in values):
        raise argparse.ArgumentTypeError(f"must be numbers >= 1, got {text!r}")
    return values


def real_numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like 1,2, got {text!r}") from None


def interval(text: str) -> tuple[float, float]:
    """Two numbers LOW < HIGH with a comma between.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    numbers = real_numbers(text)
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise argparse.ArgumentTypeError(f"must look like 0,0.7, low before high, got {text!r}")
    return numbers[0], numbers[1]


def separated_names(text: str) -> tuple[str, ...]:
    """Names with commas between.

    Raises:
        argparse.ArgumentTypeError: an empty one.
    """
    words = tuple(w.strip() for w in text.split(","))
    if not all(words):
        raise argparse.ArgumentTypeError(f"must be names with commas between, got {text!r}")
    return words


def retyped(
    first: str,
    arguments: argparse.Namespace,
    names: Iterable[str],
    word: Callable[[Any], str] = str,
) -> str:
    """The command line that gives these arguments again: the command with `first`, its positional
    argument, then those of the options `names` that were given (not None), written by `word`."""
    words = ["quadflow", arguments.command, first]
    for name in names:
        value = getattr(arguments, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", word(value)]
    return shlex.join(words)


def output_file(path: str, option: str = "--out", suffixes: tuple[str, ...] = ()) -> Path:
    """`path` of a file that may be written, given by an option.

    Raises:
        ValueError: it is a folder, its folder does not exist, or it ends in none of `suffixes`.
    """
    out = Path(path)
    if suffixes and out.suffix.lower() not in suffixes:
        raise ValueError(f"{option} {path}: must end in {' or '.join(suffixes)}")
    if out.is_dir():
        raise ValueError(f"{option} {path} is a folder, must be a file")
    if not out.parent.is_dir():
        raise ValueError(f"{option} {path}: the folder {out.parent} does not exist")
    return out


def output_files(
    arguments: argparse.Namespace, drawn: Sequence[str] = (), **written: tuple[str, ...]
) -> dict[str, Path]:
    """Option -> file, of those of these options that were given.

    Args:
        drawn: options whose files are figures. written: the others, each with its suffixes, () for
            any.

    Raises:
        ValueError: as `output_file`. MissingExtraError: figures are wanted and matplotlib is not
            there: before the work, not after it.
    """
    from ...analysis.report.panels import SUFFIXES

    suffixes = {**dict.fromkeys(drawn, SUFFIXES), **written}
    files = {
        option: output_file(getattr(arguments, option), f"--{option}", suffixes[option])
        for option in suffixes
        if getattr(arguments, option)
    }
    if not files.keys().isdisjoint(drawn):
        require("matplotlib", "analysis")
    return files
