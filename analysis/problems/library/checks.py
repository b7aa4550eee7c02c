"""Parameters of problems, refused where a problem would make no sense."""

from __future__ import annotations

import math
from typing import Any


def real(
    problem: str,
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> float:
    """The parameter as a float, within above < value < below and least <= value <= most.

    Raises:
        TypeError: not a real number. ValueError: not finite, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{problem}: {name} must be a real number, got {value!r}")
    limits = [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (
        least > -math.inf
    )
    limits += [f"below {below:g}"] * (below < math.inf) + [f"at most {most:g}"] * (most < math.inf)
    if not (math.isfinite(value) and above < value < below and least <= value <= most):
        raise ValueError(
            f"{problem}: {name} must be {' and '.join(['finite', *limits])}, got {value!r}"
        )
    return float(value)


def whole(problem: str, name: str, value: Any, *, least: int, most: int) -> int:
    """The parameter as an int from least to most.

    Raises:
        TypeError: not an int. ValueError: out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{problem}: {name} must be an int, got {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{problem}: {name} must be from {least} to {most}, got {value}")
    return value
