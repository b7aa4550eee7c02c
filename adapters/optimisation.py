"""The loop that both networks are trained by: AdamW, warm-up and decay, EMA, clipping."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .extras import progress


@dataclass(frozen=True)
class FitConfig:
    """Constants of `fit`.

    steps: optimiser steps. batch_size: samples a step. learning_rate: AdamW's, reached after
    `warmup` steps and then constant (`decay="none"`) or taken to zero along a half cosine
    (`decay="cosine"`). ema_decay: of the exponential moving average of the weights (which is what
    is kept); it starts lower so that early weights are forgotten. clip_norm: largest gradient
    norm. seed: of every random draw of the training.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 100
    decay: str = "cosine"
    weight_decay: float = 0.0
    ema_decay: float = 0.999
    clip_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.decay not in ("none", "cosine"):
            raise ValueError(f"decay must be 'none' or 'cosine', got {self.decay!r}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")


def _rate(config: FitConfig, step: int) -> float:
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * warm * (cosine if config.decay == "cosine" else 1.0)


def fit(
    module: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    config: FitConfig,
    *,
    log: str | Path | None = None,
    checkpoint: Callable[[nn.Module], None] | None = None,
    every: int = 200,
    description: str = "training",
) -> nn.Module:
    """Minimise `loss` over the parameters of `module`; return the averaged (EMA) module.

    Args:
        module: trained in place.
        loss: draws its own batch from the given generator and returns a scalar tensor.
        config: see `FitConfig`.
        log: JSON-lines file; a line every `every` steps with the mean loss since the last one.
        checkpoint: called with the EMA module every `every` steps and at the end.
        every: steps between log lines and checkpoints.
        description: text of the progress bar.

    Raises:
        FloatingPointError: the loss is not finite (the step is named; nothing more is saved).
    """
    device = next(module.parameters()).device
    generator = torch.Generator(device=device).manual_seed(config.seed)
    ema = copy.deepcopy(module).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    module.train()
    start, losses = time.perf_counter(), []
    with (
        Path(log).open("w", encoding="utf-8") if log else contextlib.nullcontext() as handle,
        progress(total=config.steps, description=description) as bar,
    ):
        if handle:
            handle.write(json.dumps({"config": asdict(config)}) + "\n")
        for step in range(config.steps):
            for group in optimiser.param_groups:
                group["lr"] = _rate(config, step)
            value = loss(generator)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm)
            optimiser.step()
            with torch.no_grad():
                decay = min(config.ema_decay, (1 + step) / (10 + step))
                for average, parameter in zip(ema.parameters(), module.parameters(), strict=True):
                    average.lerp_(parameter, 1 - decay)
            losses.append(value.item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"the loss is {losses[-1]} at step {step}")
            bar.update(1)
            if (step + 1) % every == 0 or step + 1 == config.steps:
                mean = sum(losses) / len(losses)
                bar.set_postfix(loss=f"{mean:.4g}")
                losses.clear()
                if handle:
                    line = {
                        "step": step + 1,
                        "loss": mean,
                        "seconds": round(time.perf_counter() - start, 1),
                    }
                    handle.write(json.dumps(line) + "\n")
                    handle.flush()
                if checkpoint:
                    checkpoint(ema)
    return ema
