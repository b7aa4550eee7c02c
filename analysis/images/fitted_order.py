"""Does a fitted sampler keep the order of its classical method, whatever it has learned?

By measured slopes, on a smooth flow with random values of everything learned, and exactly, by the
order conditions of what is added to the weights, in rational numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ...adapters.fitted.features import find_features
from ...adapters.fitted.interpolant import Evaluation, LearnedInterpolant
from ...adapters.fitted.network import Residual, ResidualConfig
from ...adapters.fitted.plan import LearnedPlan, PlanNumbers, PlanStart
from ...adapters.fitted.sampler import Learned, learned_plan, plan_key
from ...adapters.flow.field import FlowField
from ...adapters.sampling.converged import tight_solve
from ...adapters.sampling.sample import run_plan
from ...plans.interpolants import Anchor, Interval
from ...rules.gauss import gauss_legendre

UNIT = 1 / 8
"""The length that steps are measured by; a constant, as the steps shrink."""


COLUMNS = 8
"""So many coefficients of an interval are random; those of farther anchors are zero."""


class SmoothFlow(nn.Module):
    """A velocity (B, 2) that is smooth in state and time, in float64."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.hidden = nn.Linear(3, 16, dtype=torch.float64)
            self.output = nn.Linear(16, 2, dtype=torch.float64)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        hidden = torch.tanh(2 * self.hidden(torch.cat((x, t[:, None]), 1)))
        return 2 * self.output(hidden) + torch.stack((-x[:, 1], x[:, 0]), 1)


@dataclass(frozen=True)
class FittedOrder:
    """What was measured. declared: the method's order, None where none is claimed. intervals,
    errors: of every solve. slope: of the last two errors."""

    declared: int | None
    intervals: tuple[int, ...]
    errors: tuple[float, ...]
    slope: float


def random_plan(start: PlanStart, seed: int) -> LearnedPlan:
    """A plan with random values of all that is learned but the times.

    The values are random functions of the noise fraction, the same for every number of intervals,
    as errors of one kind are wanted while the steps shrink.
    """
    plan = LearnedPlan(start)
    generator = torch.Generator().manual_seed(seed)
    sigma = torch.tensor(start.sigmas[:-1], dtype=torch.float64)[:, None]
    with torch.no_grad():
        for name, parameter in plan.named_parameters():
            size, turns, phase = torch.randn((3, 1, COLUMNS), generator=generator).double()
            values = size * torch.cos(3 * turns * sigma + phase)
            if name != "increments":
                columns = parameter.reshape(start.nfe, -1)
                columns[:, :COLUMNS] = values[:, : columns.shape[1]]
    return plan


def measured_order(
    k: int,
    corrected: bool,
    form: str,
    *,
    intervals: Sequence[int] = (20, 40, 80),
    seed: int = 0,
) -> FittedOrder:
    """The slope of the error of a fitted sampler with random values, on `SmoothFlow`.

    Args:
        k, corrected, form: see `PlanStart`. intervals: of the solves, growing. seed: of the values.
    """
    model = SmoothFlow()
    x = torch.tensor([[0.3, -0.5], [1.0, 0.4]], dtype=torch.float64)
    flow = FlowField(model)
    features = find_features(model, lambda: flow.evaluate(1.0, x), (2,))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Residual(ResidualConfig((2,), features, width=16, blocks=1)).double()
        nn.init.normal_(network.leave.weight)  # type: ignore[arg-type]
    reference = tight_solve(FlowField(model), x, 4096)
    errors, declared = [], None
    for n in intervals:
        # smoothly uneven, the same family for every number of intervals
        places = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        sigmas = 1 - places - 0.1 * torch.sin(math.pi * places).square() * places
        grid = (1.0, *sigmas[1:-1].tolist(), 0.0)
        start = PlanStart(n, k, corrected, grid, form=form, unit=UNIT)
        learned = Learned({plan_key(n, 1.0): random_plan(start, seed)}, network)
        with torch.no_grad():
            plan = learned_plan(learned, FlowField(model), n, features)
            ends = run_plan(plan, x, (1.0, 0.0)).x
        declared = plan.method.order
        errors.append(float((ends - reference).abs().max()))
    ratio = intervals[-1] / intervals[-2]
    slope = math.log(errors[-2] / errors[-1]) / math.log(ratio)
    return FittedOrder(declared, tuple(intervals), tuple(errors), slope)


def conditions_missed(k: int, corrected: bool, form: str, count: int) -> list[Fraction]:
    """What the added weights make of t^q, exactly: for q = 0 … k-1 (k where corrected).

    All zero where the additions are blind to polynomials that the classical method integrates
    exactly, which keeps its order. The numbers come from the sampler's own code, on uneven times
    and with arbitrary coefficients, all rational.

    Args:
        k, corrected, form: see `PlanStart`. count: anchors so far, the end among them.
    """
    times = [Fraction(p, 7) for p in itertools.accumulate([3, 1, 4, 1, 5, 9, 2, 6][:count])]
    coefficients = [Fraction(2 * i + 3, 5) for i in range(count + 1)]
    table = [coefficients] * (count + 1)
    n = count + 1
    start = PlanStart(n, k, corrected, tuple(1 - i / n for i in range(n + 1)), form=form)
    numbers = PlanNumbers(start, None, table, table, None, None)
    missed = []
    for q in range(k + corrected):
        anchors = [
            Anchor(t, None, _Value(t**q), Evaluation(i, ()))  # type: ignore[arg-type]
            for i, t in enumerate(times)
        ]
        t0, t1 = (times[-2], times[-1]) if corrected else (times[-1], times[-1] + Fraction(1, 3))
        predicted: Any = SimpleNamespace() if corrected else None
        interval = Interval(anchors, t0, t1, gauss_legendre(1), predicted)  # type: ignore[arg-type]
        terms = LearnedInterpolant(numbers, None)._coefficients(interval, corrected)
        missed.append(sum((w * v.value for w, v in terms), Fraction(0)))  # type: ignore[attr-defined]
    return missed


@dataclass(frozen=True)
class _Value:
    """A velocity that is a rational number."""

    value: Fraction
