"""Faults are planted in rules, tableaus and formulas: the checks that CI runs find them all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import quadflow as qf
from quadflow.adapters.cli.main import main
from quadflow.analysis.proofs import mutations
from quadflow.analysis.proofs.certificates import certify
from quadflow.analysis.proofs.mutations import FAULT, KINDS, MODULES, formula_sites, plant
from quadflow.analysis.proofs.running_step import against_algebra
from quadflow.rules.quadrature import FAMILIES

RULES = [("gauss-legendre", 4), ("gauss-lobatto", 4), ("radau-right", 3), ("clenshaw-curtis", 5),
         ("fejer-1", 3), ("newton-cotes-closed", 4)]  # fmt: skip


@pytest.mark.parametrize(("family", "n"), RULES)
def test_every_entry_of_a_rule_matters(family: str, n: int) -> None:
    """All nodes, all weights and all matrix entries, one by one: no such rule can be made."""
    rule = FAMILIES[family].function(n)
    for name in ("nodes", "weights", "integration_matrix"):
        array = getattr(rule, name)
        for index in np.ndindex(array.shape):
            wrong = array.copy()
            wrong[index] += FAULT if wrong[index] < 0.5 else -FAULT
            with pytest.raises(ValueError, match="QuadratureRule"):
                dataclasses.replace(rule, **{name: wrong})


def test_planted_faults_are_caught() -> None:
    """Two of every kind, seeded; the slow set has more."""
    report = plant(2 * len(KINDS), seed=2026)
    assert len(report.faults) == 2 * len(KINDS)
    assert {f.kind for f in report.faults} == set(KINDS)
    assert report.survivors == (), report


@pytest.mark.slow
def test_two_hundred_planted_faults_are_caught() -> None:
    report = plant(210, seed=7)
    assert len(report.faults) == 210 and report.survivors == (), report


@pytest.mark.slow
def test_every_place_of_every_formula_is_watched() -> None:
    """Not a sample: each arithmetic expression of the step and of the interpolants."""
    checks = mutations._step_checks()
    for kind in MODULES:
        missed = []
        for module, path, site, text in formula_sites(kind):

            def wrong(x, _):  # type: ignore[no-untyped-def]
                return x * (1 + FAULT) if mutations._is_real(x) else x

            with mutations._planted(module, path, site, wrong):
                if not mutations._caught(checks):
                    missed.append((path, text))
        assert missed == []


def test_a_check_that_sees_nothing_lets_faults_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report says so: what is caught is found by the checks, not by the planting."""
    monkeypatch.setattr(mutations, "_step_checks", lambda: {"blind": lambda: True})
    monkeypatch.setattr(mutations, "formula_sites", lambda kind: [SITE])
    report = plant(2, kinds=["step formula"])
    assert len(report.survivors) == 2
    place = f"{SITE[0].__name__.rpartition('.')[2]}.{SITE[1]}"
    assert f"SURVIVED: step formula: {place}" in str(report)
    assert report.to_dict()["caught"] == 0


SITE = (mutations.sums, "add_scaled", 1, "torch.add(y0, v, alpha=h)")


def test_the_sound_code_is_back_after_a_fault() -> None:
    before = mutations.stage_sums.add_scaled.__code__
    with mutations._planted(SITE[0], SITE[1], SITE[2], lambda x, _: x * 1.01):
        assert mutations.stage_sums.add_scaled.__code__ is not before
        assert against_algebra("dopri5") != []
    assert mutations.stage_sums.add_scaled.__code__ is before
    assert against_algebra("dopri5") == []


def test_code_and_algebra_differ_where_the_tableau_is_changed_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The comparison names what differs: here the step alone takes another node."""
    sound = mutations.sweep.lagrange_taylor

    def corrupt(nodes, centre):  # type: ignore[no-untyped-def]
        return sound(nodes, centre + 1e-7)

    with monkeypatch.context() as patch:
        patch.setattr(mutations.sweep, "lagrange_taylor", corrupt)
        mutations._forget()
        found = against_algebra("gauss3")
        assert any(text.startswith("the step differs at tree") for text in found), found
        assert any("running code" in text for text in certify("gauss2").disagreements)
    mutations._forget()


def test_an_interrupted_planting_keeps_what_was_done(tmp_path: Path) -> None:
    done = []

    def stop() -> None:
        done.append(1)
        if len(done) == 2:
            raise KeyboardInterrupt

    save = tmp_path / "faults.json"
    report = plant(50, kinds=["weights"], save=save, progress=stop)
    assert report.interrupted and len(report.faults) == 2
    assert json.loads(save.read_text(encoding="utf-8"))["planted"] == 2
    assert "interrupted" in str(report)


def test_bad_requests() -> None:
    with pytest.raises(ValueError, match="count, the number of faults, must be >= 1, got 0"):
        plant(0)
    with pytest.raises(ValueError, match="kinds has 'nonsense'"):
        plant(1, kinds=["nonsense"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "faults.json"
    arguments = ["mutate", "--faults", "2", "--kinds", "nodes,tableau", "--json", str(out)]
    assert main(arguments) == 0
    assert "caught by" in capsys.readouterr().out
    assert json.loads(out.read_text(encoding="utf-8"))["caught"] == 2
    assert main(["mutate", "--kinds", "gremlins"]) == 2
    assert "gremlins" in capsys.readouterr().err


def test_tolerance_of_certificates_is_far_below_the_faults() -> None:
    """A fault of 1e-9 in a weight of Kutta's method is refused as well."""
    method = qf.get_method("rk4")
    tableau = method.tableau  # type: ignore[attr-defined]
    b = tableau.b.copy()
    b[1] += 1e-9
    b[2] -= 1e-9  # the sum is right: the tableau's own check sees nothing
    made = dataclasses.replace(tableau, b=b, dense=tableau.dense + _ends(tableau, b))
    certificate = certify(dataclasses.replace(method, tableau=made))  # type: ignore[call-arg]
    assert certificate.order == 2 and not certificate.agrees


def _ends(tableau, b):  # type: ignore[no-untyped-def]
    correction = np.zeros_like(tableau.dense)
    correction[: len(b), 0] = b - tableau.b
    return correction
