"""Parameters of problems, refused where a problem would make no sense."""

from __future__ import annotations

import math
from typing import Any

from ....checks import as_integer, real_number


def real(
    problem: str,
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
) -> float:
    """The parameter as a float, within above < value < below and least <= value.

    Raises:
        TypeError: not a real number. ValueError: not finite, or out of range.
    """
    value = real_number(value, f"{problem}: {name}")
    if not (math.isfinite(value) and above < value < below and least <= value):
        limits = [f"above {above:g}"] * (above > -math.inf)
        limits += [f"at least {least:g}"] * (least > -math.inf)
        limits += [f"below {below:g}"] * (below < math.inf)
        raise ValueError(
            f"{problem}: {name} must be {' and '.join(['finite', *limits])}, got {value!r}"
        )
    return value


def whole(problem: str, name: str, value: Any, *, least: int, most: int) -> int:
    """The parameter as an int from least to most.

    Raises:
        TypeError: not an int. ValueError: out of range.
    """
    value = as_integer(value, f"{problem}: {name}")
    if not least <= value <= most:
        raise ValueError(f"{problem}: {name} must be from {least} to {most}, got {value}")
    return value
