"""Gradients of a solve by its adjoint equation: memory that does not grow with the steps.

Along a solution of y' = f(t, y; p) the adjoint a = dL/dy obeys a' = -J(t, y)ᵀ a, and the gradient
in p is the integral of (∂f/∂p)ᵀ a (Pontryagin et al. 1962; Chen et al. 2018). Both are solved
together with y itself, backward from one requested time to the one before; y starts anew at every
requested time from the state that the forward solve left there, and a takes on the gradient that
arrives there.

The times are treated as `clock` treats them: between t_i and t_(i+1) = t_i + H the velocity is
s·f(t_i + (τ-τ_i)s, y) with a slope s = (t_(i+1)-t_i)/H, and the gradients in both ends are
integrals along the interval, like those in any parameter. So a symmetric and symplectic method,
run backward over its own steps, gives the exact gradient of the discrete solution in y0, p and t
(Sanz-Serna, SIAM Review 58, 2016: quadratic invariants, here the product of the adjoint and the
variation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge

from ..equations.velocity import Velocity
from ..plans.registry import Method, SweepsMethod
from ..solution import SolveError

Parts = tuple[Tensor, ...]
"""An augmented state: gradients in the interval's two ends (2,), y, a, gradients in the params."""

SolveForward = Callable[[], tuple[list[float], Tensor]]
"""Solves without gradients: the times reached (the first included), the states there (T, *y)."""

SolveBackward = Callable[["Augmented", Parts, float, float], Parts]
"""(augmented, state at t1, t1, t0) -> state at t0."""


@dataclass(frozen=True)
class AdjointProblem:
    """What the adjoint needs of a solve.

    velocity: the function solved for. forward, backward: the two solves; `backward` is called once
    for every interval between requested times, from the last to the first.
    """

    velocity: Velocity
    forward: SolveForward
    backward: SolveBackward


def solve_with_adjoint(
    problem: AdjointProblem, y0: Tensor, t: Tensor, params: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Solve, with gradients in y0, t and params by the adjoint equation.

    Args:
        problem: says how.
        y0: the solver's state at the first time (of the velocity's layout).
        t: the requested times (T,); its gradient is that of the times reached where the solve
            ends at all of them, and of the first alone where it ends elsewhere (at an event).
        params: tensors that func depends on, all requiring grad.

    Returns:
        times reached (T',), float64, without gradient; states there, (T', *y0.shape). First
        derivatives alone: a second derivative is an error.

    Raises:
        SolveError: in the backward pass, where the state cannot be solved for backward.
    """
    states, times = _Adjoint.apply(problem, y0, t, *params)  # type: ignore[no-untyped-call]
    return times, states


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, problem: AdjointProblem, y0: Tensor, t: Tensor, *params: Tensor
    ) -> tuple[Tensor, Tensor]:
        times, states = problem.forward()
        reached = torch.tensor(times, dtype=torch.float64)
        ctx.problem, ctx.times = problem, times
        ctx.at_all_times = t.detach().to(torch.float64).tolist() == times
        ctx.save_for_backward(t, states, *params)  # so that a change of them in place is noticed
        ctx.mark_non_differentiable(reached)
        return states, reached

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        t, states, *params = ctx.saved_tensors
        times: list[float] = ctx.times
        augmented = Augmented(ctx.problem.velocity, states[0], params, ctx.needs_input_grad[2])
        by_time = torch.zeros(len(times), dtype=torch.float64, device=states.device)
        adjoint, by_params = grad[-1], [torch.zeros_like(p) for p in params]
        for i in range(len(times) - 1, 0, -1):
            if times[i] == times[i - 1]:  # an event at the very start
                adjoint = adjoint + grad[i - 1]
                continue
            augmented.enter(times[i - 1], times[i])
            start = augmented.join(states[i], adjoint, by_params)
            try:
                end = ctx.problem.backward(augmented, start, times[i], times[i - 1])
            except SolveError as error:
                raise SolveError(
                    f"the backward solve from t={times[i]:.9g} to t={times[i - 1]:.9g} failed: "
                    f"{error}. The adjoint solves for the state backward as well, which is "
                    "unstable where solutions run together in forward time: ask for more times in "
                    "t (the state starts anew at each), or differentiate through the solve instead",
                    error.solution,
                ) from error
            by_ends, _, adjoint, by_params = augmented.split(end)
            by_time[i - 1 : i + 1] += by_ends
            adjoint = adjoint + grad[i - 1]
        by_t: Tensor | None = None
        if ctx.needs_input_grad[2]:
            by_t = by_time.to(t)
            if not ctx.at_all_times:
                by_t = torch.cat((by_t[:1], torch.zeros_like(t[1:])))
        by_y0 = adjoint if ctx.needs_input_grad[1] else None
        return (None, by_y0, by_t, *_own_shares(params, by_params))


def _own_shares(params: Sequence[Tensor], by_params: Sequence[Tensor]) -> list[Tensor]:
    """The gradients in the parameters as autograd adds them up where some are made of others, as
    weights that a network made are of the network's own parameters.

    by_params: the whole gradient in each, by way of other parameters too. What autograd hands on
    from one parameter to those that it is made of is taken off theirs.
    """
    shares = list(by_params)
    made = [p for p in params if not p.is_leaf]
    if not made or len(params) == 1:
        return shares
    edges = [(edge.node, edge.output_nr) for edge in map(get_gradient_edge, params)]
    if _edges_behind(made).isdisjoint(edges):
        return shares
    sources = [
        [i for i, edge in enumerate(edges) if edge in reached]
        for reached in (_edges_behind([p]) for p in params)
    ]
    # one that is made of another is made of all that this one is made of: more than those
    for last in sorted(range(len(params)), key=lambda i: -len(sources[i])):
        if sources[last]:
            made_of = [params[i] for i in sources[last]]
            handed_on = torch.autograd.grad(
                params[last], made_of, shares[last], retain_graph=True, allow_unused=True
            )
            for i, part in zip(sources[last], handed_on, strict=True):
                shares[i] = shares[i] if part is None else shares[i] - part
    return shares


def _edges_behind(tensors: Sequence[Tensor]) -> set[Any]:
    """All edges of the graph that the tensors were made by, as (node, number of its output)."""
    edges: set[Any] = set()
    nodes = {x.grad_fn for x in tensors} - {None}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        assert node is not None
        for edge in node.next_functions:
            if edge[0] is None:
                continue
            edges.add(edge)
            if edge[0] not in nodes:
                nodes.add(edge[0])
                waiting.append(edge[0])
    return edges


class Augmented:
    """The velocity of (gradients in the interval's ends, y, a, gradients in the parameters).

    Called as func(t, parts) with a tuple of real tensors (complex ones come with a last axis of
    2). t is 0-dimensional, or, where there are no parameters, (n, 1, ..., 1) for n nodes together.

    Args:
        velocity: the function solved for.
        like: a state of the forward solve.
        params: parameters that require grad.
        in_time: whether gradients in the times are wanted; zero otherwise.
    """

    def __init__(
        self, velocity: Velocity, like: Tensor, params: Sequence[Tensor], in_time: bool
    ) -> None:
        self._velocity, self._params, self._in_time = velocity, tuple(params), in_time
        self._like = like
        self._start, self._length = 0.0, 1.0
        self._retains = True

    @property
    def node_evaluation(self) -> str:
        """How several nodes are to be evaluated.

        A backward pass over n nodes together would add up their gradients in the parameters,
        which a collocation method wants apart.
        """
        return "loop" if self._params else "broadcast"

    def enter(self, t0: float, t1: float) -> None:
        """Say that the interval solved is the one between the requested times t0 and t1."""
        self._start, self._length = t0, t1 - t0

    def join(self, y: Tensor, adjoint: Tensor, by_params: Sequence[Tensor]) -> Parts:
        """The augmented state at an interval's end."""
        dtype = self._like.real.dtype
        ends = torch.zeros(2, dtype=dtype, device=self._like.device)
        return (ends, *(_as_real(part, dtype) for part in (y, adjoint, *by_params)))

    def split(self, parts: Parts) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Gradients in the interval's ends (2,), y, the adjoint, gradients in the parameters."""
        ends, y, adjoint, *by_params = parts
        restored = [_like(part, p) for part, p in zip(by_params, self._params, strict=True)]
        return ends, _like(y, self._like), _like(adjoint, self._like), restored

    def __call__(self, t: Tensor, parts: Parts) -> Parts:
        together = t.dim() > 0
        y, adjoint = _like(parts[1], self._like), _like(parts[2], self._like)
        with torch.enable_grad():
            t = (t.reshape(-1) if together else t).detach().requires_grad_(self._in_time)
            y = y.detach().requires_grad_()
            v = self._velocity.nodes(t, y) if together else self._velocity(t, y)[0]
        wanted = (y, *((t,) if self._in_time else ()), *self._params)
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if v.requires_grad:
            found = self._pulled_back(v, wanted, adjoint)
        known = [
            torch.zeros_like(x) if gradient is None else gradient
            for x, gradient in zip(wanted, found, strict=True)
        ]
        v, t = v.detach(), t.detach()
        ends = torch.zeros_like(parts[0])
        if self._in_time:
            by_t = known.pop(1)
            along = (adjoint.conj() * v).real.reshape(*t.shape, -1).sum(-1) / self._length
            theta = (t - self._start) / self._length
            ends = torch.stack((along - (1 - theta) * by_t, -along - theta * by_t), -1)
        backward = [_as_real(-gradient, ends.dtype) for gradient in known]
        return (ends, _as_real(v, ends.dtype), *backward)

    def _pulled_back(
        self, v: Tensor, wanted: Sequence[Tensor], adjoint: Tensor
    ) -> Sequence[Tensor | None]:
        """The gradients of adjoint·v. Nothing of the graph is freed, for func may share some of it
        between its evaluations (weights made before the solve); what is this one's goes with v."""
        try:
            return torch.autograd.grad(
                v, wanted, adjoint, retain_graph=self._retains, allow_unused=True
            )
        except RuntimeError as error:
            if self._retains and "donated" in str(error):
                # torch.compile made func such that its graph can be gone through but once
                self._retains = False
                return torch.autograd.grad(v, wanted, adjoint, allow_unused=True)
            if not self._retains and "second time" in str(error):
                raise RuntimeError(
                    "func is compiled, and makes use of tensors that were computed from "
                    "adjoint_params before the solve, whose graph is freed at its first "
                    "evaluation: give adjoint_params these tensors themselves, or set "
                    "torch._functorch.config.donated_buffer = False before func is compiled"
                ) from error
            raise


def _as_real(x: Tensor, dtype: torch.dtype) -> Tensor:
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).to(dtype)


def as_complex(part: Tensor) -> Tensor:
    """The complex tensor whose real and imaginary parts lie along the last axis (of 2)."""
    return torch.complex(*part.unbind(-1))


def _like(part: Tensor, original: Tensor) -> Tensor:
    """The tensor that `_as_real` made the part of, of original's dtype."""
    if original.is_complex():
        part = as_complex(part.to(original.real.dtype))
    return part.to(original.dtype)


def has_exact_adjoint(method: Method) -> bool:
    """Whether the adjoint equation, solved by the method backward over its own steps, gives the
    exact gradient of what the method computed: collocation solved to convergence, on a rule that
    is symmetric and symplectic (Gauss-Legendre)."""
    if not isinstance(method, SweepsMethod) or not method.converged:
        return False
    a, b = method.rule.integration_matrix, method.rule.weights
    symmetric = abs(a + a[::-1, ::-1] - b).max() < 1e-14
    product = b[:, None] * a
    symplectic = abs(product + product.T - b[:, None] * b).max() < 1e-14
    return bool(symmetric and symplectic)
