"""The published table made again, on tiny networks: what is sampled, kept, decoded and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from quadflow.adapters import Guidance, initial_noise, sample
from quadflow.adapters.backbones.sit import SiTConfig
from quadflow.analysis.benchmarks.sampler_gpu import Networks, random_networks
from quadflow.analysis.images import published_table
from quadflow.analysis.images.distribution import save_adm_npz
from quadflow.analysis.images.published_table import PUBLISHED, Reproduction, load_decoder

TINY = SiTConfig(8, width=48, depth=2, heads=4, num_classes=3)


@pytest.fixture(scope="module")
def networks() -> Networks:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return random_networks(TINY, 1.8, (2, 5), (0.0, 0.6)).to("cpu", torch.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_table, "BLOCK", 3)


def work(networks: Networks, folder: Path, **changed: Any) -> Reproduction:
    n = networks
    given = {"nfes": (2, 3), "samples": 7, "batch_size": 2, "interval": (0.0, 0.6), **changed}
    return Reproduction(n.model, n.sidenet, n.shape, n.num_classes, folder, n.fitted, **given)


def decode(latents: Tensor) -> Tensor:
    return (latents[:, :3] * 0.8).repeat_interleave(2, dim=-1)


def latents(folder: Path, run: str) -> Tensor:
    files = sorted((folder / run / "latents").glob("*.npy"))
    return torch.from_numpy(np.concatenate([np.load(f) for f in files]))


def test_latents_are_those_of_sample(networks: Networks, tmp_path: Path) -> None:
    """Of the guidance, the interval and the labels that were asked for, whatever the batches."""
    made = work(networks, tmp_path)
    assert made.runs == [("bianchor", 2), ("fitted", 2), ("bianchor", 3)]
    ticks: list[int] = []
    made.make_latents(ticks.append)
    assert ticks == [3, 3, 1] * 3
    noise, labels = initial_noise(0, 7, networks.shape), torch.arange(7) % 3
    for method, nfe in made.runs:
        sampler: Any = networks.fitted if method == "fitted" else method
        wanted = sample(
            networks.model, noise, labels, method=sampler, nfe=nfe, sidenet=networks.sidenet,
            guidance=Guidance(1.8, 3, (0.0, 0.6)),
        ).x  # fmt: skip
        torch.testing.assert_close(latents(tmp_path, f"{method}-{nfe}"), wanted)
    assert not torch.equal(latents(tmp_path, "bianchor-2"), latents(tmp_path, "fitted-2"))


def test_what_is_there_stays_and_the_rest_is_made(
    networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    whole = work(networks, one)
    whole.make_latents()
    whole.make_images(decode, "mine")
    real, calls = Reproduction._sample, [0]

    def dies(self: Reproduction, *given: Any) -> Tensor:
        calls[0] += 1
        if calls[0] == 5:
            raise KeyboardInterrupt
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Reproduction, "_sample", dies)
        with pytest.raises(KeyboardInterrupt):
            work(networks, two).make_latents()
    assert not list(two.rglob("*.part"))
    before = {p: p.stat().st_mtime_ns for p in two.rglob("*.npy")}
    assert len(before) == 4
    again = work(networks, two)
    again.make_latents()
    assert before.items() <= {p: p.stat().st_mtime_ns for p in two.rglob("*.npy")}.items()

    def dies_too(x: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == 8:
            raise KeyboardInterrupt
        return decode(x)

    with pytest.raises(KeyboardInterrupt):
        again.make_images(dies_too, "mine")
    assert not list(two.glob("*.npz"))
    again.make_images(decode, "mine")
    for method, nfe in whole.runs:
        assert whole.npz(method, nfe).read_bytes() == again.npz(method, nfe).read_bytes()
    assert not list(two.rglob("images"))


def test_npz_is_what_the_evaluator_reads(networks: Networks, tmp_path: Path) -> None:
    made = work(networks, tmp_path, nfes=(2,))
    made.make_latents()
    made.make_images(decode, "mine")
    save_adm_npz(tmp_path / "wanted.npz", decode(latents(tmp_path, "bianchor-2")).clamp(-1, 1))
    with np.load(made.npz("bianchor", 2)) as mine, np.load(tmp_path / "wanted.npz") as wanted:
        assert mine.files == ["arr_0"] and mine["arr_0"].shape == (7, 8, 16, 3)
        assert np.array_equal(mine["arr_0"], wanted["arr_0"])
    written = made.npz("bianchor", 2).stat().st_mtime_ns
    made.make_images(decode, "mine")
    assert made.npz("bianchor", 2).stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="another setting: vae 'mine', not 'other'"):
        made.make_images(decode, "other")


def test_the_table_has_the_published_figures(networks: Networks, tmp_path: Path) -> None:
    made = work(networks, tmp_path, nfes=(5, 7, 8))
    lines = made.table().splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["bianchor", "5", "2.84"], ["fitted", "5", "–"], ["bianchor", "7", "1.96"],
        ["bianchor", "8", "1.85"],
    ]  # fmt: skip
    assert PUBLISHED == {5: 2.84, 7: 1.96, 8: 1.85}
    assert str(tmp_path / "bianchor-5" / "latents") in lines[1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"samples": 0}, "samples must be an integer >= 1"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
        ({"nfes": (7,)}, "has none of nfe 7 at guidance 1.8, but 2 at guidance 1.8, 5 at"),
        ({"guidance": 1.5}, "has none of nfe 2, 3 at guidance 1.5"),
    ],
)
def test_refusals(
    networks: Networks, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        work(networks, tmp_path / "new", **changed)
    assert not (tmp_path / "new").exists()


def test_another_setting_is_refused(networks: Networks, tmp_path: Path) -> None:
    networks = replace(networks, fitted=None)  # which has an interval of its own
    work(networks, tmp_path)
    for changed, message in (
        ({"seed": 1}, "seed 0, not 1"),
        ({"interval": (0.0, 0.7)}, r"interval \[0.0, 0.6\], not \[0.0, 0.7\]"),
        ({"samples": 8}, "samples 7, not 8"),
    ):
        with pytest.raises(ValueError, match=f"was made with another setting: {message}"):
            work(networks, tmp_path, **changed)
    work(networks, tmp_path, batch_size=7)


def test_a_sampler_that_was_fitted_elsewhere(networks: Networks, tmp_path: Path) -> None:
    fitted = networks.fitted
    assert fitted is not None
    with pytest.raises(ValueError, match="was fitted with interval=\\(-inf, inf\\)"):
        work(replace(networks, fitted=replace(fitted, guidance=Guidance())), tmp_path)
    other = replace(networks, fitted=replace(fitted, convention="sit"))
    with pytest.raises(ValueError, match="fitted to a backbone of convention 'sit'"):
        work(other, tmp_path)


def test_out_of_memory_names_the_knob(
    networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(published_table, "sample", full)
    with pytest.raises(ValueError, match="batch_size=2 does not fit into the memory of cpu"):
        work(networks, tmp_path).make_latents()
    assert not list(tmp_path.rglob("*.npy"))


def tiny_vae(folder: Path, channels: int = 4) -> str:
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = diffusers.AutoencoderKL(
            latent_channels=channels, block_out_channels=(8,), norm_num_groups=4
        )
    vae.save_pretrained(folder)
    return str(folder)


def test_decoders(tmp_path: Path) -> None:
    name = tiny_vae(tmp_path / "vae")
    found = load_decoder(name, 4, "cpu")
    with torch.no_grad():
        image = found(torch.ones(1, 4, 8, 8))
        vae = pytest.importorskip("diffusers").AutoencoderKL.from_pretrained(name)
        assert torch.equal(image, vae.decode(torch.ones(1, 4, 8, 8) / 0.18215).sample)
    with pytest.raises(ValueError, match="decodes latents of 4 channels, must be 16"):
        load_decoder(name, 16, "cpu")
    with pytest.raises(ValueError, match="is no AutoencoderKL of diffusers"):
        load_decoder(str(tmp_path), 4, "cpu")
