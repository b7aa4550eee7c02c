"""Transforms of torch.func through `solve`, against closed forms."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, func

import quadflow as qf

F64 = torch.float64
Y0 = torch.tensor([0.2, 0.6], dtype=F64)
RATE = torch.tensor([1.5, -0.7], dtype=F64)
WEIGHTS = torch.tensor([1.0, 2.0], dtype=F64)
FIXED: dict[str, Any] = {"step_size": 0.05}
HOW: dict[str, tuple[dict[str, Any], float]] = {
    "dopri5": ({}, 1e-6), "dopri8": ({}, 1e-6), "gauss": ({}, 1e-6), "adams": ({}, 1e-6),
    "pece4": ({}, 1e-6),
    "rk4": (FIXED, 1e-6), "gauss2": (FIXED, 1e-6), "ab3": (FIXED, 1e-3), "pec3": (FIXED, 1e-4),
}  # fmt: skip
"""Of every plan, adaptive and in fixed steps: further arguments, and the largest error."""

Ends = Callable[[Tensor], Tensor]
TRANSFORMS: dict[str, Callable[[Ends], Any]] = {
    "grad": lambda f: func.grad(lambda r: (f(r) * WEIGHTS).sum())(RATE),
    "vjp": lambda f: func.vjp(f, RATE)[1](WEIGHTS)[0],
    "jvp": lambda f: func.jvp(f, (RATE,), (WEIGHTS,))[1],
    "jacrev": lambda f: func.jacrev(f)(RATE),
    "jacfwd": lambda f: func.jacfwd(f)(RATE),
    "hessian": lambda f: func.hessian(lambda r: (f(r) * WEIGHTS).sum())(RATE),
    "vmap": lambda f: func.vmap(f)(torch.stack((RATE, RATE + 0.1))),
    "vmap of grad": lambda f: func.vmap(func.grad(lambda r: (f(r) * WEIGHTS).sum()))(
        torch.stack((RATE, RATE + 0.1))
    ),
}


def logistic(rate: Tensor) -> Tensor:
    """The end of logistic growth over one unit of time."""
    return 1 / (1 + (1 / Y0 - 1) * torch.exp(-rate))


@pytest.mark.parametrize("method", HOW)
def test_transforms_against_the_closed_form(method: str) -> None:
    keywords, most = HOW[method]
    if not keywords:
        keywords = {"rtol": 1e-7, "atol": 1e-9}

    def solved(rate: Tensor) -> Tensor:
        sol = qf.solve(
            lambda t, y, r: r * y * (1 - y), Y0, (0.0, 1.0), args=(rate,), method=method, **keywords
        )
        return sol.y[-1]

    for name, transform in TRANSFORMS.items():
        error = float((transform(solved) - transform(logistic)).abs().max())
        assert error < most, (name, error)


@pytest.mark.parametrize(
    "inside",
    [
        "torch.func.grad(lambda r: end(r).sum())(rate)",
        "torch.func.vmap(end)(torch.stack((rate, rate)))",
        "torch.func.jvp(end, (rate,), (rate,))[1]",
        "inferred(rate)",
    ],
)
def test_the_first_solve_of_a_process_may_be_in_a_transform(inside: str) -> None:
    """What is loaded and measured at the first solve is so outside of it."""
    code = (
        "import torch, quadflow as qf\n"
        "rate = torch.tensor([1.5, -0.7], dtype=torch.float64)\n"
        "y0 = torch.ones(2, dtype=torch.float64)\n"
        "def end(r):\n"
        "    return qf.solve(lambda t, y: -r * y, y0, (0.0, 1.0), method='dopri5').y[-1]\n"
        "def inferred(r):\n"
        "    with torch.inference_mode():\n"
        "        return end(r)\n"
        f"print({inside}.abs().sum().item())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and float(done.stdout) > 0, done.stderr
