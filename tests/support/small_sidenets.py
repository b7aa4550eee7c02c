"""A small random SideNet and backbone, of the kind that images are sampled with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quadflow.adapters import SideNet, SideNetConfig

CLASSES = 4
SMALL = SideNetConfig(
    in_channels=3, width=8, emb_dim=8, layers=3, heads=2, num_classes=CLASSES, time_scale=10.0
)
LABELS = torch.tensor([0, 3, 1])
STATE = (3, 3, 4, 4)


def random_sidenet(
    seed: int, config: SideNetConfig = SMALL, dtype: torch.dtype = torch.float64
) -> SideNet:
    """A SideNet that changes the velocity by some tenths of itself."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = SideNet(config)
        nn.init.normal_(net.output_conv.weight, std=0.1)
        nn.init.normal_(net.output_conv.bias, std=0.3)
        nn.init.normal_(net.y_embedder.embedding_table.weight)
    return net.to(dtype).eval().requires_grad_(False)


class Backbone(nn.Module):
    """A random nonlinear velocity field in the "repa" convention."""

    num_classes = CLASSES

    def __init__(self, seed: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.style = nn.Linear(3, 8)
            self.classes = nn.Embedding(CLASSES + 1, 8)
            self.last = nn.Conv2d(8, 3, 3, padding=1)
        self.to(dtype).requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        time = torch.stack((t, torch.sin(3 * t), torch.cos(5 * t)), dim=1)
        style = (self.style(time) + 0.3 * self.classes(y))[:, :, None, None]
        return x - 2 * self.last(torch.tanh(self.first(x) + style))


def reversed_time(model: nn.Module) -> nn.Module:
    """The same flow in the "sit" convention: data at t = 1, v = data - noise."""

    class Sit(nn.Module):
        num_classes = CLASSES

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return -self.inner(x, 1 - t, y)

    return Sit()


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


class Spy(nn.Module):
    """In a SideNet's place: adds h times a number to the velocity and notes every call."""

    def __init__(self, slope: float = 0.0, num_classes: int | None = CLASSES) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64), requires_grad=False)
        self.num_classes = num_classes
        self.calls: list[tuple[Tensor, ...]] = []

    def forward(self, x: Tensor, v: Tensor, t: Tensor, h: Tensor, y: Tensor) -> Tensor:
        self.calls.append((x, v, t, h, y))
        return self.slope * h[:, None, None, None] * torch.ones_like(x)
