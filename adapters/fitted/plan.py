"""The learned numbers of one budget at one guidance scale, on top of a classical method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...checks import check_choice, integer_from

FORMS = ("ordered", "free")
"""Where learned parts may act: "ordered" where they keep the classical method's order, "free"
anywhere, so that no order is claimed."""

PARTS = ("times", "coefficients", "shift", "network")
"""What may be learned, each part by itself: the times of the intervals; additions to the Adams
weights; where in time an evaluation is made; a network beyond the span of the anchors."""

# a parameter moves by about the learning rate an update; these factors are the rates that converge
TIMES_RATE, COEFFICIENTS_RATE, SHIFT_RATE = 4.0, 0.7, 0.7

FARTHEST = 0.5
"""The farthest that an evaluation is shifted, in lengths of the shorter interval beside it."""


@dataclass(frozen=True)
class PlanStart:
    """The classical method that a plan starts as.

    nfe: evaluations, and intervals. k: anchors that predict, >= 1. corrected: with one correction
    (PEC), or without (Adams-Bashforth). sigmas: (nfe + 1,) noise fractions of the ends of the
    intervals, from 1 down to 0. scale: of the guidance; 1 is none. form: one of `FORMS`. unit: the
    noise fraction that the ordered form measures steps by, None for 1/nfe: a constant, or what is
    learned would not shrink with the steps.
    """

    nfe: int
    k: int
    corrected: bool
    sigmas: tuple[float, ...]
    scale: float = 1.0
    form: str = "ordered"
    unit: float | None = None

    def __post_init__(self) -> None:
        integer_from(1, self.nfe, "nfe")
        integer_from(1, self.k, "k")
        check_choice(self.form, FORMS, "form")
        if len(self.sigmas) != self.nfe + 1 or (self.sigmas[0], self.sigmas[-1]) != (1.0, 0.0):
            raise ValueError(
                f"sigmas must be {self.nfe + 1} numbers from 1 to 0, got {self.sigmas}"
            )
        if any(b >= a for a, b in zip(self.sigmas, self.sigmas[1:], strict=False)):
            raise ValueError(f"sigmas must fall from 1 to 0, got {self.sigmas}")

    @property
    def name(self) -> str:
        """The classical method's, as `SAMPLERS` has it."""
        if self.k == 1 and not self.corrected:
            return "euler"
        return f"{'pec' if self.corrected else 'ab'}{self.k}"

    @property
    def length(self) -> float:
        """The unit."""
        return 1 / self.nfe if self.unit is None else self.unit

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class LearnedPlan(nn.Module):
    """What is learned for one `PlanStart`; zero when new, where it is the classical method.

    Attributes:
        increments: (N,), moves the times. predict: (N, N), row i added to the weights of the
            prediction of interval i. correct: (N, N+1), the same for the correction. delay: (N,),
            moves the time of evaluation i. gains: (N, 2), of the network's two fields.
    """

    def __init__(self, start: PlanStart, parts: Sequence[str] = PARTS) -> None:
        super().__init__()
        for part in parts:
            check_choice(part, PARTS, "parts")
        self.start = start
        n = start.nfe

        def numbers(*shape: int, part: str) -> nn.Parameter:
            zeros = torch.zeros(shape, dtype=torch.float64)
            return nn.Parameter(zeros, requires_grad=part in parts)

        self.increments = numbers(n, part="times")
        self.predict = numbers(n, n, part="coefficients")
        self.correct = numbers(n, n + 1, part="coefficients")
        self.delay = numbers(n, part="shift")
        self.gains = numbers(n, 2, part="network")

    def sigmas(self) -> Tensor:
        """Noise fractions of the ends of the intervals: (N+1,) float64, falling from 1 to 0."""
        base = torch.tensor(self.start.sigmas, dtype=torch.float64, device=self.increments.device)
        widths = (base[:-1] - base[1:]).log()

        def inside(logits: Tensor) -> Tensor:
            return torch.softmax(logits, 0).cumsum(0)[:-1]

        # as a difference, so that nothing learned is the start to the last bit
        moved = inside(widths + TIMES_RATE * self.increments) - inside(widths)
        return torch.cat((base[:1], base[1:-1] - moved, base[-1:]))

    def numbers(self) -> PlanNumbers:
        """All numbers as the sampler takes them; with gradients where these are on."""
        sigmas = self.sigmas()
        widths = sigmas[:-1] - sigmas[1:]
        shorter = torch.minimum(widths[:-1], widths[1:])
        part = FARTHEST * torch.tanh(SHIFT_RATE / FARTHEST * self.delay[1:])
        if self.start.form == "ordered":
            power = self.start.k - 1 + self.start.corrected
            part = part * (widths[:-1] / self.start.length).clamp(max=1) ** power
        delays = torch.cat((torch.zeros_like(sigmas[:1]), part * shorter))
        return PlanNumbers(
            self.start, sigmas, COEFFICIENTS_RATE * self.predict,
            COEFFICIENTS_RATE * self.correct, delays, self.gains.exp(),
        )  # fmt: skip


@dataclass(frozen=True)
class PlanNumbers:
    """The numbers of a plan: tensors in training, else lists of floats.

    start: see `PlanStart`. sigmas (N+1,). predict (N, N), correct (N, N+1): see `LearnedPlan`.
    delays (N,): added to the noise fraction at which evaluation i is made. gains (N, 2).
    """

    start: PlanStart
    sigmas: Any
    predict: Any
    correct: Any
    delays: Any
    gains: Any

    def as_floats(self) -> PlanNumbers:
        """The same as lists of floats."""
        lists = (self.sigmas, self.predict, self.correct, self.delays, self.gains)
        return PlanNumbers(self.start, *(x.tolist() for x in lists))
