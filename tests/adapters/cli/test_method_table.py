"""`quadflow methods`: what it says a method takes is what `solve` takes."""

from __future__ import annotations

import pytest
import torch

import quadflow as qf
from quadflow.adapters.cli.main import main
from quadflow.adapters.cli.method_table import method_table

Y0 = torch.ones(2, 3, dtype=torch.float64)


def taken(method: str, **how: object) -> bool:
    try:
        qf.solve(lambda t, y: -y, Y0, (0.0, 0.5), method=method, **how)
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module")
def takes() -> dict[str, str]:
    found = {}
    for line in method_table(qf.methods()).splitlines()[1:-2]:
        name, *words = line.split()
        found[name] = next(word for word in words if set(word) <= set("afsc-") and len(word) == 4)
    return found


@pytest.mark.parametrize("name", sorted(qf.methods()))
def test_what_a_method_takes(name: str, takes: dict[str, str]) -> None:
    adaptive, fixed, of_its_own, _ = (letter != "-" for letter in takes[name])
    assert taken(name, rtol=1e-3, atol=1e-3) == adaptive
    assert taken(name, step_size=0.25) == fixed
    assert taken(name, rtol=1e-3, atol=1e-3, batch_dims=1) == of_its_own


@pytest.mark.parametrize("name", ["rk4", "dopri5", "gauss", "radau3", "pec2", "ab3", "adams"])
def test_what_is_compiled(name: str, takes: dict[str, str]) -> None:
    how: dict[str, object] = {"step_size": 0.25} if takes[name][1] == "f" else {"rtol": 1e-3}
    assert taken(name, compile={"backend": "eager"}, **how) == (takes[name][3] == "c")


def test_the_table_fits_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = {}
    for columns in (80, 100, 300):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert main(["methods"]) == 0
        widths[columns] = max(map(len, capsys.readouterr().out.splitlines()))
    assert widths[80] <= 80 < widths[100] == widths[300] <= 100


def test_a_method_of_ones_own_says_what_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = "a collocation method that is told at such a length that its line has to be broken once"
    qf.register("mine", qf.collocation(qf.simpson()), description=text)
    qf.register("plain", qf.get_method("rk4"))
    try:
        assert main(["methods"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 100
        at = next(i for i, line in enumerate(lines) if line.startswith("mine"))
        column = lines[0].index("what it is")
        assert f"{lines[at][column:]} {lines[at + 1].strip()}" == text
        assert qf.get_method("mine").description == text
        assert qf.get_method("plain").description == qf.get_method("rk4").description
        with pytest.raises(TypeError, match="description must be a string, got 3"):
            qf.register("third", qf.get_method("rk4"), description=3)  # type: ignore[arg-type]
    finally:
        qf.unregister("mine")
        qf.unregister("plain")
