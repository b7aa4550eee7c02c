"""The command line: what it writes, what it prints, what it refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from idx_files import write_folder
from PIL import Image

import quadflow as qf
from quadflow.adapters import SAMPLERS
from quadflow.adapters.cli.arguments import parse_labels
from quadflow.adapters.cli.main import main


@pytest.mark.parametrize("method", [*sorted(SAMPLERS), "fitted"])
def test_sample(method: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "samples.png"
    code = main(["sample", "--nfe", "3", "--method", method, "--labels", "0..9", "--guidance", "2",
                 "--seed", "0", "--out", str(out)])  # fmt: skip
    assert code == 0
    printed = capsys.readouterr().out
    assert f"10 images by {method}: 3 backbone evaluations, each a guided pair (60 rows" in printed
    picture = Image.open(out)
    assert picture.size == (10 * 28 * 4, 28 * 4)
    pixels = np.asarray(picture)
    assert pixels.min() < 30 and pixels.max() > 200  # dark ground, light things
    assert [p.name for p in tmp_path.iterdir()] == ["samples.png"]


def test_the_same_seed_gives_the_same_picture(tmp_path: Path) -> None:
    pictures = []
    for i, seed in enumerate((4, 4, 5)):
        out = tmp_path / f"{i}.png"
        main(["sample", "--nfe", "2", "--labels", "1,8", "--seed", str(seed), "--out", str(out)])
        pictures.append(out.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize(
    ("text", "labels"),
    [("0..9", list(range(10))), ("7", [7]), ("1,3,5..7", [1, 3, 5, 6, 7]), ("2,2", [2, 2])],
)
def test_labels(text: str, labels: list[int]) -> None:
    assert parse_labels(text) == labels


@pytest.mark.parametrize("text", ["", "a", "1..", "..3", "1,,2", "1.5"])
def test_bad_labels(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"must look like 0\.\.9"):
        parse_labels(text)
    with pytest.raises(argparse.ArgumentTypeError, match=r"run backwards in '5\.\.2'"):
        parse_labels("1,5..2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "8..10"], "labels contains 10; classes are 0 to 9"),
        (["--nfe", "0"], "nfe must be an integer >= 1, got 0"),
        (["--guidance", "-1"], "scale must be finite and >= 0, got -1.0"),
        (["--backbone", "missing.safetensors"], "no weight file at missing.safetensors"),
        (["--sidenet", "missing.safetensors"], "no weight file at missing.safetensors"),
        (["--out", "no/such/folder/x.png"], "the folder no/such/folder does not exist"),
        (["--out", "."], "--out . is a folder, must be a file"),
    ],
)
def test_refusals(arguments: list[str], message: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sample", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unknown_method_is_refused_by_the_parser(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sample", "--method", "eulr"])
    assert caught.value.code == 2
    assert "'eulr'" in capsys.readouterr().err


def test_methods_lists_every_method(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["methods"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100 and lines[-1].startswith("takes: a adaptive")
    rows = {line.split()[0]: line for line in lines[:-2]}
    assert set(rows) == set(qf.methods())
    for name, line in rows.items():
        words = line[head.index("what it is") :]
        assert words == qf.get_method(name).description and len(words) > 10, name
    assert rows["lobatto4"].split()[1:5] == ["sweeps", "6", "5", "afsc"]
    assert rows["euler"].split()[1:5] == ["anchors", "1", "1", "-f--"]
    assert rows["adams"].split()[1:6] == ["variable", "order", "2-13", "2-13", "a---"]
    assert "Dormand & Prince 5(4), 7 stages, FSAL (1980)" in rows["dopri5"]


def test_train_then_sample(tmp_path: Path, capsys) -> None:
    """Both training commands on a tiny folder; what they write is what sampling takes."""
    data, unet, side = tmp_path / "data", tmp_path / "unet.st", tmp_path / "side.st"
    data.mkdir()
    write_folder(data)
    common = ["--data", str(data), "--steps", "2", "--batch-size", "2"]
    log = tmp_path / "log.jsonl"
    assert main(["train", "unet", *common, "--out", str(unet), "--log", str(log)]) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["config"]["steps"] == 2 and lines[-1]["step"] == 2
    assert lines[-1]["loss"] > 0
    arguments = ["--out", str(side), "--backbone", str(unet), "--width", "8", "--chain", "2"]
    assert main(["train", "sidenet", "--preset", "small", *common, *arguments]) == 0
    out = tmp_path / "s.png"
    assert main(["sample", "--nfe", "2", "--labels", "3", "--backbone", str(unet), "--sidenet",
                 str(side), "--image-size", "28", "--out", str(out)]) == 0  # fmt: skip
    assert Image.open(out).size == (112, 112)


def test_training_without_data_says_what_is_missing(tmp_path: Path, capsys) -> None:
    code = main(["train", "unet", "--data", str(tmp_path), "--out", str(tmp_path / "x")])
    assert code == 2
    assert "train-images-idx3-ubyte" in capsys.readouterr().err
