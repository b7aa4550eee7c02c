"""The loop that all networks are trained by: AdamW, warm-up and decay, EMA, clipping, resuming."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...checks import integer_from
from ...extras import progress, require
from .random import StepRandom
from .state import LossLog, check_same_training, read_state, refuse_to_lose, save_state


@dataclass(frozen=True)
class FitConfig:
    """Constants of `fit`; learning rate, ema_decay and clip_norm default to the published ones.

    steps: optimiser steps. batch_size: samples a step, of all processes together. learning_rate:
    AdamW's, reached after `warmup` steps and then constant (`decay="none"`) or taken to zero along
    a half cosine (`decay="cosine"`). weight_decay: AdamW's. ema_decay: of the exponential moving
    average of the weights (which is what is kept); at step k it is at most (1+k)/(10+k), so that
    early weights are forgotten. clip_norm: largest gradient norm. seed: of all random numbers
    of the training. mixed_precision: "no", "bf16" or "fp16", as `accelerate` has them.
    """

    steps: int
    batch_size: int
    learning_rate: float = 1e-4
    warmup: int = 0
    decay: str = "none"
    weight_decay: float = 0.0
    ema_decay: float = 0.9996
    clip_norm: float = 1.0
    seed: int = 0
    mixed_precision: str = "no"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("warmup", "weight_decay", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.decay not in ("none", "cosine"):
            raise ValueError(f"decay must be 'none' or 'cosine', got {self.decay!r}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise ValueError(
                f"mixed_precision must be 'no', 'bf16' or 'fp16', got {self.mixed_precision!r}"
            )


@dataclass(frozen=True)
class Recording:
    """Files that a training leaves on disk, and whether it goes on from there.

    log: JSON-lines file; every `log_every` steps a line with the mean loss since the last one,
    seconds so far, samples a second, learning rate and gradient norm (before clipping). state: file
    that a stopped training is resumed from, None for none; it and the weights are renewed every
    `checkpoint_every` steps. resume: go on from `state` (from the start where there is none).
    overwrite: start anew although `state` holds an unfinished training. samples: folder for a
    picture of samples every `samples_every` steps.
    """

    log: str | Path | None = None
    log_every: int = 200
    state: str | Path | None = None
    checkpoint_every: int = 200
    resume: bool = False
    overwrite: bool = False
    samples: str | Path | None = None
    samples_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("log_every", "checkpoint_every", "samples_every"):
            integer_from(1, getattr(self, name), name)
        if self.resume and self.overwrite:
            raise ValueError("resume goes on with a training and overwrite drops it: give one")
        if self.resume and self.state is None:
            raise ValueError("resume needs the state file of the training, got state=None")


class Look(NamedTuple):
    """What a look at a network in training found: words for the progress bar, and whether the
    training is to end here."""

    text: str
    enough: bool = False


@dataclass
class Writers:
    """Functions that `fit` calls with the EMA module, on the main process only.

    checkpoint(ema) every `checkpoint_every` steps and at the end; samples(ema, step) every
    `samples_every` steps and at the end, before the checkpoint: what it returns may end the
    training.
    """

    checkpoint: Callable[[nn.Module], None] | None = None
    samples: Callable[[nn.Module, int], Look | None] | None = None


@dataclass
class _Progress:
    """Where a training stands: what is saved beside weights and optimiser."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)  # since the last line of the log
    logged_at: float = 0.0
    ended: bool = False  # a look found that it is enough


def learning_rate(config: FitConfig, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * warm * (cosine if config.decay == "cosine" else 1.0)


def make_accelerator(mixed_precision: str = "no") -> Any:
    """The `accelerate.Accelerator` of this process: device, processes, mixed precision."""
    accelerate = require("accelerate", "generative")
    # several processes without a GPU: accelerate wants to be told
    cpu = "LOCAL_RANK" in os.environ and not torch.cuda.is_available()
    return accelerate.Accelerator(mixed_precision=mixed_precision, cpu=cpu)


def own_rows(accelerator: Any, batch_size: int) -> slice:
    """The samples of a batch that this process takes.

    Raises:
        ValueError: a batch that the processes cannot share evenly.
    """
    processes = accelerator.num_processes
    if batch_size % processes:
        raise ValueError(f"batch_size={batch_size} must be a multiple of the {processes} processes")
    part = batch_size // processes
    return slice(accelerator.process_index * part, (accelerator.process_index + 1) * part)


def _average(accelerator: Any, loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """The loss averaged over the processes; so are, in place, the gradients.

    One reduction for everything. The network is not wrapped for it: a loss may call it as often as
    it likes, with and without gradient.
    """
    value = loss.detach()
    if accelerator.num_processes == 1:
        return value
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([value.reshape(1).to(gradients[0]), *(g.reshape(-1) for g in gradients)])
    flat = accelerator.reduce(flat, reduction="mean")
    sizes = [1, *(g.numel() for g in gradients)]
    first, *parts = flat.split(sizes)
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))
    return first[0]


@dataclass
class _Training:
    """One training: its modules and optimiser, where it stands, and what it leaves on disk."""

    config: FitConfig
    recording: Recording
    writers: Writers
    identity: Mapping[str, Any]
    accelerator: Any
    module: nn.Module
    ema: nn.Module
    parameters: list[nn.Parameter]
    optimiser: Any
    at: _Progress = field(default_factory=_Progress)
    seen: str = ""

    @property
    def path(self) -> Path | None:
        """The state file."""
        return None if self.recording.state is None else Path(self.recording.state)

    def resume(self) -> None:
        """Go on from the state file, where that is asked for and there is one.

        Raises:
            ValueError: a state of another training, a damaged one, an unfinished one that would
                be lost.
        """
        path, resume = self.path, self.recording.resume
        if path is not None and not resume and not self.recording.overwrite:
            refuse_to_lose(path)
        if path is None or not resume or not path.exists():
            return
        state = read_state(path)
        check_same_training(path, state["fingerprint"], self.identity, state["step"])
        self.module.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.at = _Progress(**state["progress"])

    def save(self) -> None:
        """Renew the weights and the state file."""
        if self.writers.checkpoint is not None:
            self.writers.checkpoint(self.ema)
        if self.path is not None:
            scaler = self.accelerator.scaler
            save_state(self.path, {
                "fingerprint": self.identity, "step": self.at.step, "progress": asdict(self.at),
                "network": self.module.state_dict(), "ema": self.ema.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
            })  # fmt: skip

    def step(self, loss: Callable[[StepRandom], Tensor], rows: slice) -> tuple[float, float]:
        """One optimiser step: the loss and the norm of its gradient, over all processes.

        Raises:
            FloatingPointError: one of them is not finite; nothing has changed.
        """
        config, accelerator, step = self.config, self.accelerator, self.at.step
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(config, step)
        random = StepRandom(config.seed, step, config.batch_size, rows, accelerator.device)
        with accelerator.autocast():
            value = loss(random)
        self.optimiser.zero_grad(set_to_none=True)
        accelerator.backward(value)
        mean = float(_average(accelerator, value, self.parameters))
        norm = float(accelerator.clip_grad_norm_(self.parameters, config.clip_norm))
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss is {mean} at step {step}")
        # in half precision the scaler skips such a step, and tries again with a smaller scale
        if not math.isfinite(norm) and accelerator.scaler is None:
            raise FloatingPointError(f"the norm of the gradient is {norm} at step {step}")
        self.optimiser.step()
        with torch.no_grad():
            decay = min(config.ema_decay, (1 + step) / (10 + step))
            pairs = zip(self.ema.parameters(), self.module.parameters(), strict=True)
            for average, parameter in pairs:
                average.lerp_(parameter, 1 - decay)
        return mean, norm

    @property
    def done(self) -> bool:
        """Whether no step is left to do."""
        return self.at.ended or self.at.step >= self.config.steps

    def due(self, every: int) -> bool:
        """Whether something that is done every so many steps, and at the end, is done now."""
        return self.at.step % every == 0 or self.done

    def look(self) -> None:
        """Let `Writers.samples` look, whose word that it is enough ends all processes."""
        if self.writers.samples is None and self.accelerator.num_processes == 1:
            return
        enough = False
        if self.accelerator.is_main_process and self.writers.samples is not None:
            seen = self.writers.samples(self.ema, self.at.step)
            if seen is not None:
                self.seen, enough = seen.text, seen.enough
        word = torch.tensor([float(enough)], device=self.accelerator.device)
        self.at.ended = bool(self.accelerator.reduce(word, reduction="sum") > 0)

    def words(self, loss: float) -> str:
        """What the progress bar says."""
        return ", ".join(filter(None, (f"loss {loss:.4g}", self.seen)))

    def log_line(self, norm: float) -> dict[str, Any]:
        """What has happened since the last line of the log, of which nothing is kept."""
        at = self.at
        count, since = len(at.losses), at.seconds - at.logged_at
        line = {
            "step": at.step,
            "loss": sum(at.losses) / count,
            "seconds": round(at.seconds, 1),
            "samples_per_second": round(count * self.config.batch_size / max(since, 1e-9), 1),
            "learning_rate": learning_rate(self.config, at.step - 1),
            "gradient_norm": norm,
        }
        at.losses.clear()
        at.logged_at = at.seconds
        return line


def fit(
    module: nn.Module,
    loss: Callable[[StepRandom], Tensor],
    config: FitConfig,
    *,
    recording: Recording | None = None,
    writers: Writers | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    accelerator: Any = None,
    description: str = "training",
) -> nn.Module:
    """Minimise `loss` over the parameters of `module`; return the averaged (EMA) module.

    With several processes every one computes the loss of its rows of the batch, and the gradients
    are averaged: the result is that of one process up to rounding.

    Args:
        module: trained in place, on the accelerator's device; the same in every process.
        loss: called with the step's `StepRandom`, returns a scalar tensor: the mean over its
            `rows`. Its randomness must come from there, or a resumed training is another one.
        config: see `FitConfig`.
        recording: see `Recording`.
        writers: see `Writers`.
        fingerprint: whatever else the training depends on (data, network, ...): JSON values; a
            state with other ones is not resumed.
        accelerator: from `make_accelerator`; default a new one.
        description: text of the progress bar.

    Raises:
        FloatingPointError: loss or gradient are not finite (the step is named; weights, average
            and files stay as they were before that step).
        ValueError: a state of another training, an unfinished one that would be lost, a damaged
            one; a batch that the processes cannot share.
    """
    recording, writers = recording or Recording(), writers or Writers()
    accelerator = accelerator or make_accelerator(config.mixed_precision)
    rows, device = own_rows(accelerator, config.batch_size), accelerator.device
    main = accelerator.is_main_process
    module.to(device)
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimiser = accelerator.prepare_optimizer(
        torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay),
        device_placement=False,
    )
    training = _Training(
        config, recording, writers, {**asdict(config), **(fingerprint or {})}, accelerator, module,
        copy.deepcopy(module).eval().requires_grad_(False), parameters, optimiser,
    )  # fmt: skip
    training.resume()
    accelerator.wait_for_everyone()  # nobody writes before everybody has looked
    at = training.at
    header = {
        "config": asdict(config),
        "fingerprint": dict(fingerprint or {}),
        "processes": accelerator.num_processes,
        "device": device.type,
    }
    log_path = Path(recording.log) if recording.log is not None and main else None
    log = LossLog(log_path, header, at.step)
    module.train()
    started = time.perf_counter() - at.seconds
    if training.done and main:
        training.save()  # killed after the last step: what it leaves is made good
    with contextlib.ExitStack() as stack:
        bar = None
        if main:
            bar = stack.enter_context(progress(total=config.steps, description=description))
            bar.update(at.step)
        while not training.done:
            mean, norm = training.step(loss, rows)
            at.step += 1
            at.seconds = time.perf_counter() - started
            at.losses.append(mean)
            if training.due(recording.log_every):
                line = training.log_line(norm)
                log.write(line)
                if bar is not None:
                    bar.set_postfix_str(training.words(line["loss"]))
            if bar is not None:
                bar.update(1)
            if training.due(recording.samples_every):
                training.look()
            if main and training.due(recording.checkpoint_every):
                training.save()
    accelerator.wait_for_everyone()
    return training.ema
