"""Steps that go through NumPy do what the same steps in tensors do."""

from __future__ import annotations

import json

import golden
import pytest

RECORDED = json.loads(golden.FILE.read_text(encoding="utf-8"))


class Unwatched:
    """Stands where golden traces count host reads; operations that are watched stay in torch."""

    waits = 0

    def __enter__(self) -> None: ...

    def __exit__(self, *failure: object) -> None: ...


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "CountWaits", Unwatched)


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize("name", RECORDED)
def test_golden_traces(name: str) -> None:
    changed = {}
    for problem in golden.PROBLEMS:
        for mode in ("adaptive", "fixed", "float32", "complex"):
            case = f"{problem}, {mode}"
            old, new = RECORDED[name][case], golden.short(golden.trace(name, problem, mode))
            if "reads" in new:
                new["reads"] = old["reads"]
            if words := list(golden.differences(case, old, new, True)):
                changed[case] = words
    assert not changed
