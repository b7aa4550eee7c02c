"""The Bi-Anchor solver on other rules, grids, guidance; each against a plain restatement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from host_waits import CountWaits
from small_sidenets import CLASSES, LABELS, SMALL, STATE, Backbone, random_sidenet, relative
from torch import Tensor, nn
from toyflow import Calls, seeded

import quadflow as qf
from quadflow.adapters import (
    SAMPLERS,
    FlowField,
    Guidance,
    MLPSideNet,
    MLPSideNetConfig,
    SideNet,
    SingleAnchor,
    bianchor_plan,
    prepare,
    sample,
    single_anchor_plan,
    time_grid,
)

GUIDED = Guidance(2.5, CLASSES, (0.13, 0.77))

RULES = {
    "lobatto-3": qf.gauss_lobatto(3),
    "lobatto-4": qf.gauss_lobatto(4),
    "lobatto-5": qf.gauss_lobatto(5),
    "simpson": qf.simpson(),
    "three-eighths": qf.three_eighths(),
    "clenshaw-curtis-5": qf.clenshaw_curtis(5),
    "symmetric-0.25": qf.symmetric_four(0.25),
    "no interior velocity": qf.trapezoid(),
}


class Restated:
    """The solver of one sample batch written from its equations, sample by sample in time."""

    def __init__(self, model: nn.Module, net: nn.Module, guidance: Guidance | None) -> None:
        self.model, self.net, self.guidance = model, net, guidance
        self.conditions = [LABELS]
        if guidance is not None:
            self.conditions.append(torch.full_like(LABELS, CLASSES))

    def backbone(self, x: Tensor, t: Tensor) -> list[Tensor]:
        return [self.model(x, t.to(x.dtype), y) for y in self.conditions]

    def side(self, x: Tensor, v: list[Tensor], t: Tensor, h: Tensor) -> list[Tensor]:
        pairs = zip(v, self.conditions, strict=True)
        return [a + self.net(x, a, t.to(x.dtype), h.to(x.dtype), y) for a, y in pairs]

    def guided(self, v: list[Tensor], t: Tensor) -> Tensor:
        if self.guidance is None:
            return v[0]
        low, high = self.guidance.interval
        inside = ((low < t) & (t <= high))[:, None, None, None]
        return torch.where(inside, v[1] + self.guidance.scale * (v[0] - v[1]), v[0])

    def run(
        self, x: Tensor, grid: Tensor, rule: qf.QuadratureRule,
        bi: bool = True, forward_last: bool = True,
    ) -> Tensor:  # fmt: skip
        """grid: (B, N+1) times from noise to data."""
        nodes, weights = rule.nodes.tolist(), rule.weights.tolist()
        per_node = self.guidance is None or self.guidance.per == "node"

        def integral(values: list[Tensor], h: Tensor) -> Tensor:
            total = sum(w * v for w, v in zip(weights, values, strict=True))
            return total * h.to(x.dtype)[:, None, None, None]

        def at(v: list[Tensor], t: Tensor, start: Tensor) -> Tensor:
            return self.guided(v, t if per_node else start)

        v = self.backbone(x, grid[:, 0])
        steps = grid.shape[1] - 1
        for i in range(steps):
            t, t_next = grid[:, i], grid[:, i + 1]
            h = t - t_next
            forward = [at(self.side(x, v, t, c * h), t - c * h, t) for c in nodes]
            predicted = x - integral(forward, h)
            if i == steps - 1 and (forward_last or not bi):
                return predicted
            v_next = self.backbone(predicted, t_next)
            if not bi:
                x, v = predicted, v_next
                continue
            mixed = list(forward)
            for j, c in enumerate(nodes):
                if c > 0.5:
                    back = self.side(predicted, v_next, t_next, (c - 1) * h)
                    mixed[j] = at(back, t - c * h, t)
            x, v = x - integral(mixed, h), v_next
        return x


def uniform(n: int) -> Tensor:
    return torch.from_numpy(np.linspace(1.0, 0.0, n + 1)).expand(len(LABELS), -1)


@pytest.mark.parametrize("guidance", [None, GUIDED])
@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_is_the_restated_algorithm(name: str, guidance: Guidance | None) -> None:
    rule, noise = RULES[name], seeded(*STATE)
    for n, forward_last in ((1, True), (4, True), (4, False)):
        model, net = Backbone(n, torch.float64), random_sidenet(n)
        calls = Calls(model)
        got = sample(
            calls, noise, LABELS, nfe=n + (not forward_last), sidenet=net, guidance=guidance,
            method=bianchor_plan(rule, forward_last=forward_last),
        )  # fmt: skip
        assert got.stats.nfe == len(calls) == n + (not forward_last)
        assert got.rows == sum(len(x) for x, *_ in calls)
        wanted = Restated(model, net, guidance).run(
            noise, uniform(n), rule, forward_last=forward_last
        )
        assert relative(got.x, wanted) < 1e-12


@pytest.mark.parametrize("guidance", [None, GUIDED])
@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5])
def test_the_single_anchor_variant(nodes: int, guidance: Guidance | None) -> None:
    model, net, noise = Backbone(2, torch.float64), random_sidenet(5), seeded(*STATE)
    got = sample(
        model, noise, LABELS, nfe=3, sidenet=net, guidance=guidance,
        method=single_anchor_plan(nodes),
    )  # fmt: skip
    wanted = Restated(model, net, guidance).run(
        noise, uniform(3), qf.gauss_legendre(nodes), bi=False
    )
    assert relative(got.x, wanted) < 1e-12
    assert got.stats.nfe == 3
    assert SingleAnchor(net, FlowField(model, labels=LABELS)).rule.nodes.tolist() == (
        qf.gauss_legendre(2).nodes.tolist()
    )


def test_guidance_by_the_interval() -> None:
    """The start decides for all of an interval; with the interval's ends on a grid point of the
    nodes' inside, it differs from deciding node by node."""
    noise, model, net = seeded(*STATE), Backbone(0, torch.float64), random_sidenet(1)
    results = {}
    for per in ("node", "interval"):
        guidance = Guidance(2.5, CLASSES, (0.3, 0.9), per=per)
        got = sample(model, noise, LABELS, nfe=4, sidenet=net, guidance=guidance).x
        wanted = Restated(model, net, guidance).run(noise, uniform(4), qf.gauss_lobatto(4))
        assert relative(got, wanted) < 1e-12
        results[per] = got
    assert relative(results["node"], results["interval"]) > 1e-3
    # an interval that covers everything leaves nothing to decide
    everywhere = [Guidance(2.5, CLASSES, per=per) for per in ("node", "interval")]
    a, b = (sample(model, noise, LABELS, nfe=4, sidenet=net, guidance=g).x for g in everywhere)
    assert relative(a, b) < 1e-13


@pytest.mark.parametrize("method", sorted(SAMPLERS))
def test_a_pair_in_two_calls_is_the_batched_pair(method: str) -> None:
    noise, model, net = seeded(*STATE), Backbone(0, torch.float64), random_sidenet(1)
    outcomes = []
    for pair, calls_each in (("batched", 1), ("two calls", 2)):
        calls = Calls(model)
        guidance = Guidance(2.0, CLASSES, pair=pair)
        got = sample(calls, noise, LABELS, method=method, nfe=4, sidenet=net, guidance=guidance)
        assert (got.stats.nfe, len(calls), got.rows) == (4, 4 * calls_each, 4 * 2 * len(noise))
        outcomes.append(got.x)
    assert relative(*outcomes) < 1e-12


# -- grids -----------------------------------------------------------------------------------------


def test_a_shifted_grid() -> None:
    grid = time_grid(5, shift=3.0)
    s = np.linspace(1, 0, 6)
    assert np.allclose(grid, 3 * s / (1 + 2 * s), rtol=1e-14)
    assert (grid[0], grid[-1]) == (1.0, 0.0)
    assert np.allclose(time_grid(5, "sit", shift=3.0), 1 - grid, rtol=1e-14)
    assert np.array_equal(time_grid(7), np.linspace(1, 0, 8))
    noise, model, net = seeded(*STATE), Backbone(0, torch.float64), random_sidenet(1)
    by_shift = sample(model, noise, LABELS, nfe=5, sidenet=net, shift=3.0)
    by_grid = sample(model, noise, LABELS, nfe=5, sidenet=net, grid=grid)
    assert torch.equal(by_shift.x, by_grid.x)
    with pytest.raises(ValueError, match=r"give grid or shift=3\.0, not both"):
        sample(model, noise, LABELS, nfe=5, sidenet=net, grid=grid, shift=3.0)
    for shift in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="shift must be positive and finite"):
            time_grid(3, shift=shift)
    with pytest.raises(ValueError, match="intervals must be an integer >= 1, got 0"):
        time_grid(0)


@pytest.mark.parametrize("guidance", [None, GUIDED])
@pytest.mark.parametrize("convention", ["repa", "sit"])
@pytest.mark.parametrize("method", sorted(SAMPLERS))
def test_times_of_its_own_for_every_sample(
    method: str, convention: str, guidance: Guidance | None
) -> None:
    """A batch with a grid for each sample gives what each sample gives alone."""
    noise, net = seeded(*STATE), random_sidenet(1)
    forward = Backbone(0, torch.float64)

    def mirrored(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return -forward(x, 1 - t, y)

    model = forward if convention == "repa" else mirrored
    nfe = 5
    intervals = 3 if method == "heun" else nfe
    grid = torch.stack(
        [
            torch.from_numpy(time_grid(intervals, convention, shift=shift))
            for shift in (1.0, 0.6, 2.5)
        ]
    )
    arguments = {
        "method": method, "nfe": nfe, "sidenet": net, "guidance": guidance,
        "convention": convention,
    }  # fmt: skip
    seen: list[object] = []
    got = sample(model, noise, LABELS, grid=grid, callback=lambda t, x: seen.append(t), **arguments)
    assert got.stats.nfe == nfe
    assert len(seen) == intervals
    assert torch.equal(seen[0].flatten(), grid[:, 1])
    for i in range(3):
        alone = sample(model, noise[i : i + 1], LABELS[i : i + 1], grid=grid[i], **arguments)
        assert relative(got.x[i : i + 1], alone.x) < 1e-12


def test_per_sample_grids_in_float32() -> None:
    noise = seeded(*STATE, dtype=torch.float32)
    model, net = Backbone(0, torch.float32), random_sidenet(1, dtype=torch.float32)
    grid = torch.stack([torch.from_numpy(time_grid(4, shift=s)) for s in (1.0, 0.6, 2.5)])
    for method in SAMPLERS:
        if method == "heun":
            continue
        got = sample(model, noise, LABELS, method=method, nfe=4, sidenet=net, grid=grid)
        assert got.x.dtype == torch.float32
        alone = sample(
            model, noise[1:2], LABELS[1:2], method=method, nfe=4, sidenet=net, grid=grid[1]
        )
        assert relative(got.x[1:2], alone.x) < 1e-5


def _grid(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (_grid([1, 0.5, 0], [1, 0.5, 0], [1, 0.5, 0.1]), "must run from"),
        (_grid([1, 0.5, 0], [0.9, 0.5, 0], [1, 0.5, 0]), "must run from"),
        (_grid([1, 0.5, 0], [1, 1.5, 0], [1, 0.5, 0]), "strictly monotone"),
        (_grid([1, 0.5, 0], [1, 0.0, 0], [1, 0.5, 0]), "strictly monotone"),
        (_grid([1, 0.5, 0], [1, float("nan"), 0], [1, 0.5, 0]), "grid is not finite"),
        (_grid([1, 0.5, 0], [1, 0.5, 0]), r"B=3 samples, got shape \(2, 3\)"),
        (_grid([1, 0], [1, 0], [1, 0]), "grid has 2 times; ab2 with nfe=2 needs 3"),
        (torch.ones(3, 3, 1), r"got shape \(3, 3, 1\)"),
        (torch.ones(3, 3, dtype=torch.int64), "grid must be a real floating tensor"),
    ],
)
def test_per_sample_grids_that_do_not_fit(grid: Tensor, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        sample(Backbone(0), seeded(*STATE), LABELS, method="ab2", nfe=2, grid=grid)


def test_solve_takes_per_sample_grids_in_the_anchors_plan_alone() -> None:
    y0, f = torch.tensor([[1.0], [2.0]], dtype=torch.float64), lambda t, y: -y + t
    grid = torch.tensor([[0, 0], [0.2, 0.5], [1, 1]], dtype=torch.float64)[..., None]
    method = qf.adams(2, "PECE", startup="rising")
    got = qf.solve(f, y0, (0.0, 1.0), method=method, grid=grid)
    for i in range(2):
        alone = qf.solve(f, y0[i : i + 1], (0.0, 1.0), method=method, grid=grid[:, i, 0])
        assert torch.allclose(got.y[-1][i], alone.y[-1][0], rtol=1e-14)
    assert len(got.steps) == 3
    for other in ("rk4", qf.collocation(qf.gauss_lobatto(3)), qf.adams(2)):
        with pytest.raises(ValueError, match=r"times for every sample: method .* cannot"):
            qf.solve(f, y0, (0.0, 1.0), method=other, grid=grid)
    with pytest.raises(ValueError, match="excludes step_size, dense_output"):
        qf.solve(f, y0, (0.0, 1.0), method=method, grid=grid, dense_output=True)
    with pytest.raises(ValueError, match="must be its two ends"):
        qf.solve(f, y0, (0.0, 0.5, 1.0), method=method, grid=grid)
    with pytest.raises(ValueError, match="needs a state of one tensor"):
        qf.solve(lambda t, y: y, (y0, y0), (0.0, 1.0), method=method, grid=grid)
    with pytest.raises(ValueError, match=r"grid has shape \(3, 3, 1\)"):
        qf.solve(f, y0, (0.0, 1.0), method=method, grid=grid.expand(3, 2, 1)[:, [0, 0, 1]])


# -- the loop waits for nothing --------------------------------------------------------------------


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("guidance", [None, GUIDED])
@pytest.mark.parametrize("method", sorted(SAMPLERS))
def test_sampling_never_waits_inside(
    method: str, guidance: Guidance | None, per_sample: bool
) -> None:
    noise, model, net = seeded(*STATE), Backbone(0, torch.float64), random_sidenet(1)

    def waits(nfe: int) -> int:
        intervals = (nfe + 1) // 2 if method == "heun" else nfe
        grid = torch.from_numpy(time_grid(intervals))
        with CountWaits() as counter:
            sample(
                model, noise, LABELS, method=method, nfe=nfe, sidenet=net, guidance=guidance,
                grid=grid.expand(3, -1) if per_sample else grid,
            )  # fmt: skip
        return counter.waits

    assert waits(3) == waits(9)


# -- SideNets --------------------------------------------------------------------------------------


def test_prepared_networks_give_the_same() -> None:
    noise, model = seeded(*STATE), Backbone(0, torch.float64)
    wanted = sample(model, noise, LABELS, nfe=3, sidenet=random_sidenet(1))
    net = prepare(random_sidenet(1), channels_last=True)
    assert net.input_conv.weight.is_contiguous(memory_format=torch.channels_last)
    got = sample(model, noise, LABELS, nfe=3, sidenet=net)
    assert relative(got.x, wanted.x) < 1e-12

    frames = []

    def backend(module: nn.Module, inputs: list[Tensor]) -> Callable[..., object]:
        frames.append(module)
        return module.forward

    torch._dynamo.reset()
    compiled = prepare(random_sidenet(1), compile=True, backend=backend)
    got = sample(model, noise, LABELS, nfe=3, sidenet=compiled)
    assert relative(got.x, wanted.x) < 1e-12
    compilations = len(frames)
    assert compilations >= 1
    # more intervals and another batch size compile nothing new
    sample(model, noise, LABELS, nfe=6, sidenet=compiled)
    sample(model, noise[:2], LABELS[:2], nfe=3, sidenet=compiled)
    assert len(frames) == compilations


def test_a_sidenet_of_another_channel_count_or_size() -> None:
    noise = seeded(3, 2, 4, 4)
    with pytest.raises(ValueError, match=r"made for states of 3 channels, got \(2, 4, 4\)"):
        sample(lambda x, t, y: x, noise, LABELS, nfe=2, sidenet=SideNet(SMALL).double())
    sized = SideNet(replace(SMALL, input_size=8)).double()
    with pytest.raises(ValueError, match=r"3 channels of 8x8 pixels, got \(3, 4, 4\)"):
        sample(lambda x, t, y: x, seeded(*STATE), LABELS, nfe=2, sidenet=sized)


def test_a_sidenet_for_vectors() -> None:
    torch.manual_seed(0)
    config = MLPSideNetConfig(features=2, width=16, layers=2, emb_dim=8)
    net = MLPSideNet(config).double()
    noise = seeded(6, 2)

    def model(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(3 * x.flip(-1)) * (1 + t[:, None]) - x

    # zero when new: Adams-Bashforth 2, as for images
    new = sample(model, noise, nfe=4, sidenet=net)
    assert relative(new.x, sample(model, noise, method="ab2", nfe=4).x) < 1e-12
    nn.init.normal_(net.output.weight, std=0.3)
    x, v = seeded(5, 2), seeded(5, 2, seed=1)
    t, h, y = torch.full((5,), 0.5).double(), torch.full((5,), 0.1).double(), torch.zeros(5).long()
    delta = net(x, v, t, h, y)
    assert delta.shape == (5, 2)
    assert delta.abs().min() > 0
    assert torch.count_nonzero(net(x, v, t, 0 * h, y)) == 0
    changed = sample(model, noise, nfe=4, sidenet=net)
    assert relative(changed.x, new.x) > 1e-4
    with pytest.raises(ValueError, match=r"states \(B, 2\), got \(5, 3\)"):
        net(seeded(5, 3), seeded(5, 3), t, h, y)
    for field, value in (("features", 0), ("width", 0), ("layers", 0), ("num_classes", -1)):
        with pytest.raises(ValueError, match=f"{field} must be an integer >="):
            MLPSideNetConfig(**{"features": 2, field: value})


def test_labelled_vectors_are_guided() -> None:
    net = MLPSideNet(MLPSideNetConfig(features=2, width=8, layers=1, num_classes=3)).double()
    noise, labels = seeded(3, 2), torch.tensor([0, 1, 2])

    def model(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return x * (1 + y[:, None]) - t[:, None]

    guidance = Guidance(2.0, 3)
    got = sample(model, noise, labels, nfe=3, sidenet=net, guidance=guidance)
    wanted = sample(model, noise, labels, method="ab2", nfe=3, guidance=guidance)
    assert relative(got.x, wanted.x) < 1e-12
