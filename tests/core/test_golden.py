"""What every method does on three small problems is what it did: see support/golden.py.

A change that is meant is recorded by `python tests/support/golden.py record`, and its diff read.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import golden
import pytest

import quadflow as qf

RECORDED: dict[str, dict[str, Any]] = json.loads(golden.FILE.read_text(encoding="utf-8"))


def test_every_method_is_recorded() -> None:
    assert set(RECORDED) == set(qf.methods())


@pytest.mark.parametrize("name", RECORDED)
def test_counts_are_the_same_and_values_to_rounding(name: str) -> None:
    found = golden.traces([name])[name]
    assert found.keys() == RECORDED[name].keys()
    changed = {
        case: words
        for case, one in found.items()
        if (words := list(golden.differences(case, RECORDED[name][case], golden.short(one), True)))
    }
    assert not changed


CASE = "pushed, adaptive"


@pytest.mark.parametrize(
    "field, place, off",
    [("counts", 0, 1), ("reads", None, 1), ("steps", 2, 1e-6), ("values", -1, 1e-11)],
)
def test_a_change_is_seen(field: str, place: int | None, off: float) -> None:
    old = RECORDED["dopri5"][CASE]
    assert not list(golden.differences(CASE, old, old, False))
    new = copy.deepcopy(old)
    if place is None:
        new[field] += off
    else:
        new[field][place] += off
    for rounding in (False, True):
        (words,) = golden.differences(CASE, old, new, rounding)
        assert words.startswith(field)


def test_a_refusal_that_comes_or_goes_is_seen() -> None:
    old = RECORDED["dopri5"][CASE]
    assert list(golden.differences(CASE, old, {"refused": "ValueError"}, True))
    assert list(golden.differences(CASE, {"refused": "ValueError"}, {"refused": "TypeError"}, True))


def test_a_last_bit_is_seen_in_comparing_bits_alone() -> None:
    old = RECORDED["dopri5"][CASE]
    new = {**old, "values": [value * (1 + 2.0**-52) for value in old["values"]]}
    assert list(golden.differences(CASE, old, new, False))
    assert not list(golden.differences(CASE, old, new, True))
