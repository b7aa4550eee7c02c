"""When a training to the ends of the flow stops, and which weights it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quadflow.adapters.fitted import training
from quadflow.adapters.fitted.training import PATIENCE, Budget, Selection, Trainee, looks


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
    budget = Budget(5, 1.0, 1.0, 0, nothing)
    selection = Selection(nothing, trainee, [budget], range(2), tmp_path, 12)
    ended = None
    for step, error in enumerate(errors):
        monkeypatch.setattr(training, "errors_of", lambda *_, e=error: {budget.key: e})
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
