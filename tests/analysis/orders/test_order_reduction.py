"""On stiff problems the slope falls from the order to about the stage order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import quadflow as qf
from quadflow.adapters.cli.main import main
from quadflow.analysis.orders.order_reduction import order_reduction, reduced_slopes


def test_slopes_fall_to_the_stage_order(tmp_path: Path) -> None:
    """Mild: d + 1. Stiff: n for Radau (damped), n to n + 1 for Gauss-3 and Lobatto-4."""
    solves: list[int] = []
    study = order_reduction(
        stiffness=(-1.0, -1e6), steps=(16, 24, 32, 48), progress=lambda: solves.append(1)
    )
    mild, stiff = reduced_slopes(study).T.tolist()
    assert mild == pytest.approx([6, 5, 6], abs=0.35)
    assert stiff == pytest.approx([4, 3, 4], abs=0.35)
    assert len(solves) == 3 * 2 * 4
    assert json.loads(json.dumps(study.to_dict()))["rows"][1]["stage_order"] == 3
    assert "radau-right-3" in str(study)
    study.plot(tmp_path / "reduction.svg")
    assert "<svg" in (tmp_path / "reduction.svg").read_text(encoding="utf-8")


def test_an_interruption_keeps_the_finished_rules() -> None:
    done: list[int] = []

    def stop() -> None:
        done.append(1)
        if len(done) == 6:  # in the second rule
            raise KeyboardInterrupt

    study = order_reduction(stiffness=(-1e6,), steps=(16, 24, 32, 48), progress=stop)
    assert [row[0] for row in study.rows] == ["gauss-legendre-3"]
    done[:] = [1] * 5  # in the first
    with pytest.raises(KeyboardInterrupt):
        order_reduction(stiffness=(-1e6,), steps=(16, 24, 32, 48), progress=stop)


def test_the_study_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure, figures = tmp_path / "blind.svg", tmp_path / "blind.json"
    assert main(["study", "blind-spots", "--out", str(figure), "--json", str(figures)]) == 0
    assert "wrong node" in capsys.readouterr().out
    assert "quadflow study blind-spots" in figure.read_text(encoding="utf-8")
    assert "tall trees only" in json.loads(figures.read_text(encoding="utf-8"))
    assert main(["study", "blind-spots", "--out", str(tmp_path / "blind.bmp")]) == 2
    assert "must end in" in capsys.readouterr().err


def test_the_command_line_tells_of_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quadflow.analysis.proofs.blind_spots.blind_spots", stopped)
    assert main(["study", "blind-spots"]) == 130
    assert "quadflow study: interrupted" in capsys.readouterr().err


def test_a_rule_of_ones_own() -> None:
    study = order_reduction([qf.radau_right(2)], (-1e6,), (64, 96, 128, 192))
    assert reduced_slopes(study)[0, 0] == pytest.approx(2, abs=0.2)
