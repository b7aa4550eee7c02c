"""What an order is the order of: errors at the end, between steps, in one step, of an estimate, ...

Each kind turns a number of steps n into one `Sample`; `convergence.measured_order` chooses the n
and fits the slope.
"""

from __future__ import annotations

from ...checks import check_choice
from ..problems.problem import Problem
from ..solvers.run import Solver
from . import single_steps, whole_solves
from .kind import Kind, UnavailableError

_MAKERS = {
    "endpoint": whole_solves.endpoint, "dense": whole_solves.dense,
    "estimate": single_steps.estimate, "event": whole_solves.event_time,
    "gradient": whole_solves.gradient, "local": single_steps.local,
}  # fmt: skip

KINDS = tuple(_MAKERS)
"""What `measured_order(of=)` takes."""

MP_KINDS = ("endpoint", "dense", "local")
"""Those of them that are measured in extended precision."""


def make_kind(of: str, solver: Solver, problem: Problem) -> Kind:
    """The Kind of a name in `KINDS`, in float64.

    Raises:
        ValueError: unknown name. UnavailableError: not to be had here.
    """
    check_choice(of, KINDS, "of")
    if solver.fixed is None:
        raise UnavailableError(f"{solver.name} cannot be told its steps")
    return _MAKERS[of](solver, problem, solver.fixed)
