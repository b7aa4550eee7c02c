"""Several processes give what one gives; mixed precision trains."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import child_processes
import pytest
import torch
import toy_training
from paths import TESTS

from quadflow.adapters.training.fit import FitConfig, own_rows
from quadflow.adapters.training.random import Draws

SCRIPT = TESTS / "support" / "toy_training.py"


def launch(launcher: str, trainings: list[dict[str, Any]]) -> None:
    """Run toy trainings in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    if launcher == "torchrun":
        command = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    else:
        # with --cpu it would start one process, or want MPI
        command = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
        command += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
        command += [f"--main_process_port={port}"]
    result = subprocess.run(
        [sys.executable, *command, str(SCRIPT), json.dumps(trainings)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr


def processes(out: Path) -> int:
    header = json.loads(Path(f"{out}.log").read_text().splitlines()[0])
    return int(header["processes"])


def trainings(folder: Path, name: str) -> list[dict[str, Any]]:
    """In double precision, on data and on trajectories."""
    return [
        {"out": str(folder / f"{name}-{data}"), "data": data, "double": True, "steps": 12}
        for data in (True, False)
    ]


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    assert child_processes.run(toy_training.train_all, trainings(tmp_path, "one")) == 0
    launch("torchrun", trainings(tmp_path, "two"))
    for data in (True, False):
        outs = [tmp_path / f"{name}-{data}" for name in ("one", "two")]
        assert [processes(out) for out in outs] == [1, 2]
        one, two = (torch.load(out, weights_only=True) for out in outs)
        assert max(float((a - two[name]).abs().max()) for name, a in one.items()) < 1e-12
        states = [torch.load(f"{out}.state", weights_only=True) for out in outs]
        assert states[0]["fingerprint"] == states[1]["fingerprint"]
        logs = [
            [json.loads(line) for line in Path(f"{out}.log").read_text().splitlines()[1:]]
            for out in outs
        ]
        assert [line["step"] for line in logs[1]] == list(range(1, 13))  # one writer
        for a, b in zip(*logs, strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-12)
            assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-10)


def test_accelerate_launch_in_single_precision(tmp_path: Path) -> None:
    toy_training.train(tmp_path / "one", steps=9)
    launch("accelerate", [{"out": str(tmp_path / "two"), "steps": 9}])
    assert processes(tmp_path / "two") == 2
    one, two = (
        torch.load(tmp_path / f"{name}.state", weights_only=True)["network"]
        for name in ("one", "two")
    )
    # Adam divides by the size of gradients: rounding of tiny ones shows, as large as the rate
    assert max(float((a - two[name]).abs().max()) for name, a in one.items()) < 1e-3
    close = [torch.isclose(a, two[name], rtol=1e-4, atol=1e-5) for name, a in one.items()]
    assert float(torch.cat([c.flatten() for c in close]).float().mean()) > 0.99


def test_rows_of_a_batch() -> None:
    class Fake:
        num_processes, process_index = 4, 2

    assert own_rows(Fake(), 12) == slice(6, 9)
    with pytest.raises(ValueError, match="batch_size=10 must be a multiple of the 4 processes"):
        own_rows(Fake(), 10)


def test_draws_of_a_sample_do_not_depend_on_the_processes() -> None:
    def numbers(draws: Draws) -> list[torch.Tensor]:
        labels = draws.integers(5)
        return [
            draws.uniform(), draws.normal((2, 3)), labels, draws.permutations(4),
            draws.dropped(labels, 5, 0.5), draws.fork(7, 1).uniform(torch.float64),
        ]  # fmt: skip

    whole = numbers(Draws(3, 11, 8))
    parts = [numbers(Draws(3, 11, 8, slice(a, a + 4))) for a in (0, 4)]
    for i, value in enumerate(whole):
        assert torch.equal(torch.cat([part[i] for part in parts]), value)
    assert Draws(3, 11, 8, slice(2, 5)).count == 3
    for other in (Draws(4, 11, 8), Draws(3, 12, 8), Draws(3, 11, 8, stream=1)):
        assert not torch.equal(other.uniform(), whole[0])


def test_bf16_trains(tmp_path: Path) -> None:
    training = {"out": str(tmp_path / "out"), "mixed_precision": "bf16", "steps": 30}
    # in a process of its own: accelerate has one precision a process
    assert child_processes.run(toy_training.train_all, [training]) == 0
    lines = (tmp_path / "out.log").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines[1:]]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    state = torch.load(tmp_path / "out.state", weights_only=True)
    assert {v.dtype for v in state["network"].values()} == {torch.float32}


def test_unknown_precision() -> None:
    with pytest.raises(ValueError, match="mixed_precision must be 'no', 'bf16' or 'fp16', got 'f'"):
        FitConfig(steps=1, batch_size=1, mixed_precision="f")
