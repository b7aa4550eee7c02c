"""The error budget: its oracle against rk4 row by row, its entries against what they claim."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_sidenets import (
    CLASSES,
    LABELS,
    SMALL,
    STATE,
    Spy,
    random_sidenet,
    relative,
    reversed_time,
)
from torch import Tensor, nn
from toyflow import Calls, Toy, seeded

import quadflow as qf
from quadflow.adapters import BiAnchor, FlowField, Guidance, SideNet, bianchor_plan, sample
from quadflow.adapters.sampling.converged import rmse, tight_solve
from quadflow.analysis.images.error_budget import (
    OracleSideNet,
    ablation_plans,
    error_budget,
    local_errors,
)

TOY = Toy(gap=0.3)
NOISE = seeded(*STATE)
N = 4
GUIDED = Guidance(2.0, CLASSES)


class ToyBackbone(nn.Module):
    num_classes = CLASSES

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return TOY.velocity(x, t, y)


MODEL = ToyBackbone()
MIRRORED = reversed_time(MODEL)


def end(guidance: Guidance, labels: Tensor | None = LABELS) -> Tensor:
    return tight_solve(FlowField(MODEL, "repa", labels, guidance), NOISE, 1024)


def carried(velocity, x: Tensor, t: float, h: float) -> Tensor:
    """x taken from t to t - h along dx/dt = velocity(t, x), by rk4 in 64 steps of its own."""
    steps = 64
    dt = -h / steps
    for i in range(steps):
        s = t + i * dt
        a = velocity(s, x)
        b = velocity(s + dt / 2, x + dt / 2 * a)
        c = velocity(s + dt / 2, x + dt / 2 * b)
        d = velocity(s + dt, x + dt * c)
        x = x + dt / 6 * (a + 2 * b + 2 * c + d)
    return x


def at(time: float, x: Tensor, y: Tensor) -> Tensor:
    return TOY.velocity(x, torch.full((len(x),), time, dtype=x.dtype), y)


# -- the oracle ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forward", "backward"), [(True, True), (True, False), (False, True), (False, False)]
)
@pytest.mark.parametrize("convention", ["repa", "sit"])
def test_the_oracle_changes_its_own_directions_only(
    convention: str, forward: bool, backward: bool
) -> None:
    """Every row has a time, a label and a length of its own."""
    times = [0.9, 0.5, 0.7, 0.4, 0.6, 0.3]
    lengths = [0.2, -0.2, 0.05, -0.1, 0.4, -0.3]
    x, y = seeded(6, *STATE[1:], seed=5), torch.tensor([0, 1, 2, 3, CLASSES, CLASSES])
    t, h = (torch.tensor(v, dtype=torch.float64) for v in (times, lengths))
    v = TOY.velocity(x, t, y)
    net = random_sidenet(3)
    oracle = OracleSideNet(
        MODEL if convention == "repa" else MIRRORED, convention, net, guidance=Guidance(),
        forward=forward, backward=backward, steps=16,
    )  # fmt: skip
    got, guess = oracle(x, v, t, h, y), net(x, v, t, h, y)
    for i, (time, step) in enumerate(zip(times, lengths, strict=True)):
        row, label = slice(i, i + 1), y[i : i + 1]
        if forward if step > 0 else backward:
            there = carried(lambda s, z, c=label: at(s, z, c), x[row], time, step)
            true = at(time - step, there, label) - v[row]
            assert float((got[row] - true).abs().max()) < 1e-5 * float(v.abs().max())
        else:
            assert torch.equal(got[row], guess[row])


@pytest.mark.parametrize("labels", [[0, 3, 1], [2, CLASSES, 1]])
@pytest.mark.parametrize("h", [0.2, -0.15])
def test_pairs_move_together_along_the_guided_flow(h: float, labels: list[int]) -> None:
    """Two nodes of three pairs; one labelled half may have the null label itself."""
    own = torch.tensor(labels)
    null = torch.full_like(own, CLASSES)
    state = seeded(3, *STATE[1:], seed=2)
    x, y = state.repeat(4, 1, 1, 1), torch.cat((own, null)).repeat(2)
    t = torch.full((12,), 0.5, dtype=torch.float64)
    lengths = torch.tensor([h] * 6 + [h / 2] * 6, dtype=torch.float64)
    v = TOY.velocity(x, t, y)
    oracle = OracleSideNet(
        MODEL, "repa", random_sidenet(3), guidance=GUIDED, together=True, steps=16, batch=3
    )
    got = oracle(x, v, t, lengths, y)

    def guided(s: float, z: Tensor) -> Tensor:
        return at(s, z, null) + 2.0 * (at(s, z, own) - at(s, z, null))

    for node, step in enumerate((h, h / 2)):
        there = carried(guided, state, 0.5, step)
        for half, label in enumerate((own, null)):
            row = slice(6 * node + 3 * half, 6 * node + 3 * half + 3)
            assert relative(got[row], at(0.5 - step, there, label) - v[row]) < 1e-5


def test_together_means_nothing_without_guidance() -> None:
    oracle = OracleSideNet(MODEL, "repa", Spy(), guidance=Guidance(), together=True)
    assert not oracle.together


# -- the budget ------------------------------------------------------------------------------------


def errors_of(guidance: Guidance, **options) -> dict[str, float]:
    arguments = {"model": MODEL, "sidenet": random_sidenet(1), "noise": NOISE, "labels": LABELS,
                 "reference": end(guidance), "intervals": N, "guidance": guidance}  # fmt: skip
    budget = error_budget(**(arguments | options))
    assert all(entry["what"] for entry in budget.values())
    return {name: entry["rmse"] for name, entry in budget.items()}


def test_without_guidance_the_exact_sidenet_leaves_the_quadrature_error() -> None:
    errors = errors_of(Guidance())
    assert "exact guided SideNet" not in errors
    exact = errors["exact SideNet"]
    assert exact < 0.1 * errors["as it is"] and exact < 0.1 * errors["no SideNet"]
    for half in ("exact forward SideNet", "exact backward SideNet"):
        assert exact < errors[half]
    # what is left is not the oracle's own error, whose two steps to a node add a tenth
    finer = OracleSideNet(MODEL, "repa", random_sidenet(1), guidance=Guidance(), steps=16)
    same = rmse(sample(MODEL, NOISE, LABELS, nfe=N, sidenet=finer).x, end(Guidance()))
    assert exact == pytest.approx(same, rel=0.2)
    # and vanishes with finer grids faster than the two anchors' own
    double = errors_of(Guidance(), intervals=2 * N)
    assert double["exact SideNet"] < exact / 32


def test_under_guidance_the_halves_must_move_together() -> None:
    errors = errors_of(GUIDED)
    best = errors["exact guided SideNet"]
    assert best < 0.2 * errors["exact SideNet"]
    assert best < 0.1 * errors["as it is"]


def test_under_guidance_labelled_halves_may_have_the_null_label() -> None:
    """The exact one is so for every image, those without a label too."""
    labels = torch.tensor([CLASSES, 2, CLASSES])
    errors = errors_of(GUIDED, labels=labels, reference=end(GUIDED, labels))
    assert errors["exact guided SideNet"] < 0.1 * errors["as it is"]


@pytest.mark.parametrize("guidance", [Guidance(), GUIDED])
def test_the_budget_does_not_depend_on_the_direction_of_time(guidance: Guidance) -> None:
    mirrored = errors_of(guidance, model=MIRRORED, convention="sit")
    assert mirrored == pytest.approx(errors_of(guidance), rel=1e-6)


@pytest.mark.parametrize("guidance", [Guidance(), GUIDED])
def test_entries_are_the_runs_they_name(guidance: Guidance) -> None:
    errors, reference = errors_of(guidance), end(guidance)

    def error(sidenet: nn.Module, shift: float = 1.0, **options) -> float:
        run = sample(MODEL, NOISE, LABELS, sidenet=sidenet, guidance=guidance, shift=shift,
                     **({"nfe": N} | options))  # fmt: skip
        return float((run.x - reference).square().mean().sqrt())

    net = random_sidenet(1)
    untrained = SideNet(SMALL).double().eval()
    assert errors["as it is"] == pytest.approx(error(net), rel=1e-9)
    assert errors["no SideNet"] == pytest.approx(error(untrained), rel=1e-9)
    last = bianchor_plan(forward_last=False)
    assert errors["last interval corrected"] == pytest.approx(
        error(net, nfe=N + 1, method=last), rel=1e-9
    )
    grids = [error(net, s) for s in (1.0, 0.5, 0.7, 1.4, 2.0, 3.0)]
    assert errors["best grid"] == pytest.approx(min(grids), rel=1e-9)
    fine = bianchor_plan(qf.gauss_lobatto(5))
    assert errors["more nodes"] == pytest.approx(error(net, method=fine), rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_evaluations_are_the_samplers_own(n: int) -> None:
    """PECE evaluates again at the corrected state, but for the last interval's end."""
    budget = error_budget(
        MODEL, random_sidenet(1), NOISE, LABELS, end(Guidance()), intervals=n, guidance=Guidance()
    )
    expected = {name: n for name in budget} | {
        "PECE": 2 * n - 1, "last interval corrected": n + 1, "no drift": 2 * n - 1,
    }  # fmt: skip
    assert {name: entry["nfe"] for name, entry in budget.items()} == expected


def test_a_backbone_without_classes_has_a_budget() -> None:
    def unlabelled(x: Tensor, t: Tensor) -> Tensor:
        return TOY.velocity(x, t, None)

    net = random_sidenet(1, replace(SMALL, num_classes=0))
    reference = tight_solve(FlowField(unlabelled, "repa"), NOISE, 1024)
    budget = error_budget(
        unlabelled, net, NOISE, None, reference, intervals=N, guidance=Guidance()
    )  # fmt: skip
    assert budget["exact SideNet"]["rmse"] < 0.1 * budget["as it is"]["rmse"]


# -- the ablation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("nfe", [1, 3, 6])
@pytest.mark.parametrize("name", ablation_plans())
def test_variants_of_the_ablation_cost_what_was_asked(name: str, nfe: int) -> None:
    calls, net = Calls(MODEL), random_sidenet(1)
    got = sample(calls, NOISE, LABELS, method=ablation_plans()[name], nfe=nfe, sidenet=net)
    assert got.stats.nfe == len(calls) == nfe


def test_names_of_the_ablation() -> None:
    assert list(ablation_plans()) == [
        "bi-anchor", "single anchor", "no interior velocity", "Simpson 3/8", "one interior node",
        "Gauss-Lobatto 5", "Clenshaw-Curtis 5",
    ]  # fmt: skip
    net = random_sidenet(1)
    for name, method in (("bi-anchor", "bianchor"), ("single anchor", "single-anchor")):
        plan = ablation_plans()[name]
        runs = [
            sample(MODEL, NOISE, LABELS, method=m, nfe=3, sidenet=net).x for m in (plan, method)
        ]
        assert torch.equal(*runs)


def test_local_errors_start_on_the_true_path() -> None:
    """With one interval it is the whole error; each is the error of one step from the truth."""
    net, guidance = random_sidenet(1), Guidance(1.0, CLASSES)
    field = FlowField(MODEL, "repa", LABELS, guidance)
    (whole,) = local_errors(field, net, NOISE, 1)
    one = sample(MODEL, NOISE, LABELS, nfe=1, sidenet=net).x
    assert relative(whole, one - end(guidance)) < 1e-5
    errors = local_errors(field, net, NOISE, 3)
    assert errors.shape == (3, *NOISE.shape)
    assert field.evaluations == 5  # two an interval, one in the last
    halfway = qf.solve(FlowField(MODEL, "repa", LABELS), NOISE, (1.0, 2 / 3), method="rk4",
                       step_size=1 / 200).y[-1]  # fmt: skip
    first = qf.solve(
        field, NOISE, (1.0, 2 / 3), method=BiAnchor(net, field, forward_last=False),
        grid=(1.0, 2 / 3),
    ).y[-1]  # fmt: skip
    assert relative(errors[0], first - halfway) < 1e-5
    budget = error_budget(MODEL, net, NOISE, LABELS, end(guidance), intervals=N, guidance=guidance)
    total = local_errors(field, net, NOISE, N).sum(0)
    assert budget["no drift"]["rmse"] == pytest.approx(float(total.square().mean().sqrt()))
    assert budget["no drift"]["nfe"] == 2 * N - 1
