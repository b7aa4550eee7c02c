"""Arguments that several commands share, read and checked."""

from __future__ import annotations

import argparse
from pathlib import Path


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
