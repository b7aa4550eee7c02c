"""UniPC of diffusers against the flow in closed form; the runner adds nothing but a clock."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch
from small_sidenets import CLASSES, LABELS, STATE, random_sidenet, relative, reversed_time
from torch import Tensor, nn
from toyflow import Calls, Toy, seeded

from quadflow.adapters import SAMPLERS, FlowField, Guidance, sample, time_grid
from quadflow.adapters.sampling.converged import tight_solve
from quadflow.analysis.images.peers import PEERS, TimedSideNet, run_sampler
from quadflow.plans.anchors.method import adams

TOY = Toy(gap=0.0)
GUIDED = Guidance(1.5, CLASSES)
NOISE = seeded(*STATE)


class ToyBackbone(nn.Module):
    num_classes = CLASSES

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return TOY.velocity(x, t, y)


MODEL = ToyBackbone()


@pytest.mark.parametrize("guidance", [None, GUIDED])
@pytest.mark.parametrize("nfe", [1, 2, 3, 8])
def test_unipc_calls_the_network_nfe_times(nfe: int, guidance: Guidance | None) -> None:
    calls = Calls(MODEL)
    run = run_sampler("unipc", calls, NOISE, LABELS, nfe=nfe, guidance=guidance)
    rows = len(NOISE) * (2 if guidance else 1)
    assert len(calls) == run.nfe == nfe
    assert sum(len(x) for x, _, _ in calls) == run.rows == nfe * rows
    assert run.x.dtype == NOISE.dtype and bool(torch.isfinite(run.x).all())
    assert run.sidenet_seconds == 0 < run.seconds


def test_unipc_ends_where_the_flow_does() -> None:
    """Second order, towards the closed form, which no solver had a hand in."""
    wanted = TOY.flow(NOISE, 0.0, LABELS)
    errors = [
        relative(run_sampler("unipc", MODEL, NOISE, LABELS, nfe=n).x, wanted) for n in (32, 64, 128)
    ]
    ratios = [a / b for a, b in itertools.pairwise(errors)]
    assert all(3.5 < ratio < 5 for ratio in ratios), (errors, ratios)
    ours = tight_solve(FlowField(MODEL, "repa", LABELS), NOISE)
    assert relative(ours, wanted) < 1e-6
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("guidance", [None, GUIDED])
def test_unipc_is_the_same_in_both_directions_of_time(guidance: Guidance | None) -> None:
    runs = [
        run_sampler(
            "unipc", model, NOISE, LABELS, nfe=6, guidance=guidance, convention=name, shift=1.7
        ).x
        for name, model in (("repa", MODEL), ("sit", reversed_time(MODEL)))
    ]
    assert relative(runs[1], runs[0]) < 1e-12


def test_unipc_goes_to_the_guided_end() -> None:
    wanted = tight_solve(FlowField(MODEL, "repa", LABELS, GUIDED), NOISE)
    plain = TOY.flow(NOISE, 0.0, LABELS)
    got = run_sampler("unipc", MODEL, NOISE, LABELS, nfe=64, guidance=GUIDED).x
    assert relative(got, wanted) < 0.01 < relative(plain, wanted)


@pytest.mark.parametrize("shift", [0.6, 1.0, 2.5])
def test_unipc_evaluates_on_the_shifted_grid(shift: float) -> None:
    calls = Calls(MODEL)
    run_sampler("unipc", calls, NOISE, LABELS, nfe=5, shift=shift)
    times = [float(t[0]) for _, t, _ in calls]
    uniform = np.linspace(1, 0, 6)[:-1]
    assert times == pytest.approx(shift * uniform / (1 + (shift - 1) * uniform), abs=1e-12)
    assert times == pytest.approx(time_grid(5, shift=shift)[:-1], abs=1e-12)


@pytest.mark.parametrize("guidance", [None, GUIDED])
@pytest.mark.parametrize("method", sorted(SAMPLERS))
def test_our_samplers_are_run_as_they_are(method: str, guidance: Guidance | None) -> None:
    assert method not in PEERS
    net = random_sidenet(1)
    options = {"nfe": 4, "guidance": guidance, "convention": "sit", "shift": 1.5}
    model = reversed_time(MODEL)
    run = run_sampler(method, model, NOISE, LABELS, sidenet=net, **options)
    wanted = sample(model, NOISE, LABELS, method=method, sidenet=net, **options)
    assert torch.equal(run.x, wanted.x)
    assert (run.nfe, run.rows) == (wanted.stats.nfe, wanted.rows) == (4, wanted.rows)
    assert (run.sidenet_seconds > 0) == (method in ("bianchor", "single-anchor"))
    assert run.sidenet_seconds < run.seconds


def test_a_method_that_spends_another_budget_is_not_judged() -> None:
    def dearer(field, nfe, sidenet):
        return adams(1), nfe + 1

    with pytest.raises(RuntimeError, match="used 4 evaluations, asked for 3"):
        run_sampler(dearer, MODEL, NOISE, LABELS, nfe=3)


def test_unipc_refuses_what_sample_refuses() -> None:
    for nfe in (0, -1):
        with pytest.raises(ValueError, match="must be an integer >= 1"):
            run_sampler("unipc", MODEL, NOISE, LABELS, nfe=nfe)
    with pytest.raises(ValueError, match="'unipcc' is unknown"):
        run_sampler("unipcc", MODEL, NOISE, LABELS, nfe=2)


class Slow(nn.Module):
    num_classes = CLASSES

    def forward(self, x: Tensor, v: Tensor, t: Tensor, h: Tensor, y: Tensor) -> Tensor:
        time.sleep(0.01)
        return 0.1 * v


def test_the_clock_counts_the_sidenet_alone() -> None:
    timed = TimedSideNet(Slow())
    assert (timed.num_classes, timed.seconds) == (CLASSES, 0)
    x, v = seeded(*STATE), seeded(*STATE, seed=1)
    t, h = torch.full((3,), 0.5), torch.full((3,), 0.1)
    for count in (1, 2):
        assert torch.equal(timed(x, v, t, h, LABELS), 0.1 * v)
        assert timed.seconds >= 0.01 * count
    run = run_sampler("bianchor", MODEL, NOISE, LABELS, nfe=3, sidenet=Slow())
    # from each of three starts ahead, from each of two ends back: the last interval has no end
    assert 0.05 <= run.sidenet_seconds < run.seconds
    assert TimedSideNet(nn.Identity()).num_classes is None
