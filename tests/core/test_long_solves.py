"""Long solves in constant memory: nothing grows with the number of steps when none is kept."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import quadflow as qf

Y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)


def rotation(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((y[..., 1], -y[..., 0]), -1)


@dataclass
class Memory:
    """What is alive at some steps of a solve: tensors, objects that gc sees, blocks of Python's.

    Looked at in the callback of the steps of these numbers, of whose states it keeps nothing.
    """

    when: frozenset[int]
    step: int = 0
    seen: list[tuple[int, int, int]] = field(default_factory=list)

    def __call__(self, t: float, y: Tensor) -> None:
        self.step += 1
        if self.step in self.when:
            gc.collect()
            alive = gc.get_objects()
            tensors = sum(type(one) is Tensor for one in alive)
            count = len(alive)
            del alive
            self.seen.append((tensors, count, sys.getallocatedblocks()))


def watched(steps: int, **arguments: Any) -> tuple[Memory, qf.Solution]:
    looks = frozenset(round(steps * part) for part in (0.2, 0.5, 0.95))
    memory = Memory(looks)
    with torch.no_grad():
        solution = qf.solve(rotation, Y0, callback=memory, max_steps=10**7, **arguments)
    assert len(memory.seen) == len(looks), solution.stats
    return memory, solution


def assert_flat(memory: Memory) -> None:
    """From a fifth of the solve on, nothing is added but what one step has in use."""
    tensors, objects, blocks = zip(*memory.seen, strict=True)
    assert max(tensors) <= tensors[0] + 4, tensors
    assert max(objects) <= objects[0] + 40, objects
    assert max(blocks) <= blocks[0] + 200, blocks


def many(method: str, steps: int) -> dict[str, Any]:
    """Arguments of a solve of at least so many steps."""
    if qf.get_method(method).error_order is None or method == "gauss4":
        return {"method": method, "t": (0.0, 1e-3 * steps), "step_size": 1e-3}
    # as long a step as max_step allows, each of them accepted
    return {"method": method, "t": (0.0, 1e-3 * steps), "max_step": 1e-3, "rtol": 1e-4}


@pytest.mark.parametrize(
    ("method", "steps"),
    [("euler", 20_000), ("heun", 20_000), ("ab3", 4_000), ("gauss4", 2_000), ("dopri5", 2_000),
     ("adams", 2_000), ("gauss", 2_000)],
)  # fmt: skip
def test_flat_memory(method: str, steps: int) -> None:
    memory, solution = watched(steps, record_steps=False, **many(method, steps))
    assert solution.stats.accepted >= steps and len(solution.steps) == 2
    assert_flat(memory)


@pytest.mark.parametrize(
    ("method", "more"),
    [("euler", {}), ("dopri5", {}), ("dopri8", {}), ("ab3", {}), ("pece3", {}), ("adams", {}),
     ("gauss4", {}), ("gauss", {}), ("lobatto", {}), ("dopri5", {"batch_dims": 1}),
     ("gauss", {"batch_dims": 1}), ("gauss", {"max_step": 0.5}),
     ("dopri5", {"events": lambda t, y: y[0]})],
)  # fmt: skip
def test_a_step_is_freed_without_the_collector_of_garbage(
    method: str, more: dict[str, Any]
) -> None:
    """No cycle of references keeps its tensors until the collector comes by."""
    alive: list[int] = []

    def look(t: Any, y: Tensor) -> None:
        alive.append(sum(type(one) is Tensor for one in gc.get_objects()))

    arguments = {**many(method, 60), **more}
    y0 = Y0.expand(2, 2).clone() if "batch_dims" in more else Y0
    gc.collect()
    gc.freeze()  # what was there before need not be looked through
    gc.disable()
    try:
        with torch.no_grad():
            qf.solve(rotation, y0, callback=look, record_steps=False, **arguments)
    finally:
        gc.enable()
        gc.unfreeze()
    assert len(alive) >= 5
    assert max(alive[len(alive) // 2 :]) <= max(alive[: len(alive) // 2]) + 4, alive


@pytest.mark.parametrize("kept", [{}, {"record_steps": False, "dense_output": True}])
def test_what_is_kept_is_seen(kept: dict[str, bool]) -> None:
    """The measurement sees memory that grows: of recorded steps, of dense output."""
    memory, _ = watched(2_000, **kept, **many("euler", 2_000))
    with pytest.raises(AssertionError):
        assert_flat(memory)


def resident() -> int:
    """Bytes of memory that this process has in use."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells it there")
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_a_million_steps(method: str) -> None:
    """Fixed and adaptive: the process is not larger at the end than after a tenth of them."""
    steps, sizes = 10**6, []
    count = itertools.count(1)

    def look(t: float, y: Tensor) -> None:
        if next(count) % (steps // 10) == 0:
            gc.collect()
            sizes.append(resident())

    with torch.no_grad():
        solution = qf.solve(
            rotation, Y0, callback=look, record_steps=False, max_steps=10**7, **many(method, steps)
        )
    assert solution.stats.accepted >= steps and len(sizes) >= 10
    # one recorded time a step would be 32 MB
    assert max(sizes) - sizes[0] < 4 * 2**20, [size - sizes[0] for size in sizes]
