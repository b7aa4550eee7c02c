"""SideNets trained with and without data, compared; the table in docs/training.md.

`python -m quadflow.analysis.report.site.sidenet_sources WITH.safetensors WITHOUT.safetensors`, in
the repository's root, with the files of

    quadflow train sidenet --preset small --steps 500 --batch-size 24 --data FOLDER --out WITH...
    quadflow train sidenet --preset small --steps 500 --batch-size 24 --data none --out WITHOUT...

then `make figures`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ....adapters import FlowField, Guidance, initial_noise, load_sidenet, sample
from ....adapters.backbones.registry import load_named
from ....adapters.sampling.converged import rmse, tight_solve
from ....adapters.sampling.sample import default_labels
from ....storage import write_json

OUT = Path("docs/figures/judged/sources.json")
COUNT, NFES = 48, (3, 5, 7, 10)


def main(with_data: str, without: str) -> None:
    backbone = load_named("fashion-unet")
    noise, labels = initial_noise(0, COUNT, backbone.shape), default_labels(COUNT, 10)
    nets = {"with data": load_sidenet(with_data), "without data": load_sidenet(without)}
    errors: dict[str, dict[str, float]] = {}
    for scale in (1.0, 2.0):
        guidance = Guidance(scale, 10)
        field = FlowField(backbone.model, "repa", labels, guidance)
        reference = tight_solve(field, noise)
        for name, net in nets.items():
            errors[f"{name}, guidance {scale:g}"] = {
                str(nfe): rmse(
                    sample(
                        backbone.model, noise, labels, nfe=nfe, sidenet=net, guidance=guidance
                    ).x,
                    reference,
                )
                for nfe in NFES
            }  # fmt: skip
    write_json(OUT, {"images": COUNT, "rmse": errors})


if __name__ == "__main__":
    main(*sys.argv[1:])
