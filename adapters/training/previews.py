"""Pictures of what a network in training samples, from the same noises all along."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ...solution import SolveError
from ..data.images import save_png, tile
from ..flow.field import Convention
from ..sampling.sample import default_labels, initial_noise, sample


def sample_grids(
    folder: str | Path | None,
    shape: tuple[int, int, int],
    num_classes: int,
    *,
    backbone: Any = None,
    convention: Convention | str = "repa",
    count: int = 20,
    seed: int = 0,
) -> Callable[[nn.Module, int], None] | None:
    """A function of (EMA network, step) that writes `folder`/step-000200.png; None without folder.

    Args:
        folder: made where it does not exist. shape: (C, H, W) of a state. num_classes: labels go
            round through all classes; 0: none. backbone: of the SideNet in training, which is
            sampled by BA-solver in 7 evaluations; None: the network in training is itself the
            velocity, sampled by Euler in 20. count, seed: of the noises.

    Raises:
        ValueError: states that are no pictures (1 or 3 channels are), a folder that is a file.
    """
    if folder is None:
        return None
    target = Path(folder)
    if shape[0] not in (1, 3):
        raise ValueError(f"samples must have 1 or 3 channels to be drawn, these have {shape[0]}")
    if target.exists() and not target.is_dir():
        raise ValueError(f"samples {folder} is a file, must be a folder")
    noise = initial_noise(seed, count, shape)
    labels = default_labels(count, num_classes)

    def draw(ema: nn.Module, step: int) -> None:
        parameter = next(ema.parameters())
        own = noise.to(parameter.device)
        y = None if labels is None else labels.to(parameter.device)
        try:
            if backbone is None:
                x = sample(ema, own, y, method="euler", nfe=20).x
            else:
                x = sample(
                    backbone, own, y, method="bianchor", nfe=7, sidenet=ema, convention=convention
                ).x
        except SolveError as error:  # a picture is no reason to stop a training
            warnings.warn(f"no picture of step {step}: {error}", stacklevel=2)
            return
        target.mkdir(parents=True, exist_ok=True)
        save_png(target / f"step-{step:06d}.png", tile(x, 10))

    return draw
