"""`FittedSampler`: what `fit_sampler` gives, a method for `sample`, kept in one file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...extras import require
from ...plans.anchors.method import adams
from ...storage import whole_file
from ..backbones.checkpoints import CheckpointError, load_into, read_weights
from ..flow.field import FlowField, Guidance
from ..sampling.sample import own_time
from ..sampling.samplers import Plan
from .features import FeatureLayout
from .fingerprint import BackboneFingerprint, backbone_fingerprint
from .network import Residual, ResidualConfig
from .plan import LearnedPlan, PlanStart
from .sampler import Learned, learned_plan, plan_key

FORMAT = 1
"""Of the files; another one is refused."""

KIND = "quadflow fitted sampler"


@dataclass
class FittedSampler:
    """A sampler for one backbone: call `sample(model, noise, labels, method=fitted, nfe=7)`.

    learned: plans and network. features: what the network takes of the backbone's. convention: the
    backbone's. fingerprint: of the backbone, None where it has no weights to tell it by. classical:
    keys of the plans that are no better learned and are done by the classical method. figures: what
    was measured and how it was made, JSON values (see `fit_sampler`).
    """

    learned: Learned
    features: FeatureLayout | None
    convention: str
    fingerprint: BackboneFingerprint | None = None
    classical: frozenset[str] = frozenset()
    dtype: torch.dtype = torch.float32
    figures: dict[str, Any] = field(default_factory=dict)
    guidance: Guidance = field(default_factory=Guidance)

    @property
    def starts(self) -> list[PlanStart]:
        """The classical methods that the plans start as, by budget and guidance scale."""
        plans = self.learned.plans.values()
        return [plan.start for plan in plans if isinstance(plan, LearnedPlan)]

    @property
    def budgets(self) -> list[tuple[int, float]]:
        """The fitted (nfe, guidance scale)."""
        return [(s.nfe, s.scale) for s in self.starts]

    def sigmas(self, nfe: int, scale: float = 1.0) -> list[float]:
        """Noise fractions of the ends of the intervals of a plan, from 1 to 0: nfe + 1 of them."""
        key, plan = plan_key(nfe, scale), self.learned.plan(nfe, scale)
        found = plan.start.sigmas if key in self.classical else plan.sigmas().tolist()
        return list(found)

    def __call__(self, flow: FlowField, nfe: int, sidenet: nn.Module | None) -> Plan:
        """The plan of a budget for this field.

        Raises:
            ValueError: another backbone, convention, guidance interval or number of guided
                channels than it was fitted to; a budget or guidance scale that was not fitted.
        """
        self.check(flow)
        scale = flow.guidance.scale
        plan = self.learned.plan(nfe, scale)
        if plan_key(nfe, scale) not in self.classical:
            return learned_plan(self.learned, flow, nfe, self.features)
        times = [own_time(flow.resolved, sigma) for sigma in plan.start.sigmas]
        return Plan(classical_method(plan.start), nfe, times)

    def check(self, flow: FlowField) -> None:
        """Refuse a flow that this sampler was not fitted to.

        Raises:
            ValueError: another convention, backbone, guidance interval or number of channels.
        """
        if flow.resolved.name != self.convention:
            raise ValueError(
                f"convention={flow.resolved.name!r}: this sampler was fitted to a backbone of "
                f"convention {self.convention!r}"
            )
        found = backbone_fingerprint(flow.model)
        if self.fingerprint is not None and (found is None or not self.fingerprint.fits(found)):
            raise ValueError(
                "model: this sampler was fitted to another backbone (other weights); fit one to "
                "this with fit_sampler"
            )
        for name in ("interval", "channels") if flow.guided else ():
            own, wanted = getattr(self.guidance, name), getattr(flow.guidance, name)
            if own != wanted:
                raise ValueError(
                    f"guidance {name}={wanted}: this sampler was fitted with {name}={own}; give "
                    f"that, or fit one with guided=Guidance({name}={wanted})"
                )

    def to(self, device: torch.device | str) -> FittedSampler:
        """The same with its network on a device; in place."""
        if self.learned.network is not None:
            self.learned.network.to(device)
        return self

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file, whole or not at all."""
        safetensors = require("safetensors.torch", "generative")
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.learned.state_dict().items()}
        network = self.learned.network
        if self.fingerprint is not None:
            tensors["fingerprint"] = self.fingerprint.values
        config = {
            "kind": KIND,
            "format": FORMAT,
            "convention": self.convention,
            "backbone": None if self.fingerprint is None else self.fingerprint.names,
            "plans": [start.to_dict() for start in self.starts],
            "classical": sorted(self.classical),
            "features": None if self.features is None else self.features.to_dict(),
            "network": None if network is None else network.config.to_dict(),
            "dtype": str(self.dtype).removeprefix("torch."),
            "figures": self.figures,
            "guidance": guidance_to_dict(self.guidance),
        }
        with whole_file(path) as temporary:
            safetensors.save_file(tensors, str(temporary), metadata={"config": json.dumps(config)})

    @classmethod
    def load(cls, path: str | Path) -> FittedSampler:
        """The sampler in a file that `save` wrote.

        Raises:
            CheckpointError: a missing or damaged file, another kind of file, another format.
        """
        tensors, config = read_weights(path)
        if config.get("kind") != KIND:
            raise CheckpointError(f"{path} holds no fitted sampler: `quadflow fit` writes them")
        if config.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} is of format {config.get('format')}; this version of quadflow reads "
                f"{FORMAT}: fit it anew"
            )
        try:
            return cls._built(path, tensors, config)
        except (TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path} is no whole fitted sampler: {error!r}") from error

    @classmethod
    def _built(
        cls, path: str | Path, tensors: dict[str, Tensor], config: Mapping[str, Any]
    ) -> FittedSampler:
        plans = {}
        for values in config["plans"]:
            start = PlanStart(**{**values, "sigmas": tuple(values["sigmas"])})
            plans[plan_key(start.nfe, start.scale)] = LearnedPlan(start)
        network, features = None, None
        if config["network"] is not None:
            network = Residual(ResidualConfig.from_dict(config["network"]))
            features = network.config.features
        learned = Learned(plans, network)
        values = tensors.pop("fingerprint", None)
        load_into(learned, tensors, path)
        learned.eval().requires_grad_(False)
        names = config["backbone"]
        known = None if names is None or values is None else BackboneFingerprint(names, values)
        return cls(
            learned, features, config["convention"], known, frozenset(config["classical"]),
            getattr(torch, config["dtype"]), dict(config["figures"]),
            guidance_from_dict(config.get("guidance", {})),
        )  # fmt: skip

    def __repr__(self) -> str:
        plans = ", ".join(f"{nfe} at guidance {scale:g}" for nfe, scale in self.budgets)
        return f"<FittedSampler, nfe {plans}>"


def guidance_to_dict(guidance: Guidance) -> dict[str, Any]:
    """Where and on which channels is guided, as JSON values; an end that is open is None."""
    ends = [end if math.isfinite(end) else None for end in guidance.interval]
    return {"interval": ends, "channels": guidance.channels, "per": guidance.per}


def guidance_from_dict(values: Mapping[str, Any]) -> Guidance:
    """What `guidance_to_dict` gave; what is missing is the default, as files without it have."""
    low, high = values.get("interval", (None, None))
    interval = (-math.inf if low is None else low, math.inf if high is None else high)
    return Guidance(
        interval=interval, channels=values.get("channels"), per=values.get("per", "node")
    )


def classical_method(start: PlanStart) -> Any:
    """The classical method of a plan, without anything learned."""
    correction = "PEC" if start.corrected else None
    return adams(start.k, correction, startup="rising", forward_last=start.corrected)
