"""Flow-matching models of any convention as a velocity field for the core."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import getrefcount
from typing import Any

import torch
from torch import Tensor

from ...checks import check_choice
from ...equations.ownership import Outputs, Untouched
from ...equations.velocity import Time

Call = Callable[[Any, Tensor, Tensor, Tensor | None, Mapping[str, Any]], Any]
"""(model, x, t, labels, extras) -> the model's raw output."""


@dataclass(frozen=True)
class Convention:
    """How a family of models counts time and is called.

    noise_t, data_t: the model's own time of pure noise and of data; the path is
    x = (1-σ) data + σ noise with t = data_t + (noise_t - data_t) σ. call: the call shape.
    prediction: "velocity" (dx/dt in the model's own time) or "denoised" (the data estimate D, with
    dx/dσ = (x - D)/σ). time_scale: factor on t when the model is called. scalar_time: t is given
    0-dimensional instead of (B,).
    """

    name: str
    noise_t: float
    data_t: float
    call: Call
    prediction: str = "velocity"
    time_scale: float = 1.0
    scalar_time: bool = False

    @property
    def direction(self) -> float:
        """dt/dσ."""
        return self.noise_t - self.data_t

    def sigma(self, t: Time) -> Time:
        """Noise fraction σ in [0, 1] at the model's own time t."""
        return (t - self.data_t) / self.direction


def _positional(
    model: Any, x: Tensor, t: Tensor, labels: Tensor | None, extras: Mapping[str, Any],
    *, time_first: bool = False,
) -> Any:  # fmt: skip
    first = (t, x) if time_first else (x, t)
    return model(*first, *([] if labels is None else [labels]), **extras)


def _keywords(
    model: Any, x: Tensor, t: Tensor, labels: Tensor | None, extras: Mapping[str, Any],
    *, names: tuple[str, str, str],
) -> Any:  # fmt: skip
    given = zip(names, (x, t, labels), strict=True)
    return model(**{name: value for name, value in given if value is not None}, **extras)


_diffusers = functools.partial(_keywords, names=("hidden_states", "timestep", "class_labels"))
_flow_matching = functools.partial(_keywords, names=("x", "t", "label"))

CONVENTIONS = {
    c.name: c
    for c in (
        Convention("repa", 1.0, 0.0, _positional),
        Convention("sit", 0.0, 1.0, _positional),
        Convention("diffusers", 1.0, 0.0, _diffusers, time_scale=1000.0),
        Convention("flow_matching", 0.0, 1.0, _flow_matching, scalar_time=True),
        Convention("torchcfm", 0.0, 1.0, functools.partial(_positional, time_first=True)),
        Convention("k-diffusion", 1.0, 0.0, _positional, prediction="denoised"),
    )
}
"""repa: (x, t, y), v = noise - data, t from 1 to 0; also the published BA-solver and the shipped
U-Net. sit: (x, t, y), v = data - noise, t from 0 to 1. diffusers: keyword arguments, t·1000.
flow_matching: model(x=, t=, **extras) with 0-d t. torchcfm: (t, x, y). k-diffusion: model(x, sigma,
**extras) gives the denoised data."""


def resolve_convention(convention: Convention | str) -> Convention:
    """A convention, or the one of this name in `CONVENTIONS`."""
    if isinstance(convention, Convention):
        return convention
    check_choice(convention, CONVENTIONS, "convention")
    return CONVENTIONS[convention]


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance v = v_null + scale (v_label - v_null) where low < t <= high.

    scale: 1 means none. null_label: what the model takes for "no class"; needed when scale != 1
    (unless the condition is in `FlowField.extras`). interval: (low, high) in the model's own time;
    outside it the labelled velocity alone is used. channels: guide only the first so many channels
    (the original SiT guides 3 of 4); None is all. per: "node" tests every velocity at its own time,
    the ones that a SideNet gives between the anchors too, as published; "interval" decides for all
    of an interval's velocities at its start. pair: "batched" evaluates both halves in one call of
    twice the samples, "two calls" one after the other, in half the memory.

    Source: Ho & Salimans 2022; Kynkäänniemi et al. 2024 (interval).
    """

    scale: float = 1.0
    null_label: int | None = None
    interval: tuple[float, float] = (-float("inf"), float("inf"))
    channels: int | None = None
    per: str = "node"
    pair: str = "batched"

    def __post_init__(self) -> None:
        if not 0 <= self.scale < float("inf"):
            raise ValueError(f"scale must be finite and >= 0, got {self.scale}")
        if not self.interval[0] < self.interval[1]:
            raise ValueError(f"interval must be (low, high) with low < high, got {self.interval}")
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"channels must be >= 1 or None, got {self.channels}")
        if self.per not in ("node", "interval"):
            raise ValueError(f"per must be 'node' or 'interval', got {self.per!r}")
        if self.pair not in ("batched", "two calls"):
            raise ValueError(f"pair must be 'batched' or 'two calls', got {self.pair!r}")

    def combine(self, raw: tuple[Tensor, ...], t: Time) -> Tensor:
        """The guided velocity of a raw (labelled, null) pair at time t, or of a raw (v,)."""
        if len(raw) == 1:
            return raw[0]
        labelled, null = raw
        low, high = self.interval
        if isinstance(t, Tensor):
            scale: Any = torch.where((t > low) & (t <= high), self.scale, 1.0).to(labelled.dtype)
        elif low < t <= high:
            scale = self.scale
        else:
            return labelled
        guided = null + scale * (labelled - null)
        if self.channels is None:
            return guided
        return torch.cat((guided[:, : self.channels], labelled[:, self.channels :]), dim=1)


def output_tensor(output: Any) -> Tensor:
    """The velocity in what a model returned: a tensor, a tuple's first, `.sample`, ["sample"]."""
    value = output
    if isinstance(output, Mapping):
        value = output.get("sample")
    elif isinstance(output, (tuple, list)):
        value = output[0] if output else None
    elif not isinstance(output, Tensor):
        value = getattr(output, "sample", None)
    if not isinstance(value, Tensor):
        raise TypeError(
            "the model must return a tensor, a tuple that begins with one, or an object with "
            f".sample; got {type(output).__name__}"
        )
    return value


@dataclass
class FlowField:
    """dx/dt of a flow-matching model, in the model's own time, for `quadflow.solve`.

    Args:
        model: the network, called as its convention says.
        convention: a name in `CONVENTIONS` or a `Convention`.
        labels: (B,) int64 class labels, or None for models without.
        guidance: classifier-free guidance; a labelled and a null velocity are counted as one
            evaluation.
        extras: further keyword arguments of the model (embeddings, masks, ...). In a guided pair
            the null half gets the same, or what null_extras has under the same name.
        null_extras: of the null half, such as the embeddings of an empty prompt; they stand in for
            labels and null label where the model has none.
        num_classes: to check labels against; read off `model.num_classes` where that exists.

    Attributes:
        evaluations: calls of `evaluate` so far (NFE as the field counts it).
        rows: samples that the network was evaluated on (a guided pair of B samples is 2B).

    Integrate from `convention.noise_t` to `convention.data_t` to sample. The state keeps its own
    dtype: inputs are cast to the model's, outputs back.

    Raises:
        ValueError: unknown convention, labels out of range, guidance without a null label.
        TypeError: labels that are no int64 tensor, unusable model output.
    """

    model: Any
    convention: Convention | str = "repa"
    labels: Tensor | None = None
    guidance: Guidance = field(default_factory=Guidance)
    extras: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    null_extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.convention = resolve_convention(self.convention)
        if self.num_classes is None:
            self.num_classes = getattr(self.model, "num_classes", None)
        if self.labels is not None:
            check_labels(self.labels, self.num_classes, self.guidance.null_label)
        unknown = sorted(set(self.null_extras) - set(self.extras))
        if unknown:
            raise ValueError(f"null_extras has {unknown}, of which extras has nothing")
        self._labels: tuple[Tensor | None, ...] = (self.labels,)
        if self.guided:
            scale, null_label = self.guidance.scale, self.guidance.null_label
            if self.labels is None:
                if not self.null_extras:
                    raise ValueError(
                        f"guidance scale {scale} needs labels, got None (or extras and null_extras "
                        "for a model that is conditioned by them)"
                    )
                self._labels = (None, None)
            elif null_label is None:
                raise ValueError(f"guidance scale {scale} needs a null_label")
            else:
                upper = self.num_classes
                if null_label < 0 or (upper is not None and null_label > upper):
                    until = "" if upper is None else f" to {upper}"
                    raise ValueError(f"null_label={null_label} is out of range: 0{until}")
                self._labels = (self.labels, torch.full_like(self.labels, null_label))
        parameters = getattr(self.model, "parameters", None)
        first = next(iter(parameters()), None) if callable(parameters) else None
        self._model_dtype = None if first is None else first.dtype
        self.evaluations = self.rows = 0
        self._outputs, self._guard = Outputs(), Untouched("the model", ValueError)

    @property
    def guided(self) -> bool:
        """Whether every evaluation is a (labelled, null) pair."""
        return self.guidance.scale != 1.0

    @property
    def halves(self) -> int:
        """Raw velocities an evaluation gives: 2 where guided, else 1."""
        return 2 if self.guided else 1

    @property
    def resolved(self) -> Convention:
        """The convention, resolved."""
        assert isinstance(self.convention, Convention)
        return self.convention

    @property
    def model_labels(self) -> Tensor | None:
        """The labels of a raw evaluation: (B,), or (2B,) with the null half last."""
        known = [labels for labels in self._labels if labels is not None]
        return torch.cat(known) if known else None

    def evaluate(self, t: Time, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """dx/dt (B, ...) at time t (a float, or (B, 1, ...) per sample) and its raw halves."""
        if self.labels is not None and len(self.labels) != len(x):
            raise ValueError(f"labels has {len(self.labels)} entries, the state {len(x)} samples")
        self.evaluations += 1
        self.rows += self.halves * len(x)
        halves: tuple[Tensor, ...]
        if self.guided and self.guidance.pair == "batched":
            halves = tuple(self._raw(t, torch.cat((x, x)), range(2)).chunk(2))
        else:
            halves = tuple(self._raw(t, x, (half,)) for half in range(self.halves))
        return self.guidance.combine(halves, t), halves

    def _raw(self, t: Time, own: Tensor, halves: Sequence[int]) -> Tensor:
        """The model's velocity dx/dt on the samples of these halves, in one call."""
        convention = self.resolved
        count = len(halves)
        dtype = self._model_dtype or own.dtype
        sigma = convention.sigma(t)
        # scaled before it is cast: half precision rounds it once
        if isinstance(t, Tensor):
            times = (t.reshape(-1) * convention.time_scale).to(dtype).repeat(count)
            sigma = torch.cat((sigma,) * count).to(own.dtype)  # type: ignore[arg-type]
        else:
            shape = () if convention.scalar_time else (len(own),)
            times = torch.full(shape, t * convention.time_scale, dtype=dtype, device=own.device)
            if convention.prediction == "denoised" and sigma == 0:
                raise ValueError(
                    f"{convention.name}: a denoised prediction gives no velocity at σ = 0, and the "
                    "method asks for it there: take one that does not (for heun an odd nfe)"
                )
        labels = [self._labels[half] for half in halves]
        given = [label for label in labels if label is not None]
        seen = own.to(dtype)
        mark = self._guard.before(seen)
        value = output_tensor(
            convention.call(
                self.model, seen, times, torch.cat(given) if given else None,
                {key: self._extra(key, halves, len(own) // count) for key in self.extras},
            )
        )  # fmt: skip
        self._guard.after(seen, mark)
        # a model may fill the same memory in its next call
        value = self._outputs.own(value, seen, getrefcount(value)).to(own.dtype)
        if value.shape != own.shape:
            raise ValueError(
                f"the model returned shape {tuple(value.shape)} for an input {tuple(own.shape)}"
            )
        if convention.prediction == "denoised":
            value = (own - value) / (sigma * convention.direction)
        return value

    def _extra(self, key: str, halves: Sequence[int], batch: int) -> Any:
        """An extra argument for these halves; of a batched pair, both halves' joined."""
        own = self.extras[key]
        values = [self.null_extras.get(key, own) if half else own for half in halves]
        if len(values) == 1:
            return values[0]
        if all(isinstance(v, Tensor) and v.dim() and len(v) == batch for v in values):
            return torch.cat(values)
        if values[0] is not values[1]:
            raise ValueError(
                f"null_extras[{key!r}] must be a tensor of {batch} rows, as extras[{key!r}], to be "
                "batched with it: or take Guidance(pair='two calls')"
            )
        return values[0]

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        return self.evaluate(float(t) if t.dim() == 0 else t, x)[0]


def check_labels(labels: Tensor, num_classes: int | None, null_label: int | None = None) -> None:
    """Raise unless labels are (B,) int64, each within 0..num_classes-1 or the null label."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.dim() != 1:
        kind = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else labels
        raise TypeError(f"labels must be an int64 tensor (B,), got {kind}")
    classes = labels if null_label is None else labels[labels != null_label]
    outside = classes < 0 if num_classes is None else (classes < 0) | (classes >= num_classes)
    if bool(outside.any()):
        upper = "" if num_classes is None else f" to {num_classes - 1}"
        raise ValueError(f"labels contains {int(classes[outside][0])}; classes are 0{upper}")
