"""SideNet, its interpolant, and the Bi-Anchor solver against a plain statement of its equations."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_sidenets import (
    CLASSES,
    LABELS,
    SMALL,
    STATE,
    Backbone,
    Spy,
    random_sidenet,
    relative,
    reversed_time,
)
from torch import Tensor, nn
from toyflow import Calls, Toy, seeded

import quadflow as qf
from quadflow.adapters import (
    BiAnchor,
    FlowField,
    Guidance,
    SideNet,
    SideNetConfig,
    SideNetInterpolant,
    load_sidenet,
    load_unet,
    sample,
)
from quadflow.plans.interpolants import Anchor

PUBLISHED = """
    h_embedder.mlp.0.weight 256x256; h_embedder.mlp.0.bias 256; h_embedder.mlp.2.weight 256x256;
    h_embedder.mlp.2.bias 256; t_embedder.mlp.0.weight 256x256; t_embedder.mlp.0.bias 256;
    t_embedder.mlp.2.weight 256x256; t_embedder.mlp.2.bias 256;
    y_embedder.embedding_table.weight 1001x256; emb_fusion.0.weight 256x768;
    emb_fusion.0.bias 256; emb_fusion.2.weight 256x256; emb_fusion.2.bias 256;
    input_conv.weight 256x8x3x3; blocks.0.conv1_dw.weight 256x1x3x3;
    blocks.0.conv1_pw.weight 256x256x1x1; blocks.0.conv2_dw.weight 256x1x3x3;
    blocks.0.conv2_pw.weight 256x256x1x1; blocks.0.conv2_pw.bias 256;
    blocks.0.emb_proj.weight 512x256; blocks.0.emb_proj.bias 512;
    blocks.1.conv1_dw.weight 256x1x3x3; blocks.1.conv1_pw.weight 256x256x1x1;
    blocks.1.conv2_dw.weight 256x1x3x3; blocks.1.conv2_pw.weight 256x256x1x1;
    blocks.1.conv2_pw.bias 256; blocks.1.emb_proj.weight 512x256; blocks.1.emb_proj.bias 512;
    blocks.2.emb_proj.weight 512x256; blocks.2.emb_proj.bias 512;
    blocks.2.qkv.weight 768x256x1x1; blocks.2.proj.weight 256x256x1x1;
    blocks.3.conv1_dw.weight 256x1x3x3; blocks.3.conv1_pw.weight 256x256x1x1;
    blocks.3.conv2_dw.weight 256x1x3x3; blocks.3.conv2_pw.weight 256x256x1x1;
    blocks.3.conv2_pw.bias 256; blocks.3.emb_proj.weight 512x256; blocks.3.emb_proj.bias 512;
    output_conv.weight 4x256x3x3; output_conv.bias 4
"""
"""Names and shapes of the tensors of the published network, in their order."""

TOY = Toy()


# -- the network -----------------------------------------------------------------------------------


def test_published_configuration_has_the_published_tensors() -> None:
    table = {}
    for entry in PUBLISHED.split(";"):
        name, shape = entry.split()
        table[name] = tuple(map(int, shape.split("x")))
    own = {name: tuple(value.shape) for name, value in SideNet().state_dict().items()}
    assert own == table
    assert len(table) == 41
    assert sum(map(math.prod, own.values())) == 2_006_020
    assert {name for name, _ in SideNet().named_parameters()} == set(table)


def network_inputs(
    rows: int, config: SideNetConfig, size: int = 8, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    shape = (rows, config.in_channels, size, size)
    t = torch.linspace(0.2, 0.9, rows, dtype=dtype)
    h = torch.linspace(-0.2, 0.15, rows, dtype=dtype)
    y = torch.arange(rows) % (config.num_classes + 1)
    return seeded(*shape, dtype=dtype), seeded(*shape, seed=1, dtype=dtype), t, h, y


def test_a_new_network_changes_nothing() -> None:
    inputs = network_inputs(5, SideNetConfig(), dtype=torch.float32)
    delta = SideNet()(*inputs)
    assert delta.shape == inputs[0].shape
    assert torch.count_nonzero(delta) == 0


def test_the_change_is_h_times_the_network() -> None:
    net = random_sidenet(0)
    x, v, t, h, y = network_inputs(5, SMALL)
    delta = net(x, v, t, h, y)
    assert delta.abs().amax((1, 2, 3)).min() > 1e-3
    assert torch.count_nonzero(net(x, v, t, torch.zeros_like(h), y)) == 0
    # with an embedding that does not see h, nothing but the factor h is left of it
    net.h_embedder.forward = lambda h: torch.ones(len(h), SMALL.emb_dim, dtype=h.dtype)
    change = net(x, v, t, h, y)
    assert relative(net(x, v, t, -h, y), -change) < 1e-14
    assert relative(net(x, v, t, 3 * h, y), 3 * change) < 1e-14


def test_every_input_matters() -> None:
    net = random_sidenet(0)
    inputs = network_inputs(3, SMALL)
    before = net(*inputs)
    other = (inputs[0] + 0.1, inputs[1] + 0.1, inputs[2] + 0.05, inputs[3] + 0.02,
             (inputs[4] + 1) % (CLASSES + 1))  # fmt: skip
    for i in range(5):
        changed = net(*inputs[:i], other[i], *inputs[i + 1 :])
        assert (changed - before).abs().amax((1, 2, 3)).min() > 1e-6, f"input {i}"


def test_rows_are_independent() -> None:
    net = random_sidenet(0)
    inputs = network_inputs(5, SMALL)
    together = net(*inputs)
    for i in range(5):
        alone = net(*(a[i : i + 1] for a in inputs))
        assert relative(alone, together[i : i + 1]) < 1e-12


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_patches_keep_the_shape(patch: int, channels: int) -> None:
    config = replace(SMALL, patch=patch, in_channels=channels)
    net = random_sidenet(0, config)
    for shape in ((2, channels, 8, 8), (2, channels, 12, 4)):
        x, v = seeded(*shape), seeded(*shape, seed=1)
        t = torch.full((2,), 0.5, dtype=torch.float64)
        assert net(x, v, t, t, torch.tensor([0, CLASSES])).shape == shape
    folded = channels * patch**2
    assert net.input_conv.weight.shape == (8, 2 * folded, 3, 3)
    assert net.output_conv.weight.shape == (folded, 8, 3, 3)


def test_patches_that_do_not_fit_are_refused() -> None:
    config = replace(SMALL, patch=4)
    inputs = network_inputs(2, config, size=6)
    with pytest.raises(ValueError, match=r"patch=4.*6"):
        SideNet(config).double()(*inputs)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width=8 must be a multiple of heads=3"):
        SideNet(replace(SMALL, heads=3))


# -- the interpolant -------------------------------------------------------------------------------


def anchor(field: FlowField, t: float, seed: int) -> Anchor:
    y = seeded(*STATE, seed=seed)
    v, detail = field.evaluate(t, y)
    return Anchor(t, y, v, detail)


def toy_model(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return TOY.velocity(x, t, y)


def test_prediction_is_one_call_without_the_anchors_own_node() -> None:
    field, spy = FlowField(toy_model, labels=LABELS), Spy(0.7)
    start, rule = anchor(field, 0.8, 0), qf.gauss_lobatto(4)
    got = SideNetInterpolant(spy, field).velocities(qf.Interval([start], 0.8, 0.6, rule))
    assert got.shape == (4, *STATE)
    assert torch.equal(got[0], start.v)
    ((x, v, t, h, y),) = spy.calls
    assert len(x) == 3 * 3
    inner = 0.2 * torch.tensor(rule.nodes[1:]).repeat_interleave(3)
    assert torch.allclose(h, inner, rtol=1e-13)  # positive: towards the data
    assert torch.equal(t, torch.full((9,), 0.8, dtype=torch.float64))
    assert torch.equal(x, start.y.repeat(3, 1, 1, 1))
    assert torch.equal(v, start.v.repeat(3, 1, 1, 1))
    assert y.tolist() == LABELS.tolist() * 3
    for i, c in enumerate(rule.nodes.tolist()):
        assert torch.allclose(got[i], start.v + 0.7 * 0.2 * c, rtol=1e-13)


@pytest.mark.parametrize(
    ("rule", "from_start"),
    [
        (qf.gauss_lobatto(4), [0, 1]),
        (qf.gauss_lobatto(5), [0, 1, 2]),  # the middle node belongs to the start
        (qf.gauss_legendre(3), [0, 1]),
        (qf.radau_right(3), [0]),
        (qf.trapezoid(), [0]),
    ],
)
def test_the_nearer_anchor_serves_a_node(rule: qf.QuadratureRule, from_start: list[int]) -> None:
    field, spy = FlowField(toy_model, labels=LABELS), Spy(0.7)
    interpolant = SideNetInterpolant(spy, field)
    start, end = anchor(field, 0.8, 0), anchor(field, 0.6, 1)
    predicted = interpolant.integrate(qf.Interval([start], 0.8, 0.6, rule))
    spy.calls.clear()
    got = interpolant.velocities(qf.Interval([start, end], 0.8, 0.6, rule, predicted))
    for i, c in enumerate(rule.nodes.tolist()):
        if i in from_start:  # the prediction's own numbers, not computed again
            assert torch.equal(got[i], predicted.values[i])
        elif c == 1:
            assert torch.equal(got[i], end.v)
        else:
            assert torch.allclose(got[i], end.v + 0.7 * 0.2 * (c - 1), rtol=1e-13)
    far = [c for i, c in enumerate(rule.nodes.tolist()) if i not in from_start and c < 1]
    assert len(spy.calls) == (1 if far else 0)
    for x, v, t, h, _ in spy.calls:
        # a look back from the end: towards the noise, h negative
        wanted = 0.2 * (torch.tensor(far, dtype=torch.float64) - 1)
        assert torch.allclose(h, wanted.repeat_interleave(3), rtol=1e-12)
        assert torch.equal(x, end.y.repeat(len(far), 1, 1, 1))
        assert torch.equal(v, end.v.repeat(len(far), 1, 1, 1))
        assert set(t.tolist()) == {0.6}


def test_a_solve_calls_the_network_twice_an_interval_and_once_in_the_last() -> None:
    spy, model = Spy(0.7), Calls(toy_model)
    sample(model, seeded(*STATE), LABELS, nfe=5, sidenet=spy)
    assert [len(x) // 3 for x, *_ in spy.calls] == [3, 1] * 4 + [3]
    assert len(model) == 5


@pytest.mark.parametrize("convention", ["repa", "sit"])
def test_guided_halves_are_carried_apart_and_combined_at_the_nodes_own_time(
    convention: str,
) -> None:
    """The interval's ends are the times of two nodes: open below, closed above, node by node."""
    rule = qf.gauss_lobatto(4)
    repa = convention == "repa"
    t0, t1 = (0.8, 0.6) if repa else (0.2, 0.4)
    times = [t0 + c * (t1 - t0) for c in rule.nodes.tolist()]
    sign = 1.0 if repa else -1.0

    class LabelSpy(Spy):
        """The change depends on the label: the halves differ in it."""

        def forward(self, x, v, t, h, y):
            return super().forward(x, v, t, h, y) * (1 + y)[:, None, None, None]

    spy = LabelSpy(0.7)
    model = toy_model if repa else (lambda x, t, y: -TOY.velocity(x, 1 - t, y))
    low, high = sorted((times[1], times[2]))
    guidance = Guidance(3.0, CLASSES, interval=(low, high), channels=2)
    field = FlowField(model, convention, LABELS, guidance)
    start, end = anchor(field, t0, 0), anchor(field, t1, 1)
    interpolant = SideNetInterpolant(spy, field)
    predicted = interpolant.integrate(qf.Interval([start], t0, t1, rule))
    got = interpolant.velocities(qf.Interval([start, end], t0, t1, rule, predicted))

    factor = {False: (1.0 + LABELS.double())[:, None, None, None], True: 1.0 + CLASSES}
    for i, (c, _) in enumerate(zip(rule.nodes.tolist(), times, strict=True)):
        source, h = (start, 0.2 * c) if c < 0.5 else (end, 0.2 * (c - 1))
        labelled, null = (
            half + sign * 0.7 * h * factor[is_null]
            for half, is_null in zip(source.detail, (False, True), strict=True)
        )
        wanted = labelled.clone()
        if i == (1 if repa else 2):  # the node at `high`; the one at `low` is outside
            wanted[:, :2] = (null + 3.0 * (labelled - null))[:, :2]
        assert relative(got[i], wanted) < 1e-13, i
    # both halves of all nodes in one call, the labelled one first
    (x, v, t, _, y), _ = spy.calls
    assert len(x) == 3 * 2 * 3
    assert y.tolist() == [*LABELS.tolist(), CLASSES, CLASSES, CLASSES] * 3
    assert torch.allclose(v[:6], sign * torch.cat(start.detail), rtol=1e-13)
    assert torch.allclose(t, torch.full((18,), 0.8, dtype=torch.float64), rtol=1e-13)


@pytest.mark.parametrize("guidance", [Guidance(), Guidance(2.5, CLASSES, (0.15, 0.95))])
def test_both_time_directions_give_the_same_data(guidance: Guidance) -> None:
    model, net = Backbone(0), random_sidenet(1)
    low, high = guidance.interval
    # what is closed above in one direction is open in the other: the ends hit no node
    mirrored = replace(guidance, interval=(1 - high, 1 - low))
    noise = seeded(*STATE)
    one = sample(model, noise, LABELS, nfe=6, sidenet=net, guidance=guidance)
    two = sample(
        reversed_time(model), noise, LABELS, nfe=6, sidenet=net, guidance=mirrored,
        convention="sit",
    )  # fmt: skip
    assert relative(two.x, one.x) < 1e-12
    # and the network takes part in it
    plain = sample(model, noise, LABELS, nfe=6, sidenet=SideNet(SMALL), guidance=guidance)
    assert relative(plain.x, one.x) > 1e-3


def test_a_denoised_prediction_is_carried_too() -> None:
    """k-diffusion models reach the network as velocities."""
    model, net, noise = Backbone(0), random_sidenet(1), seeded(*STATE)

    def denoiser(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return x - sigma[:, None, None, None] * model(x, sigma, y)

    one = sample(model, noise, LABELS, nfe=4, sidenet=net)
    two = sample(denoiser, noise, LABELS, nfe=4, sidenet=net, convention="k-diffusion")
    assert relative(two.x, one.x) < 1e-12


def test_the_network_keeps_its_own_precision() -> None:
    net = random_sidenet(1, dtype=torch.float32)
    noise = seeded(*STATE)
    got = sample(Backbone(0), noise, LABELS, nfe=4, sidenet=net)
    wanted = sample(Backbone(0), noise, LABELS, nfe=4, sidenet=random_sidenet(1))
    assert got.x.dtype == torch.float64
    assert 1e-10 < relative(got.x, wanted.x) < 1e-5


# -- the solver ------------------------------------------------------------------------------------


def published_algorithm(
    model: nn.Module, net: nn.Module, noise: Tensor, labels: Tensor, n: int,
    guidance: Guidance | None = None,
) -> Tensor:  # fmt: skip
    """The Bi-Anchor solver written down from its equations, node by node and half by half."""
    r = math.sqrt(5)
    nodes = [0.0, (1 - 1 / r) / 2, (1 + 1 / r) / 2, 1.0]
    weights = [1 / 12, 5 / 12, 5 / 12, 1 / 12]
    conditions = [labels]
    if guidance is not None:
        conditions.append(torch.full_like(labels, guidance.null_label))

    def rows(value: float) -> Tensor:
        return torch.full((len(noise),), value, dtype=noise.dtype)

    def backbone(x: Tensor, t: float) -> list[Tensor]:
        return [model(x, rows(t), y) for y in conditions]

    def side(x: Tensor, v: list[Tensor], t: float, h: float) -> list[Tensor]:
        return [a + net(x, a, rows(t), rows(h), y) for a, y in zip(v, conditions, strict=True)]

    def guided(v: list[Tensor], t: float) -> Tensor:
        if guidance is None or not guidance.interval[0] < t <= guidance.interval[1]:
            return v[0]
        return v[1] + guidance.scale * (v[0] - v[1])

    def integral(values: list[Tensor]) -> Tensor:
        return sum(w * v for w, v in zip(weights, values, strict=True))

    times = [1 - i / n for i in range(n + 1)]
    x, v = noise, backbone(noise, 1.0)
    for i in range(n):
        t, h = times[i], times[i] - times[i + 1]
        forward = [guided(side(x, v, t, c * h), t - c * h) for c in nodes]
        predicted = x - h * integral(forward)
        if i == n - 1:
            return predicted
        t_next = times[i + 1]
        v_next = backbone(predicted, t_next)
        backward = [guided(side(predicted, v_next, t_next, (c - 1) * h), t - c * h) for c in nodes]
        x = x - h * integral(forward[:2] + backward[2:])
        v = v_next  # of the predicted state, reused at the corrected one
    raise AssertionError("unreachable")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "guidance", [None, Guidance(2.5, CLASSES), Guidance(2.5, CLASSES, (0.13, 0.77))]
)
@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_agrees_with_the_published_algorithm(
    n: int, guidance: Guidance | None, dtype: torch.dtype
) -> None:
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    noise = seeded(*STATE, dtype=dtype)
    for seed in range(3):
        model, net = Backbone(seed, dtype), random_sidenet(10 + seed, dtype=dtype)
        got = sample(model, noise, LABELS, nfe=n, sidenet=net, guidance=guidance)
        wanted = published_algorithm(model, net, noise, LABELS, n, guidance)
        assert relative(got.x, wanted) < tolerance
        assert got.x.dtype == dtype


def test_agrees_with_the_published_algorithm_on_the_shipped_networks() -> None:
    model, net = load_unet(), load_sidenet()
    noise, labels = seeded(2, 1, 28, 28, dtype=torch.float32), torch.tensor([1, 8])
    guidance = Guidance(2.0, 10)
    got = sample(model, noise, labels, nfe=4, sidenet=net, guidance=guidance)
    wanted = published_algorithm(model, net, noise, labels, 4, guidance)
    assert relative(got.x, wanted) < 1e-5


@pytest.mark.parametrize("n", [1, 2, 5])
def test_n_intervals_cost_n_evaluations_with_a_forward_last_interval(n: int) -> None:
    for forward_last, cost in ((True, n), (False, n + 1)):
        model = Calls(Backbone(0))
        field = FlowField(model, labels=LABELS)
        method = BiAnchor(random_sidenet(1), field, forward_last=forward_last)
        noise = seeded(*STATE)
        solution = qf.solve(field, noise, (1.0, 0.0), method=method, step_size=1 / n)
        assert len(model) == field.evaluations == solution.stats.nfe == cost
        assert solution.stats.calls == cost
        assert solution.stats.accepted == n


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_untrained_it_is_adams_bashforth_2(n: int) -> None:
    """On a uniform grid: the predicted states of PEC with constant prediction and trapezoidal
    correction obey the two-step formula."""
    model, noise = Backbone(0), seeded(*STATE)
    got = sample(model, noise, LABELS, nfe=n, sidenet=SideNet(SMALL).double())
    wanted = sample(model, noise, LABELS, method="ab2", nfe=n)
    assert relative(got.x, wanted.x) < 1e-12


def test_the_rule_can_be_chosen() -> None:
    field = FlowField(toy_model, labels=LABELS)
    assert BiAnchor(Spy(), field).rule.nodes.tolist() == qf.gauss_lobatto(4).nodes.tolist()
    spy = Spy()
    method = BiAnchor(spy, field, rule=qf.gauss_legendre(3))
    qf.solve(field, seeded(*STATE), (1.0, 0.0), method=method, step_size=0.5)
    assert [len(x) // 3 for x, *_ in spy.calls] == [3, 1, 3]
    assert (method.order, method.error_order, method.name) == (None, None, "bianchor")


def test_a_sidenet_of_another_backbone_is_refused() -> None:
    field = FlowField(Backbone(0), labels=LABELS)
    other = SideNet(replace(SMALL, num_classes=10))
    with pytest.raises(ValueError, match="made for 10 classes, the backbone has 4"):
        BiAnchor(other, field)
    with pytest.raises(ValueError, match="made for 10 classes, the backbone has 4"):
        sample(Backbone(0), seeded(*STATE), LABELS, nfe=2, sidenet=other)
    # what says nothing of its classes is taken as it is
    BiAnchor(Spy(num_classes=None), field)
    BiAnchor(other, FlowField(toy_model, labels=LABELS))


def test_a_field_without_labels_gives_the_null_label() -> None:
    net = random_sidenet(3)
    noise = seeded(*STATE)
    got = sample(lambda x, t: toy_model(x, t, None), noise, nfe=3, sidenet=net)
    null = torch.full((len(noise),), CLASSES)
    wanted = sample(toy_model, noise, null, nfe=3, sidenet=net, guidance=Guidance(1, CLASSES))
    assert torch.equal(got.x, wanted.x)
    with pytest.raises(ValueError, match="the field has no labels, and the SideNet no num_classes"):
        SideNetInterpolant(Spy(num_classes=None), FlowField(lambda x, t: x))
