"""Samplers by name: the method and the number of intervals that use exactly nfe evaluations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

# finds its names when a sampler is made, so that the names of the samplers cost no torch
import quadflow as qf

if TYPE_CHECKING:
    from torch import nn

    from ..flow.field import FlowField


class Plan(NamedTuple):
    """A way from noise to data that costs exactly as many evaluations as were asked for.

    method: takes fixed steps. intervals: how many. times: (intervals + 1,) in the model's own time,
    where the plan has times of its own; field: what is integrated, where that is more than the flow
    field that the plan was made for.
    """

    method: qf.Method
    intervals: int
    times: Any = None
    field: FlowField | None = None


Sampler = Callable[["FlowField", int, "nn.Module | None"], "Plan | tuple[qf.Method, int]"]
"""(field, nfe, sidenet) -> a `Plan`, or the method and the number of intervals alone."""


def _euler(field: FlowField, nfe: int, sidenet: nn.Module | None) -> tuple[qf.Method, int]:
    return qf.adams(1), nfe


def _heun(field: FlowField, nfe: int, sidenet: nn.Module | None) -> tuple[qf.Method, int]:
    # two evaluations an interval; an odd budget ends with an Euler step
    return qf.adams(1, "PECE", forward_last=nfe % 2 == 1), (nfe + 1) // 2


def _adams_bashforth(k: int) -> Sampler:
    return lambda field, nfe, sidenet: (qf.adams(k, startup="rising"), nfe)


def _pec(k: int) -> Sampler:
    return lambda field, nfe, sidenet: (
        qf.adams(k, "PEC", startup="rising", forward_last=True),
        nfe,
    )


def _dpmpp_2m(field: FlowField, nfe: int, sidenet: nn.Module | None) -> tuple[qf.Method, int]:
    from ..flow.data_prediction import DataPredictionInterpolant

    interpolant = DataPredictionInterpolant(field.resolved)
    return qf.anchors(interpolant, qf.gauss_legendre(1), name="dpmpp-2m"), nfe


def bianchor_plan(rule: qf.QuadratureRule | None = None, *, forward_last: bool = True) -> Sampler:
    """`BiAnchor` on any rule as a plan for `sample`, in nfe intervals.

    rule: as for `BiAnchor`. forward_last: False evaluates the end of the last interval as well,
    which leaves nfe - 1 intervals.
    """

    def plan(field: FlowField, nfe: int, sidenet: nn.Module | None) -> tuple[qf.Method, int]:
        if not forward_last and nfe < 2:
            raise ValueError(f"nfe={nfe}: a last interval that is corrected needs nfe >= 2")
        from ..sidenet.network import BiAnchor

        net = _given(sidenet, "bianchor")
        method = BiAnchor(net, field, rule=rule, forward_last=forward_last)
        return method, nfe if forward_last else nfe - 1

    return plan


def single_anchor_plan(nodes: int = 2) -> Sampler:
    """`SingleAnchor` as a plan for `sample`, in nfe intervals.

    nodes: number of nodes of its Gauss-Legendre rule, >= 1.
    """

    def plan(field: FlowField, nfe: int, sidenet: nn.Module | None) -> tuple[qf.Method, int]:
        from ..sidenet.network import SingleAnchor

        net = _given(sidenet, "single-anchor")
        return SingleAnchor(net, field, nodes=nodes), nfe

    return plan


def _given(sidenet: nn.Module | None, method: str) -> nn.Module:
    if sidenet is None:
        raise ValueError(f"method={method!r} needs sidenet=, a SideNet trained for this model")
    return sidenet


SAMPLERS: dict[str, Sampler] = {
    "euler": _euler,
    "heun": _heun,
    "ab2": _adams_bashforth(2),
    "ab3": _adams_bashforth(3),
    "ab4": _adams_bashforth(4),
    "dpmpp-2m": _dpmpp_2m,
    "pec2": _pec(2),
    "pec3": _pec(3),
    "single-anchor": single_anchor_plan(),
    "bianchor": bianchor_plan(),
}
"""euler; heun (explicit trapezoid); ab2 to ab4 (Adams-Bashforth with so many anchors, fewer at the
start); dpmpp-2m (DPM-Solver++ in data prediction); pec2, pec3 (predict with so many anchors,
correct once, reuse); bianchor (BA-solver); single-anchor (its variant of one anchor)."""

SHIPPED = "fitted"
"""On the command line and in tables: the fitted sampler that comes with a shipped backbone."""

NEED_SIDENET = ("bianchor", "single-anchor")
"""The samplers that need a SideNet."""
