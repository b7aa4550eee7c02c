"""`fit_sidenet`: the published form, a SideNet between two anchors, trained to the ends."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.checkpoints import CheckpointError, read_weights, save_weights
from ..backbones.pretrained import load_sidenet
from ..flow.field import Convention, FlowField, Guidance
from ..sampling.sample import run_plan, time_grid
from ..sampling.samplers import Plan, bianchor_plan
from ..sidenet.network import SideNet, SideNetConfig
from ..training.state import identity
from .calibrate import best_shift, rms
from .effort import BATCH, Wish, seconds_a_sample
from .features import Tapped
from .pairs import Task
from .sampler import plan_key
from .train_to_ends import (
    Work,
    check_deterministic,
    evaluate_once,
    figures_of,
    seeded,
    task_of,
    train_to_ends,
    work_on,
)
from .training import Budget, Trainee, distances, errors_of, mean_ratio, typical

NAMES = ("before", "trained")
"""Of the errors in the plans of a fit's figures."""

LEARNING_RATE, NEW_LEARNING_RATE = 3e-4, 1e-3
"""Of a SideNet that has learned much already, and of a new one."""

SMALL: dict[str, Any] = {"width": 128, "emb_dim": 96, "time_scale": 1000.0}
"""A new SideNet's, as of the shipped ones."""


@dataclass
class FittedSideNet:
    """A SideNet that was trained to the ends, for `sample(…, method="bianchor", sidenet=…)`.

    Itself it is a method for `sample` too: BA-solver with this SideNet on the grid that each budget
    was trained on. sidenet: in evaluation mode. figures: what was measured and how it was made,
    JSON values (see `fit_sidenet`).
    """

    sidenet: SideNet
    figures: dict[str, Any]

    @property
    def shifts(self) -> dict[tuple[int, float], float]:
        """Shift of the grid of every (nfe, guidance scale), see `time_grid`."""
        return {(p["nfe"], p["guidance"]): p["shift"] for p in self.figures["plans"]}

    def __call__(self, flow: FlowField, nfe: int, sidenet: nn.Module | None) -> Plan:
        """The plan of a budget on its own grid.

        Raises:
            ValueError: a budget or guidance scale that it was not trained for.
        """
        key = (nfe, flow.guidance.scale)
        if key not in self.shifts:
            known = ", ".join(f"nfe={n} at guidance {scale:g}" for n, scale in self.shifts)
            raise ValueError(
                f"nfe={nfe} at guidance {key[1]:g} was not trained; this SideNet has {known}. For "
                "others give it as sidenet= to method='bianchor'"
            )
        return sidenet_plan(self.sidenet, flow, nfe, self.shifts[key])

    def save(self, path: str | Path) -> None:
        """Write a file for `load_sidenet`, in float32, with the figures; whole or not at all."""
        config = self.sidenet.config.to_dict() | {"figures": self.figures}
        save_weights(path, self.sidenet, config, dtype=torch.float32)

    @classmethod
    def load(cls, path: str | Path) -> FittedSideNet:
        """What `save` wrote.

        Raises:
            CheckpointError: no such file, a damaged one, or one that was not trained to the ends.
        """
        figures = read_weights(path)[1].get("figures")
        if not isinstance(figures, dict):
            raise CheckpointError(
                f"{path} holds no SideNet that was trained to the ends: `quadflow fit --published` "
                "writes them"
            )
        return cls(load_sidenet(path), figures)


def sidenet_plan(
    sidenet: nn.Module, flow: FlowField, nfe: int, shift: float, *, training: bool = False
) -> Plan:
    """BA-solver as published, on a shifted grid, with its times and field.

    training: with the SideNet's gradients, and without memory of what the backbone computes.
    """
    field = replace(flow, model=Tapped(flow.model, None, checkpointed=True)) if training else flow
    method, intervals, *_ = bianchor_plan()(field, nfe, sidenet)
    return Plan(method, intervals, time_grid(intervals, field.resolved, shift=shift), field)


def fit_sidenet(
    model: Any,
    sidenet: SideNet | SideNetConfig | None = None,
    *,
    shape: Sequence[int],
    nfe: Sequence[int] = (5, 7, 10),
    guidance: Sequence[float] = (1.0,),
    minutes: float | None = None,
    updates: int | None = None,
    pairs: int | None = None,
    out: str | Path | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    num_classes: int | None = None,
    null_label: int | None = None,
    convention: Convention | str = "repa",
    guided: Guidance | None = None,
    extras: Mapping[str, Any] | None = None,
    null_extras: Mapping[str, Any] | None = None,
    batch_size: int = BATCH,
    held_out: tuple[int, int] | None = None,
    steps: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> FittedSideNet:
    """Train the SideNet of the published BA-solver to the ends of the flow.

    The form is the published one; only the training is another: chain training asks for single
    velocities along data paths, this one for where the sampler ends, on its own states, under its
    guidance, on its grids. So tables can say what the training is worth, and what the form of
    `fit_sampler` is. Neither the backbone nor the SideNet that is given is changed. Where the mean
    error on noises held out is no better than before, the SideNet is the one from before, and a
    warning says so; another warns of single budgets that got worse.

    Args:
        model: the network; see `FlowField`. It must be deterministic (`model.eval()`).
        sidenet: where the training starts, such as `load_sidenet()`; a `SideNetConfig` or None
            makes a new one, with which BA-solver is the PEC method of one anchor.
        shape: (C, H, W) of a state.
        nfe: the budgets to train for, each >= 2; on the best shifted grid of the start each.
        guidance, minutes, updates, pairs, folder, resume: as for `fit_sampler`. So are num_classes,
            null_label, convention, guided, extras, null_extras, batch_size, held_out,
            steps, seed, dtype.
        out: the safetensors file to write, for `load_sidenet` and `FittedSideNet`; beside it the
            report, OUT.json and OUT.png.

    Raises:
        TypeError: a sidenet that is no `SideNet`.
        ValueError: an argument out of range, a model that is random in eval mode, a SideNet of
            another backbone, pairs of another model in `folder`.
        MemoryError: an update does not fit into memory; the message names batch_size.
    """
    started = time.perf_counter()
    wish = Wish(nfe, guidance, minutes, updates, pairs, batch_size, held_out, steps)
    task, accelerator = task_of(
        model, shape, num_classes, convention, null_label, guided, extras, null_extras, dtype, seed
    )
    net = _start(sidenet, task).to(accelerator.device)
    check_deterministic(task, guidance[0])
    evaluate = partial(evaluate_once, task, 1.0)
    more = 1.0 if updates is not None else _cost(task, net) / seconds_a_sample(evaluate)
    # an evaluation, the one of the checkpoint, two for the gradient; the SideNet's, and two for its
    effort = wish.effort(evaluate, update=4 + 3 * (more - 1), sampling=more)
    with work_on(task, wish, effort, folder, resume, accelerator) as work:
        starts = [_budget(work, net, scale, n) for scale in guidance for n in nfe]
        rate = LEARNING_RATE if isinstance(sidenet, SideNet) else NEW_LEARNING_RATE
        fitted = _trained(work, net, starts, rate)
        spent = (time.perf_counter() - started) / 60
        budgets = [budget for budget, _ in starts]
        fitted.figures |= figures_of(work, budgets, 2 * effort.held_out[1], spent)
    if out is not None:
        from .report import write_report

        fitted.save(out)
        write_report(fitted.figures, out, NAMES)
    return fitted


def _start(sidenet: Any, task: Task) -> SideNet:
    """A copy of the SideNet that is given, or a new one, with gradients."""
    if len(task.shape) != 3:
        raise ValueError(f"shape={task.shape}: the SideNet is made for states (C, H, W)")
    if sidenet is None:
        channels, height, width = task.shape
        patch = max(p for p in (1, 2, 4) if height % p == width % p == 0)
        size = height if height == width else None
        sidenet = SideNetConfig(
            channels, patch, num_classes=task.num_classes, input_size=size, **SMALL
        )
    if isinstance(sidenet, SideNetConfig):
        config = sidenet
        return seeded(task.seed, lambda: SideNet(config))
    if not isinstance(sidenet, SideNet):
        raise TypeError(
            f"sidenet must be a SideNet, a SideNetConfig or None, got {type(sidenet).__name__}"
        )
    return copy.deepcopy(sidenet).requires_grad_(True)


def _cost(task: Task, net: SideNet) -> float:
    """Seconds of a sample for an evaluation of BA-solver."""

    def run(count: int) -> Tensor:
        rows = range(count)
        flow = task.flow(rows, 1.0)
        return _sampled(flow, task.noise(rows), sidenet_plan(net, flow, 2, 1.0))

    return seconds_a_sample(run) / 2


def _sampled(flow: FlowField, noise: Tensor, plan: Plan) -> Tensor:
    with torch.no_grad():
        return run_plan(plan, noise, (flow.resolved.noise_t, flow.resolved.data_t)).x


def _budget(work: Work, net: SideNet, scale: float, nfe: int) -> tuple[Budget, float]:
    """A budget on the best shift of the SideNet's grid before the training, and that shift."""
    task, chosen = work.task, work.effort.choosing
    noise, ends = task.noise(chosen), work.pairs[scale].ends(chosen)

    def missed(shift: float) -> Tensor:
        flow = task.flow(chosen, scale)
        return _sampled(flow, noise, sidenet_plan(net, flow, nfe, shift)) - ends

    shift, least, count = best_shift(lambda shift: rms(missed(shift)))
    usual = typical(distances(missed(shift)))
    rows = (count + 1) * len(noise) * nfe * task.flow(chosen, scale).halves
    return Budget(nfe, scale, least, usual, rows, work.pairs[scale]), shift


def _trained(
    work: Work, net: SideNet, starts: Sequence[tuple[Budget, float]], learning_rate: float
) -> FittedSideNet:
    """The SideNet trained, with its errors on the reported noises before and after."""
    task, budgets = work.task, [budget for budget, _ in starts]
    shifts = {budget.key: shift for budget, shift in starts}
    first = copy.deepcopy(net.state_dict())

    def plan(own: SideNet, flow: FlowField, nfe: int, training: bool) -> Plan:
        shift = shifts[plan_key(nfe, flow.guidance.scale)]
        return sidenet_plan(own, flow, nfe, shift, training=training)

    trainee = Trainee(net, plan, lambda own: own.load_state_dict(first), "the start")
    before = errors_of(task, trainee, net, budgets, work.effort.reporting)
    fingerprint = {
        "sidenet": [net.config.to_dict(), identity(net)],
        "plans": [[budget.key, shift] for budget, shift in starts],
    }
    train_to_ends(work, trainee, budgets, fingerprint, learning_rate=learning_rate)
    after = errors_of(task, trainee, net, budgets, work.effort.reporting)
    if fell_back := mean_ratio(after, before) >= 1:
        trainee.reset(net)
    worse = [b for b in budgets if after[b.key] > before[b.key]]
    if fell_back or worse:
        _warn(fell_back, worse)
    plans = [
        {
            "nfe": b.nfe, "guidance": b.scale, "start": "bianchor", "shift": shift,
            "before": before[b.key], "trained": (before if fell_back else after)[b.key],
            "fell_back": fell_back,
        }
        for b, shift in starts
    ]  # fmt: skip
    return FittedSideNet(net, {"plans": plans})


def _warn(fell_back: bool, worse: Sequence[Budget]) -> None:
    if fell_back:
        text = "nothing learned is better than the start on noises held out: this SideNet is it"
    else:
        which = ", ".join(f"nfe={b.nfe} at guidance {b.scale:g}" for b in worse)
        text = f"better on average, but worse than the start on noises held out for {which}"
    warnings.warn(f"{text}. More minutes may help", stacklevel=4)
