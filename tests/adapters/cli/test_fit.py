"""`quadflow fit`: a model of one's own to a file that `quadflow sample` and Python take."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

from quadflow.adapters import (
    FittedSampler,
    FittedSideNet,
    SideNet,
    SideNetConfig,
    initial_noise,
    load_sidenet,
    sample,
    save_published_sidenet,
)
from quadflow.adapters.backbones import sit, sit_checkpoints
from quadflow.adapters.backbones.sit import SiT, SiTConfig
from quadflow.adapters.cli.main import main

MODEL = """
import torch


class Swirl(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.hidden, self.output = torch.nn.Linear(3, 24), torch.nn.Linear(24, 2)

    def forward(self, x, t):
        return 2 * self.output(torch.sin(2 * self.hidden(torch.cat((x, t[:, None]), 1)))) + x


def swirl():
    return Swirl().eval()


class Bent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.hidden, self.output = torch.nn.Linear(17, 24), torch.nn.Linear(24, 16)

    def forward(self, x, t):
        told = torch.cat((x.flatten(1), t[:, None]), 1)
        return 2 * self.output(torch.sin(2 * self.hidden(told))).view_as(x) + x


def bent():
    return Bent().eval()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MODEL, encoding="utf-8")
    return tmp_path


def test_a_model_of_ones_own(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "fit --backbone mine.py:swirl --shape 2 --nfe 4 --updates 40 --pairs 64 --steps 48"
    command = [*words.split(), "--folder", "work"]
    assert main([*command, "--out", "swirl.safetensors"]) == 0
    said = capsys.readouterr().out
    assert "features: the input of output" in said
    assert "40 updates, 64 pairs a guidance scale" in said
    figures = json.loads(Path("swirl.json").read_text(encoding="utf-8"))
    (plan,) = figures["plans"]
    assert plan["fitted"] < plan["classical"]
    assert Path("swirl.png").stat().st_size > 10_000
    # the same numbers give the same file, from the pairs that are there
    first = Path("swirl.safetensors").read_bytes()
    again = FittedSampler.load("swirl.safetensors")
    assert again.figures["effort"]["updates"] == 40
    assert main([*command, "--out", "again.safetensors"]) == 0
    second = FittedSampler.load("again.safetensors")
    for name, value in again.learned.state_dict().items():
        assert torch.equal(value, second.learned.state_dict()[name]), name
    assert len(first) == Path("again.safetensors").stat().st_size
    import mine

    out = sample(mine.swirl(), initial_noise(0, 5, (2,)), method=again, nfe=4)
    assert out.stats.nfe == 4


@pytest.mark.filterwarnings("ignore:nothing learned")
def test_the_published_form(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "fit --published --backbone mine.py:bent --shape 1,4,4 --nfe 3 --updates 2 --pairs 1"
    assert main([*words.split(), "--steps", "8", "--out", "net.safetensors"]) == 0
    said = capsys.readouterr().out
    assert "start: a new SideNet" in said and "bianchor" in said
    figures = json.loads(Path("net.json").read_text(encoding="utf-8"))
    assert f"{sum(figures['evaluations'].values()):,} evaluations of the backbone" in said
    net = load_sidenet("net.safetensors")
    again = FittedSideNet.load("net.safetensors")
    assert (net.num_classes, net.config.input_size) == (0, 4)
    import mine

    noise, shift = initial_noise(0, 2, (1, 4, 4)), figures["plans"][0]["shift"]
    first = sample(mine.bent(), noise, method="bianchor", sidenet=net, nfe=3, shift=shift).x
    assert torch.equal(first, sample(mine.bent(), noise, method=again, nfe=3).x)
    # on from the file
    words += " --sidenet net.safetensors --steps 8 --out more.safetensors"
    assert main(words.split()) == 0
    assert "start: net.safetensors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backbone", "mine.py:swirl"], "does not say its shape: give --shape"),
        (["--backbone", "mine.py:nothing", "--shape", "2"], "has no 'nothing'"),
        (["--out", "sampler.pt"], "must end in .safetensors"),
        (["--shape", "3,8,8"], "the states of fashion-unet are"),
        (["--minutes", "0", "--backbone", "mine.py:swirl", "--shape", "2"], "minutes=0.0"),
        (["--published", "--form", "free"], "--form with --published: that form has no such"),
        (
            ["--published", "--no-network"],
            "--no-network with --published: that form has no such",
        ),
        (["--sidenet", "x.safetensors"], "--sidenet x.safetensors: is trained on with --published"),
        (["--published", "--sidenet", "x.safetensors"], "no weight file at x.safetensors"),
        (["--published", "--backbone", "mine.py:swirl", "--shape", "2"], "is made for states (C,"),
        (["--parts", "grid", "--backbone", "mine.py:swirl", "--shape", "2"], "'grid'"),
    ],
)
def test_refusals(
    own: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["fit", *words]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert message in told[-1]
    assert sorted(p.name for p in own.iterdir() if not p.name.startswith("_")) == ["mine.py"]


def test_files_of_samplers(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--method", "nowhere.safetensors"]) == 2
    assert "no weight file at nowhere.safetensors" in capsys.readouterr().err


def test_a_published_file_guided_within_an_interval(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From REPA's .pt to a sampler that `quadflow reproduce` takes beside BA-solver."""
    config = SiTConfig(4, width=16, depth=1, heads=2, num_classes=3)
    monkeypatch.setitem(sit_checkpoints.HEADS, (config.width, config.depth), config.heads)
    monkeypatch.setattr(sit, "sit_config", lambda _: config)
    torch.manual_seed(0)
    model = SiT(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.save({"ema": model.state_dict()}, "repa.pt")
    save_published_sidenet("side.pt", SideNet(SideNetConfig(width=8, num_classes=3)))
    words = "fit --backbone repa.pt --nfe 3 --guidance 1.8 --interval 0,0.7 --updates 16 --pairs 64"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few updates may find nothing
        assert main([*words.split(), "--steps", "24", "--out", "made.safetensors"]) == 0
    made = FittedSampler.load("made.safetensors")
    assert made.guidance.interval == (0.0, 0.7) and made.budgets == [(3, 1.8)]
    assert made.features is not None and made.features.module == "final_layer.linear"
    words = "reproduce sit-xl2 --weights repa.pt --sidenet side.pt --fitted made.safetensors"
    command = [*words.split(), "--samples", "2", "--nfe"]
    capsys.readouterr()
    assert main([*command, "3,4"]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert [r for r in rows if r[0] in ("bianchor", "fitted")] == [
        ["bianchor", "3"], ["fitted", "3"], ["bianchor", "4"],
    ]  # fmt: skip
    assert main([*command, "3", "--interval", "0,0.6", "--out", "other"]) == 2
    assert "was fitted with interval=(0.0, 0.7)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit", "--interval", "0.7"])
    assert "must look like 0,0.7" in capsys.readouterr().err


def test_a_backbone_that_is_no_network(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_published_sidenet("side.pt", SideNet(SideNetConfig(width=8, num_classes=3)))
    for file, message in (
        ("side.pt", "side.pt holds no state dict: 'side_model' is a mapping"),
        ("mine.py", "mine.py is no readable safetensors file"),
        ("gone.pt", "no weight file at gone.pt"),
    ):
        assert main(["fit", "--backbone", file]) == 2
        assert message in capsys.readouterr().err
