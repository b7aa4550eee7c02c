"""A flow whose velocity is known in closed form, as a model of every convention.

The data of class c are two equal Gaussians of deviation `spread` at centre(c) ± `gap`, every pixel
by itself; the null label has centre 0. On the path x = (1-σ) data + σ noise both conditional means
E[data | x] and E[noise | x] are elementary. With gap = 0 so is the flow itself:
x(σ) = (1-σ) centre + sqrt((1-σ)² spread² + σ²) x(1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Toy:
    spread: float = 0.5
    gap: float = 0.8
    num_classes: int = 4

    def centre(self, labels: Tensor | None, like: Tensor) -> Tensor:
        if labels is None:
            return torch.zeros((), dtype=like.dtype)
        real = 0.4 * labels.to(like.dtype) - 0.5
        return torch.where(labels == self.num_classes, 0.0, real)[:, None, None, None]

    def means(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """E[data | x] and E[noise | x]."""
        s = sigma.to(x.dtype).reshape(-1, 1, 1, 1)
        a, centre = 1 - s, self.centre(labels, x)
        x = x - a * centre
        variance = (a * self.spread) ** 2 + s**2
        which = self.gap * torch.tanh(a * self.gap * x / variance)
        data = centre + (s**2 * which + a * self.spread**2 * x) / variance
        return data, s * (x - a * which) / variance

    def velocity(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """noise - data."""
        data, noise = self.means(x, sigma, labels)
        return noise - data

    def flow(self, noise: Tensor, sigma: float, labels: Tensor | None) -> Tensor:
        """x(σ) from x(1), for gap = 0."""
        assert self.gap == 0
        a = 1 - sigma
        deviation = ((a * self.spread) ** 2 + sigma**2) ** 0.5
        return a * self.centre(labels, noise) + deviation * noise


@dataclass
class Output:
    """What diffusers models return."""

    sample: Tensor


class Calls(list):
    """A model that notes how it was called: (x, t, labels) a call."""

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Any:
        self.append((x, t, labels))
        return self.model(x, t, labels)


def models(toy: Toy) -> dict[str, tuple[str, Callable[..., Any]]]:
    """One model a family: name -> (convention, model); the models insist on their family's call."""

    def batched(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (len(x),), f"t has shape {tuple(t.shape)}"
        return t

    def repa(x, t, y=None, /):
        return toy.velocity(x, batched(x, t), y), ("features",)

    def sit(x, t, y=None, /):
        return -toy.velocity(x, 1 - batched(x, t), y)

    def diffusers(*, hidden_states, timestep, class_labels=None):
        t = batched(hidden_states, timestep) / 1000
        return Output(toy.velocity(hidden_states, t, class_labels))

    def diffusers_dict(*, hidden_states, timestep, class_labels=None):
        t = batched(hidden_states, timestep) / 1000
        return {"sample": toy.velocity(hidden_states, t, class_labels)}

    def diffusers_tuple(*, hidden_states, timestep, class_labels=None, return_dict=True):
        t = batched(hidden_states, timestep) / 1000
        return [toy.velocity(hidden_states, t, class_labels)]

    def flow_matching(*, x, t, label=None):
        assert t.shape == (), f"t has shape {tuple(t.shape)}"
        return -toy.velocity(x, 1 - t, label)

    def torchcfm(t, x, y=None, /):
        return -toy.velocity(x, 1 - batched(x, t), y)

    def k_diffusion(x, sigma, y=None, /):
        return toy.means(x, batched(x, sigma), y)[0]

    return {
        "repa": ("repa", repa),
        "sit": ("sit", sit),
        "diffusers": ("diffusers", diffusers),
        "diffusers-dict": ("diffusers", diffusers_dict),
        "diffusers-list": ("diffusers", diffusers_tuple),
        "flow_matching": ("flow_matching", flow_matching),
        "torchcfm": ("torchcfm", torchcfm),
        "k-diffusion": ("k-diffusion", k_diffusion),
    }


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers; the same ones, rounded, for every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
