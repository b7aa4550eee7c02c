"""adams, gauss and lobatto in the laboratory: held at an order or a number of nodes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import quadflow as qf
from quadflow.adapters.cli.main import main
from quadflow.analysis.exact.held import formula_of, held_methods, is_held, released
from quadflow.analysis.exact.multiprecision import multiprecision
from quadflow.analysis.exact.recurrences import recurrence
from quadflow.analysis.orders.convergence import measured_order
from quadflow.analysis.proofs.certificates import certify
from quadflow.analysis.report.panels import COLOURS
from quadflow.analysis.stability.figures import spread
from quadflow.analysis.stability.report import limits_table, stability_report

ADAMS = held_methods(qf.get_method("adams"))
GAUSS = held_methods(qf.get_method("gauss"))


def test_what_is_held() -> None:
    assert list(ADAMS) == list(range(1, 13)) and list(GAUSS) == [4, 5, 6, 7, 8]
    assert list(held_methods(qf.get_method("lobatto"))) == [4, 5, 6, 7, 8]
    assert [m.name for m in GAUSS.values()] == [f"gauss:{n}" for n in GAUSS]
    for name in set(qf.methods()) - {"adams", "gauss", "lobatto"}:
        assert held_methods(qf.get_method(name)) == {}
    assert held_methods(ADAMS[3]) == {} and held_methods(qf.simpson()) == {}
    assert is_held(ADAMS[3]) and not is_held(qf.get_method("adams")) and not is_held(GAUSS[4])
    free = released(ADAMS[5])
    assert (free.name, free.order, free.max_order) == ("adams:5", None, 5)
    assert free.error_order == qf.get_method("adams").error_order
    assert released(GAUSS[4]) is GAUSS[4] and formula_of(GAUSS[4]) is GAUSS[4]


def test_adams_is_certified_order_against_order() -> None:
    found = certify("adams")
    assert found.agrees, found
    assert [c.method for c in found.choices] == [f"adams:{k}" for k in range(1, 13)]
    for k, c in enumerate(found.choices, start=1):
        assert c.agrees and c.zero_stable and c.formulas == (k, k + 1)
        assert c.order == c.dense_order == c.error_order == c.declared["order"] == k + 1
        assert c.varying_order == (None if k == 1 else k + 1)
        assert c.failing is not None and c.arithmetic == "exact rational numbers"
        assert math.isnan(c.principal_error) == (k > 8)  # not every tree of order k + 2 was seen
    text = str(found)
    assert "adams:12          12, 13     13" in text and text.count(": agrees") == 12
    assert len(found.to_dict()["choices"]) == 12
    json.dumps(found.to_dict())


@pytest.mark.parametrize("rule", [qf.gauss_legendre(3), qf.midpoint_rule(), qf.simpson()])
@pytest.mark.parametrize("correction", [None, "PEC", "PECE"])
def test_bushy_trees_prove_what_all_trees_prove(rule, correction: str | None) -> None:
    """Also where the rule takes away the order, and for PEC, where the argument does not hold."""
    method = qf.adams(4, correction, rule=rule)
    full, few = certify(method), certify(method, highest=4)
    assert few.order == (min(full.order, 4) if correction == "PEC" else full.order)
    if few.order == full.order and correction != "PEC":
        assert (few.dense_order, few.error_order) == (full.dense_order, full.error_order)
        assert few.varying_order == full.varying_order


@pytest.mark.parametrize("k", [1, 3])
def test_the_running_code_has_its_order_at_every_k(k: int) -> None:
    steps = (32, 45, 64, 91, 128)
    for of, order in (("endpoint", k + 1), ("dense", k + 1), ("local", k + 2), ("estimate", k + 1)):
        found = measured_order(ADAMS[k], "driven", steps, of=of, margin=0.3)
        assert found.promised == order and found.agrees, found
    # two evaluations a step, none in the steps that are taken from the exact solution
    endpoint = measured_order(ADAMS[k], "driven", steps)
    assert endpoint.calls == tuple(2 * (n - k + 1) + k - 1 for n in steps)


@pytest.mark.parametrize(
    ("k", "problem", "steps", "digits"),
    [
        (3, "driven", (23, 32, 45, 64), 25),
        pytest.param(12, "manufactured", (64, 91, 128, 181), 50, marks=pytest.mark.slow),
    ],
)
def test_orders_show_with_more_digits(
    k: int, problem: str, steps: tuple[int, ...], digits: int
) -> None:
    found = measured_order(ADAMS[k], problem, steps, digits=digits)
    assert found.promised == k + 1 and found.agrees, found
    assert found.method == f"adams:{k}"


def test_what_cannot_be_measured_says_why() -> None:
    assert "hold it at one" in measured_order("adams", "driven", (8, 16, 32)).reason
    gradient = measured_order(ADAMS[2], "driven", (8, 16, 32), of="gradient")
    assert "carry no gradient" in gradient.reason
    few = measured_order(ADAMS[8], "driven", (4, 6, 7))
    assert "taken up by exact starting values" in few.reason


# -- stability -------------------------------------------------------------------------------------


def test_limits_are_those_of_the_formulas() -> None:
    for k in (2, 4):
        held, pece = stability_report(ADAMS[k]), stability_report(qf.adams(k, "PECE"))
        assert (held.name, held.order) == (f"adams:{k}", k + 1)
        assert held.real_interval == pece.real_interval
        assert held.imaginary_interval == pece.imaginary_interval
    # (z + z²/2)² ... of two anchors: the boundary is at -2.4 exactly
    assert abs(stability_report(ADAMS[2]).real_interval - 2.4) < 1e-10
    assert str(stability_report(ADAMS[1]).function) == "1 + z + 1/2 z^2"
    with pytest.raises(TypeError, match=r"adams chooses its order.*stability adams:5"):
        stability_report(qf.get_method("adams"))
    lines = limits_table([stability_report(ADAMS[k]) for k in (1, 2)]).splitlines()
    assert lines[2].split()[:4] == ["adams:2", "3", "0.1319", "decays"] and "[-2.4, 0]" in lines[2]
    several = spread(list(ADAMS.values()))
    assert len(several) == len(COLOURS) and several[0] is ADAMS[1] and several[-1] is ADAMS[12]


def test_a_flat_crossing_is_found_where_it_is() -> None:
    """|root(iy)| - 1 of gauss:6 is within 3e-12 of 0 as far as 0.13: seen with forty digits."""
    mp, steps = multiprecision(), recurrence(GAUSS[6])
    limit = stability_report(GAUSS[6]).imaginary_interval

    def excess(y: float) -> float:
        z = mp.mpc(0, y)
        values = [
            [sum(mp.mpf(a.numerator) / a.denominator * z**i for i, a in enumerate(p)) for p in row]
            for row in steps.rows
        ]
        return float(max(map(abs, mp.eig(mp.matrix(values), left=False, right=False))) - 1)

    with mp.workdps(40):
        assert excess(limit * 0.999) < 0 < excess(limit * 1.001)


# -- commands --------------------------------------------------------------------------------------


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", "adams:3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("adams:3\n") and "order 3 and order 4" in out
    file = tmp_path / "o.json"
    assert main(["order", "gauss", "--steps", "16,23,32", "--json", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == [f"gauss:{n}" for n in range(4, 9)]
    assert "gauss: one sweep, the number of nodes held" in lines
    assert len(json.loads(file.read_text())["orders"]) == 5
    assert main(["order", "adams:2", "--steps", "32,45,64,91"]) == 0
    out = capsys.readouterr().out
    assert "adams:2 on driven" in out and "agrees with the promised 3" in out
    picture = tmp_path / "s.svg"
    assert main(["stability", "adams:2", "--out", str(picture)]) == 0
    assert capsys.readouterr().out.startswith("adams:2 (multistep)") and picture.exists()
    assert main(["stability", "adams:3", "--star", str(picture)]) == 2
    assert "order star needs a one-step method" in capsys.readouterr().err
