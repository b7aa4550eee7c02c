"""Flow-matching models of every convention are one and the same velocity field; guidance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from toyflow import Calls, Output, Toy, models, seeded

import quadflow as qf
from quadflow.adapters import CONVENTIONS, FlowField, Guidance, sample
from quadflow.adapters.flow.field import check_labels, output_tensor

TOY = Toy()
MODELS = models(TOY)
LABELS = torch.tensor([0, 3, 1])
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
STATE = (3, 3, 2, 2)


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


def plain(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    return TOY.velocity(x, t, y)


# -- conventions -----------------------------------------------------------------------------------


def test_every_convention_has_a_model_here() -> None:
    assert {convention for convention, _ in MODELS.values()} == set(CONVENTIONS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("method", ["euler", "heun", "ab2", "pec2", "dpmpp-2m"])
def test_conventions_sample_the_same_data(method: str, guided: bool, dtype: torch.dtype) -> None:
    guidance = Guidance(2.0, null_label=4) if guided else Guidance()
    results = {
        name: sample(model, seeded(*STATE, dtype=dtype), LABELS, method=method, nfe=7,
                     guidance=guidance, convention=convention)
        for name, (convention, model) in MODELS.items()
    }  # fmt: skip
    wanted = results["repa"].x
    assert wanted.std() > 0.1
    for name, result in results.items():
        assert result.x.dtype == dtype
        assert result.stats.nfe == 7
        assert relative(result.x, wanted) < TOLERANCE[dtype], name


@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_gaussian_flow_is_its_closed_form(name: str, labels: Tensor | None) -> None:
    """Time direction, sign and scale against a solution that no code of the library takes part in;
    the end is σ = 0.25, where a denoised prediction has a velocity too."""
    toy = Toy(gap=0.0)
    convention, model = models(toy)[name]
    field = FlowField(model, convention, labels)
    family = field.resolved
    end = family.data_t + 0.25 * family.direction
    noise = seeded(*STATE)
    solution = qf.solve(
        field, noise, (family.noise_t, end), method="dopri8", rtol=1e-12, atol=1e-12
    )
    assert relative(solution.y[-1], toy.flow(noise, 0.25, labels)) < 1e-10
    # calls of `evaluate` are what the solver counts
    assert field.evaluations == solution.stats.nfe
    assert field.rows == 3 * solution.stats.nfe


def test_sigma_and_direction() -> None:
    for convention in CONVENTIONS.values():
        assert convention.sigma(convention.noise_t) == 1
        assert convention.sigma(convention.data_t) == 0
        assert convention.direction == convention.noise_t - convention.data_t
        t = convention.data_t + 0.25 * convention.direction
        assert convention.sigma(t) == pytest.approx(0.25)
        assert torch.allclose(convention.sigma(torch.tensor([t])), torch.tensor([0.25]))


def test_own_convention_and_extras() -> None:
    """A convention need not be a registered one; extras reach the model as keywords."""
    seen = []

    def model(x: Tensor, t: Tensor, y: Tensor, *, gain: float) -> Tensor:
        seen.append(t)
        return gain * TOY.velocity(x, (t / 10 - 2) / 3, y) / 3

    mine = CONVENTIONS["repa"].__class__(
        "mine", 5.0, 2.0, CONVENTIONS["repa"].call, time_scale=10.0
    )
    noise = seeded(*STATE)
    got = sample(model, noise, LABELS, method="ab2", nfe=5, convention=mine, extras={"gain": 1.0})
    wanted = sample(plain, noise, LABELS, method="ab2", nfe=5)
    assert relative(got.x, wanted.x) < 1e-12
    assert seen[0].tolist() == [50.0] * 3
    other = sample(model, noise, LABELS, method="ab2", nfe=5, convention=mine, extras={"gain": 2.0})
    assert relative(other.x, wanted.x) > 0.1


def test_per_sample_times_are_those_of_single_evaluations() -> None:
    """Times (B, 1, 1, 1), as the training uses them; guided with an interval between them."""
    guidance = Guidance(3.0, 4, interval=(0.2, 0.6))
    times = [0.2, 0.6, 0.61]
    x = seeded(*STATE)
    for name in ("repa", "sit", "diffusers", "torchcfm", "k-diffusion"):
        convention, model = MODELS[name]
        column = torch.tensor(times, dtype=torch.float64)[:, None, None, None]
        field = FlowField(model, convention, LABELS, guidance)
        together, halves = field.evaluate(column, x)
        for i, t in enumerate(times):
            alone = FlowField(model, convention, LABELS[i : i + 1], guidance)
            v, pair = alone.evaluate(t, x[i : i + 1])
            assert relative(together[i : i + 1], v) < 1e-12, (name, t)
            assert relative(halves[1][i : i + 1], pair[1]) < 1e-12, (name, t)


def test_calling_a_field_is_evaluating_it() -> None:
    field = FlowField(plain, labels=LABELS)
    x = seeded(*STATE)
    assert torch.equal(field(torch.tensor(0.5), x), field.evaluate(0.5, x)[0])


# -- dtypes ----------------------------------------------------------------------------------------


class HalfModel(nn.Module):
    """Notes the dtypes that it is given; its velocity is that of the toy, rounded."""

    num_classes = 4

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones((), dtype=dtype))
        self.seen: list[tuple[torch.dtype, torch.dtype]] = []
        self.times: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        self.seen.append((x.dtype, t.dtype))
        self.times.append(t)
        return self.gain * TOY.velocity(x.float(), t.float(), y).to(x.dtype)


@pytest.mark.parametrize("method", ["euler", "heun", "ab2", "pec2", "dpmpp-2m"])
def test_half_precision_model_in_a_float32_state(method: str) -> None:
    model, noise = HalfModel(torch.bfloat16), seeded(*STATE, dtype=torch.float32)
    states: list[Tensor] = []
    result = sample(
        model, noise, LABELS, method=method, nfe=8, guidance=Guidance(1.5, 4),
        callback=lambda t, x: states.append(x),
    )  # fmt: skip
    assert set(model.seen) == {(torch.bfloat16, torch.bfloat16)}
    assert {x.dtype for x in states} == {torch.float32} == {result.x.dtype}
    # a state rounded to bfloat16 on the way would lie on the coarse grid of that type
    assert all(not torch.equal(x, x.bfloat16().float()) for x in states)
    exact = sample(plain, noise, LABELS, method=method, nfe=8, guidance=Guidance(1.5, 4))
    assert 1e-6 < relative(result.x, exact.x) < 0.02


def test_float64_state_of_a_float32_model() -> None:
    model = HalfModel(torch.float32)
    v, halves = FlowField(model, labels=LABELS).evaluate(0.3, seeded(*STATE))
    assert model.seen == [(torch.float32, torch.float32)]
    assert v.dtype == torch.float64 == halves[0].dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_scaled_times_are_rounded_once(dtype: torch.dtype) -> None:
    """1000 t in the model's precision, not 1000 times a t that was rounded before."""
    scaled = CONVENTIONS["repa"].__class__(
        "scaled", 1.0, 0.0, CONVENTIONS["repa"].call, time_scale=1000.0
    )
    model = HalfModel(dtype)
    x = seeded(*STATE, dtype=torch.float32)
    field = FlowField(model, scaled, LABELS)
    for i in range(1, 40):
        t = i / 40
        field.evaluate(t, x)
        wanted = torch.full((3,), 1000 * t, dtype=dtype)
        assert torch.equal(model.times[-1], wanted), t
        field.evaluate(torch.full((3, 1, 1, 1), t, dtype=torch.float64), x)
        assert torch.equal(model.times[-1], wanted), t


# -- guidance --------------------------------------------------------------------------------------


def test_a_guided_pair_is_one_call_and_one_evaluation() -> None:
    model = Calls(plain)
    noise = seeded(*STATE)
    result = sample(model, noise, LABELS, method="ab2", nfe=5, guidance=Guidance(2.0, 4))
    assert len(model) == result.stats.nfe == result.stats.calls == 5
    assert result.rows == 5 * 6
    for x, t, labels in model:
        assert x.shape == (6, 3, 2, 2)
        assert torch.equal(x[:3], x[3:])
        assert t.shape == (6,)
        assert labels.tolist() == [0, 3, 1, 4, 4, 4]


def test_scale_one_evaluates_no_second_half() -> None:
    model = Calls(plain)
    guidance = Guidance(1.0, 4)
    result = sample(model, seeded(*STATE), LABELS, method="ab2", nfe=5, guidance=guidance)
    assert {len(x) for x, _, _ in model} == {3}
    assert result.rows == 15
    unguided = sample(plain, seeded(*STATE), LABELS, method="ab2", nfe=5)
    assert torch.equal(result.x, unguided.x)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 7.5])
def test_the_combination(scale: float) -> None:
    x, t = seeded(*STATE), torch.full((3,), 0.4, dtype=torch.float64)
    labelled, null = (TOY.velocity(x, t, y) for y in (LABELS, torch.full_like(LABELS, 4)))
    v, halves = FlowField(plain, labels=LABELS, guidance=Guidance(scale, 4)).evaluate(0.4, x)
    assert relative(v, (1 - scale) * null + scale * labelled) < 1e-13
    assert torch.equal(halves[0], labelled)
    assert torch.equal(halves[1], null)


@pytest.mark.parametrize("convention", ["repa", "sit"])
def test_interval_is_open_below_and_closed_above(convention: str) -> None:
    """low < t <= high in the model's own time, whichever way it runs."""
    name, model = MODELS[convention]
    guidance = Guidance(3.0, 4, interval=(0.25, 0.75))
    field = FlowField(model, name, LABELS, guidance)
    x = seeded(*STATE)
    inside = {}
    for t in (0.05, 0.25, math.nextafter(0.25, 1), 0.5, 0.75, math.nextafter(0.75, 1), 0.95):
        v, (labelled, null) = field.evaluate(t, x)
        guided = null + 3.0 * (labelled - null)
        assert not torch.allclose(guided, labelled)
        inside[t] = torch.equal(v, guided)
        assert inside[t] or torch.equal(v, labelled)
        # the same for times given per sample
        column = torch.full((3, 1, 1, 1), t, dtype=torch.float64)
        assert torch.allclose(field.evaluate(column, x)[0], v, rtol=1e-12, atol=1e-13)
    assert list(inside.values()) == [False, False, True, True, True, False, False]


def test_only_the_first_channels_are_guided() -> None:
    x = seeded(*STATE)
    guidance = Guidance(3.0, 4, channels=2)
    v, (labelled, null) = FlowField(plain, labels=LABELS, guidance=guidance).evaluate(0.5, x)
    assert torch.equal(v[:, :2], (null + 3.0 * (labelled - null))[:, :2])
    assert torch.equal(v[:, 2:], labelled[:, 2:])


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"), [("sti", "sit"), ("flow-matching", "flow_matching"), ("kdiffusion", "k-diff")]
)
def test_unknown_convention_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"convention={name!r} is unknown: did you mean '{hint}"):
        FlowField(plain, name)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.tensor([0, 1, 2], dtype=torch.int32), TypeError, r"labels .*torch\.int32"),
        (torch.tensor([0.0, 1.0, 2.0]), TypeError, r"labels .*torch\.float32"),
        (torch.tensor([True, False, True]), TypeError, r"labels .*torch\.bool"),
        (torch.tensor([[0], [1], [2]]), TypeError, r"labels .*\(3, 1\)"),
        (torch.tensor(0), TypeError, r"labels .*\(\)"),
        ([0, 1, 2], TypeError, r"labels .*\[0, 1, 2\]"),
        (torch.tensor([0, 4, 1]), ValueError, "labels contains 4; classes are 0 to 3"),
        (torch.tensor([0, -1, 1]), ValueError, "labels contains -1; classes are 0 to 3"),
    ],
)
def test_bad_labels(labels: object, error: type[Exception], message: str) -> None:
    model = HalfModel(torch.float32)
    with pytest.raises(error, match=message):
        FlowField(model, labels=labels)  # type: ignore[arg-type]


def test_labels_range_is_the_fields_or_the_models() -> None:
    with pytest.raises(ValueError, match="labels contains 3; classes are 0 to 1"):
        FlowField(plain, labels=LABELS, num_classes=2)
    with pytest.raises(ValueError, match="labels contains -2; classes are 0"):
        FlowField(plain, labels=torch.tensor([-2]))
    FlowField(plain, labels=torch.tensor([12345]))  # nobody knows the number of classes
    # the null label is a label, where it is known
    FlowField(HalfModel(torch.float32), labels=torch.tensor([4]), guidance=Guidance(null_label=4))
    check_labels(torch.tensor([4, 0]), 4, 4)


def test_another_number_of_labels_than_samples() -> None:
    field = FlowField(plain, labels=LABELS)
    with pytest.raises(ValueError, match="labels has 3 entries, the state 2 samples"):
        field.evaluate(1.0, seeded(2, 3, 2, 2))
    with pytest.raises(ValueError, match="labels has 3 entries, the state 2 samples"):
        sample(plain, seeded(2, 3, 2, 2), LABELS, method="euler", nfe=1)


def test_guidance_needs_labels_and_a_null_label() -> None:
    with pytest.raises(ValueError, match=r"guidance scale 2\.0 needs labels, got None"):
        FlowField(plain, guidance=Guidance(2.0, 4))
    with pytest.raises(ValueError, match=r"guidance scale 2\.0 needs a null_label"):
        FlowField(plain, labels=LABELS, guidance=Guidance(2.0))


@pytest.mark.parametrize("scale", [-0.1, math.nan, math.inf])
def test_bad_scale(scale: float) -> None:
    with pytest.raises(ValueError, match=f"scale must be .*, got {scale}"):
        Guidance(scale)


@pytest.mark.parametrize("interval", [(0.5, 0.5), (0.6, 0.2), (0.0, math.nan), (math.nan, 1.0)])
def test_bad_interval(interval: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"interval must be \(low, high\)"):
        Guidance(2.0, 4, interval=interval)


@pytest.mark.parametrize("channels", [0, -1])
def test_bad_channels(channels: int) -> None:
    with pytest.raises(ValueError, match=f"channels must be .*, got {channels}"):
        Guidance(2.0, 4, channels=channels)


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (None, "NoneType"),
        (3, "int"),
        ((), "tuple"),
        ([], "list"),
        ((None, 1), "tuple"),
        ({}, "dict"),
        ({"velocity": torch.zeros(STATE)}, "dict"),
        (Output(None), "Output"),  # type: ignore[arg-type]
    ],
)
def test_unusable_outputs(output: object, kind: str) -> None:
    with pytest.raises(TypeError, match=f"the model must return a tensor.*; got {kind}"):
        sample(lambda x, t: output, seeded(*STATE), method="euler", nfe=1)


def test_outputs_that_hold_a_tensor() -> None:
    value = torch.zeros(2)
    for output in (value, (value, None), [value], {"sample": value}, Output(value)):
        assert output_tensor(output) is value


def test_output_of_another_shape() -> None:
    """Such as the two halves of a network that learns the variance as well."""
    with pytest.raises(ValueError, match=r"shape \(3, 6, 2, 2\) for an input \(3, 3, 2, 2\)"):
        sample(lambda x, t: torch.cat((x, x), 1), seeded(*STATE), method="euler", nfe=1)


def test_a_denoised_prediction_has_no_velocity_at_the_data() -> None:
    """(x - D)/σ is 0/0 there; said before the images are NaN."""
    convention, model = MODELS["k-diffusion"]
    with pytest.raises(ValueError, match=r"k-diffusion.*σ = 0.*odd nfe"):
        sample(model, seeded(*STATE), LABELS, method="heun", nfe=4, convention=convention)
    # all other methods and budgets stay away from it
    sample(model, seeded(*STATE), LABELS, method="heun", nfe=5, convention=convention)
