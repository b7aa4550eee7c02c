"""A training that is killed and resumed ends where the uninterrupted one does, to the last bit."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import child_processes
import pytest
import torch
import toy_training
from torch import Tensor, nn

from quadflow.adapters.training.fit import FitConfig, Recording, Writers, fit
from quadflow.adapters.training.random import StepRandom
from quadflow.adapters.training.state import digest, read_state, save_state

SHORT = {"steps": 20}


def log_of(out: Path) -> list[dict[str, Any]]:
    """The lines of the log without what the clock says."""
    lines = [json.loads(line) for line in Path(f"{out}.log").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "samples_per_second")}
        for line in lines
    ]


def assert_same_end(out: Path, whole: Path) -> None:
    assert out.read_bytes() == whole.read_bytes()
    assert log_of(out) == log_of(whole)
    one, two = read_state(Path(f"{out}.state")), read_state(Path(f"{whole}.state"))
    for part in ("network", "ema"):
        assert digest(one[part]) == digest(two[part])
    for a, b in zip(
        one["optimiser"]["state"].values(), two["optimiser"]["state"].values(), strict=True
    ):
        assert digest(a) == digest(b)
    assert {k: one[k] for k in ("step", "fingerprint")} == {
        k: two[k] for k in ("step", "fingerprint")
    }
    assert not list(out.parent.glob("*.part"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Uninterrupted trainings: on data, and on trajectories."""
    folder = tmp_path_factory.mktemp("whole")
    for data in (True, False):
        toy_training.train(folder / str(data), data=data, **SHORT)
    return {data: folder / str(data) for data in (True, False)}


@pytest.mark.parametrize(
    ("where", "count"),
    [("step", 2), ("step", 12), ("state", 1), ("state", 4), ("weights", 1), ("weights", 3),
     ("rename", 1), ("rename", 4), ("rename", 5), ("renamed", 2), ("renamed", 5), ("log", 1),
     ("log", 8), ("log", 20)],
)  # fmt: skip
def test_killed_at_a_place(where: str, count: int, tmp_path: Path, whole: dict[bool, Path]) -> None:
    out = tmp_path / "out"
    died = child_processes.run(toy_training.train_and_die, out, where, count, SHORT)
    assert died == -signal.SIGKILL
    toy_training.train(out, resume=True, **SHORT)
    assert_same_end(out, whole[True])


@pytest.mark.parametrize("data", [True, False])
def test_killed_again_and_again_at_random(
    data: bool, tmp_path: Path, whole: dict[bool, Path]
) -> None:
    out, moments = tmp_path / "out", random.Random(5)
    for turn in range(6):
        before = len(log_of(out)) if Path(f"{out}.log").exists() else 0
        child = child_processes.start(toy_training.train, out, data=data, resume=True, **SHORT)
        until = time.monotonic() + 20
        while child.is_alive() and time.monotonic() < until:  # let it come a little further
            log = Path(f"{out}.log")
            if log.exists() and len(log.read_bytes().splitlines()) > min(before, 1 + 3 * turn):
                break
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        child.join(60)
        assert child.exitcode in (0, -signal.SIGKILL)
    toy_training.train(out, data=data, resume=True, **SHORT)
    assert_same_end(out, whole[data])


def test_resuming_a_finished_training_changes_nothing(
    tmp_path: Path, whole: dict[bool, Path]
) -> None:
    out = tmp_path / "out"
    toy_training.train(out, **SHORT)
    assert_same_end(out, whole[True])
    out.unlink()
    toy_training.train(out, resume=True, **SHORT)
    assert_same_end(out, whole[True])
    toy_training.train(out, **SHORT)  # a finished one may be made again
    assert_same_end(out, whole[True])


def test_a_longer_training(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    toy_training.train(one, steps=12, decay="none")
    toy_training.train(two, steps=6, decay="none")
    toy_training.train(two, steps=12, decay="none", resume=True)
    assert_same_end(two, one)
    with pytest.raises(ValueError, match="is at step 12 already; steps=8 is less"):
        toy_training.train(two, steps=8, decay="none", resume=True)
    toy_training.train(two, steps=6, overwrite=True)
    with pytest.raises(ValueError, match="only a training with decay='none' can be made longer"):
        toy_training.train(two, steps=12, resume=True)


def stop_early(out: Path) -> None:
    """A training of 20 steps that was stopped at step 3."""
    child_processes.run(toy_training.train_and_die, out, "step", 5, SHORT)
    assert read_state(Path(f"{out}.state"))["step"] == 3


def test_other_trainings_are_not_resumed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stop_early(out)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    for options, message in (
        ({"learning_rate": 1e-3, "seed": 7}, "learning_rate is 0.005 there and 0.001 here; seed "
                                             "is 0 there and 7 here"),
        ({"batch_size": 4}, "batch_size is 8 there and 4 here"),
        ({"data": False}, "data is '32 images "),
        ({"mixed_precision": "bf16"}, "'bf16'"),
    ):  # fmt: skip
        with pytest.raises(ValueError) as caught:
            toy_training.train(out, **(SHORT | {"resume": True} | options))
        assert message in str(caught.value)
    with pytest.raises(ValueError, match=r"unfinished training \(step 3 of 20\).*--resume"):
        toy_training.train(out, **SHORT)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_another_backbone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    stop_early(out)
    first = toy_training.Backbone()

    def changed() -> nn.Module:
        nn.init.constant_(first.gain, 1.25)
        return first

    monkeypatch.setattr(toy_training, "Backbone", changed)
    with pytest.raises(ValueError, match="belongs to another training: backbone is 'Backbone "):
        toy_training.train(out, resume=True, **SHORT)


def test_starting_anew(tmp_path: Path, whole: dict[bool, Path]) -> None:
    out = tmp_path / "out"
    stop_early(out)
    toy_training.train(out, overwrite=True, **SHORT)
    assert_same_end(out, whole[True])
    with pytest.raises(ValueError, match="give one"):
        Recording(state="x", resume=True, overwrite=True)
    with pytest.raises(ValueError, match="resume needs the state file"):
        Recording(resume=True)
    with pytest.raises(ValueError, match="checkpoint_every must be an integer >= 1, got 0"):
        Recording(checkpoint_every=0)


def test_damaged_states_are_refused(tmp_path: Path) -> None:
    out, state = tmp_path / "out", tmp_path / "out.state"
    stop_early(out)
    raw = state.read_bytes()
    for content in (b"", raw[: len(raw) // 2], b"no state at all"):
        state.write_bytes(content)
        for options in ({"resume": True}, {}):
            with pytest.raises(ValueError, match="is no readable training state"):
                toy_training.train(out, **(SHORT | options))
    torch.save({"format": 99}, state)
    with pytest.raises(ValueError, match="no training state of format 1"):
        toy_training.train(out, resume=True, **SHORT)


class _Shell:
    """What a malicious file would hold."""

    def __reduce__(self) -> Any:
        return os.system, ("exit 3",)


def test_states_run_no_code(tmp_path: Path) -> None:
    path = tmp_path / "x.state"
    torch.save({"format": 1, "step": _Shell()}, path)
    with pytest.raises(ValueError, match="is no readable training state"):
        read_state(path)
    save_state(path, {"step": 3, "list": [1.0], "t": torch.ones(2)})
    assert read_state(path)["list"] == [1.0]


def test_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    toy_training.train(tmp_path / "a", steps=3)
    toy_training.train(tmp_path / "b", steps=3, data=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(5)
    toy_training.train(tmp_path / "c", steps=3)
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()


def test_a_gradient_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.ones(2))

    module, steps = Root(), []

    def loss(random: StepRandom) -> Tensor:
        steps.append(module.value.detach().clone())
        factor = 0.0 if random.step == 4 else 1.0
        return torch.sqrt(factor * module.value.square()).sum()  # at 0: a finite loss, no gradient

    config = FitConfig(steps=10, batch_size=1, learning_rate=0.1)
    state, saved = tmp_path / "s", []
    with pytest.raises(FloatingPointError, match="norm of the gradient is nan at step 4"):
        fit(
            module, loss, config, recording=Recording(state=state, checkpoint_every=4),
            writers=Writers(lambda ema: saved.append(1)),
        )  # fmt: skip
    assert torch.equal(module.value.detach(), steps[4])
    assert read_state(state)["step"] == 4
    assert torch.equal(read_state(state)["network"]["value"], steps[4])
    assert saved == [1]
