"""Stability regions, order stars and `quadflow stability`: what they draw, print and refuse."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import quadflow as qf
from quadflow.adapters.cli.main import make_parser
from quadflow.adapters.cli.methods import add_method_arguments, read_method
from quadflow.analysis.report.panels import COLOURS
from quadflow.analysis.stability import report as st
from quadflow.analysis.stability.figures import order_star, stability_region
from quadflow.rules.gauss import gauss_legendre, gauss_lobatto, radau_right
from quadflow.rules.rule import QuadratureRule

BOX = (-4.0, 1.0, -3.0, 3.0)


def filled(path: Path, alpha: float = 0.28) -> int:
    """Pixels of the first colour as it is filled in on white."""
    colour = np.array([int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)])
    faded = np.round(255 + alpha * (colour - 255))
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=float)
    return int((np.abs(pixels - faded).max(axis=-1) <= 2).sum())


def test_the_filled_area_is_that_of_the_region(tmp_path: Path) -> None:
    x, y = np.linspace(*BOX[:2], 401), np.linspace(*BOX[2:], 482)
    z = x + 1j * y[:, None]
    areas, pixels = {}, {}
    for name in ("euler", "rk4", "ab2"):
        out = tmp_path / f"{name}.png"
        stability_region(out, [qf.get_method(name)], extent=BOX)
        stable = st.spectral_radius(qf.get_method(name), z) <= 1
        areas[name] = stable.sum() * (x[1] - x[0]) * (y[1] - y[0])
        pixels[name] = filled(out)
    assert areas["euler"] == pytest.approx(np.pi, rel=2e-3)  # a disc of radius 1
    for name in ("rk4", "ab2"):
        # boundary lines and axes cover some of it
        measured = pixels[name] / pixels["euler"]
        assert measured == pytest.approx(areas[name] / areas["euler"], rel=0.05)


def test_unbounded_regions_and_stars_fill_half_the_plane(tmp_path: Path) -> None:
    counts = {}
    for name, draw in {
        "region": lambda p: stability_region(p, [gauss_legendre(2)], extent=(-4, 4, -4, 4)),
        "star": lambda p: order_star(p, gauss_legendre(2), extent=(-4, 4, -4, 4)),
        "all": lambda p: stability_region(p, [radau_right(2)], extent=(-8, -1, -4, 3)),
    }.items():
        draw(tmp_path / f"{name}.png")
        counts[name] = filled(tmp_path / f"{name}.png")
    for name in ("region", "star"):  # the star of R(-z) = 1 / R(z) is half of every box about 0
        assert 0.44 < counts[name] / counts["all"] < 0.52


def test_the_star_of_order_p_has_p_plus_one_sectors() -> None:
    from quadflow.analysis.stability.figures import _below_exponential

    for method in (qf.get_method("rk4"), gauss_legendre(4), radau_right(3)):
        function = st.stability_function(method)
        z = 1e-3 * np.exp(2j * np.pi * (np.arange(997) + 0.37) / 997)  # far below rounding of R
        signs = np.sign(_below_exponential(function, z, 2.0))
        changes = (signs != np.roll(signs, 1)).sum()
        assert changes == 2 * (st.stability_report(method).order + 1)


@pytest.mark.parametrize("suffix", [".pdf", ".svg", ".png"])
def test_a_file_says_how_it_was_made_and_is_reproducible(tmp_path: Path, suffix: str) -> None:
    command = f"quadflow stability rk4 --out s{suffix}"
    for name in ("a", "b"):
        stability_region(tmp_path / (name + suffix), [qf.get_method("rk4")], command=command)
    written = (tmp_path / f"a{suffix}").read_bytes()
    assert written == (tmp_path / f"b{suffix}").read_bytes()
    assert command.encode() in written
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]


def test_refusals(tmp_path: Path) -> None:
    rk4 = qf.get_method("rk4")
    with pytest.raises(ValueError, match=r"s\.gif must end in one of \.pdf"):
        stability_region(tmp_path / "s.gif", [rk4])
    for methods in ([], [rk4] * 7):
        with pytest.raises(ValueError, match=f"methods has {len(methods)} entries, must have 1 to"):
            stability_region(tmp_path / "s.png", methods)
    with pytest.raises(ValueError, match="labels has 2 entries for 1 methods"):
        stability_region(tmp_path / "s.png", [rk4], labels=["a", "b"])
    with pytest.raises(ValueError, match=r"extent \(1, -1, 0, 1\) must be"):
        order_star(tmp_path / "s.png", rk4, extent=(1, -1, 0, 1))
    with pytest.raises(TypeError, match="order_star needs a one-step method, ab2 is a multistep"):
        order_star(tmp_path / "s.png", qf.get_method("ab2"))
    assert not list(tmp_path.iterdir())


# -- the command ---------------------------------------------------------------------------------


def command(*words: str) -> None:
    arguments = make_parser(["stability"]).parse_args(["stability", *words])
    arguments.run(arguments)


def test_the_command_prints_draws_and_saves(tmp_path: Path, capsys) -> None:
    files = {name: tmp_path / f"s.{end}" for name, end in
             {"out": "png", "star": "pdf", "json": "json"}.items()}  # fmt: skip
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    command("radau-iia", "--nodes", "3", *options)
    printed = capsys.readouterr().out
    assert "(1 + 2/5 z + 1/20 z^2) / (1 - 3/5 z + 3/20 z^2 - 1/60 z^3)" in printed
    assert "L-stable                yes" in printed
    saved = json.loads(files["json"].read_text())
    assert saved["l_stable"] is True and saved["error_constant"] == "-1/7200"
    assert saved["command"].startswith("quadflow stability radau-iia --nodes 3 --out ")
    assert Image.open(files["out"]).text["Description"] == saved["command"]
    assert files["star"].read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["ab2"], "real interval           [-1, 0]"),
        (["lobatto-iiic", "--nodes", "2"], "algebraically stable    yes"),
        (["gauss-lobatto", "--nodes", "4", "--sweeps", "0"], "real interval           [-2, 0]"),
        (["newton-cotes-closed", "--nodes", "9"], "6 positive, 3 negative"),
    ],
)
def test_every_kind_of_method(words: list[str], text: str, capsys) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        command(*words)
    assert text in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rk5", r"METHOD 'rk5' is unknown: did you mean 'rk4'"),
        ("rk4 --nodes 3", r"--nodes 3: rk4 is a registered method"),
        ("gauss4 --sweeps 2", r"--sweeps 2: gauss4 is a registered method"),
        ("gauss-lobatto", r"gauss-lobatto is a family: say how many nodes, --nodes 2 to 128"),
        ("lobatto-iiib", r"lobatto-iiib is a family: say how many nodes, --nodes 2"),
        ("gauss-lobatto --nodes 1", r"--nodes 1: gauss-lobatto needs n >= 2, got 1"),
        ("fejer-1 --nodes 3 --guess constant", r"--guess constant: .* needs --sweeps K"),
        ("fejer-1 --nodes 3 --sweeps -1", r"--sweeps -1: sweeps must be an integer >= 0"),
        ("fejer-1 --nodes 3 --sweeps 0 --guess extrapolated", r"--sweeps 0: .* >= 1"),
        ("radau-ia --nodes 3 --sweeps 2", r"--sweeps 2: radau-ia is no collocation"),
        ("rk4 --out s.gif", r"--out s\.gif: must end in \.pdf or"),
        ("rk4 --json s.txt", r"--json s\.txt: must end in \.json"),
        ("rk4 --star nowhere/s.png", r"--star nowhere/s\.png: the folder nowhere does not exist"),
        ("ab3 --star s.png", r"--star s\.png: ab3 is a multistep method here"),
    ],
)
def test_the_command_refuses(words: str, message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        command(*words.split())
    assert not list(tmp_path.iterdir())


def test_what_method_arguments_mean() -> None:
    parser = argparse.ArgumentParser()
    add_method_arguments(parser)

    def named(*words: str) -> QuadratureRule | qf.Method:
        return read_method(parser.parse_args(words))

    assert named("rk4") is qf.get_method("rk4")
    assert named("lobatto-iiia", "--nodes", "4") == gauss_lobatto(4)
    sweeps = named("radau-iia", "--nodes", "3", "--sweeps", "2", "--guess", "extrapolated")
    assert (sweeps.rule, sweeps.sweeps, sweeps.guess) == (radau_right(3), 2, "extrapolated")
    assert named("gauss-legendre", "--nodes", "2", "--sweeps", "3").guess == "constant"
