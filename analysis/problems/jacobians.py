"""df/dy of a problem's right-hand side, exact to rounding, as numpy's solvers want it.

The reference solvers (`references.radau`, `exact.mp_backend`) work out their own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .problem import Problem

NumpyJacobian = Callable[[float, np.ndarray], np.ndarray]
"""(t, y (d,)) -> (d, d)."""


def by_differentiation(problem: Problem) -> NumpyJacobian:
    """`Problem.jacobian` of arrays: about a millisecond, for any right-hand side."""

    def jacobian(t: float, y: np.ndarray) -> np.ndarray:
        return problem.jacobian(t, torch.from_numpy(np.array(y))).numpy()

    return jacobian


def by_complex_steps(problem: Problem) -> NumpyJacobian:
    """The Jacobian by d complex evaluations, which are cheap.

    Where the right-hand side is not analytic in y, which is looked at in the start and in the end
    point, `by_differentiation` instead.
    """
    tiny, differentiated = 1e-30, by_differentiation(problem)

    def jacobian(t: float, y: np.ndarray) -> np.ndarray:
        columns = []
        for q in range(problem.dimension):
            state = y.astype(complex)
            state[q] += 1j * tiny
            columns.append(np.imag(problem.f_numpy(t, state)) / tiny)
        return np.stack(columns, axis=1)

    points = [(problem.span[0], problem.y0.detach().numpy())]
    if problem.end is not None:
        points.append((problem.span[1], problem.end.numpy()))
    try:
        same = all(
            np.allclose(jacobian(t, y), differentiated(t, y), rtol=1e-10, atol=1e-12)
            for t, y in points
        )
    except (TypeError, ValueError, FloatingPointError):  # numpy refuses complex numbers somewhere
        same = False
    return jacobian if same else differentiated
