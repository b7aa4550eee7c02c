"""How a func treats several states in one call, found out by calling it.

Nothing but the func is asked, and nothing outside it is changed: no random generator, no filter of
warnings. States are moved within 1 % of the true ones, and a few are thrown far away, where a func
that mixes states gives itself away. Times stay inside the span of the solve, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import VelocityError
from ..host import read_on_host

ROUNDINGS = 200
"""Roundings of its terms that a value may differ by, evaluated in another way."""


class Counted(Protocol):
    """What is probed: a `Velocity`, which counts what it costs."""

    nfe: int
    calls: int
    probe_nfe: int
    span: tuple[float, float]
    window: tuple[float, float] | None

    def __call__(self, t: Any, y: Tensor) -> tuple[Tensor, Any]: ...

    def evaluate_nodes(self, mode: str, times: Tensor, states: Tensor) -> Tensor: ...


def find_mode(velocity: Counted, node_times: Tensor, states: Tensor) -> str:
    """The fastest way of evaluating several nodes together that can be trusted.

    - "loop" where vmap fails or differs: vmap refuses a func that reads numbers out of its
      arguments (float(t), `if y.norm() > 1`), or is random, and such a func may treat each node
      differently;
    - "broadcast" where it agrees with the loop to rounding, and a node thrown far away leaves the
      others as they were (a func that sums over its whole argument fails one or the other);
    - else "vmap".

    node_times: as func sees them, of the nodes; states: (n, *shape). What it costs is counted in
    velocity.nfe, calls and probe_nfe.
    """
    before = velocity.nfe
    with torch.no_grad():
        mode = _trusted_mode(velocity, node_times, moved(states.detach()))
    velocity.probe_nfe += velocity.nfe - before
    return mode


def _trusted_mode(velocity: Counted, node_times: Tensor, y: Tensor) -> str:
    n = len(y)

    def evaluate(mode: str, times: Tensor, y: Tensor) -> Tensor:
        velocity.nfe += n
        velocity.calls += n if mode == "loop" else 1
        return velocity.evaluate_nodes(mode, times, y)

    # times spread over the whole span expose a func that mixes them; where func is not finite
    # that far from its trajectory, the nodes' own times must do
    spread = spread_times(velocity, n).reshape(-1, *(1,) * (node_times.dim() - 1))
    for times in (spread.to(node_times).expand_as(node_times), node_times):
        try:  # vmap first: a random func is refused before it has drawn anything
            together = evaluate("vmap", times, y)
        except Exception:  # whatever a function does on shapes that it was not written for
            return "loop"
        try:
            reference = evaluate("loop", times, y)
        except Exception:  # func may refuse a state that its trajectory never meets
            continue
        if not read_on_host(~torch.isfinite(reference).all()):
            break
    else:
        return "loop"
    bound = rounding(reference)

    def agree(value: Tensor, rows: slice) -> bool:
        return not read_on_host(~((value - reference)[rows].abs() <= bound).all())

    def agrees(mode: str, y: Tensor, rows: slice) -> bool:
        try:
            value = evaluate(mode, times, y)
        except Exception:
            return False
        return agree(value, rows)

    if not agree(together, slice(None)):
        return "loop"
    if not agrees("broadcast", y, slice(None)):
        return "vmap"
    # a threshold on all nodes together (say on y.norm()) shows only once it is crossed
    far = far_away(y)
    for i, value, others in ((0, far, slice(1, None)), (n - 1, -far, slice(0, n - 1))):
        thrown = y.clone()
        thrown[i] = value
        if n > 1 and not agrees("broadcast", thrown, others):
            return "vmap"
    return "broadcast"


def spread_times(velocity: Counted, n: int) -> Tensor:
    """n different times (n,), float64 on the CPU, spread over the span, or over the part of it that
    func may be evaluated in.
    """
    start, end = velocity.span
    if not math.isfinite(end):  # an event ends the solve
        end = start + math.copysign(1.0, end)
    low, high = min(start, end), max(start, end)
    if velocity.window is not None:
        low, high = (min(max(when, low), high) for when in velocity.window)
    times = torch.linspace(low, high, n, dtype=torch.float64)
    return times if start <= end else times.flip(0)


def moved(y: Tensor) -> Tensor:
    """States of which no two entries are alike, within 1 % of y.

    Zeros move as well (upwards, into the domain of roots and logarithms): at zero states a func
    that mixes them would look innocent.
    """
    # equidistributed in [0, 1): the multiples of the golden ratio
    index = torch.arange(1, y.numel() + 1, dtype=torch.float64).reshape(y.shape)
    wiggle = (5e-3 * (1 + torch.frac(index * 0.6180339887498949))).to(y)
    size = y.abs()
    floor = 1e-3 * size.amax()
    return y + wiggle * torch.where(size > floor, y, torch.where(floor > 0, floor, 1.0).to(y))


def far_away(y: Tensor) -> float:
    """An entry farther away than any threshold on states like these, if there is such a number."""
    return min(1e8 * max(1.0, float(read_on_host(y.abs().amax()))), 0.1 * torch.finfo(y.dtype).max)


def rounding(reference: Tensor) -> Tensor:
    """Bound (*shape) on what rounding does to values (n, *shape) at n states within 1 % of one
    another: relative to the values and, where large terms cancel, to the size of those terms, which
    the differences between the states show."""
    spread = (reference - reference[0]).abs().amax(0)
    size = reference.abs().amax(0) + 100 * spread
    return ROUNDINGS * torch.finfo(reference.dtype).eps * size


def check_samples(
    velocity: Counted, t: np.ndarray, t_end: np.ndarray, y: Tensor, rtol: float
) -> None:
    """Refuse a func whose velocity of one sample depends on another sample, or on its time.

    Every sample is to have steps of its own, so that func sees states that belong to different
    times. What it costs is counted in velocity.nfe, calls and probe_nfe; see `mixed_samples`.

    Raises:
        VelocityError: it mixes the samples.
    """
    before = velocity.nfe
    mixed = mixed_samples(lambda when, states: velocity(when, states)[0], t, t_end, y, rtol)
    velocity.probe_nfe += velocity.nfe - before
    if mixed:
        raise VelocityError(
            f"func mixes the samples: its velocity {mixed}. With batch_dims=1 every sample has "
            "times of its own, and its velocity must depend on its own row of t and y alone: "
            "write func on the last axes (y[..., 0], y.norm(dim=-1, keepdim=True)), put modules "
            "such as batch norm into eval mode; or take batch_dims=0, steps that the batch shares"
        )


@torch.no_grad()
def mixed_samples(
    call: Callable[[Tensor, Tensor], Tensor], t: np.ndarray, t_end: np.ndarray, y: Tensor,
    rtol: float,
) -> str:  # fmt: skip
    """How a function of samples mixes them: a sample whose value changed where others were moved,
    and some of those, in words; nothing where no value did.

    Several groups of samples are moved, a little and far, and their times with them: the others
    must stay as they were, to rounding or a small part of the tolerance. 7 to 9 calls for two
    samples and more, one more for a function that mixes them.

    Args:
        call: (times (B, 1, ..., 1), states (B, ...)) -> values (B, ...).
        t, t_end: start and end of every sample (B,).
        y: states (B, ...) at the start.
        rtol: relative tolerance of the solve.
    """
    if len(y) < 2:
        return ""
    y = y.detach()
    column = (-1, *(1,) * (y.dim() - 1))
    end = np.where(np.isfinite(t_end), t_end, t + np.sign(t_end))

    def times(where: np.ndarray) -> Tensor:
        return torch.from_numpy(where).to(y.device).reshape(column)

    def evaluate(when: Tensor, states: Tensor) -> Tensor | None:
        try:
            return call(when, states)
        except VelocityError:
            raise
        except Exception:  # func may refuse a state that its trajectory never meets
            return None

    start, states = times(t), moved(y)
    reference = evaluate(start, states)
    if reference is None:
        return ""
    # how far each sample's terms move the velocity, by another evaluation of states within 1 %
    elsewhere = evaluate(start, y + (y - states))
    size = reference.abs()
    if elsewhere is not None:
        size = size + 100 * (elsewhere - reference).abs()
    size = size.reshape(len(y), -1).amax(1)
    # what is found to a tolerance, for all samples together, may be off by that
    share = max(ROUNDINGS * torch.finfo(reference.dtype).eps, 0.1 * rtol)
    bound = (share * size).reshape(-1, *(1,) * (reference.dim() - 1))
    groups, far = _groups(len(y)), far_away(y)
    # a little, then past any threshold: above, below, and out of the numbers, late in the span
    moves_of = [(group, y + (y - states), 0.6180339887498949) for group in groups]
    for group, place in zip(groups[:1] + groups[::-1], (far, -far, math.nan), strict=False):
        moves_of.append((group, torch.full_like(y, place), 1.0))
    for group, away, part in moves_of:
        moves = torch.from_numpy(group).to(y.device).reshape(column)
        when = times(np.where(group, t + part * (end - t), t))
        value = evaluate(when, torch.where(moves, away, states))
        if value is None:
            continue
        stays = ~moves.reshape(-1, *(1,) * (reference.dim() - 1))
        # nor may what was a number be one no more
        off = ~((value - reference).abs() <= bound) & reference.isfinite() & stays
        changed = np.array(read_on_host(off.reshape(len(y), -1).any(1)), bool)
        if not changed.any():
            continue
        again = evaluate(start, states)  # a random func differs from itself
        if again is None or read_on_host(((again - reference).abs() > bound).any()):
            return ""
        one, others = int(changed.argmax()), np.flatnonzero(group)[:3].tolist()
        return f"of sample {one} changes with other samples (such as {others})"
    return ""


def _groups(count: int) -> list[np.ndarray]:
    """Groups of samples to move, bool (B,).

    For almost any pair of samples there is a group that holds one without the other; for
    neighbours, and for the two halves of a batch, in both directions.
    """
    index = np.arange(count)
    scattered = (index * 0.7548776662466927) % 1.0 < 0.5
    groups = [index % 2 == 0, index % 2 == 1, index < count // 2, scattered]
    different = {group.tobytes(): group for group in groups if group.any() and not group.all()}
    return list(different.values())
