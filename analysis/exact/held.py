"""Methods that choose their order or their number of nodes, held at each of their choices."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...plans.adams.method import VariableOrderMethod, adams_variable
from ...plans.anchors.method import adams
from ...plans.method import Method
from ...plans.sweeps.method import SweepsMethod

_DIGITS = range(1, 17)


def held_methods(method: object) -> dict[int, Method]:
    """Number of anchors k, or of nodes n -> the method that keeps to it, named "adams:k".

    Empty for all that chooses nothing. A variable-order method held at k predicts with k anchors
    and corrects with k + 1 in every interval, so it declares the order k + 1; `solve` reaches it
    step by step, as the method itself does (see `released`). One that takes its nodes from the
    tolerance is held at every number that it takes for some tolerance of float64.
    """
    if isinstance(method, VariableOrderMethod) and method.order is None:
        return {
            k: dataclasses.replace(
                method, name=f"{method.name}:{k}", order=k + 1, dense_order=k + 1,
                error_order=k + 1, control=dataclasses.replace(method.control, max_order=k),
            )
            for k in range(1, method.max_order + 1)
        }  # fmt: skip
    if isinstance(method, SweepsMethod) and method.family is not None:
        sizes = sorted({method.for_tolerance(10.0**-d).rule.n for d in _DIGITS})
        return {
            n: dataclasses.replace(method.on_nodes(n), name=f"{method.name}:{n}") for n in sizes
        }
    return {}


def is_held(method: object) -> bool:
    """Whether it is a variable-order method held at its highest order."""
    return isinstance(method, VariableOrderMethod) and method.order is not None


def formula_of(method: Any) -> Any:
    """PECE of fixed order, with the formulas of a variable-order method that is held; all else as
    it is."""
    if not (isinstance(method, VariableOrderMethod) and is_held(method)):
        return method
    return dataclasses.replace(adams(method.max_order, "PECE"), name=method.name)


def released(method: Method) -> Method:
    """What `solve` takes for a method that is held: variable order up to the one held."""
    if not (isinstance(method, VariableOrderMethod) and is_held(method)):
        return method
    return dataclasses.replace(adams_variable(method.control), name=method.name)
