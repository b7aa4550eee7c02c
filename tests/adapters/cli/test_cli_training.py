"""`quadflow train`: data of every kind, resuming, pictures, presets, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from idx_files import write_folder
from PIL import Image

from quadflow.adapters import load_sidenet
from quadflow.adapters.cli.main import main, make_parser
from quadflow.adapters.cli.train import PRESETS

TINY = ["--steps", "4", "--batch-size", "2", "--width", "8", "--emb-dim", "8", "--patch", "4",
        "--chain", "2"]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_folder(tmp_path / "data")
    return tmp_path


def test_the_defaults_are_the_published_ones() -> None:
    arguments = make_parser(["train"]).parse_args(
        ["train", "sidenet", "--data", "none", "--out", "x"]
    )
    assert (arguments.chain, arguments.towards_data, arguments.label_dropout) == (8, 0.5, 0.1)
    assert (arguments.nodes, arguments.clip_norm, arguments.preset) == (3, 1.0, "published")
    published = PRESETS["published"]
    assert (published["offset_rate"], published["learning_rate"]) == (50.0, 1e-4)
    assert (published["ema_decay"], published["patch"], published["width"]) == (0.9996, 1, 256)
    assert PRESETS["small"].keys() == published.keys()


def log_header(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text().splitlines()[0])


def test_no_data_at_all(here: Path) -> None:
    command = ["train", "sidenet", "--preset", "small", "--data", "none", "--out", "side.st", *TINY]
    assert main([*command, "--log", "log", "--samples", "pictures", "--samples-every", "2"]) == 0
    assert load_sidenet("side.st").config.input_size == 28
    header = log_header(here / "log")
    assert header["config"]["learning_rate"] == 1e-3  # of the preset
    assert header["config"]["steps"] == 4  # said explicitly
    assert header["fingerprint"]["chain.offset_rate"] == 8.0
    assert "trajectories" in header["fingerprint"]["data"]
    pictures = sorted((here / "pictures").iterdir())
    assert [p.name for p in pictures] == ["step-000002.png", "step-000004.png"]
    assert Image.open(pictures[0]).size == (280, 56)


def test_an_unlabelled_backbone(here: Path) -> None:
    command = ["train", "sidenet", "--backbone", "galaxygrad:hsc-32", "--data", "none"]
    assert main([*command, "--out", "side.st", *TINY, "--samples", "pictures"]) == 0
    config = load_sidenet("side.st").config
    assert (config.num_classes, config.in_channels, config.input_size) == (0, 1, 32)
    assert [p.name for p in (here / "pictures").iterdir()] == ["step-000004.png"]


def test_resume(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "sidenet", "--data", "data", *TINY, "--checkpoint-every", "2",
               "--log-every", "1"]  # fmt: skip
    assert main([*command, "--out", "whole", "--log", "whole.log"]) == 0
    state = torch.load("whole.state", weights_only=True)
    assert state["step"] == 4 and state["fingerprint"]["seed"] == 0
    # a longer one that stands at step 4 of 6
    assert main([*command, "--out", "part", "--log", "part.log"]) == 0
    longer = [*command, "--out", "part", "--log", "part.log", "--steps", "6"]
    assert main([*longer, "--resume"]) == 0
    steps = [json.loads(line).get("step") for line in Path("part.log").read_text().splitlines()]
    assert steps == [None, 1, 2, 3, 4, 5, 6]
    capsys.readouterr()
    assert main([*longer, "--resume", "--seed", "3"]) == 2
    assert "seed is 0 there and 3 here" in capsys.readouterr().err
    state["fingerprint"]["steps"] = 9  # unfinished
    torch.save(state, "part.state")
    before = Path("part").read_bytes()
    assert main(longer) == 2
    assert "--resume" in capsys.readouterr().err
    assert Path("part").read_bytes() == before
    assert main([*longer, "--overwrite"]) == 0


def test_sit_then_its_sidenet(here: Path) -> None:
    command = ["train", "sit", "--data", "data", "--out", "sit.st", "--steps", "2",
               "--batch-size", "2", "--width", "16", "--depth", "2", "--heads", "2"]  # fmt: skip
    assert main([*command, "--samples", "pictures"]) == 0
    assert [p.name for p in (here / "pictures").iterdir()] == ["step-000002.png"]
    command = ["train", "sidenet", "--backbone", "sit.st", "--out", "side.st", *TINY]
    assert main([*command, "--data", "none"]) == 0
    assert main([*command, "--data", "data"]) == 0


def test_pictures_and_tensor_files(here: Path) -> None:
    for label in range(10):
        folder = here / "pictures" / str(label)
        folder.mkdir(parents=True)
        Image.new("RGB", (40, 30), (25 * label,) * 3).save(folder / "0.png")
    torch.save({"images": torch.zeros(3, 1, 28, 28)}, "data.pt")
    command = ["train", "sidenet", "--out", "side.st", *TINY]
    sized = ["--channels", "1", "--image-size", "28"]
    assert main([*command, "--data", "pictures", *sized]) == 0
    assert main([*command, "--data", "pictures", *sized, "--unlabelled"]) == 0
    assert main([*command, "--data", "data.pt"]) == 0
    command = ["train", "unet", "--out", "unet.st", "--steps", "1", "--batch-size", "2"]
    assert main([*command, "--data", "pictures", *sized]) == 0


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        ("unet", ["--data", "none"], "--data none: a backbone is trained on images"),
        ("sit", ["--data", "none"], "--data none: a backbone is trained on images"),
        ("sit", ["--patch", "5"], "patch=5 does not divide input_size=28"),
        ("sidenet", ["--data", "nothing"], "no folder or file of images at nothing"),
        ("sidenet", ["--resume", "--overwrite"], "give one"),
        ("sidenet", ["--checkpoint-every", "0"], "checkpoint_every must be an integer >= 1, got 0"),
        ("sidenet", ["--log", "no/folder/log"], "--log no/folder/log: the folder of it does not"),
        ("sidenet", ["--samples", "data/train-images-idx3-ubyte"], "is a file, must be a folder"),
        ("sidenet", ["--decay", "linear"], "decay must be 'none' or 'cosine', got 'linear'"),
        ("sidenet", ["--towards-data", "2"], "towards_data must be in [0, 1], got 2.0"),
        ("sidenet", ["--nodes", "0"], "nodes must be an integer >= 1, got 0"),
        ("sidenet", ["--warmup", "-1"], "warmup must be >= 0, got -1"),
        ("sidenet", ["--convention", "repaa"], "convention='repaa' is unknown"),
        ("sidenet", ["--backbone", "missing.st"], "no weight file at missing.st"),
        ("sidenet", ["--backbone", "galaxygrad:hsc-32"], "give --data none, not data"),
        ("sidenet", ["--image-size", "32"], "images of (28, 28), not size=32"),
        ("sidenet", ["--channels", "3"], "has 1 channels, not channels=3"),
    ],
)
def test_refusals(
    network: str, arguments: list[str], message: str, here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = ["train", network, "--data", "data", "--out", "x", "--steps", "1"]
    assert main([*command, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in here.iterdir()] == ["data"]


def test_without_a_size(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "unet", "--data", "data", "--out", "unet.st", "--steps", "1",
               "--batch-size", "2"]  # fmt: skip
    assert main(command) == 0
    command = ["train", "sidenet", "--backbone", "unet.st", "--data", "none", "--out", "s", *TINY]
    assert main(command) == 2
    assert "the backbone does not say its shape: give --image-size" in capsys.readouterr().err
    assert main([*command, "--image-size", "28"]) == 0
