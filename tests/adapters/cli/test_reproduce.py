"""`quadflow reproduce`: a dry run, files as published on tiny shapes, refusals before the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from quadflow.adapters import SideNet, SideNetConfig, save_published_sidenet
from quadflow.adapters.backbones import sit, sit_checkpoints
from quadflow.adapters.backbones.sit import SIT_CONFIGS, SiT, SiTConfig
from quadflow.adapters.cli.main import main
from quadflow.adapters.cli.reproduce import SIZES

TINY = SiTConfig(8, width=48, depth=2, heads=4, num_classes=3)
COMMAND = ["reproduce", "sit-xl2"]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in a world where every published size is a tiny one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sit, "sit_config", lambda _: TINY)
    monkeypatch.setitem(sit_checkpoints.HEADS, (TINY.width, TINY.depth), TINY.heads)
    return tmp_path


def write_files(config: SiTConfig = TINY, channels: int = 4) -> list[str]:
    torch.save({"ema": SiT(config).state_dict(), "steps": 1}, "repa.pt")
    side = SideNetConfig(in_channels=channels, width=8, num_classes=config.num_classes)
    save_published_sidenet("side.pt", SideNet(side))
    return ["--weights", "repa.pt", "--sidenet", "side.pt"]


def test_sizes_are_the_published_ones() -> None:
    assert tuple(SIT_CONFIGS) == SIZES


def test_a_dry_run(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--dry-run", "--samples", "2"]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines()]
    assert [r[:3] for r in rows[1:7]] == [
        [m, n, f if m == "bianchor" else "–"]
        for n, f in (("5", "2.84"), ("7", "1.96"), ("8", "1.85"))
        for m in ("bianchor", "fitted")
    ]
    assert "latents alone" in said
    for row in rows[1:7]:
        found = np.load(Path(row[-1]) / "000000.npy")
        assert found.shape == (2, 4, 8, 8) and bool(np.isfinite(found).all())
    # the same command goes on: nothing is left to do, and the weights are the same ones
    before = {p: p.stat().st_mtime_ns for p in tiny.rglob("*.npy")}
    assert main([*COMMAND, "--dry-run", "--samples", "2"]) == 0
    assert {p: p.stat().st_mtime_ns for p in tiny.rglob("*.npy")} == before


def test_files_as_published(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diffusers = pytest.importorskip("diffusers")
    vae = diffusers.AutoencoderKL(latent_channels=4, block_out_channels=(8,), norm_num_groups=4)
    vae.save_pretrained("vae")
    command = [*COMMAND, *write_files(), "--nfe", "5", "--samples", "4", "--out", "made"]
    assert main(command) == 0
    assert main([*command, "--vae", "vae"]) == 0
    said = capsys.readouterr().out
    assert "--weights: the ema weights, convention repa" in said
    assert "published figures are of 50000 samples and trained weights, not of these 4" in said
    with np.load("made/bianchor-5.npz") as file:
        assert file["arr_0"].shape == (4, 8, 8, 3) and file["arr_0"].dtype == np.uint8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --weights and --sidenet, the published files, or --dry-run"),
        (["--weights", "gone.pt", "--sidenet", "gone.pt"], "no weight file at gone.pt"),
        (["--dry-run", "--weights", "gone.pt"], "--dry-run takes random weights"),
        (["--dry-run", "--samples", "-1"], "samples must be an integer >= 1, got -1"),
        (["--dry-run", "--guidance", "-1"], "scale must be finite and >= 0"),
        (["--dry-run", "--vae", "."], "vae='.' is no AutoencoderKL of diffusers"),
        (["--dry-run", "--nfe", "5", "--out", "no/where/x"], ""),
    ],
)
def test_refusals(
    tiny: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*COMMAND, *words])
    if not message:
        assert code == 0
        return
    assert code == 2 and message in capsys.readouterr().err
    assert not list(tiny.rglob("*.npy"))


def test_files_that_do_not_fit(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = SiTConfig(8, width=48, depth=2, heads=4, num_classes=4)
    assert main([*COMMAND, *write_files(other)]) == 2
    said = capsys.readouterr().err
    assert "must be a SiT of width 48" in said and "8, 4 classes" in said
    assert main([*COMMAND, *write_files(channels=3)]) == 2
    assert "is for 3 channels and 3 classes, the backbone has 4 and 3" in capsys.readouterr().err
    files = write_files()
    assert main([*COMMAND, "--weights", files[3], "--sidenet", files[1]]) == 2  # the wrong way
    assert "side.pt holds no state dict" in capsys.readouterr().err
    assert main([*COMMAND, *files, "--fitted", "repa.pt"]) == 2
    assert "is no readable safetensors file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*COMMAND, *files, "--interval", "0.7,0"])
    assert "low before high" in capsys.readouterr().err
    assert not list(tiny.rglob("*.npy"))
