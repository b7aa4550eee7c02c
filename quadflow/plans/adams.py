"""The plan *anchors* with an order chosen anew for every interval: Adams methods of variable order.

How order and step size are chosen stands in `variable_order`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .anchors import PECE_LIMITS
from .method import Method
from .variable_order import MAX_ORDER, OrderControl


@dataclass(frozen=True, eq=False, repr=False)
class VariableOrderMethod(Method):
    """The plan *anchors* with PECE, its number of anchors chosen anew for every interval.

    `order` is None: the order is chosen together with the steps, so there is none at fixed steps,
    which the method does not take. error_order is that of the lowest order.

    Attributes:
        control: chooses order and step size; order k (k anchors predict, k+1 correct) goes from 1
            to control.max_order.
    """

    takes_fixed_steps: ClassVar[bool] = False

    control: OrderControl

    @property
    def max_order(self) -> int:
        """The highest k."""
        return self.control.max_order

    @property
    def stability_limit(self) -> float | None:
        return adams_limit(MAX_ORDER)

    @property
    def stiff_margins(self) -> tuple[float, float] | None:
        # order and steps let the noise of a stiff part grow to some tens of tolerances
        return 4.0, 50.0


def adams_limit(k: int) -> float:
    """The mean of h·L above which steps of order k count as limited by stability.

    In a stiff problem the order wanders through all of 1 … 12 and the steps with it; over 40 steps
    h·L is then 1.4 to 2.6 times the larger of its limit and 0.3, and at most 1.3 times elsewhere.
    """
    return 1.5 * max(0.3, PECE_LIMITS[k - 1])


def adams_variable(control: OrderControl | None = None) -> VariableOrderMethod:
    """Adams predictor-corrector of variable order and step, for functions that are expensive.

    It evaluates f twice a step whatever the order, once in the last and in rejected ones, starts
    itself at order 1 (by Runge-Kutta steps where t holds none that short), and takes adaptive steps
    alone. Between the steps: the polynomial through the anchors used, the predicted end included,
    as accurate as the steps and continuous at the joins.

    Args:
        control: how order and step size are chosen; the default goes up to k = 12.

    Sources: Shampine & Gordon, Computer Solution of Ordinary Differential Equations, 1975; Hairer,
    Nørsett & Wanner, Solving ODEs I, sections III.5 and III.7.
    """
    return VariableOrderMethod(
        name="adams",
        order=None,
        dense_order=None,
        error_order=2,
        max_growth=2.0,
        control=OrderControl() if control is None else control,
    )
