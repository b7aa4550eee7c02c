"""SideNet: the small network that carries an anchor's velocity to other times, and BA-solver."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import integer_from
from ...plans.anchors.method import AnchorsMethod, anchors
from ...plans.interpolants import Anchor, Interpolant, Interval
from ...rules.gauss import gauss_legendre, gauss_lobatto
from ...rules.rule import QuadratureRule
from ..backbones.embedding import LabelEmbedder, ScalarEmbedder
from ..flow.field import FlowField


@dataclass(frozen=True)
class SideNetConfig:
    """Shape of a `SideNet`; the defaults are the published one's.

    in_channels: of the state. patch: pixels a side that are folded into channels first.
    width: channels inside. emb_dim: width of the embeddings. layers: blocks, the middle one
    attention. heads: of the attention; they divide the width.
    num_classes: labels 0..num_classes-1 and the null label num_classes; 0 for a backbone without
    labels. time_scale: factor on time and offset before the sinusoids. input_size: pixels a side of
    the states that it was trained on, None where that is not recorded; another size is refused.
    """

    in_channels: int = 4
    patch: int = 1
    width: int = 256
    emb_dim: int = 256
    layers: int = 4
    heads: int = 4
    num_classes: int = 1000
    time_scale: float = 1.0
    input_size: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.to_dict().items():
            if value is not None and name != "time_scale":
                integer_from(0 if name == "num_classes" else 1, value, name)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def channel_rms_norm(x: Tensor) -> Tensor:
    """x over its root mean square over channels, at every pixel: (B, C, H, W)."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-5)


def _film(x: Tensor, style: Tensor) -> Tensor:
    scale, shift = style[:, :, None, None].chunk(2, dim=1)
    return x * (1 + scale) + shift


class ConvBlock(nn.Module):
    """Two depthwise-separable convolutions with FiLM between them, added to the input."""

    def __init__(self, width: int, emb_dim: int) -> None:
        super().__init__()
        self.conv1_dw = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.conv1_pw = nn.Conv2d(width, width, 1, bias=False)
        self.conv2_dw = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.conv2_pw = nn.Conv2d(width, width, 1)
        self.emb_proj = nn.Linear(emb_dim, 2 * width)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = channel_rms_norm(self.conv1_pw(self.conv1_dw(channel_rms_norm(x))))
        h = F.silu(_film(h, self.emb_proj(emb)))
        return x + self.conv2_pw(self.conv2_dw(h))


class AttentionBlock(nn.Module):
    """Self-attention over all pixels after norm and FiLM, added to the input."""

    def __init__(self, width: int, emb_dim: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} must be a multiple of heads={heads}")
        self.heads = heads
        self.emb_proj = nn.Linear(emb_dim, 2 * width)
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.proj = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        b, c, height, width = x.shape
        h = _film(channel_rms_norm(x), self.emb_proj(emb))
        split = self.qkv(h).reshape(b, 3, self.heads, c // self.heads, height * width)
        q, k, v = split.transpose(-1, -2).unbind(dim=1)
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(out.transpose(-1, -2).reshape(b, c, height, width))


class SideNet(nn.Module):
    """δ(x, v, t, h, y): how the velocity changes from time t to t - h along the trajectory.

    The velocity there is v + δ with δ = h S(x, v, t, h, y); h > 0 goes towards the data, h < 0
    towards the noise. `forward`: x, v (B, C, H, W); t, h (B,), t in [0, 1] with noise at 1;
    y (B,) int64 (num_classes is the null label). Returns δ (B, C, H, W). S is zero when new, so an
    untrained SideNet makes BA-solver the PEC method of one anchor.

    Source: Bi-Anchor Interpolation Solver, arXiv 2601.21542, section 4; tensor names and shapes
    are the published ones.
    """

    def __init__(self, config: SideNetConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or SideNetConfig()
        self.num_classes = c.num_classes
        self.h_embedder = ScalarEmbedder(c.emb_dim, scale=c.time_scale)
        self.t_embedder = ScalarEmbedder(c.emb_dim, scale=c.time_scale)
        self.y_embedder = LabelEmbedder(c.num_classes, c.emb_dim)
        self.emb_fusion = nn.Sequential(
            nn.Linear(3 * c.emb_dim, c.emb_dim), nn.SiLU(), nn.Linear(c.emb_dim, c.emb_dim)
        )
        folded = c.in_channels * c.patch**2
        self.input_conv = nn.Conv2d(2 * folded, c.width, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(
            AttentionBlock(c.width, c.emb_dim, c.heads)
            if i == c.layers // 2
            else ConvBlock(c.width, c.emb_dim)
            for i in range(c.layers)
        )
        self.output_conv = nn.Conv2d(c.width, folded, 3, padding=1)
        nn.init.zeros_(self.output_conv.weight)
        nn.init.zeros_(self.output_conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, v: Tensor, t: Tensor, h: Tensor, y: Tensor) -> Tensor:
        parts = (self.t_embedder(t), self.h_embedder(h), self.y_embedder(y))
        emb = self.emb_fusion(torch.cat(parts, dim=-1))
        patch = self.config.patch
        channels, size = self.config.in_channels, self.config.input_size
        if x.shape[1] != channels or (size is not None and x.shape[-2:] != (size, size)):
            made = f"{channels} channels" + (f" of {size}x{size} pixels" if size else "")
            raise ValueError(
                f"this SideNet was made for states of {made}, got {tuple(x.shape[1:])}: it belongs "
                "to another backbone"
            )
        if x.shape[-2] % patch or x.shape[-1] % patch:
            raise ValueError(f"patch={patch} does not divide the size {tuple(x.shape[-2:])} of x")
        # folded one by one: channels of x come before channels of v, as without folding
        folded = [F.pixel_unshuffle(a, patch) if patch > 1 else a for a in (x, v)]
        out = self.input_conv(torch.cat(folded, dim=1))
        for block in self.blocks:
            out = block(out, emb)
        out = self.output_conv(F.silu(channel_rms_norm(out)))
        if patch > 1:
            out = F.pixel_shuffle(out, patch)
        return out * h[:, None, None, None].to(out.dtype)


class SideNetInterpolant(Interpolant):
    """Velocities between anchors from a SideNet: v̂(τ) = v_a + (τ - t_a) S, a the nearer anchor.

    Under guidance the labelled and the null velocity are carried separately and combined at every
    node's own time, as published, or as the interval's start decides (`Guidance.per`). All nodes
    that one anchor serves are one batched call.

    Args:
        sidenet: trained for the field's backbone; called as sidenet(x, v, t, h, y) like `SideNet`.
            A field without labels gives it the null label, its own `num_classes`.
        field: the flow field that the anchors are evaluated by (its convention, labels, guidance).

    It holds the velocity of one anchor, so whatever the rule its local error is O(h²) with a
    constant that training makes small; no order is claimed.
    """

    anchors = 1
    order = None

    def __init__(self, sidenet: nn.Module, field: FlowField) -> None:
        theirs, ours = getattr(sidenet, "num_classes", None), field.num_classes
        if theirs is not None and ours is not None and theirs != ours:
            raise ValueError(
                f"this SideNet was made for {theirs} classes, the backbone has {ours}: it belongs "
                "to another backbone"
            )
        if field.labels is None and theirs is None:
            raise ValueError(
                "the field has no labels, and the SideNet no num_classes to take the null label "
                "from: FlowField(..., labels=...) has None"
            )
        self.sidenet = sidenet
        self.field = field
        self._null_label = theirs
        first = next(iter(sidenet.parameters()), None)
        self._dtype = torch.float32 if first is None else first.dtype

    def velocities(self, interval: Interval) -> Tensor:
        start, *rest = interval.anchors
        times = dict(enumerate(interval.times))
        decides = interval.t0 if self.field.guidance.per == "interval" else None
        # the nearer anchor serves a node; the middle belongs to the start
        near = {i for i, c in enumerate(interval.rule.nodes.tolist()) if not rest or c <= 0.5}
        if interval.predicted is not None:  # the prediction has these already
            found = {i: interval.predicted.values[i] for i in near}
        else:
            found = self._carry(start, {i: times[i] for i in near}, decides)
        for end in rest:
            found |= self._carry(end, {i: t for i, t in times.items() if i not in near}, decides)
        return torch.stack([found[i] for i in times])

    def _carry(
        self, anchor: Anchor, times: dict[int, Any], decides: float | None
    ) -> dict[int, Tensor]:
        """Velocities at `times` from one anchor, in one call of the network.

        decides: the time that the guidance interval is tested at; None: each velocity's own.
        """
        field = self.field
        convention, raw = field.resolved, anchor.detail
        at_anchor = anchor.v if decides is None else field.guidance.combine(raw, decides)
        # per-sample times (tensors) are never compared: that would synchronise
        own: Any = anchor.t
        found = {
            i: at_anchor
            for i, t in times.items()
            if t is own or not (isinstance(t, Tensor) or isinstance(own, Tensor) or t != own)
        }
        wanted = {i: t for i, t in times.items() if i not in found}
        if not wanted:
            return found
        count, batch = len(wanted), len(anchor.y)
        labels = field.model_labels
        if labels is None:
            assert self._null_label is not None
            shape = (field.halves * batch,)
            labels = torch.full(shape, self._null_label, device=anchor.y.device)
        sigma = convention.sigma(anchor.t)
        offsets = [
            self._rows(sigma - convention.sigma(t), batch, anchor.y) for t in wanted.values()
        ]
        x = anchor.y.to(self._dtype).repeat(count * field.halves, *(1,) * (anchor.y.dim() - 1))
        # the network knows dx/dσ, the field dx/dt
        v = (torch.cat(raw) * convention.direction).to(self._dtype)
        delta = self.sidenet(
            x,
            v.repeat(count, *(1,) * (v.dim() - 1)),
            self._rows(sigma, batch, anchor.y).repeat(count * field.halves),
            torch.cat([h.repeat(field.halves) for h in offsets]),
            labels.repeat(count),
        )
        delta = delta.to(anchor.v.dtype) / convention.direction
        for (i, t), part in zip(wanted.items(), delta.chunk(count), strict=True):
            halves = tuple(a + b for a, b in zip(raw, part.chunk(field.halves), strict=True))
            found[i] = field.guidance.combine(halves, t if decides is None else decides)
        return found

    def _rows(self, value: float | Tensor, batch: int, like: Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value.reshape(-1).to(self._dtype)
        return torch.full((batch,), value, dtype=self._dtype, device=like.device)


def BiAnchor(
    sidenet: nn.Module,
    field: FlowField,
    *,
    rule: QuadratureRule | None = None,
    forward_last: bool = True,
) -> AnchorsMethod:
    """The Bi-Anchor solver: the core's anchors plan (PEC) with a SideNet between the anchors.

    Args:
        sidenet: trained for the backbone of `field`.
        field: the flow field to be solved; pass the same object to `solve`.
        rule: quadrature over an interval; default Gauss-Lobatto with 4 nodes. Rules that contain
            both ends (Gauss-Lobatto, Simpson, 3/8, Clenshaw-Curtis, `symmetric_four`) use the
            anchors' own velocities; `trapezoid()` uses nothing but them, no interior velocity.
        forward_last: leave out the correction of the last interval, so that N intervals cost N
            evaluations of the backbone (otherwise N+1).

    Source: arXiv 2601.21542, section 4. The anchor velocity is taken at the predicted state and
    reused at the corrected one.
    """
    return anchors(
        SideNetInterpolant(sidenet, field),
        rule or gauss_lobatto(4),
        correction="PEC",
        forward_last=forward_last,
        name="bianchor",
    )


def SingleAnchor(sidenet: nn.Module, field: FlowField, *, nodes: int = 2) -> AnchorsMethod:
    """One anchor an interval: the SideNet carries the start's velocity to all Gauss nodes.

    Args:
        sidenet, field: as for `BiAnchor`.
        nodes: of the Gauss-Legendre rule, >= 1; nothing is corrected, N intervals cost N
            evaluations.

    Source: arXiv 2601.21542, the single-anchor variant of its ablation.
    """
    interpolant = SideNetInterpolant(sidenet, field)
    return anchors(interpolant, gauss_legendre(nodes), name=f"single-anchor-{nodes}")


def prepare(
    sidenet: nn.Module,
    *,
    channels_last: bool = False,
    compile: bool = False,
    backend: str = "inductor",
) -> nn.Module:
    """The same SideNet made faster, for `sample`: its numbers change by rounding alone.

    Args:
        sidenet: in evaluation mode; `channels_last` changes its memory layout in place.
        channels_last: lay convolution weights out channels last (faster on most devices).
        compile: `torch.compile` with dynamic batch sizes, so that the two batch sizes of a step and
            every batch of samples share few compilations. backend: of torch.compile.

    Returns:
        The module itself, or its compiled wrapper.
    """
    if channels_last:
        sidenet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not compile:
        return sidenet
    compiled = torch.compile(sidenet, dynamic=True, backend=backend)
    assert isinstance(compiled, nn.Module)
    return compiled
