"""Checks of arguments: what they take, what they refuse, and how they say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from quadflow.checks import (
    as_integer,
    check_booleans,
    check_callable,
    check_choice,
    integer_from,
    is_integer,
    real_number,
)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_of_python_and_numpy_are_taken(value: Any) -> None:
    got = as_integer(value, "n"), integer_from(1, value, "n")
    assert got == (3, 3) and all(type(n) is int for n in got)
    assert is_integer(value, 3) and not is_integer(value, 4)


@pytest.mark.parametrize("value", [True, np.bool_(True), 3.0, "3", None, [3]])
def test_what_is_no_integer_is_refused_with_its_value(value: Any) -> None:
    assert not is_integer(value, 0)
    with pytest.raises(TypeError, match="n must be an integer, got ") as refused:
        as_integer(value, "n")
    assert repr(value) in str(refused.value)
    with pytest.raises(ValueError, match="n must be an integer >= 1, or 'all', got ") as refused:
        integer_from(1, value, "n", ", or 'all'")
    assert repr(value) in str(refused.value)


def test_too_small_an_integer_is_refused() -> None:
    with pytest.raises(ValueError, match="n must be an integer >= 2, got 1"):
        integer_from(2, 1, "n")


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), torch.tensor(2), np.array(2.0)])
def test_real_numbers_become_floats(value: Any) -> None:
    got = real_number(value, "h")
    assert got == 2.0 and type(got) is float


@pytest.mark.parametrize("value", ["2", True, np.bool_(False), 2j, None, torch.ones(2)])
def test_what_is_no_real_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="h must be a real number, got"):
        real_number(value, "h")


def test_choices_name_the_nearest() -> None:
    check_choice("warn", ("warn", "stop"), "on_stiff")
    with pytest.raises(ValueError, match=r"on_stiff='wran' is unknown: did you mean 'warn'\?"):
        check_choice("wran", ("warn", "stop"), "on_stiff")


def test_booleans_and_callables() -> None:
    check_booleans(throw=np.bool_(True), perturb=False)
    with pytest.raises(TypeError, match="throw must be True or False, got 1"):
        check_booleans(throw=1)
    check_callable(len, "norm")
    with pytest.raises(TypeError, match=r"norm must be callable as norm\(x\), got 3"):
        check_callable(3, "norm", "norm(x)")
