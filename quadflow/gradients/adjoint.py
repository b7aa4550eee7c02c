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
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..equations.velocity import Velocity
from ..solution import SolveError
from .augmented import Augmented, Parts
from .shared_graphs import own_shares

SolveForward = Callable[[], tuple[list[float], Tensor]]
"""Solves without gradients: the times reached (the first included), the states there (T, *y)."""

SolveBackward = Callable[["Augmented", Parts, float, float], Parts]
"""(augmented, state at t1, t1, t0) -> state at t0."""


def solve_with_adjoint(
    velocity: Velocity,
    solves: tuple[SolveForward, SolveBackward],
    y0: Tensor,
    t: Tensor,
    params: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Solve, with gradients in y0, t and params by the adjoint equation.

    Args:
        velocity: the function solved for.
        solves: forward and backward; the second is called once for every interval between
            requested times, from the last to the first.
        y0: the solver's state at the first time (of the velocity's layout).
        t: the requested times (T,); those that are among the times reached get gradients, others
            (behind an event, or a failure) zero. A time reached that was not requested stays
            where it is.
        params: tensors that func depends on, all requiring grad.

    Returns:
        times reached (T',), float64, without gradient; states there, (T', *y0.shape). First
        derivatives alone: a second derivative is an error.

    Raises:
        SolveError: in the backward pass, where the state cannot be solved for backward.
    """
    states, times = _Adjoint.apply(velocity, solves, y0, t, *params)  # type: ignore[no-untyped-call]
    return times, states


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, velocity: Velocity, solves: Any, y0: Tensor, t: Tensor, *params: Tensor
    ) -> tuple[Tensor, Tensor]:
        times, states = solves[0]()
        reached = torch.tensor(times, dtype=torch.float64)
        ctx.velocity, ctx.solve_backward, ctx.times = velocity, solves[1], times
        ctx.save_for_backward(t, states, *params)  # so that a change of them in place is noticed
        ctx.mark_non_differentiable(reached)
        return states, reached

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        t, states, *params = ctx.saved_tensors
        times: list[float] = ctx.times
        augmented = Augmented(ctx.velocity, states[0], params, ctx.needs_input_grad[3])
        by_time = torch.zeros(len(times), dtype=torch.float64, device=states.device)
        adjoint, by_params = grad[-1], [torch.zeros_like(p) for p in params]
        for i in range(len(times) - 1, 0, -1):
            if times[i] == times[i - 1]:  # an event at the very start
                adjoint = adjoint + grad[i - 1]
                continue
            augmented.enter(times[i - 1], times[i])
            start = augmented.join(states[i], adjoint, by_params)
            try:
                end = ctx.solve_backward(augmented, start, times[i], times[i - 1])
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
        if ctx.needs_input_grad[3]:
            asked = t.detach().to(torch.float64).tolist()
            places = {when: i for i, when in reversed(list(enumerate(times)))}
            by_t = torch.stack(
                [
                    by_time[places[when]] if when in places else by_time.new_zeros(())
                    for when in asked
                ]
            ).to(t)
        by_y0 = adjoint if ctx.needs_input_grad[2] else None
        return (None, None, by_y0, by_t, *own_shares(params, by_params))
