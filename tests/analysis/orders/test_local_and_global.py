"""Four-point Gauss-Lobatto: the three errors that are all called its order."""

from __future__ import annotations

import json

import pytest

import quadflow as qf
from quadflow.analysis.orders.local_and_global import local_and_global


def test_local_seven_and_global_six() -> None:
    study = local_and_global()
    slopes = [m.order for m in study.rows.values()]
    assert slopes == pytest.approx([7, 7, 6], abs=0.12)
    assert [m.promised for m in study.rows.values()] == [7, 7, 6]
    text = str(study)
    assert "exact velocities" in text and f"{study.whole.order:.2f}" in text
    assert set(json.loads(json.dumps(study.to_dict()))) == set(study.rows)


def test_a_problem_without_a_formula_is_refused() -> None:
    with pytest.raises(ValueError, match="lotka-volterra has no exact solution"):
        local_and_global(qf.gauss_lobatto(3), "lotka-volterra")
