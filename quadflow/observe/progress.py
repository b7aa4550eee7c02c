"""A progress bar of a solve: time reached, steps a second, step size; from numbers on the host."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from ..extras import progress
from ..plans.result import StepResult

INTERVAL = 0.1
"""Seconds between two updates, of which the last step is the exception."""


class ProgressBar:
    """A context manager around the loop over the steps; it closes its bar on an error as well.

    Args:
        t0, t1: the span, floats; arrays (B,) where every sample has its own. t1 may be infinite.
        interval: seconds between two updates.

    Samples with steps of their own: of those still under way, the one that has come least far is
    shown. Steps of a grid of per-sample times are counted alone.

    Raises:
        MissingExtraError: tqdm is not installed.
    """

    def __init__(self, t0: Any, t1: Any, interval: float = INTERVAL) -> None:
        self.interval = interval
        self.steps = 0
        self._start, self._end = np.atleast_1d(t0), np.atleast_1d(t1)
        self._t, self._size = self._start.copy(), np.zeros_like(self._start)
        self._span = np.abs(self._end - self._start)
        self._began = self._shown = time.monotonic()
        self._sample = 0
        ends = bool(np.isfinite(self._span).all())
        self._bar = progress(
            1.0 if ends else None, "solve", "progress", mininterval=0,
            bar_format="{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"
            if ends else "{desc} [{elapsed}{postfix}]",
        )  # fmt: skip

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *failure: object) -> None:
        self._show()
        self._bar.close()

    def take(self, result: StepResult, steps: object) -> None:
        """A step was accepted.

        steps: the steps of the solve; where every sample has its own, `active` says who still has
        a way to go (bool (B,)).
        """
        self.steps += 1
        samples = result.samples
        if samples is not None:
            moved = samples.accepted
            self._size = np.where(moved, np.abs(samples.t - self._t), self._size)
            self._t = samples.t
            under_way = getattr(steps, "active", moved) & (self._t != self._end)
            if under_way.any():
                share = np.where(under_way, np.abs(self._t - self._start) / self._span, np.inf)
                self._sample = int(share.argmin())
        elif isinstance(result.state.t, float):
            self._t = np.array([result.state.t])
            if isinstance(result.previous.t, float):
                self._size = np.abs(self._t - result.previous.t)
        if time.monotonic() - self._shown >= self.interval:
            self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        i = self._sample
        t, end, span = float(self._t[i]), float(self._end[i]), float(self._span[i])
        rate = self.steps / max(self._shown - self._began, 1e-9)
        postfix = f"{self.steps} steps, {rate:.3g} steps/s"
        until = f" of {end:.6g}" if math.isfinite(span) else ""
        of = f" (sample {i} of {len(self._t)})" if len(self._t) > 1 else ""
        self._bar.set_description_str(f"t={t:.6g}{until}{of}", refresh=False)
        if self._size[i] > 0:
            postfix += f", step size {self._size[i]:.3g}"
        if math.isfinite(span):
            self._bar.n = min(1.0, abs(t - float(self._start[i])) / span)
        self._bar.set_postfix_str(postfix, refresh=False)
        self._bar.refresh()
