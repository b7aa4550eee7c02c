"""The state that a stopped training goes on from: one file, whole or not there at all."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...storage import whole_file

FORMAT = 1

Fingerprint = Mapping[str, Any]
"""Everything that the course of a training depends on: field -> a JSON value."""


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A short name of the contents of tensors (names, shapes, dtypes, every bit)."""
    total = hashlib.blake2b(digest_size=10)
    for name, value in sorted(tensors.items()):
        flat = value.detach().to("cpu").contiguous().reshape(-1)
        total.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()


def identity(model: Any) -> str:
    """Class and contents of a model, for a fingerprint; of what is no module the class alone."""
    name = type(model).__name__
    return f"{name} {digest(model.state_dict())}" if isinstance(model, nn.Module) else name


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, and lists and dicts of them) to `path`."""
    with whole_file(path) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


def read_state(path: Path) -> dict[str, Any]:
    """The state that `save_state` wrote; only plain data are read, nothing is executed.

    Raises:
        ValueError: a damaged file, or none that `save_state` wrote.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no readable training state: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is no training state of format {FORMAT}")
    return state


def check_same_training(path: Path, written: Fingerprint, wanted: Fingerprint, step: int) -> None:
    """Raise unless the training in a state file is the one that is asked for.

    The number of steps may differ where the learning rate does not depend on it.

    Raises:
        ValueError: with every field that differs.
    """
    known = dict(written)
    if known.get("steps") != wanted["steps"]:
        if wanted["decay"] != "none" and known.get("decay") == wanted["decay"]:
            raise ValueError(
                f"{path} is of a training of {known.get('steps')} steps, not {wanted['steps']}: "
                f"with decay={wanted['decay']!r} the learning rate of every step depends on their "
                "number, so only a training with decay='none' can be made longer"
            )
        if wanted["steps"] < step:
            raise ValueError(f"{path} is at step {step} already; steps={wanted['steps']} is less")
        known["steps"] = wanted["steps"]
    fields = sorted({*known, *wanted})
    differ = [
        f"{field} is {known.get(field)!r} there and {wanted.get(field)!r} here"
        for field in fields
        if known.get(field) != wanted.get(field)
    ]
    if differ:
        raise ValueError(
            f"{path} belongs to another training: {'; '.join(differ)}. Make them equal, or start "
            "anew with overwrite"
        )


def refuse_to_lose(path: Path) -> None:
    """Raise if there is a training at `path` that has not come to its end.

    Raises:
        ValueError: there is, or what is there cannot be read.
    """
    if path.exists():
        state = read_state(path)
        step, steps = state["step"], state["fingerprint"]["steps"]
        if step < steps and not state["progress"]["ended"]:
            raise ValueError(
                f"{path} holds an unfinished training (step {step} of {steps}): go on with it by "
                "resume (--resume), or start anew by overwrite (--overwrite)"
            )


class LossLog:
    """A JSON-lines file: the configuration, then a line every so many steps.

    It is made when the first line is written, so that a training that fails at once leaves none.

    Args:
        path: of the file, or None for no log. header: its first line. step: a training that goes
            on there keeps the lines up to this step; 0 starts a new file.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any], step: int) -> None:
        self.path = path
        self._lines = [json.dumps(dict(header))]
        self._new = True
        if path is not None and step > 0:
            self._lines += _lines_up_to(path, step)
            self._rewrite()

    def write(self, line: Mapping[str, Any]) -> None:
        if self.path is None:
            return
        if self._new:
            self._rewrite()
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(dict(line)) + "\n")

    def _rewrite(self) -> None:
        assert self.path is not None
        text = "\n".join(self._lines) + "\n"
        with whole_file(self.path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self._new = False


def _lines_up_to(path: Path, step: int) -> list[str]:
    """The whole lines of a log that a training at `step` has written; none of a missing file."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                value = json.loads(line)
            except ValueError:  # cut short when the process was killed
                continue
            if isinstance(value, dict) and 0 < value.get("step", 0) <= step:
                kept.append(line)
    return kept
