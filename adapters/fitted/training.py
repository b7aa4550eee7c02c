"""Training of a fitted sampler to the ends of the flow: its loss, and looks at unseen noises."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...storage import read_json_object, whole_file, write_json
from ..sampling.sample import run_plan
from ..training.fit import Look
from ..training.random import StepRandom
from .calibrate import Calibrated, rms
from .features import FeatureLayout
from .pairs import BLOCK, Pairs, Task
from .sampler import Learned, learned_plan, plan_key

PATIENCE = 6
"""Looks without a better one after which a training ends."""


EXACT = 1e-6
"""A classical error below this is taken for it: nothing is there to be learned."""


@dataclass(frozen=True)
class Budget:
    """A (nfe, guidance scale) to fit: the classical method it starts as and the pairs it learns
    from. classical: see `Calibrated`, with its error on the selection noises."""

    classical: Calibrated
    pairs: Pairs

    @property
    def nfe(self) -> int:
        return self.classical.start.nfe

    @property
    def scale(self) -> float:
        return self.classical.start.scale

    @property
    def key(self) -> str:
        return plan_key(self.nfe, self.scale)


class EndpointLoss:
    """The squared distance of a plan's end from the flow's, over that of its classical start.

    The budgets take turns, one an update.

    Args:
        task, budgets, features: see there. rows: the samples that are learned from.
    """

    def __init__(
        self, task: Task, budgets: Sequence[Budget], features: FeatureLayout | None, rows: range
    ) -> None:
        self.task, self.budgets, self.features, self.rows = task, budgets, features, rows

    def __call__(self, learned: Learned, random: StepRandom) -> Tensor:
        budget = self.budgets[random.step % len(self.budgets)]
        drawn = random.integers(len(self.rows)).tolist()
        rows = [self.rows[i] for i in drawn]
        x = end_of(self.task, learned, budget, rows, self.features, training=True)
        error = (x - budget.pairs.ends(rows)).square().mean()
        return error / max(budget.classical.error, EXACT) ** 2


def end_of(
    task: Task,
    learned: Learned,
    budget: Budget,
    rows: Sequence[int],
    features: FeatureLayout | None,
    *,
    training: bool = False,
) -> Tensor:
    """Where a plan takes the noises of these samples: (len(rows), *shape)."""
    flow = task.flow(rows, budget.scale)
    noise = task.noise(rows)
    plan = learned_plan(learned, flow, budget.nfe, features, training=training)
    if training:  # a time for every sample, which is what keeps its gradient
        column = plan.times.reshape(-1, 1, *(1,) * (noise.dim() - 1))
        plan = plan._replace(times=column.expand(-1, len(noise), *column.shape[2:]))
    ends = (flow.resolved.noise_t, flow.resolved.data_t)
    return run_plan(plan, noise, ends).x


def errors_of(
    task: Task,
    learned: Learned,
    budgets: Sequence[Budget],
    features: FeatureLayout | None,
    rows: Sequence[int],
) -> dict[str, float]:
    """The RMSE of every plan to the ends of the flow on these samples, in units of the state."""
    found = {}
    with torch.no_grad():
        for budget in budgets:
            parts = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
            missed = [
                end_of(task, learned, budget, part, features) - budget.pairs.ends(part)
                for part in parts
            ]
            found[budget.key] = rms(torch.cat(missed))
    return found


def mean_ratio(errors: Mapping[str, float], budgets: Sequence[Budget]) -> float:
    """The geometric mean of errors over those of the classical starts."""
    logs = [math.log(max(errors[b.key], EXACT) / max(b.classical.error, EXACT)) for b in budgets]
    return math.exp(sum(logs) / len(logs))


def looks(folder: Path) -> list[dict[str, Any]]:
    """The looks of a training in a folder: step, ratio to the classical errors, errors by plan."""
    path = folder / "looks.json"
    return list(read_json_object(path, "looks")["looks"]) if path.exists() else []


class Selection:
    """Looks at a sampler in training on the selection noises, and keeps the best one on disk.

    Args:
        task, budgets, features: see there. rows: the selection samples. folder: of `best.pt` and
            `looks.json`, from which a resumed training goes on.
    """

    def __init__(
        self,
        task: Task,
        budgets: Sequence[Budget],
        features: FeatureLayout | None,
        rows: Sequence[int],
        folder: Path,
    ) -> None:
        self.task, self.budgets, self.features, self.rows = task, budgets, features, rows
        self.path, self.log = folder / "best.pt", folder / "looks.json"

    def __call__(self, ema: nn.Module, step: int) -> Look:
        assert isinstance(ema, Learned)
        errors = errors_of(self.task, ema, self.budgets, self.features, self.rows)
        ratio = mean_ratio(errors, self.budgets)
        # of a training that was killed after its last state, looks that come again
        before = [look for look in looks(self.log.parent) if look["step"] < step]
        best = min((look["ratio"] for look in before), default=1.0)
        if ratio < best:
            with whole_file(self.path) as temporary:
                torch.save(ema.state_dict(), temporary)
        seen = [*before, {"step": step, "ratio": ratio, "errors": errors}]
        write_json(self.log, {"looks": seen})
        since = len(seen) - 1 - min(range(len(seen)), key=lambda i: seen[i]["ratio"])
        text = f"held out {min(ratio, best):.3f} of the best classical method's error"
        return Look(text, since >= PATIENCE)

    def restore(self, learned: Learned) -> None:
        """Put the best weights into a module; where none was better than the start, its zeros."""
        if self.path.exists():
            learned.load_state_dict(torch.load(self.path, map_location="cpu", weights_only=True))
        else:
            with torch.no_grad():
                for parameter in learned.plans.parameters():
                    parameter.zero_()
                if learned.network is not None:
                    for parameter in learned.network.leave.parameters():
                        parameter.zero_()
