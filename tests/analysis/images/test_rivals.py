"""What rivals are allowed (best grids, tuned parameters, calibrated grids), kept references."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_sidenets import CLASSES, SMALL
from torch import Tensor, nn
from toyflow import Calls, Toy, seeded

import quadflow as qf
from quadflow.adapters import FlowField, Guidance, initial_noise, sample, time_grid
from quadflow.adapters.backbones.registry import NamedBackbone
from quadflow.adapters.sampling.converged import converged, rmse
from quadflow.analysis.images import reference_cache
from quadflow.analysis.images.best_grid import SHIFTS, WIDEST, best_choice
from quadflow.analysis.images.cab import ADAMS, cab_plan
from quadflow.analysis.images.evaluation import JudgedBackbone, Terms, evaluate
from quadflow.analysis.images.peers import run_sampler
from quadflow.analysis.images.reference_cache import CHUNK, fingerprint, references
from quadflow.analysis.images.rivals import CAB, Rival, grid_of
from quadflow.analysis.images.scores import rows_on, table

TOY = Toy(gap=0.3)
SHAPE = (SMALL.in_channels, 4, 4)
LABELS = torch.arange(4)
NOISE = seeded(4, *SHAPE)


class ToyBackbone(nn.Module):
    num_classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return TOY.velocity(x, t, y)


BACKBONE = NamedBackbone("toy", ToyBackbone(), SHAPE, CLASSES)
SUBJECT = JudgedBackbone(BACKBONE, None)
QUICK: dict[str, Any] = {"images": 4, "tuning_images": 2, "reference_steps": 16, "nfes": (4,),
                         "euler_nfes": (), "methods": ("ab2", "cab"),
                         "shifts": (0.9, 1.0)}  # fmt: skip


# -- the best grid ---------------------------------------------------------------------------------


@pytest.mark.parametrize("best", [0.05, 0.31, 1.0, 1.3, 4.0, 17.0])
def test_shifts_are_widened_until_the_best_lies_inside(best: float) -> None:
    choice = best_choice(lambda s, _: abs(math.log(s / best)))
    known = sorted(choice.tried)
    assert not choice.edge and choice.setting is None
    assert known[0] < choice.shift < known[-1]
    assert set(SHIFTS) <= set(known)
    assert choice.rmse == min(choice.tried.values()) == choice.tried[choice.shift]


@pytest.mark.parametrize("sign", [1, -1])
def test_widening_ends_and_says_that_it_did(sign: int) -> None:
    choice = best_choice(lambda s, _: math.exp(-sign * math.log(s)))
    assert choice.edge and 1 / WIDEST <= choice.shift <= WIDEST
    assert choice.shift**sign > WIDEST / 2


def test_explosions_and_equals() -> None:
    assert best_choice(lambda s, _: math.inf if s < 2 else s).shift == 2.5
    assert best_choice(lambda s, _: 1.0).shift == 1.0  # what does not matter stays uniform
    assert best_choice(lambda s, _: 1.0, (0.5,)).tried == {0.5: 1.0}  # one shift is no search


def test_a_parameter_is_chosen_together_with_the_grid() -> None:
    choice = best_choice(lambda s, c: abs(math.log(s / 2)) + (c - 0.3) ** 2, settings=(0.1, 0.3, 1))
    assert choice.setting == 0.3 and 1.5 <= choice.shift <= 2.5


@pytest.mark.parametrize("shifts", [(), (0.0, 1.0), (1.0, math.inf)])
def test_shifts_that_are_none(shifts: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="shifts must be positive and at least one"):
        best_choice(lambda s, _: 1.0, shifts)


# -- corrected Adams-Bashforth ---------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 2.0])
@pytest.mark.parametrize(("theta", "method"), [(0.0, "ab2"), (ADAMS, "ab3")])
def test_cab_lies_between_ab2_and_ab3(theta: float, method: str, shift: float) -> None:
    how: dict[str, Any] = {"nfe": 6, "shift": shift}
    got = sample(BACKBONE.model, NOISE, LABELS, method=cab_plan(theta), **how).x
    assert rmse(got, sample(BACKBONE.model, NOISE, LABELS, method=method, **how).x) < 1e-13


def test_cab_in_its_own_words() -> None:
    """x + h (3/2 v0 - 1/2 v1 + θ (v0 - 2 v1 + v2)) on equal steps."""
    theta, n = 0.3, 7
    x, past = NOISE, []
    for i in range(n):
        t = torch.full((4,), 1 - i / n, dtype=NOISE.dtype)
        past = [BACKBONE.model(x, t, LABELS), *past[:2]]
        step = past[0] if i == 0 else 1.5 * past[0] - 0.5 * past[1]
        if i > 1:
            step = step + theta * (past[0] - 2 * past[1] + past[2])
        x = x - step / n
    got = sample(BACKBONE.model, NOISE, LABELS, method=cab_plan(theta), nfe=n).x
    assert rmse(got, x) < 1e-13


# -- calibrated grids ------------------------------------------------------------------------------


def test_a_grid_for_another_number_of_intervals() -> None:
    times = [1.0, 0.9, 0.6, 0.2, 0.0]
    assert grid_of(times, 4) == times
    assert grid_of(times, 2) == [1.0, 0.6, 0.0]
    assert np.all(np.diff(grid_of(times, 7)) < 0)


@pytest.mark.parametrize("method", ["euler", "heun", "pec2", "unipc"])
def test_samplers_take_a_grid(method: str) -> None:
    times = time_grid(4, shift=1.7)
    nfe = 8 if method == "heun" else 4
    how: dict[str, Any] = {"nfe": nfe}
    on = run_sampler(method, BACKBONE.model, NOISE, LABELS, grid=times.tolist(), **how)
    shifted = run_sampler(method, BACKBONE.model, NOISE, LABELS, shift=1.7, **how)
    assert rmse(on.x, shifted.x) < 1e-12


def test_every_method_is_judged_on_the_calibrated_grid() -> None:
    times = tuple(time_grid(4, shift=1.3))
    terms = Terms(**(QUICK | {"calibrated": {4: times}, "methods": ("ab2", "heun", "cab")}))
    result = evaluate(SUBJECT, terms)
    assert len(result.rows) == 3 * 3 == len(terms.jobs())
    noise, labels = SUBJECT.noise_and_labels(0, 4)
    for row in result.rows:
        if row.grid == "calibrated" and row.method != "cab":
            grid = grid_of(times, 2 if row.method == "heun" else 4)
            got = sample(BACKBONE.model, noise, labels, method=row.method, nfe=4, grid=grid).x
            truth = converged(FlowField(BACKBONE.model, "repa", labels), noise, 16).x
            assert row.rmse == pytest.approx(rmse(got, truth), rel=1e-9)
    assert {r.setting in CAB.settings for r in result.rows if r.method == "cab"} == {True, False}
    assert "the calibrated grid" in table(result.to_dict(), "calibrated")


def test_other_calibrated_times_renew_their_rows_alone(tmp_path: Path) -> None:
    first, other = ({4: tuple(time_grid(4, shift=s))} for s in (1.3, 1.6))
    terms, out = Terms(**(QUICK | {"calibrated": first, "methods": ("ab2",)})), tmp_path / "x.json"
    before = {r.grid: r for r in evaluate(SUBJECT, terms, out=out).rows}
    calls = Calls(BACKBONE.model)
    watched = replace(SUBJECT, backbone=replace(BACKBONE, model=_Watched(calls)))
    renewed = replace(terms, calibrated=other)
    after = {r.grid: r for r in evaluate(watched, renewed, out=out, resume=True).rows}
    assert after["best"] == before["best"] and after["uniform"] == before["uniform"]
    assert after["calibrated"].times == other[4] != before["calibrated"].times
    assert after["calibrated"].rmse != before["calibrated"].rmse


def test_spare_rows_are_judged_on_the_first_images(tmp_path: Path) -> None:
    times = {4: tuple(time_grid(4, shift=1.3))}
    terms = Terms(**(QUICK | {"calibrated": times, "euler_nfes": (6,), "few": 2}))
    result = evaluate(SUBJECT, terms)
    noise, labels = SUBJECT.noise_and_labels(0, 2)
    truth = converged(FlowField(BACKBONE.model, "repa", labels), noise, 16).x
    spare = [r for r in result.rows if r.images is not None]
    assert {(r.method, r.grid) for r in spare} == {
        ("ab2", "calibrated"), ("cab", "calibrated"), ("euler", "uniform")
    }  # fmt: skip
    euler = sample(BACKBONE.model, noise, labels, method="euler", nfe=6).x
    assert spare[-1].rmse == pytest.approx(rmse(euler, truth), rel=1e-9)
    assert {r.images for r in spare} == {2} and spare[-1].rows == 2 * 6
    assert "the first 2 images" in table(result.to_dict(), "calibrated")
    assert "the first" not in table(result.to_dict(), "best")


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"few": 1}, "few must be an integer >= 2, got 1"),
        ({"calibrated": {4: (1.0, 0.5, 0.0)}}, r"calibrated\[4\] must be 5 different times"),
        ({"calibrated": {2: (1.0, 0.5, 0.5)}}, r"calibrated\[2\] must be 3 different times"),
        ({"methods": ("ab2", "ab2")}, "methods has 'ab2' twice"),
        ({"sets": 0}, "sets must be an integer >= 1, got 0"),
        ({"tuning_images": 0}, "tuning_images must be an integer >= 1, got 0"),
    ],
)
def test_bad_terms(terms: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Terms(**(QUICK | terms))


# -- rivals of one's own, sets, explosions ---------------------------------------------------------


def test_a_sampler_with_a_grid_of_its_own_is_run_as_it_is() -> None:
    plan = qf.adams(2, startup="rising")
    terms = Terms(**(QUICK | {"methods": ("ab2", Rival("mine", plan, own_grid=True))}))
    rows = {r.key: r for r in evaluate(SUBJECT, terms).rows}
    mine = rows["mine", 4, "best"]
    assert mine.rmse == rows["ab2", 4, "uniform"].rmse and mine.shift is None


def test_sets_are_of_other_seeds_and_their_spread_is_told() -> None:
    both = evaluate(SUBJECT, Terms(**(QUICK | {"sets": 2}))).rows
    single = [evaluate(SUBJECT, Terms(**(QUICK | {"seed": s}))).rows for s in (0, 1)]
    assert both[0].rmse_sets == tuple(rows[0].rmse for rows in single)
    assert both[0].rmse == pytest.approx(np.sqrt(np.mean(np.square(both[0].rmse_sets))))


def test_a_sampler_that_explodes_is_infinitely_wrong(tmp_path: Path) -> None:
    bomb = Rival("bomb", lambda field, nfe, sidenet: (exploding(), nfe))
    out = tmp_path / "x.json"
    result = evaluate(SUBJECT, Terms(**(QUICK | {"methods": (bomb,)})), out=out)
    assert all(r.rmse == math.inf for r in result.rows)
    assert "inf" in table(result.to_dict(), "best") and "Infinity" not in out.read_text()


def exploding() -> qf.Method:
    class Blow(qf.Interpolant):
        anchors, order = 1, None

        def velocities(self, interval: qf.Interval) -> Tensor:
            return interval.anchors[-1].v[None] * math.inf

    return qf.anchors(Blow(), qf.gauss_legendre(1))


# -- going on, and kept references -----------------------------------------------------------------


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    out, cache = tmp_path / "x.json", tmp_path / "ends"
    terms = Terms(**QUICK)
    whole = evaluate(SUBJECT, terms, cache=cache)
    ticks: list[int] = []

    def stop() -> None:
        ticks.append(1)
        if len(ticks) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(SUBJECT, terms, out=out, cache=cache, progress=stop)
    calls = Calls(BACKBONE.model)
    watched = replace(SUBJECT, backbone=replace(BACKBONE, model=_Watched(calls)))
    other = evaluate(watched, terms, out=out, resume=True, cache=cache)
    assert [r.key for r in other.rows] == [r.key for r in whole.rows]
    assert [r.rmse for r in other.rows] == [r.rmse for r in whole.rows]
    before = len(calls)
    assert before > 0
    again = evaluate(watched, terms, out=out, resume=True, cache=cache)
    assert len(calls) == before and [r.rmse for r in again.rows] == [r.rmse for r in whole.rows]
    # another seed is another evaluation
    assert len(evaluate(watched, replace(terms, seed=1), out=out, resume=True).rows) == 4
    assert len(calls) > before


class _Watched(ToyBackbone):
    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.calls(x, t, y)


_Watched.__qualname__ = ToyBackbone.__qualname__  # the same network, but for the watching


def test_references_are_those_of_converged_and_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_cache, "CHUNK", 3)
    noise, labels = initial_noise(0, 7, SHAPE), torch.arange(7) % CLASSES
    guided = Guidance(2.0, CLASSES)
    plain = references(BACKBONE, noise, labels, guided, steps=16)
    first = references(BACKBONE, noise, labels, guided, steps=16, folder=tmp_path)
    files = {p.name for p in tmp_path.iterdir()}
    assert len(files) == 3 + 1  # chunks, and the first one's second solve
    monkeypatch.setattr(reference_cache, "tight_path", None)  # nothing is solved again
    second = references(BACKBONE, noise, labels, guided, steps=16, folder=tmp_path)
    assert all(torch.equal(plain.x, got.x) for got in (first, second))
    assert plain.error == first.error == second.error and plain.nfe == second.nfe
    monkeypatch.undo()
    whole = converged(FlowField(BACKBONE.model, "repa", labels, guided), noise, 16)
    assert rmse(whole.x, plain.x) < 1e-6 and plain.nfe == whole.nfe
    for noise2, guidance2, steps in (
        (noise + 1, guided, 16), (noise, Guidance(4.0, CLASSES), 16), (noise, guided, 18)
    ):  # fmt: skip
        before = len(list(tmp_path.iterdir()))
        references(BACKBONE, noise2, labels, guidance2, steps=steps, folder=tmp_path)
        assert len(list(tmp_path.iterdir())) > before
    assert load_file(next(tmp_path.iterdir()))["x"].shape[1:] == SHAPE


def test_fingerprints_tell_networks_apart() -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    assert fingerprint(one) == fingerprint(one) != fingerprint(other)
    other.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(other)
    with pytest.raises(TypeError, match="must be a torch module"):
        fingerprint(lambda x: x)
    assert CHUNK >= 16


def test_the_uniform_grid_is_known_from_the_search() -> None:
    result = evaluate(SUBJECT, Terms(**(QUICK | {"uniform": False}))).to_dict()
    assert {r["grid"] for r in result["rows"]} == {"best"}
    assert all(r["rmse"] == r["tried"]["1.0"] for r in rows_on(result, "uniform"))
