"""`sample`: exact budgets, agreement with the published formulas, orders, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from orders import slope
from torch import Tensor, nn
from toyflow import Calls, Toy, seeded

import quadflow as qf
from quadflow.adapters import (
    SAMPLERS,
    DataPredictionInterpolant,
    FlowField,
    Guidance,
    SideNet,
    SideNetConfig,
    initial_noise,
    load_sidenet,
    load_unet,
    sample,
)
from quadflow.adapters.flow.field import CONVENTIONS

TOY = Toy()
LABELS = torch.tensor([0, 3, 1])
STATE = (3, 3, 2, 2)
SIDENET = SideNetConfig(in_channels=3, width=8, emb_dim=8, layers=3, heads=2, num_classes=4)
# intervals of a grid that costs the budget
INTERVALS = {name: (lambda nfe: nfe) for name in SAMPLERS}
INTERVALS["heun"] = lambda nfe: (nfe + 1) // 2


def toy_model(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    return TOY.velocity(x, t, y)


def sidenet() -> SideNet:
    return SideNet(SIDENET).double().eval()


class RandomField(nn.Module):
    """A random nonlinear field of state and time, v = noise - data or its mirror image."""

    def __init__(self, seed: int, dtype: torch.dtype, *, mirrored: bool = False) -> None:
        super().__init__()
        self.inner = seeded(6, 4, seed=seed, dtype=dtype)
        self.outer = seeded(4, 6, seed=seed + 1, dtype=dtype)
        self.rates = seeded(4, seed=seed + 2, dtype=dtype) * 3
        self.mirrored = mirrored

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        sigma = (1 - t if self.mirrored else t)[:, None]
        v = x + torch.tanh(x @ self.inner + torch.sin(sigma * self.rates)) @ self.outer
        return -v if self.mirrored else v


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


def shifted(n: int, shift: float = 3.0) -> np.ndarray:
    """Noise fractions 1..0 with more of them near the noise."""
    s = np.linspace(1.0, 0.0, n + 1)
    return shift * s / (1 + (shift - 1) * s)


# -- budgets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [None, Guidance(2.0, 4)])
@pytest.mark.parametrize("method", sorted(SAMPLERS))
def test_exactly_the_budget(method: str, guidance: Guidance | None) -> None:
    noise, halves = seeded(*STATE), 1 if guidance is None else 2
    for nfe in range(1, 9):
        model = Calls(toy_model)
        seen: list[float] = []
        result = sample(
            model, noise, LABELS, method=method, nfe=nfe, sidenet=sidenet(), guidance=guidance,
            callback=lambda t, x, seen=seen: seen.append(t),
        )  # fmt: skip
        assert len(model) == result.stats.nfe == result.stats.calls == nfe
        assert result.rows == 3 * halves * nfe == sum(len(x) for x, _, _ in model)
        assert result.stats.probe_nfe == 0
        n = INTERVALS[method](nfe)
        assert seen == np.linspace(1, 0, n + 1)[1:].tolist()
        assert result.stats.accepted == n
        assert result.x.shape == noise.shape
        assert bool(torch.isfinite(result.x).all())


def test_callback_sees_the_states_and_the_last_one_is_the_result() -> None:
    states: list[Tensor] = []
    times: list[float] = []

    def keep(t: float, x: Tensor) -> None:
        times.append(t)
        states.append(x.clone())

    noise = seeded(*STATE)
    result = sample(toy_model, noise, LABELS, method="euler", nfe=4, callback=keep)
    assert times == [0.75, 0.5, 0.25, 0.0]
    assert torch.equal(states[-1], result.x)
    ones = torch.ones(3, dtype=torch.float64)
    x, t = noise, 1.0
    for state in states:
        x = x - 0.25 * TOY.velocity(x, t * ones, LABELS)
        t -= 0.25
        assert relative(state, x) < 1e-13


def test_labels_decide_what_is_sampled() -> None:
    noise = seeded(*STATE)
    one = sample(toy_model, noise, LABELS, method="ab2", nfe=5).x
    two = sample(toy_model, noise, torch.tensor([0, 3, 2]), method="ab2", nfe=5).x
    assert torch.equal(one[:2], two[:2])
    assert relative(two[2], one[2]) > 0.05
    none = sample(toy_model, noise, method="ab2", nfe=5).x
    null = sample(toy_model, noise, torch.full((3,), 4), method="ab2", nfe=5).x
    assert torch.equal(none, null)


def test_no_gradient_and_no_change_of_the_noise() -> None:
    model = RandomField(0, torch.float64)
    model.inner = nn.Parameter(model.inner)
    noise = seeded(3, 6)
    kept = noise.clone()
    assert not sample(model, noise, method="ab2", nfe=3).x.requires_grad
    assert torch.equal(noise, kept)


# -- grids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(SAMPLERS))
def test_a_grid_of_ones_own(method: str) -> None:
    nfe = 5
    n = INTERVALS[method](nfe)
    grid = torch.from_numpy(shifted(n))
    model = Calls(toy_model)
    seen: list[float] = []
    result = sample(
        model, seeded(*STATE), LABELS, method=method, nfe=nfe, sidenet=sidenet(), grid=grid,
        callback=lambda t, x: seen.append(t),
    )  # fmt: skip
    assert seen == grid.tolist()[1:]
    assert len(model) == result.stats.nfe == nfe
    # the uniform grid, given, is the one that is taken without
    uniform = torch.linspace(1, 0, n + 1, dtype=torch.float64)
    given, default = (
        sample(toy_model, seeded(*STATE), LABELS, method=method, nfe=nfe, sidenet=sidenet(), grid=g)
        for g in (uniform, None)
    )
    assert relative(given.x, default.x) < 1e-13
    assert relative(result.x, default.x) > 1e-4


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([1.0, 0.5, 0.0], "grid has 3 times; euler with nfe=3 needs 4"),
        ([1.0, 0.8, 0.5, 0.2, 0.0], "grid has 5 times; euler with nfe=3 needs 4"),
        ([0.9, 0.6, 0.3, 0.0], r"grid runs from 0\.9 to 0\.0"),
        ([1.0, 0.6, 0.3, 0.1], r"grid runs from 1\.0 to 0\.1"),
        ([0.0, 0.3, 0.6, 1.0], r"grid runs from 0\.0 to 1\.0"),
        ([1.0, 0.3, 0.6, 0.0], "grid must be strictly"),
        ([1.0, 0.5, 0.5, 0.0], "grid must be strictly"),
        ([1.0, math.nan, 0.5, 0.0], r"grid\[1\]=nan is not finite"),
        ([[1.0, 0.0]] * 4, r"grid .*shape \(4, 2\)"),
        (0.5, r"grid .*shape \(\)"),
    ],
)
def test_grids_that_do_not_fit(grid: object, message: str) -> None:
    if isinstance(grid, list):
        grid = torch.tensor(grid, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        sample(toy_model, seeded(*STATE), LABELS, method="euler", nfe=3, grid=grid)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nfe", [0, -3, True, 2.5, "7", None])
def test_bad_budgets(nfe: object) -> None:
    with pytest.raises(ValueError, match=f"nfe must be an integer >= 1, got {nfe!r}"):
        sample(toy_model, seeded(*STATE), LABELS, method="euler", nfe=nfe)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "hint"), [("dpmpp2m", "dpmpp-2m"), ("bi-anchor", "bianchor"), ("huen", "heun")]
)
def test_unknown_method_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"method={name!r} is unknown: did you mean '{hint}'"):
        sample(toy_model, seeded(*STATE), LABELS, method=name)


def test_bianchor_is_the_default_and_needs_a_sidenet() -> None:
    with pytest.raises(ValueError, match="method='bianchor' needs sidenet="):
        sample(toy_model, seeded(*STATE), LABELS)


def test_noise_that_cannot_be_integrated() -> None:
    with pytest.raises(TypeError, match=r"float16.*half-precision models in a float32 state"):
        sample(toy_model, seeded(*STATE).half(), LABELS, method="euler", nfe=1)
    with pytest.raises(ValueError, match="not finite"):
        sample(toy_model, seeded(*STATE) / 0, LABELS, method="euler", nfe=1)


def test_samples_that_are_not_finite_are_an_error() -> None:
    def model(x: Tensor, t: Tensor) -> Tensor:
        return x / (t[:, None, None, None] > 0.3)

    with pytest.raises(qf.SolveError, match="not finite"):
        sample(model, seeded(*STATE), method="euler", nfe=8)


# -- noise -----------------------------------------------------------------------------------------


def test_noise_depends_on_seed_and_place_alone() -> None:
    shape = (1, 28, 28)
    many = initial_noise(3, 16, shape)
    assert many.shape == (16, *shape)
    assert many.dtype == torch.float32
    for count in (1, 2, 7):
        assert torch.equal(initial_noise(3, count, shape), many[:count])
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(initial_noise(3, 16, shape), many)
    # standard normal, and no two samples of no two seeds alike
    both = torch.cat((many, initial_noise(4, 16, shape))).reshape(32, -1)
    n = both.numel()
    assert abs(float(both.mean())) < 4 / n**0.5
    assert abs(float(both.var()) - 1) < 4 * (2 / n) ** 0.5
    correlations = torch.corrcoef(both) - torch.eye(32)
    assert float(correlations.abs().max()) < 5 / 784**0.5
    assert initial_noise(0, 1, (2,), dtype=torch.float64).dtype == torch.float64


def test_noise_of_a_large_seed() -> None:
    assert not torch.equal(initial_noise(2**63, 1, (4,)), initial_noise(2**63 + 1, 1, (4,)))


@pytest.mark.parametrize(
    ("seed", "count", "message"),
    [(-1, 2, "seed must be .* got -1"), (0, 0, "count must be .* got 0")],
)
def test_bad_noise(seed: int, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initial_noise(seed, count, (2,))


# -- DPM-Solver++ ----------------------------------------------------------------------------------


def dpm_solver_plus_plus_2m(model: nn.Module, x: Tensor, sigmas: list[float]) -> Tensor:
    """DPM-Solver++ (2M) in data prediction with α = 1-σ, λ = log(α/σ); its first step and its last
    one are of first order. `model` is noise - data."""
    n = len(sigmas) - 1

    def log_snr(sigma: float) -> float:
        if sigma == 1:
            return -math.inf
        return math.inf if sigma == 0 else math.log((1 - sigma) / sigma)

    data: list[Tensor] = []
    for i in range(n):
        s, t = sigmas[i], sigmas[i + 1]
        v = model(x, torch.full((len(x),), s, dtype=x.dtype))
        data.append(x - s * v)
        h = log_snr(t) - log_snr(s)
        d = data[-1]
        # at infinite h the ratio of the two steps, and with it the second order, has no meaning
        if 0 < i < n - 1:
            ratio = (log_snr(s) - log_snr(sigmas[i - 1])) / h
            d = (1 + 1 / (2 * ratio)) * data[-1] - 1 / (2 * ratio) * data[-2]
        x = (t / s) * x - (1 - t) * (math.exp(-h) - 1) * d
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("convention", ["repa", "sit"])
@pytest.mark.parametrize("spacing", ["uniform", "shifted"])
@pytest.mark.parametrize("nfe", [1, 2, 3, 8, 20])
def test_dpmpp_2m_is_dpm_solver_plus_plus(
    nfe: int, spacing: str, convention: str, dtype: torch.dtype
) -> None:
    sigmas = np.linspace(1, 0, nfe + 1) if spacing == "uniform" else shifted(nfe)
    times = sigmas if convention == "repa" else 1 - sigmas
    for seed in range(3):
        noise = seeded(5, 6, seed=seed, dtype=dtype)
        model = RandomField(10 * seed, dtype)
        wanted = dpm_solver_plus_plus_2m(model, noise, sigmas.tolist())
        got = sample(
            RandomField(10 * seed, dtype, mirrored=convention == "sit"), noise,
            method="dpmpp-2m", nfe=nfe, convention=convention, grid=torch.from_numpy(times),
        )  # fmt: skip
        assert relative(got.x, wanted) < {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]


def test_the_data_prediction_has_no_node_velocities() -> None:
    interpolant = DataPredictionInterpolant(CONVENTIONS["repa"])
    with pytest.raises(NotImplementedError, match="closed form"):
        interpolant.velocities(qf.Interval([], 1.0, 0.0, qf.gauss_legendre(1)))


# -- orders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "order"),
    [("euler", 1), ("heun", 2), ("ab2", 2), ("pec2", 3)],
)
@pytest.mark.parametrize("convention", ["repa", "sit"])
def test_order_on_a_smooth_flow(method: str, order: int, convention: str) -> None:
    """Nonlinear in the state and in time.

    pec2 has its full order 3: the first interval (one anchor) and the last (no correction) are of
    local order 3 and happen once.
    """
    repa = convention == "repa"
    model = toy_model if repa else (lambda x, t, y: -TOY.velocity(x, 1 - t, y))
    noise = seeded(3, 3, 4, 4)
    ends = (1.0, 0.0) if repa else (0.0, 1.0)
    field = FlowField(model, convention, LABELS)
    exact = qf.solve(field, noise, ends, method="dopri8", rtol=1e-13, atol=1e-13).y[-1]
    budgets = [64, 128, 256]
    errors = []
    for nfe in budgets:
        result = sample(model, noise, LABELS, method=method, nfe=nfe, convention=convention)
        errors.append(float((result.x - exact).square().mean().sqrt()))
    measured = slope([1 / nfe for nfe in budgets], errors, gate=0.05)
    assert order - 0.15 < measured < order + 0.15


def test_order_of_dpmpp_2m() -> None:
    """Order 2 inside (0, 1). From σ = 1 to 0 on a uniform grid it is O(h² log 1/h): the steps in λ
    do not shrink at the ends. Then N² times the error grows by a constant at every doubling of N,
    and the slope over 64..256 evaluations is 1.72."""
    noise = seeded(3, 3, 4, 4)
    field = FlowField(toy_model, labels=LABELS)
    method = qf.anchors(DataPredictionInterpolant(field.resolved), qf.gauss_legendre(1))

    def error(start: float, end: float, n: int) -> float:
        exact = qf.solve(field, noise, (start, end), method="dopri8", rtol=1e-13, atol=1e-13)
        grid = np.linspace(start, end, n + 1)
        got = qf.solve(field, noise, (start, end), method=method, grid=grid)
        return float((got.y[-1] - exact.y[-1]).square().mean().sqrt())

    sizes = [64, 128, 256, 512]
    inside = slope([1 / n for n in sizes], [error(0.9, 0.1, n) for n in sizes], gate=0.05)
    assert 1.85 < inside < 2.15
    whole = [error(1.0, 0.0, n) for n in sizes]
    assert 1.65 < slope([1 / n for n in sizes], whole, gate=0.05) < 1.85
    growth = np.diff([n**2 * e for n, e in zip(sizes, whole, strict=True)])
    assert growth.min() > 0.85 * growth.max() > 0


# -- the shipped model -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> tuple[nn.Module, nn.Module, Tensor, Tensor, Tensor]:
    model, side = load_unet(), load_sidenet()
    noise, labels = initial_noise(0, 4, (1, 28, 28)), torch.tensor([0, 3, 7, 8])
    fine, finer = (sample(model, noise, labels, method="pec2", nfe=nfe).x for nfe in (60, 120))
    # the reference is far better than what it judges
    assert float((finer - fine).square().mean().sqrt()) < 4e-3
    return model, side, noise, labels, finer


@pytest.mark.parametrize("method", sorted(SAMPLERS))
def test_more_evaluations_come_nearer_to_the_converged_images(
    method: str, shipped: tuple[nn.Module, nn.Module, Tensor, Tensor, Tensor]
) -> None:
    model, side, noise, labels, converged = shipped
    errors = [
        float((sample(model, noise, labels, method=method, nfe=nfe, sidenet=side).x - converged)
              .square().mean().sqrt())
        for nfe in (3, 7, 20)
    ]  # fmt: skip
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] > 3 * errors[2]
