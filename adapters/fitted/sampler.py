"""A fitted sampler: plans for some budgets and guidance scales, and the network they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...plans.interpolants import Anchor
from ..flow.field import FlowField
from ..sampling.sample import own_time
from ..sampling.samplers import Plan
from .features import FeatureLayout
from .field import LearnedField
from .interpolant import Fields, learned_method
from .network import Residual
from .plan import LearnedPlan, PlanNumbers


def plan_key(nfe: int, scale: float) -> str:
    """The name of a plan in the module and the file."""
    return f"{nfe}@{scale:g}".replace(".", "_")


class Learned(nn.Module):
    """Everything that is learned: the plans, and the network they share (None for none)."""

    def __init__(self, plans: Mapping[str, LearnedPlan], network: Residual | None) -> None:
        super().__init__()
        self.plans = nn.ModuleDict(dict(plans))
        self.network = network

    def plan(self, nfe: int, scale: float) -> LearnedPlan:
        """The plan of a budget at a guidance scale.

        Raises:
            ValueError: it was not fitted; the message names those that were.
        """
        key = plan_key(nfe, scale)
        if key not in self.plans:
            starts = [p.start for p in self.plans.values() if isinstance(p, LearnedPlan)]
            known = ", ".join(f"nfe={s.nfe} at guidance {s.scale:g}" for s in starts)
            raise ValueError(
                f"nfe={nfe} at guidance {scale:g} was not fitted; this sampler has {known}"
            )
        found = self.plans[key]
        assert isinstance(found, LearnedPlan)
        return found


def zeroed(learned: Learned) -> None:
    """Set what is learned to zero, in place: the plans are the classical methods again."""
    with torch.no_grad():
        for parameter in learned.plans.parameters():
            parameter.zero_()
        if learned.network is not None:
            for parameter in learned.network.leave.parameters():
                parameter.zero_()


def learned_plan(
    learned: Learned,
    flow: FlowField,
    nfe: int,
    features: FeatureLayout | None,
    *,
    training: bool = False,
) -> Plan:
    """A `Plan` for `sample` or `run_plan`.

    learned: what was fitted. flow: the field to sample. features: those that the network takes.
    training: with tensors of times that broadcast against the state, all with their gradients, and
    without memory of what the backbone computes.
    """
    plan = learned.plan(nfe, flow.guidance.scale)
    numbers = plan.numbers() if training else plan.numbers().as_floats()
    network, path = learned.network, flow.resolved
    module = None if network is None or features is None else features.module
    field = LearnedField(flow, numbers, module, checkpointed=training)
    times: Any
    if training:
        inner = path.data_t + path.direction * numbers.sigmas[1:-1]
        ends = inner.new_tensor([path.noise_t, path.data_t])
        times = torch.cat((ends[:1], inner, ends[1:]))
    else:
        times = [own_time(path, sigma) for sigma in numbers.sigmas]
    fields = None if network is None else fields_of(network, flow, numbers)
    return Plan(learned_method(numbers, fields), nfe, times, field)  # type: ignore[arg-type]


def fields_of(network: Residual, flow: FlowField, numbers: PlanNumbers) -> Fields:
    """The network's two fields at an anchor, in the state's dtype."""
    weight = next(network.parameters())
    classes = network.config.num_classes
    told = _told(numbers, weight.device)

    def fields(anchor: Anchor, before: Anchor | None) -> tuple[Tensor, Tensor]:
        x, detail = anchor.y, anchor.detail
        change = torch.zeros_like(x)
        if before is not None:
            span: Any = anchor.t - before.t
            if isinstance(span, Tensor):
                span = span.to(x.dtype)
            change = (anchor.v - before.v) / span
        labels = flow.labels
        if labels is None or not classes:
            labels = torch.full((len(x),), classes, device=x.device)
        first, second = network(
            x.to(weight.dtype), anchor.v.to(weight.dtype), change.to(weight.dtype),
            detail.features, told[detail.index].to(weight.dtype).expand(len(x), 4), labels,
        )  # fmt: skip
        return first.to(x.dtype), second.to(x.dtype)

    return fields


def _told(numbers: PlanNumbers, device: torch.device) -> Tensor:
    """What the network is told at every evaluation: (N, 4) float64, see `Residual`.

    Made for the whole plan, so that no evaluation waits for numbers to get to the device.
    """
    sigmas = torch.as_tensor(numbers.sigmas, dtype=torch.float64, device=device)
    here, after = sigmas[:-1], sigmas[:-1] - sigmas[1:]
    step = torch.cat((0.0 * here[:1], after[:-1]))
    scale = torch.full_like(here, numbers.start.scale)
    return torch.stack((100.0 * here, 100.0 * step, 100.0 * after, scale), dim=1)
