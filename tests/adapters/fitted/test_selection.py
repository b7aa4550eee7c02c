"""When a training to the ends of the flow stops, and which weights it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quadflow.adapters.fitted import training
from quadflow.adapters.fitted.training import (
    PATIENCE,
    Budget,
    Selection,
    Trainee,
    distances,
    looks,
    typical,
)


@pytest.mark.parametrize(
    ("errors", "stops"),
    [
        # none is better than the first: so many looks behind the middle, step 6, end it
        ([0.5] + [0.6] * 12, 6 + PATIENCE),
        # better once more behind the middle: counted from there
        ([0.5] + [0.6] * 6 + [0.4] + [0.6] * 6, 7 + PATIENCE),
        ([0.9 - 0.05 * i for i in range(13)], None),
    ],
)
def test_a_training_ends_where_looks_no_longer_get_better(
    errors: list[float], stops: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: Any = None
    module = nn.Linear(1, 1)
    trainee = Trainee(module, nothing, nothing, "the start")
    budget = Budget(5, 1.0, 1.0, 1.0, 0, nothing)
    selection = Selection(nothing, trainee, [budget], range(2), tmp_path, 12)
    ended = None
    for step, error in enumerate(errors):
        made = {budget.key: torch.full((2,), error)}
        monkeypatch.setattr(training, "distances_of", lambda *_, made=made: made)
        with torch.no_grad():
            module.weight.fill_(step)
        if selection(module, step).enough:
            ended = step
            break
    assert ended == stops
    selection.restore()
    seen = [look["ratio"] for look in looks(tmp_path)]
    assert seen == pytest.approx(errors[: len(seen)])
    assert module.weight.item() == min(range(len(seen)), key=lambda i: seen[i])


def test_few_samples_do_not_decide_which_weights_are_kept() -> None:
    """The typical error is that of all samples alike: the geometric mean of their distances."""
    missed = torch.full((4, 1, 2, 2), 0.1)
    missed[0] = 0.4
    assert distances(missed).tolist() == pytest.approx([0.4, 0.1, 0.1, 0.1])
    assert typical(distances(missed)) == pytest.approx((0.4 * 0.1**3) ** 0.25)
    assert typical(torch.tensor([1.0, float("nan")])) == float("inf")
    assert 0 < typical(torch.zeros(3)) < 1e-5
