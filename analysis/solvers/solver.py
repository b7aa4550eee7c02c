"""Anybody's solver behind one interface: quadflow's methods, peers, and callables of one's own.

Each library is one file here: `quadflow`, `torchdiffeq`, `torchode`, `scipy`, `diffrax`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import nearest
from ...plans.method import Method
from .callables import callable_solver
from .diffrax import diffrax_solver
from .quadflow import quadflow_solver
from .run import Solver
from .scipy import scipy_solver
from .torchdiffeq import torchdiffeq_solver
from .torchode import torchode_solver

PEERS: dict[str, Callable[[str], Solver]] = {
    "torchdiffeq": torchdiffeq_solver,
    "scipy": scipy_solver,
    "diffrax": diffrax_solver,
    "torchode": torchode_solver,
}
"""Prefixes that `as_solver` knows, as in "scipy:DOP853"."""

LIBRARIES = ("torchdiffeq", "torchode", "diffrax")
"""Peers that need not be installed; scipy always is."""


def as_solver(anything: Any) -> Solver:
    """The Solver of a Solver, a Method, a name, a diffrax object or a callable.

    Args:
        anything: one of these. Names are a registered method's ("rk4"), or a peer's:
            "torchdiffeq:dopri5", "scipy:DOP853", "diffrax:Dopri5", "torchode:Tsit5". A callable is
            solve(rhs, y0, grid): the right-hand side rhs(t, y), the first state (d,) and the times
            (N+1,) to step on; it returns the state (d,) at the last of them, or a pair of that and
            a function t -> (d,) for the states between.

    Raises:
        ValueError: unknown name. TypeError: none of these. MissingExtraError: the peer is missing.
    """
    if isinstance(anything, Solver):
        return anything
    if isinstance(anything, Method):
        return quadflow_solver(anything)
    if isinstance(anything, str):
        peer, colon, name = anything.partition(":")
        if not colon:
            return quadflow_solver(anything)
        if peer not in PEERS:
            raise ValueError(f"method={anything!r}: {peer!r} is no peer: {nearest(peer, PEERS)}")
        return PEERS[peer](name)
    if type(anything).__module__.partition(".")[0] == "diffrax":
        return diffrax_solver(anything)
    if callable(anything):
        return callable_solver(anything)
    raise TypeError(
        "method must be a name, a Method, a Solver or a callable solve(rhs, y0, grid), got "
        f"{type(anything).__name__}"
    )


# -- who is compared -----------------------------------------------------------------------------

QUADFLOW_METHODS = (
    "adams", "gauss", "dopri5", "tsit5", "dopri8", "gauss4", "gauss6", "gauss8", "lobatto5",
)  # fmt: skip
"""quadflow's methods in the comparisons."""

SHARED_STEPS = ("adams",)
"""Those of them that cannot give every trajectory of a batch steps of its own."""


def missing() -> tuple[str, ...]:
    """Libraries among `LIBRARIES` that are not installed."""
    return tuple(name for name in LIBRARIES if importlib.util.find_spec(name) is None)


def quadflow_solvers(
    names: Sequence[str] = QUADFLOW_METHODS, *, compiled: bool = True, per_sample: bool = False
) -> list[Solver]:
    """quadflow's methods, eager and (where this version can) compiled."""
    names = [m for m in names if not per_sample or m not in SHARED_STEPS]
    found = [quadflow_solver(m, per_sample=per_sample) for m in names]
    if compiled:
        # sweeps of samples on their own are not compiled
        chosen = ("dopri5", "dopri8") if per_sample else ("dopri5", "dopri8", "gauss")
        found += [quadflow_solver(m, compiled=True, per_sample=per_sample) for m in chosen]
    return found


def other_solvers(*, compiled: bool = True, batch: bool = False) -> list[Solver]:
    """The solvers of other libraries that are installed."""
    absent = missing()
    found = [scipy_solver("DOP853")]
    if batch:
        found.append(scipy_solver("DOP853", joint=True))
    if "torchdiffeq" not in absent:
        found += [torchdiffeq_solver("dopri5"), torchdiffeq_solver("dopri8")]
    if "torchode" not in absent:
        found.append(torchode_solver("Tsit5"))
        if compiled:
            found.append(torchode_solver("Tsit5", compiled=True))
    if "diffrax" not in absent and compiled:
        found += [diffrax_solver("Tsit5"), diffrax_solver("Dopri8")]
    return found
