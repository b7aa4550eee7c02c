"""A small chain training in a process of its own: to be killed, resumed, and run side by side.

Run as `python toy_training.py '[{"out": ..., ...}, ...]'`, by torchrun or `accelerate launch`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from toyflow import Toy

from quadflow.adapters import ChainConfig, SideNetConfig, train_sidenet
from quadflow.adapters.data.datasets import LabelledImages
from quadflow.adapters.training import sidenet as chain_training
from quadflow.adapters.training import state as training_state
from quadflow.adapters.training.fit import FitConfig, Recording

SIDE = SideNetConfig(
    in_channels=1, width=8, emb_dim=8, layers=3, heads=2, num_classes=4, time_scale=100.0
)
FIT = FitConfig(steps=40, batch_size=8, learning_rate=5e-3, warmup=5, decay="cosine", ema_decay=0.9)


class Backbone(nn.Module):
    """The flow of the toy: labels and all."""

    num_classes = 4

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.gain * Toy().velocity(x, t, y)


def images(dtype: torch.dtype = torch.float32) -> LabelledImages:
    """One grey a class, and a little noise."""
    labels = torch.arange(32) % 4
    noise = torch.randn(32, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return LabelledImages(0.1 * noise + (0.4 * labels - 0.6)[:, None, None, None], labels, 4)


def train(out: Path, **options: Any) -> nn.Module:
    """The training, with its state beside `out` and fields of FitConfig and Recording changed.

    data: False trains on trajectories. double: weights and data in float64.
    """
    dtype = torch.float64 if options.pop("double", False) else torch.float32
    data = images(dtype) if options.pop("data", True) else None
    fields = {k: options.pop(k) for k in list(options) if k in FitConfig.__dataclass_fields__}
    values = {"log": f"{out}.log", "log_every": 1, "state": f"{out}.state", "checkpoint_every": 3}
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # the network is made in it
    try:
        return train_sidenet(
            Backbone(), data, out, config=FitConfig(**(vars(FIT) | fields)), sidenet=SIDE,
            chain=ChainConfig(length=2, offset_rate=8.0), shape=(1, 4, 4),
            recording=Recording(**(values | options)),
        )  # fmt: skip
    finally:
        torch.set_default_dtype(default)


def train_and_die(out: Path, where: str, count: int, options: dict[str, Any]) -> None:
    """The training in a process that kills itself when it comes to a place for the count-th time.

    where: "state" (half of the bytes of a state are written), "weights" (likewise), "rename"
    (before a written file gets its name), "renamed" (after), "log" (half a line), "step" (before
    the optimiser's step).
    """
    left = [count]

    def dies() -> bool:
        left[0] -= 1
        return left[0] == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half(write: Any) -> Any:
        def written(data: Any, path: Any, *arguments: Any, **named: Any) -> None:
            write(data, path, *arguments, **named)
            if dies():
                os.truncate(path, os.path.getsize(path) // 2)
                die()

        return written

    real = os.replace

    def rename(source: Any, target: Any) -> None:
        dying = dies()
        if dying and where == "rename":
            die()
        real(source, target)
        if dying:
            die()

    def write_line(log: training_state.LossLog, line: Any) -> None:
        if dies():
            with open(f"{out}.log", "a", encoding="utf-8") as handle:
                handle.write(json.dumps(line)[:20])
            die()
        whole_line(log, line)

    whole_line = training_state.LossLog.write
    if where == "state":
        torch.save = half(torch.save)
    elif where == "weights":
        safetensors.torch.save_file = half(safetensors.torch.save_file)
    elif where in ("rename", "renamed"):
        os.replace = rename  # type: ignore[assignment]
    elif where == "log":
        training_state.LossLog.write = write_line  # type: ignore[method-assign]
    elif where == "step":
        step = torch.optim.AdamW.step
        torch.optim.AdamW.step = lambda *a, **k: die() if dies() else step(*a, **k)  # type: ignore
    train(out, **options)


def train_all(trainings: list[dict[str, Any]]) -> None:
    """Several trainings, one after the other: options of `train`, and out."""
    for options in trainings:
        options = dict(options)
        if options.get("double"):  # a half-precision file would hide what is compared
            chain_training.save_weights = _save_whole  # type: ignore[assignment]
        train(Path(options.pop("out")), **options)


def _save_whole(path: Any, module: nn.Module, config: Any, dtype: Any) -> None:
    torch.save(module.state_dict(), path)


if __name__ == "__main__":
    train_all(json.loads(sys.argv[1]))
