"""The flow field of a fitted sampler: features kept, evaluations made where the plan says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ..flow.field import FlowField
from .features import Tapped
from .interpolant import Evaluation
from .plan import PlanNumbers


class LearnedField:
    """dx/dt of a flow field as a `LearnedPlan` asks for it, for one solve.

    Args:
        flow: the field. numbers: of the plan. module: whose input the features are, None for none.
        checkpointed: see `Tapped`.
    """

    def __init__(
        self,
        flow: FlowField,
        numbers: PlanNumbers,
        module: str | None,
        *,
        checkpointed: bool = False,
    ) -> None:
        self.tapped = Tapped(flow.model, module, checkpointed=checkpointed)
        self.flow = replace(flow, model=self.tapped)
        self.numbers = numbers

    @property
    def rows(self) -> int:
        """Samples that the network was evaluated on."""
        return self.flow.rows

    def evaluate(self, t: Any, x: Tensor) -> tuple[Tensor, Evaluation]:
        """dx/dt (B, ...), and what else the evaluation brought."""
        index = self.flow.evaluations
        if index:  # the first one is at the noise
            t = t + self.flow.resolved.direction * self.numbers.delays[index]
        v, halves = self.flow.evaluate(t, x)
        seen = self.tapped.take()
        features = [part for f in seen for part in f.chunk(len(halves) // len(seen))]
        return v, Evaluation(index, features)

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        return self.evaluate(t, x)[0]
