"""Pairs (noise, end of the flow) of a backbone: made once by a converged solve, kept on disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checks import integer_from
from ...extras import progress
from ...storage import read_json_object, whole_file, write_json
from ..flow.field import Convention, FlowField, Guidance
from ..sampling.converged import START, tight_solve
from ..sampling.sample import initial_noise
from ..training.state import identity

BLOCK = 64
"""Pairs that are solved together, and kept in one file."""

COARSER, LEAST = 3, 24
"""Pairs that are learned from are solved in this many times fewer steps, and in no fewer than so
many: what is made in 5 to 10 evaluations is far more wrong than that, and more pairs teach more."""

SEED_OFFSET = 1 << 40
"""Added to the seed of the noises, so that they are none that `sample` is likely to be given."""


def coarse(steps: int) -> int:
    """Steps for a pair that is learned from, where those that judge take so many."""
    return min(steps, max(LEAST, steps // COARSER))


@dataclass(frozen=True)
class Task:
    """What a sampler is fitted to: a backbone, its states and its conditions.

    model, convention: see `FlowField`. shape: of one state. num_classes: labels go round
    0..num_classes-1; 0: the model takes none. null_label: of guided pairs, default num_classes.
    guidance: without its scale and null label. extras: further arguments of the model, tensors
    (P, ...) of which sample i gets row i mod P; other values go to every call as they are.
    null_extras: of the null half, the same way. dtype: of the states. seed: of the noises.
    """

    model: Any
    shape: tuple[int, ...]
    num_classes: int = 0
    convention: Convention | str = "repa"
    null_label: int | None = None
    guidance: Guidance = field(default_factory=Guidance)
    extras: Mapping[str, Any] = field(default_factory=dict)
    null_extras: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    seed: int = 0

    def noise(self, rows: Sequence[int]) -> Tensor:
        """The noises of these samples: (len(rows), *shape)."""
        parts = [
            initial_noise(self.seed + SEED_OFFSET, 1, self.shape, dtype=self.dtype, first=row)
            for row in rows
        ]
        return torch.cat(parts).to(self.device)

    def flow(self, rows: Sequence[int], scale: float) -> FlowField:
        """The flow of these samples under guidance of this scale."""
        labels = None
        if self.num_classes:
            labels = torch.tensor([row % self.num_classes for row in rows], device=self.device)
        null = self.num_classes or None if self.null_label is None else self.null_label
        given = self.guidance
        guidance = Guidance(scale, null, given.interval, given.channels, given.per, given.pair)
        return FlowField(
            self.model, self.convention, labels, guidance, self._rows(self.extras, rows),
            null_extras=self._rows(self.null_extras, rows) if scale != 1 else {},
        )  # fmt: skip

    def _rows(self, extras: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
        return {
            key: value[[row % len(value) for row in rows]]
            if isinstance(value, Tensor) and value.dim() and len(value)
            else value
            for key, value in extras.items()
        }

    def identity(self) -> dict[str, Any]:
        """JSON values that the pairs depend on."""
        convention = self.convention if isinstance(self.convention, str) else self.convention.name
        return {
            "backbone": identity(self.model), "shape": list(self.shape), "seed": self.seed,
            "num_classes": self.num_classes, "null_label": self.null_label,
            "convention": convention, "guidance": str(self.guidance), "dtype": str(self.dtype),
            "extras": sorted(self.extras),
        }  # fmt: skip


class Pairs:
    """The ends of the flow for samples 0 to count-1 under one guidance scale, in blocks on disk.

    A block appears whole or not at all, so a killed run goes on where it was.

    Args:
        task: see `Task`. scale: of the guidance. count: pairs, rounded up to whole blocks.
        steps: of the converged solve. exact: samples that are solved in so many; those after them
            in fewer, see `coarse`; None: all. folder: default a temporary one that goes with the
            object.

    Raises:
        ValueError: a folder with pairs of another model, shape, seed or solve.
    """

    def __init__(
        self,
        task: Task,
        scale: float,
        count: int,
        *,
        steps: int,
        exact: int | None = None,
        folder: str | Path | None = None,
    ) -> None:
        integer_from(1, count, "pairs")
        self.task, self.scale, self.steps = task, scale, steps
        self.exact = count if exact is None else exact
        self.blocks = -(-count // BLOCK)
        self.count = self.blocks * BLOCK
        self._temporary = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="quadflow-pairs-")
            folder = self._temporary.name
        self.folder = Path(folder) / f"guidance-{scale:g}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check()

    def _check(self) -> None:
        wanted = {"scale": self.scale, "steps": self.steps, **self.task.identity()}
        if self.exact < self.count:
            wanted["exact"] = self._exact_blocks
        path = self.folder / "pairs.json"
        if not path.exists():
            write_json(path, wanted)
            return
        known = read_json_object(path, "description of pairs")
        differ = [k for k in wanted if known.get(k) != wanted[k]]
        if differ:
            some = ", ".join(f"{k} {known.get(k)!r}, not {wanted[k]!r}" for k in differ)
            raise ValueError(f"{self.folder} holds pairs of another solve: {some}")

    @property
    def _exact_blocks(self) -> int:
        return -(-self.exact // BLOCK)

    def steps_of(self, block: int) -> int:
        """The steps in which a block is solved."""
        return self.steps if block < self._exact_blocks else coarse(self.steps)

    @property
    def evaluations(self) -> int:
        """Evaluations of a state or guided pair that all blocks take."""
        return sum(BLOCK * (self.steps_of(block) + START) for block in range(self.blocks))

    def _path(self, block: int) -> Path:
        return self.folder / f"{block:06d}.npy"

    @property
    def missing(self) -> list[int]:
        """The blocks that are not there yet."""
        return [b for b in range(self.blocks) if not self._path(b).exists()]

    def make(self) -> int:
        """Solve the blocks that are missing; evaluations of single states that it took."""
        rows = 0
        missing = self.missing
        what = f"pairs at guidance {self.scale:g}"
        with progress(total=len(missing) * BLOCK, description=what) as bar:
            for block in missing:
                samples = range(block * BLOCK, (block + 1) * BLOCK)
                flow = self.task.flow(samples, self.scale)
                ends = tight_solve(flow, self.task.noise(samples), self.steps_of(block))
                rows += flow.rows
                with whole_file(self._path(block)) as temporary, temporary.open("wb") as file:
                    np.save(file, ends.cpu().numpy())
                bar.update(BLOCK)
        return rows

    def ends(self, rows: Sequence[int]) -> Tensor:
        """The ends of the flow for these samples: (len(rows), *shape), read from disk."""
        found = []
        for row in rows:
            block = np.load(self._path(row // BLOCK), mmap_mode="r")
            found.append(torch.from_numpy(np.array(block[row % BLOCK])))
        return torch.stack(found).to(self.task.device)

    def close(self) -> None:
        """Remove a temporary folder."""
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.cleanup()
