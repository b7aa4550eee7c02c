"""Rules on nodes of one's own."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from ..checks import real_number
from .decimals import digits, mirrored
from .families import MAX_NODES, interpolatory, warn_if_negative
from .rule import QuadratureRule, check_nodes


def symmetric_four(alpha: float) -> QuadratureRule:
    """Rule on the nodes 0, alpha, 1 - alpha, 1.

    The inner weights are ``1 / (12 alpha (1 - alpha))``, the outer ones the rest of 1/2. The degree
    is 3, and 5 where alpha is (1 - 1/sqrt(5)) / 2 to rounding, which is the four-point
    Gauss-Lobatto rule; 1/3 is the three-eighths rule.

    Args:
        alpha: the inner node, 0 < alpha < 1/2.

    Raises:
        TypeError: alpha is no real number.
        ValueError: alpha is not in (0, 1/2), or so near an end of it that the weights have lost
            their digits.

    Warns:
        NegativeWeightsWarning: alpha < (1 - 1/sqrt(3)) / 2, about 0.2113, where the outer
            weights are negative.
    """
    alpha = real_number(alpha, "symmetric_four: alpha")
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"symmetric_four: alpha must be in (0, 1/2), got {alpha!r}")
    rule = _symmetric_four(alpha)
    warn_if_negative(rule, "use alpha >= 0.2114")
    return rule


@lru_cache(maxsize=256)
def _symmetric_four(alpha: float) -> QuadratureRule:
    with digits():
        return interpolatory("symmetric-four", mirrored([Decimal(0), Decimal(alpha)], 4), None)


def rule_from_nodes(nodes: ArrayLike, family: str = "custom") -> QuadratureRule:
    """The interpolatory rule on given nodes.

    Its degree is n - 1 or more: it is found by testing the Legendre moments against rounding, so
    Gauss nodes given to full precision have 2n - 1, and Gauss nodes given to ten digits do not.
    Negative weights bring no warning here; see `QuadratureRule.has_positive_weights`.

    Args:
        nodes: (n,), strictly ascending, in [0, 1], 1 <= n <= 128.
        family: the name that the rule is to carry.

    Raises:
        TypeError: the nodes are no real numbers.
        ValueError: the nodes are empty, too many, not finite, outside [0, 1], duplicate or unsorted
            (the message says which), or so placed that the weights exceed 1e8 and leave too few
            digits.
    """
    values = np.asarray(nodes)
    if values.dtype.kind not in "iuf" and values.size:
        raise TypeError(f"rule_from_nodes: nodes must be real numbers, got dtype {values.dtype}")
    if values.ndim != 1 or not 1 <= values.size <= MAX_NODES:
        raise ValueError(
            f"rule_from_nodes: nodes need shape (n,) with 1 <= n <= {MAX_NODES}, got {values.shape}"
        )
    floats = values.astype(np.float64)
    check_nodes(floats, "rule_from_nodes")
    return _from_nodes(tuple((floats + 0.0).tolist()), family)


@lru_cache(maxsize=256)
def _from_nodes(nodes: tuple[float, ...], name: str) -> QuadratureRule:
    with digits():
        return interpolatory(name, [Decimal(c) for c in nodes], None)
