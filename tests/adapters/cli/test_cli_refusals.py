"""More of the command line: SideNets of one's own, and what a user can get wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from idx_files import idx_bytes, write_folder
from PIL import Image

from quadflow.adapters import SideNet, SideNetConfig
from quadflow.adapters.backbones.checkpoints import save_weights
from quadflow.adapters.backbones.pretrained import shipped
from quadflow.adapters.cli.main import main

SIDE = SideNetConfig(in_channels=1, patch=4, width=8, emb_dim=8, layers=3, heads=2, num_classes=10)


def own_sidenet(path: Path, num_classes: int = 10, bias: float = 0.0) -> Path:
    config = SideNetConfig(**(SIDE.to_dict() | {"num_classes": num_classes}))  # type: ignore[arg-type]
    torch.manual_seed(0)
    net = SideNet(config)
    torch.nn.init.constant_(net.output_conv.bias, bias)
    save_weights(path, net, config.to_dict(), dtype=torch.float16)
    return path


@pytest.mark.parametrize(
    ("labels", "size", "count"),
    [("7", (112, 112), 1), ("1,3,5..7", (560, 112), 5), ("0..9,0..2", (1120, 224), 13)],
)
def test_size_of_the_picture(
    labels: str, size: tuple[int, int], count: int, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "s.png"
    code = main(
        ["sample", "--method", "euler", "--nfe", "1", "--labels", labels, "--out", str(out)]
    )
    assert code == 0
    assert Image.open(out).size == size
    printed = capsys.readouterr().out
    assert f"{count} images by euler: 1 backbone evaluations ({count} rows" in printed
    assert str(out) in printed


def test_a_sidenet_of_ones_own(tmp_path: Path, capsys) -> None:
    """It is the file that was named that takes part."""
    pictures = {}
    for name, bias in (("still", 0.0), ("moving", 3.0)):
        side, out = own_sidenet(tmp_path / name, bias=bias), tmp_path / f"{name}.png"
        common = ["sample", "--nfe", "4", "--labels", "1,8", "--out", str(out)]
        assert main([*common, "--method", "bianchor", "--sidenet", str(side)]) == 0
        assert "2 images by bianchor: 4 backbone evaluations (8 rows" in capsys.readouterr().out
        pictures[name] = np.asarray(Image.open(out)).astype(int)
        assert main([*common, "--method", "ab2"]) == 0
        pictures["ab2"] = np.asarray(Image.open(out)).astype(int)
    # one that changes nothing makes ab2 of it, to a grey level
    assert np.abs(pictures["still"] - pictures["ab2"]).max() <= 1
    assert np.abs(pictures["moving"] - pictures["ab2"]).max() > 10


def refused(arguments: list[str], capsys) -> str:
    """The message of a command that exits with code 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    message = captured.err.splitlines()[-1]  # progress bars may stand before it
    assert message.startswith(f"quadflow {arguments[0]}: ")
    return message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "3,-1"], "labels contains -1; classes are 0 to 9"),
        (["--labels=-1"], "labels contains -1; classes are 0 to 9"),
        (["--nfe", "-2"], "nfe must be an integer >= 1, got -2"),
        (["--seed", "-5"], "seed must be an integer >= 0, got -5"),
        (["--guidance", "nan"], "scale must be finite and >= 0, got nan"),
        (["--guidance", "inf"], "scale must be finite and >= 0, got inf"),
    ],
)
def test_bad_numbers(arguments: list[str], message: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "s.png"
    assert message in refused(["sample", "--out", str(out), *arguments], capsys)
    assert not out.exists()


@pytest.mark.parametrize("text", ["0..", "ten", "", "1;2", "5..2"])
def test_bad_labels_are_a_parser_error(text: str, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sample", "--out", str(tmp_path / "s.png"), f"--labels={text}"])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert "argument --labels: labels" in message
    assert repr(text) in message


def test_damaged_and_wrong_weights(tmp_path: Path, capsys) -> None:
    whole = shipped("fashion_unet.safetensors").read_bytes()
    out = ["--out", str(tmp_path / "s.png")]
    for name, raw in (("cut", whole[:-1000]), ("noise", bytes(range(256)) * 20), ("none", b"")):
        path = tmp_path / name
        path.write_bytes(raw)
        for option in ("--backbone", "--sidenet"):
            message = refused(["sample", *out, option, str(path)], capsys)
            assert f"{path} is no readable safetensors file" in message
    unet = str(shipped("fashion_unet.safetensors"))
    assert f"{unet} holds no SideNet" in refused(["sample", *out, "--sidenet", unet], capsys)
    side = str(own_sidenet(tmp_path / "side"))
    message = refused(["sample", *out, "--backbone", side], capsys)
    assert f"{side} holds no backbone (U-Net or SiT)" in message
    other = str(own_sidenet(tmp_path / "other", num_classes=7))
    message = refused(["sample", *out, "--sidenet", other], capsys)
    assert "made for 7 classes, the backbone has 10" in message
    assert not (tmp_path / "s.png").exists()


@pytest.mark.parametrize("network", ["unet", "sidenet"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps must be positive, got 0"),
        (["--batch-size", "-4"], "batch_size must be positive, got -4"),
        (["--learning-rate", "0"], "learning_rate must be positive, got 0.0"),
        (["--ema-decay", "1"], "ema_decay must be in [0, 1), got 1.0"),
        (["--data", "nowhere"], "nowhere"),
        (["--out", "no/folder/x"], "the folder no/folder does not exist"),
    ],
)
def test_bad_training(
    network: str, arguments: list[str], message: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_folder(tmp_path / "data")
    common = ["train", network, "--data", "data", "--out", "x", "--steps", "1"]
    assert message in refused([*common, *arguments], capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chain", "0"], "length must be an integer >= 1, got 0"),
        (["--offset-rate", "-1"], "offset_rate must be positive, got -1.0"),
        (["--patch", "5"], "patch=5 does not divide the size (28, 28)"),
        (["--width", "9"], "width=9 must be a multiple of heads=4"),
        (["--patch", "0"], "patch must be an integer >= 1, got 0"),
    ],
)
def test_bad_sidenets(arguments: list[str], message: str, tmp_path: Path, capsys) -> None:
    write_folder(tmp_path)
    common = ["train", "sidenet", "--data", str(tmp_path), "--out", str(tmp_path / "x")]
    short = ["--preset", "small", "--steps", "1", "--batch-size", "2", "--width", "8"]
    assert message in refused([*common, *short, *arguments], capsys)
    assert not (tmp_path / "x").exists()


def test_data_that_no_network_takes(tmp_path: Path, capsys) -> None:
    command = ["--data", str(tmp_path), "--out", str(tmp_path / "x"), "--steps", "1"]
    write_folder(tmp_path, size=10)
    message = refused(["train", "unet", *command], capsys)
    assert "the sides of x, (10, 10), are no multiples of 4" in message
    write_folder(tmp_path, count=3)
    message = refused(["train", "sidenet", *command], capsys)
    assert "sidenet has 1 channels and 10 classes; the data have 1 and 3" in message
    for kind, shape in (("images-idx3", (0, 28, 28)), ("labels-idx1", (0,))):
        (tmp_path / f"train-{kind}-ubyte").write_bytes(idx_bytes(np.zeros(shape)))
    assert "holds no train images" in refused(["train", "unet", *command], capsys)


def test_a_training_that_diverges_is_an_error_and_leaves_no_file(tmp_path: Path, capsys) -> None:
    write_folder(tmp_path)
    out = tmp_path / "x"
    message = refused(
        ["train", "unet", "--data", str(tmp_path), "--out", str(out), "--steps", "8",
         "--batch-size", "2", "--learning-rate", "1e30"], capsys,
    )  # fmt: skip
    assert message.startswith("quadflow train: the loss is ")
    assert "at step" in message
    assert not out.exists()
