"""`fit_sampler`: a sampler for any backbone, fitted in minutes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checks import check_choice
from ..backbones.flops import counted
from ..flow.field import Convention, FlowField, Guidance, resolve_convention
from ..sampling.sample import own_time
from ..sampling.samplers import Plan
from ..training.state import digest
from .calibrate import Calibrated, calibrate, rms, sample_flow
from .effort import BATCH, MINUTES, Wish
from .features import FeatureLayout, find_features
from .fingerprint import backbone_fingerprint
from .fitted import FittedSampler
from .network import Residual, ResidualConfig
from .pairs import Task
from .plan import FORMS, PARTS, LearnedPlan, PlanStart
from .sampler import Learned, learned_plan, zeroed
from .sizing import sized
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
from .training import Budget, Trainee, distances, errors_of, typical

MINUTES_ALONE = 1.0
"""Of a fit without a network, unless they are given."""


def fit_sampler(
    model: Any,
    *,
    shape: Sequence[int],
    nfe: Sequence[int] | None = None,
    guidance: Sequence[float] | None = None,
    start: FittedSampler | str | Path | None = None,
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
    form: str = "free",
    parts: Sequence[str] = PARTS,
    network: bool | ResidualConfig = True,
    features: str | None = None,
    batch_size: int = BATCH,
    held_out: tuple[int, int] | None = None,
    steps: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> FittedSampler:
    """Fit a sampler to a flow-matching model: the best classical one, and what is learned on top.

    The backbone is not changed. Pairs (noise, converged end) are made by it; times, coefficients
    and a small network are trained so that few evaluations end where many do. Where that is no
    better than the best classical method on noises held out, the plan is the classical one, and a
    warning says so.

    Args:
        model: the network; see `FlowField`. It must be deterministic (`model.eval()`), and is put
            on the device that is trained on.
        shape: of one state, such as (channels, height, width), or (D,).
        nfe: the budgets to fit, each >= 2; default (5, 7, 10).
        guidance: scales to fit, default (1,); 1 is none. guided: other options of `Guidance`.
        start: a fitted sampler of this model, or its file, that is trained on: its budgets, scales,
            form and network are kept. With another seed it learns from new noises.
        minutes: about how long it may take on this machine, default 20, without a network 1; sets
            the numbers of `Effort`, which are kept in `FittedSampler.figures["effort"]`, beside
            `["evaluations"]` of the backbone that it took. updates, pairs, batch_size, held_out,
            steps: these numbers themselves; with the same ones the same sampler comes out again.
        out: the safetensors file to write; beside it the report, OUT.json and OUT.png.
        folder: keeps pairs and training state, so that a killed run goes on (resume=True).
        num_classes: labels 0..num_classes-1 are drawn; default the model's own, else none.
        null_label, convention, extras, null_extras: see `Task` and `FlowField`.
        form: "free" or "ordered", see `FORMS`. parts: what is learned, see `PARTS`.
        network: False leaves it out; a `ResidualConfig` sets its sizes.
        features: name of the module whose input the network gets; default the last layer's.
        batch_size: samples an update. held_out: how many samples choose (method, grid, best
            weights), and how many are reported. steps: of the converged solves, see `Pairs`.
        seed: of everything.
        dtype: of the states.

    Raises:
        ValueError: an argument out of range, a model that is random in eval mode, features that do
            not fit, pairs of another model in `folder`.
        MemoryError: an update does not fit into memory; the message names batch_size.
    """
    started = time.perf_counter()
    before = _loaded(start)
    if before is not None:
        nfe, guidance, form, network = _kept(before, nfe, guidance, network)
    nfe = (5, 7, 10) if nfe is None else nfe
    guidance = (1.0,) if guidance is None else guidance
    otherwise = MINUTES if network else MINUTES_ALONE
    wish = Wish(
        nfe, guidance, minutes, updates, pairs, batch_size, held_out, steps, otherwise
    )  # fmt: skip
    check_choice(form, FORMS, "form")
    chosen = _chosen(parts, bool(network))
    task, accelerator = task_of(
        model, shape, num_classes, convention, null_label, guided, extras, null_extras, dtype, seed
    )
    check_deterministic(task, guidance[0])
    if before is not None:
        before.check(task.flow(range(1), guidance[0]))
    if "network" in chosen and not isinstance(network, ResidualConfig):
        network = sized_network(task, guidance, features)
    layout = network.features if isinstance(network, ResidualConfig) else None
    # an evaluation, the one of the checkpoint, two for the gradient, and the network's
    passes = 5 if "network" in chosen else 4
    effort = wish.effort(partial(evaluate_once, task, 1.0), update=passes)
    with work_on(task, wish, effort, folder, resume, accelerator) as work:
        starts = [
            _start(work, scale, n, form) if before is None else _again(work, before, scale, n)
            for scale in guidance
            for n in nfe
        ]
        budgets = [_budget(work, found) for found in starts]
        fitted = _fitted(work, budgets, starts, layout, network, chosen, before)
        spent = (time.perf_counter() - started) / 60
        choosing, reporting = effort.held_out
        fitted.figures |= figures_of(work, budgets, choosing + 2 * reporting, spent)
        fitted.figures |= {"parts": list(chosen), "form": form}
    if out is not None:
        from .report import write_report

        fitted.save(out)
        write_report(fitted.figures, out)
    return fitted


def _start(work: Work, scale: float, nfe: int, form: str) -> Calibrated:
    """The best classical method of a budget; its rows are those of the whole search."""
    task, rows = work.task, work.effort.choosing
    noise, ends = task.noise(rows), work.pairs[scale].ends(rows)
    found = calibrate(lambda own: task.flow(own, scale), noise, ends, nfe, form=form)
    return replace(found[0], rows=sum(c.rows for c in found))


def _loaded(start: Any) -> FittedSampler | None:
    if start is None or isinstance(start, FittedSampler):
        return start
    return FittedSampler.load(start)


def _kept(
    before: FittedSampler, nfe: Sequence[int] | None, guidance: Sequence[float] | None, network: Any
) -> tuple[Sequence[int], Sequence[float], str, Any]:
    """Budgets, scales, form and network of a sampler that is trained on.

    Raises:
        ValueError: others are asked for.
    """
    budgets = tuple(sorted({n for n, _ in before.budgets}))
    scales = tuple(sorted({s for _, s in before.budgets}))
    for name, wanted, own in (("nfe", nfe, budgets), ("guidance", guidance, scales)):
        if wanted is not None and sorted(wanted) != list(own):
            raise ValueError(f"{name}={wanted!r}: the sampler to start from has {own}; give these")
    net = before.learned.network
    if isinstance(network, ResidualConfig) or (not network and net is not None):
        raise ValueError("network: that of the sampler to start from is kept; leave it out")
    return budgets, scales, before.starts[0].form, False if net is None else net.config


def _again(work: Work, before: FittedSampler, scale: float, nfe: int) -> Calibrated:
    """The classical method that a plan of an earlier fit started as, measured on these noises."""
    task, rows = work.task, work.effort.choosing
    start = before.learned.plan(nfe, scale).start
    flow = task.flow(rows, scale)
    made = _classical(flow, task.noise(rows), start)
    (shift,) = (
        p["shift"] for p in before.figures["plans"] if (p["nfe"], p["guidance"]) == (nfe, scale)
    )
    error = rms(made - work.pairs[scale].ends(rows))
    return Calibrated(start, shift, error, nfe * len(rows) * flow.halves)


def _classical(flow: FlowField, noise: Tensor, start: PlanStart) -> Tensor:
    """Where the classical method of a plan takes these noises."""
    grid = [own_time(flow.resolved, s) for s in start.sigmas]
    return sample_flow(flow, noise, method=start.name, nfe=start.nfe, grid=grid)


def _budget(work: Work, found: Calibrated) -> Budget:
    start, task, rows = found.start, work.task, work.effort.choosing
    flow, pairs = task.flow(rows, start.scale), work.pairs[start.scale]
    missed = _classical(flow, task.noise(rows), start) - pairs.ends(rows)
    return Budget(
        start.nfe, start.scale, found.error, typical(distances(missed)),
        found.rows + start.nfe * len(rows) * flow.halves, pairs,
    )  # fmt: skip


def _fitted(
    work: Work,
    budgets: Sequence[Budget],
    starts: Sequence[Calibrated],
    layout: FeatureLayout | None,
    network: bool | ResidualConfig,
    parts: Sequence[str],
    before: FittedSampler | None,
) -> FittedSampler:
    """The trained sampler, with its errors on the reported noises."""
    config = network if isinstance(network, ResidualConfig) else None

    def make() -> Learned:
        plans = {b.key: LearnedPlan(c.start, parts) for b, c in zip(budgets, starts, strict=True)}
        made = Learned(plans, None if config is None else Residual(config))
        if before is not None:
            made.load_state_dict(before.learned.state_dict())
        return made

    def plan(learned: Learned, flow: Any, nfe: int, training: bool) -> Plan:
        return learned_plan(learned, flow, nfe, layout, training=training)

    learned = seeded(work.task.seed, make)
    trainee = Trainee(learned, plan, zeroed, "the best classical method")
    fingerprint: dict[str, Any] = {
        "parts": list(parts), "network": None if config is None else config.to_dict(),
        "plans": [c.start.to_dict() | {"sigmas": None} for c in starts],
    }  # fmt: skip
    if before is not None:
        fingerprint["start"] = digest(before.learned.state_dict())
    train_to_ends(work, trainee, budgets, fingerprint, look_first=before is not None)
    return _judged(work, trainee, budgets, starts, layout)


def _chosen(parts: Sequence[str], network: bool) -> tuple[str, ...]:
    """The parts that are learned, checked before any work is done."""
    for part in parts:
        check_choice(part, PARTS, "parts")
    return tuple(part for part in parts if network or part != "network")


def sized_network(task: Task, guidance: Sequence[float], features: str | None) -> ResidualConfig:
    """The network's shape: fed by these features, as large as the backbone allows."""
    layout = find_features(
        task.model, lambda: evaluate_once(task, guidance[0]), task.shape, features
    )
    halves = 2 if any(scale != 1 for scale in guidance) else 1
    operations = counted(lambda: evaluate_once(task, 1.0, 1))
    return sized(task.shape, layout, halves, task.num_classes, operations)


def _judged(
    work: Work,
    trainee: Trainee,
    budgets: Sequence[Budget],
    starts: Sequence[Calibrated],
    layout: FeatureLayout | None,
) -> FittedSampler:
    """The sampler with its errors on the selection and the reported noises, and what falls back."""
    task, learned = work.task, trainee.module
    assert isinstance(learned, Learned)
    choosing, reporting = work.effort.choosing, work.effort.reporting
    chosen = errors_of(task, trainee, learned, budgets, choosing)
    reported = errors_of(task, trainee, learned, budgets, reporting)
    plans, classical = [], set()
    for budget, found in zip(budgets, starts, strict=True):
        start = found.start
        flow = task.flow(reporting, budget.scale)
        made = _classical(flow, task.noise(reporting), start)
        rival = rms(made - budget.pairs.ends(reporting))
        worse = chosen[budget.key] >= budget.error or reported[budget.key] >= rival
        if worse:
            classical.add(budget.key)
            warnings.warn(
                f"nfe={budget.nfe} at guidance {budget.scale:g}: nothing learned is better than "
                f"{start.name} on noises held out ({reported[budget.key]:.4g} against "
                f"{rival:.4g}); this plan is {start.name}. More minutes may help",
                stacklevel=4,
            )
        plans.append({
            "nfe": budget.nfe, "guidance": budget.scale, "start": start.name,
            "shift": found.shift, "classical": rival,
            "fitted": rival if worse else reported[budget.key], "fell_back": worse,
        })  # fmt: skip
    return FittedSampler(
        learned, layout, resolve_convention(task.convention).name,
        backbone_fingerprint(task.model), frozenset(classical), task.dtype, {"plans": plans},
        task.guidance,
    )  # fmt: skip
