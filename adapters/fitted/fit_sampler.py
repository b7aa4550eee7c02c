"""`fit_sampler`: a sampler for any backbone, fitted in minutes."""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...checks import check_choice, integer_from
from ..backbones.flops import counted
from ..flow.field import Convention, Guidance, resolve_convention
from ..sampling.sample import own_time
from ..training.fit import FitConfig, Recording, Writers, fit, make_accelerator
from .calibrate import Calibrated, calibrate, rms, sample_flow
from .features import FeatureLayout, find_features
from .fingerprint import backbone_fingerprint
from .fitted import FittedSampler
from .network import Residual, ResidualConfig
from .pairs import BLOCK, Pairs, Task
from .plan import FORMS, PARTS, LearnedPlan
from .sampler import Learned
from .sizing import sized
from .training import Budget, EndpointLoss, Selection, errors_of, looks

SELECTION, REPORTED = 64, 128
"""Samples that choose (method, grid, best weights), and those whose errors are reported."""

STEPS = 192
"""Of the converged solve of a pair: networks are rough in t, so many."""

BATCH = 16
UPDATES_A_PAIR = 0.5
"""Updates of 16 a pair, where the number of pairs is left open: eight looks at each."""


@dataclass(frozen=True)
class Effort:
    """How much work a fit is: updates of `batch_size` samples, and pairs a guidance scale."""

    updates: int
    pairs: int
    batch_size: int = BATCH


def fit_sampler(
    model: Any,
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
    form: str = "ordered",
    parts: Sequence[str] = PARTS,
    network: bool | ResidualConfig = True,
    features: str | None = None,
    batch_size: int = BATCH,
    steps: int = STEPS,
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
        nfe: the budgets to fit, each >= 2.
        guidance: scales to fit; 1 is none. guided: other options of `Guidance`.
        minutes: about how long it may take on this machine; sets updates and pairs, which are kept
            in `FittedSampler.figures["effort"]`. updates, pairs: the numbers themselves; with the
            same ones the same sampler comes out again. Default 20 minutes.
        out: the safetensors file to write; beside it the report, OUT.json and OUT.png.
        folder: keeps pairs and training state, so that a killed run goes on (resume=True).
        num_classes: labels 0..num_classes-1 are drawn; default the model's own, else none.
        null_label, convention, extras, null_extras: see `Task` and `FlowField`.
        form: "free" or "ordered", see `FORMS`. parts: what is learned, see `PARTS`.
        network: False leaves it out; a `ResidualConfig` sets its sizes.
        features: name of the module whose input the network gets; default the last layer's.
        batch_size: samples an update. steps: of the converged solves. seed: of everything.
        dtype: of the states.

    Raises:
        ValueError: an argument out of range, a model that is random in eval mode, features that do
            not fit, pairs of another model in `folder`.
        MemoryError: an update does not fit into memory; the message names batch_size.
    """
    started = time.perf_counter()
    for budget in nfe:
        integer_from(2, budget, "nfe")
    if not nfe or not guidance:
        raise ValueError(f"nfe={nfe!r} and guidance={guidance!r}: give at least one of each")
    check_choice(form, FORMS, "form")
    if minutes is not None and (updates is not None or not 0 < minutes < math.inf):
        raise ValueError(f"minutes={minutes}: give a positive number, or updates, not both")
    classes = getattr(model, "num_classes", None) if num_classes is None else num_classes
    chosen = _chosen(parts, bool(network))
    options = guided or Guidance()
    accelerator = make_accelerator()
    if isinstance(model, nn.Module):
        model.to(accelerator.device)
    task = Task(
        model, tuple(shape), classes or 0, convention, null_label, options, extras or {},
        null_extras or {}, dtype, accelerator.device, seed,
    )  # fmt: skip
    _check_deterministic(task, guidance)
    if "network" in chosen and not isinstance(network, ResidualConfig):
        network = _network(task, guidance, features)
    layout = network.features if isinstance(network, ResidualConfig) else None
    effort = _effort(task, nfe, guidance, minutes, updates, pairs, batch_size, steps, chosen)
    held = SELECTION + REPORTED
    with ExitStack() as stack, _frozen(model):
        root = Path(stack.enter_context(_folder(folder)))
        known = {}
        for scale in guidance:
            known[scale] = Pairs(task, scale, held + effort.pairs, steps=steps, folder=root)
            known[scale].make()
        budgets = [
            Budget(_start(task, known[scale], n, form), known[scale])
            for scale in guidance
            for n in nfe
        ]
        learned = _train(task, budgets, layout, network, chosen, effort, root, resume, accelerator)
        fitted = _judged(task, budgets, layout, learned)
        fitted.figures["looks"] = looks(root)
    fitted.figures |= {
        "effort": asdict(effort), "steps": steps, "seed": seed, "parts": list(chosen),
        "form": form, "interval": _finite(options.interval),
        "minutes": round((time.perf_counter() - started) / 60, 2),
    }  # fmt: skip
    if out is not None:
        from .report import write_report

        fitted.save(out)
        write_report(fitted, out)
    return fitted


def _chosen(parts: Sequence[str], network: bool) -> tuple[str, ...]:
    """The parts that are learned, checked before any work is done."""
    for part in parts:
        check_choice(part, PARTS, "parts")
    return tuple(part for part in parts if network or part != "network")


def _finite(interval: tuple[float, float]) -> list[float] | None:
    """The interval of guidance for JSON, None for all of the way."""
    return list(interval) if all(map(math.isfinite, interval)) else None


def _folder(folder: str | Path | None) -> Any:
    if folder is None:
        return tempfile.TemporaryDirectory(prefix="quadflow-fit-")

    @contextmanager
    def own() -> Any:
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield folder

    return own()


@contextmanager
def _frozen(model: Any) -> Any:
    """No parameter of the model gets a gradient while this lasts."""
    wanted = (
        [p for p in model.parameters() if p.requires_grad] if isinstance(model, nn.Module) else []
    )
    for p in wanted:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in wanted:
            p.requires_grad_(True)


def _evaluate(task: Task, scale: float, count: int = 2) -> Tensor:
    rows = range(count)
    flow = task.flow(rows, scale)
    with torch.no_grad():
        return flow.evaluate(flow.resolved.noise_t, task.noise(rows))[0]


def _check_deterministic(task: Task, guidance: Sequence[float]) -> None:
    first, second = (_evaluate(task, guidance[0]) for _ in range(2))
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5):
        raise ValueError(
            "model: two evaluations of the same states gave different velocities; a sampler can be "
            "fitted to a deterministic model alone: call model.eval(), or take its noise out"
        )


def _network(task: Task, guidance: Sequence[float], features: str | None) -> ResidualConfig:
    """The network's shape: fed by these features, as large as the backbone allows."""
    layout = find_features(task.model, lambda: _evaluate(task, guidance[0]), task.shape, features)
    halves = 2 if any(scale != 1 for scale in guidance) else 1
    operations = counted(lambda: _evaluate(task, 1.0, 1))
    return sized(task.shape, layout, halves, task.num_classes, operations)


def _effort(
    task: Task,
    nfe: Sequence[int],
    guidance: Sequence[float],
    minutes: float | None,
    updates: int | None,
    pairs: int | None,
    batch_size: int,
    steps: int,
    parts: Sequence[str],
) -> Effort:
    """Updates and pairs, from what is given or from what an evaluation costs here."""
    integer_from(1, batch_size, "batch_size")
    if updates is None:
        seconds = 60 * (20.0 if minutes is None else minutes)
        _evaluate(task, 1.0, BLOCK)
        begun = time.perf_counter()
        _evaluate(task, 1.0, BLOCK)
        row = (time.perf_counter() - begun) / BLOCK
        halves = sum(2 if scale != 1 else 1 for scale in guidance)
        mean_halves = halves / len(guidance)
        held = halves * row * (SELECTION + REPORTED) * (steps + 10)
        # an evaluation, the one of the checkpoint, two for the gradient, and the network's
        update = (
            batch_size * row * mean_halves * sum(nfe) / len(nfe) * (5 if "network" in parts else 4)
        )
        pair = halves * row * (steps + 10)
        looks = 12 * SELECTION * row * sum(nfe) * halves
        classical = 40 * SELECTION * row * sum(nfe) * halves
        left = max(0.2 * seconds, seconds - held - looks - classical)
        updates = max(16, int(left / (update + pair / UPDATES_A_PAIR * 1.0)))
    integer_from(1, updates, "updates")
    if pairs is None:
        pairs = max(BLOCK, round(updates / UPDATES_A_PAIR))
    integer_from(1, pairs, "pairs")
    return Effort(updates, pairs, batch_size)


def _start(task: Task, pairs: Pairs, nfe: int, form: str) -> Calibrated:
    rows = range(SELECTION)
    noise, ends = task.noise(rows), pairs.ends(rows)
    return calibrate(lambda: task.flow(rows, pairs.scale), noise, ends, nfe, form=form)[0]


def _train(
    task: Task,
    budgets: Sequence[Budget],
    layout: FeatureLayout | None,
    network: bool | ResidualConfig,
    parts: Sequence[str],
    effort: Effort,
    root: Path,
    resume: bool,
    accelerator: Any,
) -> Learned:
    held = SELECTION + REPORTED
    with torch.random.fork_rng():
        torch.manual_seed(task.seed)
        plans = {b.key: LearnedPlan(b.classical.start, parts) for b in budgets}
        net = Residual(network) if isinstance(network, ResidualConfig) else None
        learned = Learned(plans, net)
    loss = EndpointLoss(task, budgets, layout, range(held, held + effort.pairs))
    every = max(1, effort.updates // 12)
    config = FitConfig(
        effort.updates, effort.batch_size, learning_rate=1e-3, decay="cosine", ema_decay=0.99,
        warmup=max(1, effort.updates // 20), seed=task.seed,
    )  # fmt: skip
    selection = Selection(task, budgets, layout, range(SELECTION), root)
    recording = Recording(
        log=root / "training.jsonl", log_every=max(1, every // 4), state=root / "state.pt",
        checkpoint_every=every, samples_every=every, resume=resume, overwrite=not resume,
    )  # fmt: skip
    if not resume:
        for path in (selection.path, selection.log):
            path.unlink(missing_ok=True)
    fingerprint = {
        **task.identity(), "parts": list(parts), "pairs": effort.pairs,
        "plans": [b.classical.start.to_dict() | {"sigmas": None} for b in budgets],
        "network": None if net is None else net.config.to_dict(),
    }  # fmt: skip
    try:
        fit(
            learned, lambda random: loss(learned, random), config, recording=recording,
            writers=Writers(samples=selection), fingerprint=_json(fingerprint),
            accelerator=accelerator, description="fitting",
        )  # fmt: skip
    except RuntimeError as error:
        if "out of memory" in str(error).lower() or "can't allocate" in str(error).lower():
            raise MemoryError(
                f"an update of batch_size={effort.batch_size} does not fit into memory: give a "
                "smaller batch_size (or guided=Guidance(pair='two calls'))"
            ) from error
        raise
    selection.restore(learned)
    return learned.eval().requires_grad_(False)


def _json(value: Any) -> Any:
    """Tuples as lists, as they come back from JSON."""
    if isinstance(value, Mapping):
        return {k: _json(v) for k, v in value.items()}
    return [_json(v) for v in value] if isinstance(value, (list, tuple)) else value


def _judged(
    task: Task, budgets: Sequence[Budget], layout: FeatureLayout | None, learned: Learned
) -> FittedSampler:
    """The sampler with its errors on the selection and the reported noises, and what falls back."""
    chosen = errors_of(task, learned, budgets, layout, range(SELECTION))
    rows = range(SELECTION, SELECTION + REPORTED)
    reported = errors_of(task, learned, budgets, layout, rows)
    plans, classical = [], set()
    for budget in budgets:
        start = budget.classical.start
        flow = task.flow(rows, budget.scale)
        made = sample_flow(
            flow, task.noise(rows), method=start.name, nfe=start.nfe,
            grid=[own_time(flow.resolved, s) for s in start.sigmas],
        )  # fmt: skip
        rival = rms(made - budget.pairs.ends(rows))
        worse = chosen[budget.key] >= budget.classical.error or reported[budget.key] >= rival
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
            "shift": budget.classical.shift, "classical": rival,
            "fitted": rival if worse else reported[budget.key], "fell_back": worse,
        })  # fmt: skip
    convention = resolve_convention(task.convention).name
    return FittedSampler(
        learned, layout, convention, backbone_fingerprint(task.model), frozenset(classical),
        task.dtype, {"plans": plans},
    )  # fmt: skip
