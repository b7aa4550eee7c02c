"""The evaluations that a fit says it took are those that it took."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_fit_sampler import Swirl
from test_fit_sidenet import SHAPE, SMALL, Bent
from torch import Tensor, nn

from quadflow.adapters import fit_sampler, fit_sidenet
from quadflow.adapters.fitted.effort import HELD_OUT, Wish

FIT: dict[str, Any] = {"nfe": (3, 4), "updates": 5, "pairs": 1, "steps": 8, "batch_size": 4}
HELD = 256
"""Of 192 held out and one to learn from, in whole blocks."""


class Counted(nn.Module):
    """A model that counts the states it is given, with gradients and without."""

    num_classes = 2

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.rows = {True: 0, False: 0}

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        self.rows[torch.is_grad_enabled()] += len(x)
        out: Tensor = self.model(x, t, y)
        return out


@pytest.mark.filterwarnings("ignore:nothing learned", "ignore:nfe=", "ignore:better on average")
@pytest.mark.parametrize("published", [False, True])
def test_evaluations_are_counted(published: bool) -> None:
    model = Counted(Bent() if published else Swirl()).eval()
    if published:
        figures = fit_sidenet(model, SMALL, shape=SHAPE, guidance=(1.0, 2.0), **FIT).figures
        more = 2 * 2  # whether the model is deterministic
    else:
        figures = fit_sampler(model, shape=(2,), guidance=(1.0, 2.0), **FIT).figures
        more = 2 * 2 + 2 + 1  # the same, where the features are, what an evaluation costs
    found = figures["evaluations"]
    assert found["pairs"] == HELD * (8 + 10) * (1 + 2)
    assert found["looks"] == HELD_OUT[0] * (3 + 4) * (1 + 2)
    assert found["report"] == (2 * HELD_OUT[1] + (not published) * HELD_OUT[0]) * (3 + 4) * (1 + 2)
    # NFE 3 and 4 alone, then guided, then 3 again
    assert found["updates"] == 4 * (3 + 4 + 2 * 3 + 2 * 4 + 3)
    assert model.rows[False] == sum(found.values()) - found["updates"] + more
    # the evaluation at the noise has no gradient, the others are computed once more
    assert model.rows[True] == found["updates"] + 4 * (2 + 3 + 2 * 2 + 2 * 3 + 2)


def test_minutes_become_updates() -> None:
    def effort(minutes: float, update: float = 5.0) -> int:
        return Wish((5, 10), (1.0, 2.0), minutes).effort(lambda _: None, update=update).updates

    few, many, slower = effort(0.1), effort(1.0), effort(1.0, 50.0)
    assert few < many and slower < many
    given = Wish((5,), (1.0,), updates=7, pairs=3).effort(lambda _: None, update=5.0)
    assert (given.updates, given.pairs, given.batch_size) == (7, 3, 16)
