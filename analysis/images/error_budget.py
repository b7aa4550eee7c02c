"""Where BA-solver's error comes from: each approximation replaced by the truth in turn."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import quadflow as qf

from ...adapters import (
    BiAnchor,
    FlowField,
    Guidance,
    SideNetInterpolant,
    bianchor_plan,
    sample,
    single_anchor_plan,
    time_grid,
)
from ...adapters.flow.field import Convention
from ...adapters.sampling.converged import rmse, tight_path
from ...plans.anchors.method import AnchorsMethod, anchors


class OracleSideNet(nn.Module):
    """The change that a perfect SideNet would give: the backbone solved from anchor to node.

    Args:
        model: backbone. convention: its. sidenet: says the null label by its num_classes.
        guidance, together: with a guidance scale other than 1 and together=True, rows come as pairs
            (labelled, null) of the same state, which moves along the *guided* velocity, as the
            sampler's state does; otherwise every row moves along its own, as in training.
        forward, backward: which directions (towards the data, towards the noise) are exact; the
            other is left to `sidenet`.
        steps: of rk4 to a node.
        batch: rows a half, for together=True; None: up to the first null label, which is wrong
            where a labelled half has null labels of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        convention: Convention | str,
        sidenet: nn.Module,
        *,
        guidance: Guidance,
        together: bool = False,
        forward: bool = True,
        backward: bool = True,
        steps: int = 2,
        batch: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.convention, self.sidenet = model, convention, sidenet
        self.num_classes = getattr(sidenet, "num_classes", None)
        self.guidance, self.together = guidance, together and guidance.scale != 1
        self.exact = (forward, backward)
        self.steps, self.batch = steps, batch

    def forward(self, x: Tensor, v: Tensor, t: Tensor, h: Tensor, y: Tensor) -> Tensor:
        delta: Tensor = self.sidenet(x, v, t, h, y)
        exact = torch.where(h > 0, self.exact[0], self.exact[1])
        if not bool(exact.any()):
            return delta
        column = (-1,) + (1,) * (x.dim() - 1)
        labels = y if self.num_classes else None

        def velocity(s: Tensor, z: Tensor) -> Tensor:
            """dx/dσ of every row at σ = t - s h."""
            known = Guidance(null_label=self.num_classes)
            field = FlowField(self.model, self.convention, labels, known)
            path = field.resolved
            time = path.data_t + path.direction * (t - s * h)
            return field.evaluate(time.view(column), z)[0] * path.direction

        def moved(s: Tensor, z: Tensor) -> Tensor:
            raw = velocity(s, z)
            if self.together:  # blocks of B labelled rows, then the same B with the null label
                batch = self.batch or int((y == y.flip(0)[0]).float().argmax())
                pairs = raw.reshape(-1, 2, batch, *raw.shape[1:])
                labelled, null = pairs[:, :1], pairs[:, 1:]
                guided = null + self.guidance.scale * (labelled - null)
                raw = guided.expand_as(pairs).reshape(raw.shape)
            return -h.view(column) * raw

        with torch.no_grad():
            end = qf.solve(moved, x, (0.0, 1.0), method="rk4", step_size=1 / self.steps)
            change = velocity(torch.ones((), dtype=x.dtype), end.y[-1]) - v
        return torch.where(exact.view(column), change, delta)


def _pece(field: FlowField, nfe: int, sidenet: nn.Module | None) -> tuple[AnchorsMethod, int]:
    assert sidenet is not None
    method = anchors(
        SideNetInterpolant(sidenet, field), qf.gauss_lobatto(4), correction="PECE",
        forward_last=True, name="bianchor-pece",
    )  # fmt: skip
    return method, nfe


def error_budget(
    model: nn.Module,
    sidenet: nn.Module,
    noise: Tensor,
    labels: Tensor | None,
    reference: Tensor,
    *,
    intervals: int,
    guidance: Guidance,
    convention: Convention | str = "repa",
    shifts: tuple[float, ...] = (0.5, 0.7, 1.4, 2.0, 3.0),
) -> dict[str, dict[str, Any]]:
    """RMSE to the converged states with one approximation after the other replaced by the truth.

    Args:
        model, sidenet, noise, labels, guidance, convention: as for `sample`.
        reference: the converged states of these noises. intervals: N of the uniform grid.

    Returns:
        By name of the replacement: {"rmse", "nfe", "what"}. nfe counts the sampler's own
        evaluations, not those of the oracle.
    """

    def measure(
        what: str, net: nn.Module | None = None, method: Any = "bianchor",
        nfe: int = intervals, shift: float = 1.0,
    ) -> dict[str, Any]:  # fmt: skip
        result = sample(
            model, noise, labels, method=method, nfe=nfe, sidenet=net or sidenet,
            guidance=guidance, convention=convention, shift=shift,
        )  # fmt: skip
        return {"rmse": rmse(result.x, reference), "nfe": result.stats.nfe, "what": what}

    def oracle(**options: Any) -> OracleSideNet:
        return OracleSideNet(
            model, convention, sidenet, guidance=guidance, batch=len(noise), **options
        )

    budget = {
        "as it is": measure("BA-solver, uniform grid"),
        "no SideNet": measure("δ = 0: the two anchors alone", _Still(sidenet)),
        "last interval corrected": measure(
            "the last interval gets its end anchor too",
            method=bianchor_plan(forward_last=False), nfe=intervals + 1,
        ),
        "PECE": measure(
            "every anchor at the corrected state: no anchor mismatch", method=_pece
        ),
        "exact forward SideNet": measure(
            "velocities looked ahead from the start are exact", oracle(backward=False)
        ),
        "exact backward SideNet": measure(
            "velocities looked back from the end are exact", oracle(forward=False)
        ),
        "exact SideNet": measure("both; every half along its own flow, as trained", oracle()),
    }  # fmt: skip
    if guidance.scale != 1:
        budget["exact guided SideNet"] = measure(
            "both; both halves along the guided flow, as sampled", oracle(together=True)
        )
    tuned = {s: measure(f"the best shift of the grid, {s:g}", shift=s) for s in (1.0, *shifts)}
    budget["best grid"] = min(tuned.values(), key=lambda m: m["rmse"])
    fine = bianchor_plan(qf.gauss_lobatto(5))
    budget["more nodes"] = measure("Gauss-Lobatto 5 instead of 4", method=fine)
    flow = FlowField(model, convention, labels, guidance)
    drift = local_errors(flow, sidenet, noise, intervals)
    budget["no drift"] = {
        "rmse": float(drift.sum(0).double().square().mean().sqrt()),
        "nfe": flow.evaluations,
        "what": "every interval starts on the true path; the sum of their errors",
    }
    return budget


def local_errors(field: FlowField, sidenet: nn.Module, noise: Tensor, intervals: int) -> Tensor:
    """What each interval of BA-solver adds when it starts on the true path: (N, B, ...).

    The signed difference to the converged solve at the interval's end; the last one forward-only,
    as in sampling. If errors were neither damped nor amplified on the way, their sum would be the
    error of the whole. field.evaluations afterwards counts BA-solver's own alone.
    """
    grid = time_grid(intervals, field.resolved).tolist()
    errors = []
    truth = tight_path(field, noise, intervals)
    with torch.no_grad():
        field.evaluations = field.rows = 0
        for i, ends in enumerate(pairwise(grid)):
            method = BiAnchor(sidenet, field, forward_last=i == intervals - 1)
            step = qf.solve(field, truth[i], ends, method=method, grid=ends)
            errors.append(step.y[-1] - truth[i + 1])
    return torch.stack(errors)


class _Still(nn.Module):
    """A SideNet that says "no change"."""

    def __init__(self, sidenet: nn.Module) -> None:
        super().__init__()
        self.num_classes = getattr(sidenet, "num_classes", None)

    def forward(self, x: Tensor, v: Tensor, t: Tensor, h: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(v)


def ablation_plans() -> dict[str, Any]:
    """The variants of the published ablation, for `sample(method=...)`, by their name there."""
    return {
        "bi-anchor": bianchor_plan(),
        "single anchor": single_anchor_plan(2),
        "no interior velocity": bianchor_plan(qf.trapezoid()),
        "Simpson 3/8": bianchor_plan(qf.three_eighths()),
        "one interior node": bianchor_plan(qf.simpson()),
        "Gauss-Lobatto 5": bianchor_plan(qf.gauss_lobatto(5)),
        "Clenshaw-Curtis 5": bianchor_plan(qf.clenshaw_curtis(5)),
    }
