"""Run the studies of the docs (laboratory, reliability, choosing), each by the command shown there.

Run by `make laboratory`, in some twenty minutes on two cores. Pictures and `laboratory.json`
(commands with what they print) go to docs/figures; `update_figures.py` puts them into the pages.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from quadflow.adapters.cli.main import main
from quadflow.analysis.cost.work_precision import machine
from quadflow.storage import write_json

FIGURES = Path(__file__).parent / "figures"
COMMANDS = {
    "certify-lobatto": "quadflow certify gauss-lobatto --nodes 4",
    "certify-sweeps": "quadflow certify lobatto4",
    "certify-all": "quadflow certify all",
    "certify-torchdiffeq": "quadflow certify torchdiffeq:dopri8",
    "certify-scipy": "quadflow certify scipy:DOP853",
    "certify-diffrax": "quadflow certify diffrax:Tsit5",
    "local-and-global": "quadflow study local-and-global --out local-and-global.svg",
    "order-all": "quadflow order lobatto4 --of all",
    "order-twelve": "quadflow order gauss-legendre --nodes 6 --digits 45 --out order-twelve.svg",
    "blind-spots": "quadflow study blind-spots --out blind-spots.svg",
    "order-reduction": "quadflow study order-reduction --out order-reduction.svg",
    "stability": "quadflow stability radau-iia --nodes 3 --out region.svg --star star.svg",
    "stability-sweeps": "quadflow stability gauss-legendre --nodes 3 --sweeps 4 --out sweeps.svg",
    "bench": "quadflow bench quick --json bench.json --fresh --out bench.svg "
    "--proportionality proportionality.svg --reliability reliability.svg",
    "mutate": "quadflow mutate --faults 105 --json mutations.json",
    "problems": "quadflow problems",
    "which": "quadflow bench lotka-volterra,kepler,lorenz,pleiades --methods "
    "adams,gauss,dopri8,tsit5,dopri5,scipy:DOP853,torchdiffeq:dopri5 --json which.json --fresh "
    "--cost calls --out which-calls.svg",
    "which-nfe": "quadflow bench lotka-volterra,kepler,lorenz,pleiades --methods "
    "adams,gauss,dopri8,tsit5,dopri5,scipy:DOP853,torchdiffeq:dopri5 --json which.json "
    "--cost nfe --out which-nfe.svg",
    "kepler": "quadflow study kepler --out kepler.svg",
    "tolerance": "quadflow study tolerance",
    "short-inputs": "quadflow study short-inputs --json short-inputs.json",
}


def run(command: str) -> str:
    """What a command prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(shlex.split(command)[1:])
    if code != 0:
        raise RuntimeError(f"{command}: exit code {code}")
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    return "\n".join(line for line in lines if not line.startswith("-> ")).strip("\n")


def build(names: Sequence[str]) -> None:
    """Run the studies of these names; the others stay as they were recorded."""
    torch.set_num_threads(1)
    os.chdir(FIGURES)  # so that pictures land there, and the page shows bare names
    file = Path("laboratory.json")
    record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"studies": {}}
    for name in names:
        began = time.perf_counter()
        text = run(COMMANDS[name])
        record["studies"][name] = {
            "command": COMMANDS[name],
            "text": text,
            "seconds": round(time.perf_counter() - began, 1),
        }
    record["studies"] = {
        name: record["studies"][name] for name in COMMANDS if name in record["studies"]
    }
    record["machine"] = machine()
    write_json(file, record)


if __name__ == "__main__":
    build(sys.argv[1:] or list(COMMANDS))
