"""Chain training of a SideNet against a frozen backbone."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quadflow.evaluation import StateLayout, Velocity
from quadflow.methods import anchors
from quadflow.quadrature import gauss_legendre
from quadflow.step import State, Stepper

from .checkpoints import save_weights
from .datasets import LabelledImages
from .embedding import drop_labels
from .flow import FlowField, Guidance
from .optimisation import FitConfig, fit
from .sidenet import SideNet, SideNetConfig, SideNetInterpolant


@dataclass(frozen=True)
class ChainConfig:
    """Constants of the chain; the defaults are the published ones.

    length: anchors visited after the first. offset_rate: the step |h| between them is exponential
    with this rate, truncated to stay in [0, 1] (mean about 1/rate). towards_data: probability of a
    step towards the data. label_dropout: probability of the null label.
    """

    length: int = 8
    offset_rate: float = 50.0
    towards_data: float = 0.5
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length must be >= 1, got {self.length}")
        if not self.offset_rate > 0:
            raise ValueError(f"offset_rate must be positive, got {self.offset_rate}")
        for name in ("towards_data", "label_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")


def draw_offsets(t: Tensor, config: ChainConfig, generator: torch.Generator) -> Tensor:
    """Signed offsets h for times t in [0, 1] (noise at 1): t - h stays in [0, 1]; both (B,)."""
    forward = torch.rand(t.shape, generator=generator, device=t.device) < config.towards_data
    room = torch.where(forward, t, 1 - t)
    uniform = torch.rand(t.shape, generator=generator, device=t.device)
    size = -torch.log1p(uniform * torch.expm1(-config.offset_rate * room)) / config.offset_rate
    size = torch.minimum(size, room)
    return torch.where(forward, size, -size)


def chain_loss(
    model: nn.Module,
    sidenet: nn.Module,
    data: Tensor,
    labels: Tensor,
    config: ChainConfig,
    generator: torch.Generator,
) -> Tensor:
    """Mean squared error of the SideNet's velocity at the far end of every link of a chain.

    From a point of the path (1-t) data + t noise the chain takes `length` steps of random size and
    direction; each is rolled out by the SideNet from one anchor with 3-point Gauss-Legendre (no
    gradient), the backbone is evaluated where it arrives, and the SideNet is asked for that
    velocity. Every backbone evaluation is the target of one link and the anchor of the next.

    Args:
        model: frozen backbone in the "repa" convention (t from 1 to 0, v = noise - data).
        sidenet: the network in training. data: (B, C, H, W). labels: (B,) int64.

    Source: arXiv 2601.21542, section 4.3.
    """
    column = (-1,) + (1,) * (data.dim() - 1)
    null = int(getattr(sidenet, "num_classes", 0))
    y = drop_labels(labels, null, config.label_dropout, generator)
    t = torch.rand(len(data), generator=generator, device=data.device)
    noise = torch.randn(data.shape, generator=generator, device=data.device)
    x = (1 - t.view(column)) * data + t.view(column) * noise
    field = FlowField(model, "repa", labels=y, guidance=Guidance(null_label=null))
    method = anchors(SideNetInterpolant(sidenet, field), gauss_legendre(3))
    stepper = Stepper(method, Velocity(field, StateLayout(x), (1.0, 0.0)))
    total = data.new_zeros(())
    with torch.no_grad():
        state = State(t.view(column), x)  # type: ignore[arg-type]
        anchor = stepper.start(state)
    for _ in range(config.length):
        h = draw_offsets(t, config, generator)
        with torch.no_grad():
            arrival = (t - h).clamp(0, 1)
            state = State(state.t, state.y, anchor)
            state = stepper.step(state, arrival.view(column)).state  # type: ignore[arg-type]
            reached = stepper.start(state)
        offset = sidenet(anchor.y, anchor.v, t, h, y)
        total = total + F.mse_loss(anchor.v + offset, reached.v)
        anchor, t = reached, arrival
    return total / config.length


def train_sidenet(
    model: nn.Module,
    data: LabelledImages,
    out: str | Path,
    *,
    config: FitConfig,
    sidenet: SideNetConfig,
    chain: ChainConfig | None = None,
    log: str | Path | None = None,
) -> SideNet:
    """Train a SideNet for a frozen backbone by chain training; save and return its EMA.

    Args:
        model: backbone in the "repa" convention; it is not changed.
        data: images and labels that the chains start from.
        out: the safetensors file (float16), renewed at every checkpoint.
        config: optimisation constants; batch_size is the number of chains a step.
        sidenet: shape of the network (channels and classes must be the data's).
        chain: see `ChainConfig`.
        log: JSON-lines file of the loss.

    Raises:
        ValueError: a SideNet of another number of channels or classes than the data.
    """
    chain = chain or ChainConfig()
    if (sidenet.in_channels, sidenet.num_classes) != (data.images.shape[1], data.num_classes):
        raise ValueError(
            f"sidenet has {sidenet.in_channels} channels and {sidenet.num_classes} classes; the "
            f"data have {data.images.shape[1]} and {data.num_classes}"
        )
    backbone = copy.deepcopy(model).eval().requires_grad_(False)
    torch.manual_seed(config.seed)
    network = SideNet(sidenet)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(data.labels), (config.batch_size,), generator=generator)
        return chain_loss(
            backbone, network, data.images[index], data.labels[index], chain, generator
        )

    def checkpoint(ema: nn.Module) -> None:
        save_weights(out, ema, sidenet.to_dict(), dtype=torch.float16)

    ema = fit(network, loss, config, log=log, checkpoint=checkpoint, description="SideNet")
    assert isinstance(ema, SideNet)
    return ema
