"""Orbits followed for long: their energy, and what a study says of it."""

from __future__ import annotations

import json

import pytest
import torch

from quadflow.analysis.cost.kepler_orbits import KeplerOrbits, energy, orbit, phases
from quadflow.analysis.problems.problem import get_problem


def test_phases_lie_on_one_orbit_that_begins_as_the_problem_does() -> None:
    states = phases(7)
    torch.testing.assert_close(states[0], get_problem("kepler").y0)
    torch.testing.assert_close(energy(states), torch.full((7,), -0.5, dtype=torch.float64))


def test_an_orbit_loses_energy_at_least_as_its_order_says() -> None:
    coarse, fine = (orbit("dopri5", 10, steps, count=2) for steps in (60, 120))
    assert coarse.nfe == pytest.approx(60 * 6 + 0.1)  # first same as last
    assert 1e-7 < fine.errors[0] < 2**-5 * coarse.errors[0]
    assert fine.means[0] == pytest.approx(-fine.errors[0], rel=0.9)  # lost, not won
    figures = json.loads(json.dumps(KeplerOrbits({"dopri5": fine}).to_dict()))
    assert figures["dopri5"]["errors"] == list(fine.errors)
    assert f"{fine.errors[0]:.1e}" in str(KeplerOrbits({"dopri5": fine}))
    with pytest.raises(ValueError, match="positive multiple of 10, got 7"):
        orbit("dopri5", 7, 60)
