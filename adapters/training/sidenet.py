"""Chain training of a SideNet against a frozen backbone."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import integer_from
from ...equations.velocity import StateLayout, Velocity
from ...plans.anchors.method import anchors
from ...plans.state import State
from ...rules.gauss import gauss_legendre
from ..backbones.checkpoints import save_weights
from ..data.datasets import Images
from ..flow.field import Convention, FlowField, Guidance, resolve_convention
from ..sidenet.network import SideNet, SideNetConfig, SideNetInterpolant
from .chains import LEAST_SIGMA, ChainSource, DataChains, TrajectoryChains
from .fit import FitConfig, Recording, Writers, fit, make_accelerator
from .previews import sample_grids
from .random import StepRandom
from .state import identity


@dataclass(frozen=True)
class ChainConfig:
    """Constants of the chain; the defaults are the published ones.

    length: anchors visited after the first. offset_rate: the step |h| between them is exponential
    with this rate, truncated to stay in [0, 1] (mean about 1/rate). towards_data: probability of a
    step towards the data. label_dropout: probability of the null label. nodes: of the
    Gauss-Legendre rule that the roll-out integrates a link with.
    """

    length: int = 8
    offset_rate: float = 50.0
    towards_data: float = 0.5
    label_dropout: float = 0.1
    nodes: int = 3

    def __post_init__(self) -> None:
        for name in ("length", "nodes"):
            integer_from(1, getattr(self, name), name)
        if not self.offset_rate > 0:
            raise ValueError(f"offset_rate must be positive, got {self.offset_rate}")
        for name in ("towards_data", "label_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")


def random_offsets(sigma: Tensor, config: ChainConfig, random: StepRandom) -> Tensor:
    """Signed offsets h for σ in [0, 1] (noise at 1): σ - h stays in [0, 1]; both (B,)."""
    forward = random.uniform(sigma.dtype) < config.towards_data
    room = torch.where(forward, sigma, 1 - sigma)
    uniform = random.uniform(sigma.dtype)
    size = -torch.log1p(uniform * torch.expm1(-config.offset_rate * room)) / config.offset_rate
    size = torch.minimum(size, room)
    return torch.where(forward, size, -size)


def chain_loss(
    model: Any,
    sidenet: nn.Module,
    start: tuple[Tensor, Tensor, Tensor],
    config: ChainConfig,
    random: StepRandom,
    *,
    convention: Convention | str = "repa",
) -> Tensor:
    """Mean squared error of the SideNet's velocity at the far end of every link of a chain.

    From where it starts the chain takes `length` steps of random size and direction; each is
    rolled out by the SideNet from one anchor with Gauss-Legendre (no gradient), the backbone is
    evaluated where it arrives, and the SideNet is asked for that velocity. Every backbone
    evaluation is the target of one link and the anchor of the next. The SideNet sees σ and dx/dσ,
    whatever the backbone's own time is.

    Args:
        model: frozen backbone. sidenet: the network in training; if its `num_classes` is 0 the
            backbone is called without labels. start: what `ChainSource.states` returns. random: the
            step's numbers. convention: the backbone's, see `FlowField`.

    Returns:
        Scalar of the state's dtype, with the gradient of the SideNet's parameters alone.

    Source: arXiv 2601.21542, section 4.3.
    """
    x, sigma, y = start
    path = resolve_convention(convention)
    null = int(getattr(sidenet, "num_classes", 0))
    field = FlowField(model, path, y if null else None, Guidance(null_label=null))
    method = anchors(SideNetInterpolant(sidenet, field), gauss_legendre(config.nodes))
    stepper = method.stepper(Velocity(field, StateLayout(x), (path.noise_t, path.data_t)))
    column = (-1,) + (1,) * (x.dim() - 1)
    least = LEAST_SIGMA if path.prediction == "denoised" else 0.0

    def own_time(s: Tensor) -> Any:
        return (path.data_t + path.direction * s).view(column)

    places, velocities, sigmas, offsets = [], [], [], []
    with torch.no_grad():
        sigma = sigma.clamp(min=least)
        state = State(own_time(sigma), x)
        anchor = stepper.start(state)
        for _ in range(config.length):
            arrival = (sigma - random_offsets(sigma, config, random)).clamp(least, 1)
            places.append(x)
            velocities.append(anchor.v * path.direction)
            sigmas.append(sigma)
            offsets.append(sigma - arrival)
            state = stepper.step(State(state.t, x, anchor), own_time(arrival)).state
            anchor = stepper.start(state)
            x, sigma = state.y, arrival
    # all links in one call: the gradient needs every one of them at once anyway
    v = torch.cat(velocities)
    target = torch.cat((*velocities[1:], anchor.v * path.direction))
    change = sidenet(
        torch.cat(places), v, torch.cat(sigmas), torch.cat(offsets), y.repeat(config.length)
    )
    return F.mse_loss(v + change.to(v.dtype), target)


def chain_source(
    model: nn.Module,
    data: Images | ChainSource | None,
    sidenet: SideNetConfig,
    chain: ChainConfig,
    *,
    shape: tuple[int, int, int] | None = None,
    convention: Convention | str = "repa",
) -> ChainSource:
    """The source that `train_sidenet` takes for its `data`; see there.

    Raises:
        ValueError: a SideNet of another number of channels or classes than the data; no data and
            no shape.
    """
    if isinstance(data, ChainSource):
        return data
    null, dropout = sidenet.num_classes, chain.label_dropout
    if data is None:
        if shape is None:
            raise ValueError(
                "without data the shape of a state is needed: (channels, height, width)"
            )
        if shape[0] != sidenet.in_channels:
            raise ValueError(f"sidenet has {sidenet.in_channels} channels; shape is {shape}")
        dtype = getattr(next(iter(model.parameters()), None), "dtype", None)
        return TrajectoryChains(
            model,
            shape,
            null,
            dropout,
            convention=convention,
            dtype=torch.float64 if dtype == torch.float64 else torch.float32,
        )
    channels, classes = data.shape[0], data.num_classes
    if sidenet.in_channels != channels or classes not in (0, null):
        raise ValueError(
            f"sidenet has {sidenet.in_channels} channels and {null} classes; the "
            f"data have {channels} and {classes}"
        )
    return DataChains(data, null, dropout)


def train_sidenet(
    model: nn.Module,
    data: Images | ChainSource | None,
    out: str | Path,
    *,
    config: FitConfig,
    sidenet: SideNetConfig,
    chain: ChainConfig | None = None,
    convention: Convention | str = "repa",
    shape: tuple[int, int, int] | None = None,
    recording: Recording | None = None,
) -> SideNet:
    """Train a SideNet for a frozen backbone by chain training; save and return its EMA.

    Under `accelerate launch` every process calls it with the same arguments.

    Args:
        model: the backbone; a copy is frozen, it is not changed.
        data: images that the chains start from (without labels: all with the null label), any
            `ChainSource`, or None: then chains start on the backbone's own trajectories.
        out: the safetensors file (float16), renewed at every checkpoint.
        config: optimisation constants; batch_size is the number of chains a step.
        sidenet: shape of the network (channels and classes must be the data's); num_classes=0 for
            a backbone without labels.
        chain: see `ChainConfig`. convention: the backbone's, see `FlowField`.
        shape: (C, H, W) of a state; needed where data is None.
        recording: log, checkpoints, resuming and pictures, see `Recording`.

    Raises:
        ValueError: a SideNet of another number of channels or classes than the data; no data and
            no shape; what `fit` raises.
        FloatingPointError: see `fit`.
    """
    chain, recording = chain or ChainConfig(), recording or Recording()
    accelerator = make_accelerator(config.mixed_precision)
    backbone = copy.deepcopy(model).eval().requires_grad_(False).to(accelerator.device)
    source = chain_source(backbone, data, sidenet, chain, shape=shape, convention=convention)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = SideNet(sidenet)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(random: StepRandom) -> Tensor:
        start = source.states(random)
        return chain_loss(backbone, network, start, chain, random, convention=convention)

    def checkpoint(ema: nn.Module) -> None:
        save_weights(out, ema, sidenet.to_dict(), dtype=torch.float16)

    pictures = sample_grids(
        recording.samples, source.shape, sidenet.num_classes, backbone=backbone,
        convention=convention, seed=config.seed,
    )  # fmt: skip
    ema = fit(
        network,
        loss,
        config,
        recording=recording,
        writers=Writers(checkpoint, pictures),
        fingerprint={
            **{f"chain.{k}": v for k, v in asdict(chain).items()},
            **{f"sidenet.{k}": v for k, v in sidenet.to_dict().items()},
            **source.fingerprint(),
            "backbone": identity(model),
            "convention": resolve_convention(convention).name,
        },
        accelerator=accelerator,
        description="SideNet",
    )
    assert isinstance(ema, SideNet)
    return ema
