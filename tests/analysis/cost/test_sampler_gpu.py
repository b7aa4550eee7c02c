"""The benchmark of samplers at the published size, tried on a tiny one: counts, not times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quadflow.adapters import Guidance, initial_noise, sample
from quadflow.adapters.backbones import sit
from quadflow.adapters.backbones.sit import SiTConfig
from quadflow.analysis.benchmarks import sampler_gpu
from quadflow.analysis.images import flops

TINY = SiTConfig(8, width=48, depth=2, heads=4, num_classes=5)


@pytest.mark.parametrize("scale", [1.0, 1.8])
def test_a_row_for_every_method_batch_and_dtype(scale: float) -> None:
    rows = sampler_gpu.measure(TINY, device="cpu", batches=(1, 3), guidance=scale, nfe=3, repeats=1)
    names = ["euler", "pec2", "bianchor", "fitted"]
    assert [(r["dtype"], r["batch"], r["method"]) for r in rows] == [
        (d, b, m) for d in ("bfloat16", "float32") for b in (1, 3) for m in names
    ]
    assert all(r["ms"] > 0 and r["memory_mib"] is None for r in rows)
    for row in rows:
        assert (row["share"] > 0) == (row["method"] == "bianchor")
    assert all(r["ratio"] == 1 for r in rows if r["method"] == "euler")
    text = sampler_gpu.times_table(rows)
    assert text.count("\n") == 2 + len(rows) - 1


def test_the_fitted_sampler_is_one_that_asks_its_network() -> None:
    """With features, and with an effect: the same plan without them would give something else."""
    networks = sampler_gpu.random_networks(TINY, 1.8, (3,))
    fitted = networks.fitted
    assert fitted is not None and fitted.learned.network is not None
    assert fitted.features is not None and fitted.features.module == "final_layer.linear"
    assert fitted.budgets == [(3, 1.8)]
    noise, labels = initial_noise(0, 2, networks.shape), torch.tensor([0, 4])
    calls: list[int] = []
    fitted.learned.network.register_forward_hook(lambda *_: calls.append(1))
    found = sample(networks.model.eval(), noise, labels, method=fitted, nfe=3,
                   guidance=Guidance(1.8, 5))  # fmt: skip
    assert found.stats.nfe == len(calls) == 3
    assert bool(found.x.isfinite().all())


def test_nothing_is_begun_when_time_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert sampler_gpu.measure(TINY, device="cpu", repeats=1, seconds=-1) == []
    assert capsys.readouterr().err.count("left out") == 6


def test_what_does_not_fit_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, batch: int, **__: Any) -> list[dict[str, Any]]:
        if batch > 1:
            raise torch.OutOfMemoryError("no memory")
        return [{"batch": batch}]

    monkeypatch.setattr(sampler_gpu, "sampler_times", full)
    rows = sampler_gpu.measure(TINY, device="cpu", dtypes=("float32",))
    assert rows == [{"dtype": "float32", "batch": 1}]
    assert capsys.readouterr().err.count("does not fit into memory: float32, batch") == 2


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (sampler_gpu, flops):
        monkeypatch.setattr(module, "sit_config", lambda _: TINY)
    out = tmp_path / "times.json"
    words = "--device cpu --batches 2 --dtypes float32 --repeats 1 --nfe 2 --out"
    sampler_gpu.main([*words.split(), str(out)])
    record = json.loads(out.read_text())
    assert record["size"] == "SiT-XL/2" and len(record["rows"]) == 4
    assert record["flops"] == flops.published_size_flops()
    said = capsys.readouterr().out
    assert "fitted: " in said and "| bianchor | float32 | 2 |" in said
    for wrong, message in (
        (["--device", "cuda"], "torch sees no GPU"),
        (["--device", "cpu", "--out", str(tmp_path / "no" / "x.json")], "no such folder"),
    ):
        if wrong[1] == "cuda" and torch.cuda.is_available():
            continue
        with pytest.raises(SystemExit):
            sampler_gpu.main(wrong)
        assert message in capsys.readouterr().err


def test_the_published_size_is_the_default() -> None:
    assert sit.SIT_CONFIGS["SiT-XL/2"] == SiTConfig()
