"""Training of a sampler to the ends of the flow: its loss, and looks at unseen noises."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...storage import read_json_object, whole_file, write_json
from ..sampling.sample import run_plan
from ..sampling.samplers import Plan
from ..training.fit import Look
from ..training.random import StepRandom
from .calibrate import rms
from .pairs import BLOCK, Pairs, Task
from .sampler import plan_key

PATIENCE = 4
"""Looks without a better one after which a training ends, in its second half: before, it is the
high learning rate that keeps errors up."""

FLOOR = 0.1
"""Of the start's error: how near a sample may come and still count."""

EXACT = 1e-6
"""An error of the start below this is taken for it: nothing is there to be learned."""


@dataclass(frozen=True)
class Budget:
    """A (nfe, guidance scale) to train, and the pairs it learns from.

    error, typical: of what it starts as, on the selection noises: the RMSE, and the geometric mean
    of the samples' errors. rows: evaluations of single states that the start took to find.
    """

    nfe: int
    scale: float
    error: float
    typical: float
    rows: int
    pairs: Pairs

    @property
    def key(self) -> str:
        return plan_key(self.nfe, self.scale)


@dataclass(frozen=True)
class Trainee:
    """What is trained to the ends, and how it samples.

    module: with the weights that are trained. plan: (module, flow, nfe, training) -> a `Plan` with
    its times and field; in training with gradients, and without memory of what the backbone
    computes. reset: makes a module what it was before any training. start: what that is, in words.
    """

    module: nn.Module
    plan: Callable[[Any, Any, int, bool], Plan]
    reset: Callable[[Any], None]
    start: str


class EndpointLoss:
    """The mean logarithm of the squared distance of a plan's end from the flow's, in units of the
    start's error.

    So every sample counts by how much nearer it comes, whatever its distance is. Those distances
    differ by a factor of twenty, as the flow takes some noises apart that lie together, and of
    their mean square a few samples make half: gradients of batches then have little in common.
    The budgets take turns, one an update.

    Args:
        task, trainee, budgets: see there. rows: the samples that are learned from.
    """

    def __init__(
        self, task: Task, trainee: Trainee, budgets: Sequence[Budget], rows: range
    ) -> None:
        self.task, self.trainee, self.budgets, self.rows = task, trainee, budgets, rows

    def __call__(self, random: StepRandom) -> Tensor:
        budget = self.budgets[random.step % len(self.budgets)]
        drawn = random.integers(len(self.rows)).tolist()
        rows = [self.rows[i] for i in drawn]
        x = end_of(self.task, self.trainee, self.trainee.module, budget, rows, training=True)
        error = (x - budget.pairs.ends(rows)).square().flatten(1).mean(1)
        return (error / max(budget.error, EXACT) ** 2 + FLOOR**2).log().mean()


def end_of(
    task: Task,
    trainee: Trainee,
    module: nn.Module,
    budget: Budget,
    rows: Sequence[int],
    *,
    training: bool = False,
) -> Tensor:
    """Where a plan of the module takes the noises of these samples: (len(rows), *shape)."""
    flow = task.flow(rows, budget.scale)
    noise = task.noise(rows)
    plan = trainee.plan(module, flow, budget.nfe, training)
    if isinstance(plan.times, Tensor):  # a time for every sample, which is what keeps its gradient
        column = plan.times.reshape(-1, 1, *(1,) * (noise.dim() - 1))
        plan = plan._replace(times=column.expand(-1, len(noise), *column.shape[2:]))
    ends = (flow.resolved.noise_t, flow.resolved.data_t)
    return run_plan(plan, noise, ends).x


def errors_of(
    task: Task,
    trainee: Trainee,
    module: nn.Module,
    budgets: Sequence[Budget],
    rows: Sequence[int],
) -> dict[str, float]:
    """The RMSE of every plan to the ends of the flow on these samples, in units of the state."""
    found = distances_of(task, trainee, module, budgets, rows)
    return {key: rms(distances) for key, distances in found.items()}


def distances_of(
    task: Task,
    trainee: Trainee,
    module: nn.Module,
    budgets: Sequence[Budget],
    rows: Sequence[int],
) -> dict[str, Tensor]:
    """The same of every sample: (len(rows),)."""
    found = {}
    with torch.no_grad():
        for budget in budgets:
            parts = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
            missed = [
                end_of(task, trainee, module, budget, part) - budget.pairs.ends(part)
                for part in parts
            ]
            found[budget.key] = distances(torch.cat(missed))
    return found


def distances(missed: Tensor) -> Tensor:
    """The root mean square of every sample: (B,)."""
    return missed.double().square().flatten(1).mean(1).sqrt()


def typical(missed: Tensor) -> float:
    """The geometric mean of samples' distances (B,); inf where some are not finite.

    Of their RMSE a few samples make half, so that on some tens of noises it tells weights apart by
    what became of these.
    """
    value = float(missed.clamp(min=EXACT).log().mean().exp())
    return value if value < math.inf else math.inf


def mean_ratio(errors: Mapping[str, float], starts: Mapping[str, float]) -> float:
    """The geometric mean of errors over those of the starts, by plan."""
    logs = [math.log(max(errors[key], EXACT) / max(starts[key], EXACT)) for key in starts]
    return math.exp(sum(logs) / len(logs))


def looks(folder: Path) -> list[dict[str, Any]]:
    """The looks of a training in a folder: step, ratio of typical errors, RMSE of every plan."""
    path = folder / "looks.json"
    return list(read_json_object(path, "looks")["looks"]) if path.exists() else []


class Selection:
    """Looks at a sampler in training on the selection noises, and keeps the best one on disk: the
    one with the least `typical` errors, as shares of the starts'.

    Args:
        task, trainee, budgets: see there. rows: the selection samples. folder: of `best.pt` and
            `looks.json`, from which a resumed training goes on. updates: of the whole training.
    """

    def __init__(
        self,
        task: Task,
        trainee: Trainee,
        budgets: Sequence[Budget],
        rows: Sequence[int],
        folder: Path,
        updates: int,
    ) -> None:
        self.task, self.trainee, self.budgets, self.rows = task, trainee, budgets, rows
        self.updates = updates
        self.path, self.log = folder / "best.pt", folder / "looks.json"

    def __call__(self, ema: nn.Module, step: int) -> Look:
        found = distances_of(self.task, self.trainee, ema, self.budgets, self.rows)
        starts = {b.key: b.typical for b in self.budgets}
        ratio = mean_ratio({key: typical(missed) for key, missed in found.items()}, starts)
        # of a training that was killed after its last state, looks that come again
        before = [look for look in looks(self.log.parent) if look["step"] < step]
        best = min((look["ratio"] for look in before), default=1.0)
        if ratio < best:
            with whole_file(self.path) as temporary:
                torch.save(ema.state_dict(), temporary)
        seen = [
            *before,
            {"step": step, "ratio": ratio, "errors": {k: rms(d) for k, d in found.items()}},
        ]
        write_json(self.log, {"looks": seen})
        best_step = min(seen, key=lambda look: look["ratio"])["step"]
        half = self.updates // 2
        since = sum(look["step"] > max(best_step, half) for look in seen)
        text = f"held out {min(ratio, best):.3f} of {self.trainee.start}'s error"
        return Look(text, since >= PATIENCE)

    def restore(self) -> None:
        """Put the best weights into the module; where none was better than the start, its own."""
        module = self.trainee.module
        if self.path.exists():
            module.load_state_dict(torch.load(self.path, map_location="cpu", weights_only=True))
        else:
            self.trainee.reset(module)
