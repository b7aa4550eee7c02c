"""The figures of docs/judged.md: every sampler on the three backbones, and what explains them.

`make judge` runs all of it, in hours of one core; `python -m quadflow.analysis.report.site.judge
PART ...` some parts, in the repository's root. Results go to docs/figures/judged, converged ends to
build/references; a run that was killed goes on where it was. `make figures` puts the results into
the page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ....adapters import Guidance, SideNet
from ....adapters.backbones.registry import load_named, load_named_sidenet
from ....adapters.data.images import save_png, tile
from ....adapters.fitted.fitted import FittedSampler
from ....extras import progress
from ....storage import read_json_object, write_json
from ...benchmarks.sampler_gpu import overhead
from ...images.effort import draw_effort, effort_study
from ...images.equal_time import equal_time
from ...images.evaluation import JudgedBackbone, Terms, add_budget, draw, evaluate, prepare
from ...images.features import efficientnet_features
from ...images.fits import Fits, FitSize, make_rivals, rivals_of
from ...images.fitted_budget import fitted_budget
from ...images.flops import flops_per_evaluation, published_size_flops
from ...images.reference_cache import fingerprint
from ...images.rivals import Rival, as_rival, shipped_rival
from ...images.roughness import draw_roughness, roughness
from ...images.round_trip import edit_grid, round_trip_errors

FIGURES = Path("docs/figures/judged")
REFERENCES = Path("build/references")
PICTURED = ("fashion-unet-guided", "mnist-sit-guided")
FEATURE_SIZE = 112
STUDIED = "galaxygrad:hsc-32"
"""Backbone of the study of effort: the one whose evaluations cost least."""
TIMED = ("euler", "ab2", "ab3", "dpmpp-2m", "unipc", "pec2", "pec3")
"""Rivals at equal time: those of which one may be the best there."""
RUNS = {
    "fashion-unet": ("fashion-unet", 1.0),
    "fashion-unet-guided": ("fashion-unet", 2.0),
    "fashion-unet-guided-4": ("fashion-unet", 4.0),
    "mnist-sit": ("mnist-sit", 1.0),
    "mnist-sit-guided": ("mnist-sit", 2.0),
    "mnist-sit-guided-4": ("mnist-sit", 4.0),
    "galaxy-hsc-32": ("galaxygrad:hsc-32", 1.0),
}
"""Name of a table -> backbone, guidance."""


@dataclass(frozen=True)
class Scale:
    """How much is run: terms of every evaluation, and of its explanations.

    terms: but for guidance and calibrated grids. features: measure Fréchet distances.
    budget_nfes: of error budget and ablation. timed_images: noises of the equal-time tables; half
    as many choose the grids there.
    rough: arguments of `roughness`. fits: size of the fits that are rivals. studied: of those in
    the study of effort and the fitted sampler's error budget. pairs: of the study of effort.
    """

    terms: Terms
    features: bool
    budget_nfes: Sequence[int]
    timed_images: int
    rough: Mapping[str, Any]
    fits: FitSize
    studied: FitSize
    pairs: Sequence[int]


FULL = Scale(
    Terms(
        images=512, few=128, tuning_images=32, uniform=False, reference_steps=192, floor_seeds=2,
        nfes=(3, 5, 7, 10), euler_nfes=(50, 100),
    ),
    True, (3, 5, 7, 10), 32, {},
    FitSize((3, 5, 7, 10), updates=400, pairs=512, steps=128),
    FitSize((5, 10), updates=480, pairs=512, steps=128), (64, 256, 1024),
)  # fmt: skip
QUICK = Scale(
    Terms(
        images=4, tuning_images=2, uniform=False, reference_steps=8, nfes=(3, 5), euler_nfes=(50,),
        methods=("euler", "pec2", "bianchor"), shifts=(1.0, 1.5),
    ),
    False, (3,), 2, {"count": 1, "reference_steps": 8, "finest": 16, "most": 10},
    FitSize((3,), updates=2, pairs=1, steps=4), FitSize((5, 10), updates=2, pairs=64, steps=4),
    (1, 65),
)  # fmt: skip
"""For a try: everything runs, in minutes, and no figure means anything."""


@dataclass(frozen=True)
class Judge:
    """One run of the judge over some tables.

    names: of `RUNS`. scale: how much. out: where results go. cache: where converged ends are kept.
    calibrated: name -> NFE -> times; every rival is judged on them too. more: further rivals of a
    table by its name, such as a sampler that was fitted to its backbone.
    """

    names: Sequence[str]
    scale: Scale
    out: Path = FIGURES
    cache: Path = REFERENCES
    calibrated: Mapping[str, Mapping[int, Sequence[float]]] | None = None
    more: Callable[[str], Sequence[Rival]] = lambda name: ()

    def subject(self, name: str) -> JudgedBackbone:
        """Backbone and shipped SideNet of a table."""
        backbone = load_named(RUNS[name][0])
        return JudgedBackbone(backbone, load_named_sidenet(backbone, None, "bianchor"))

    def terms(self, name: str, subject: JudgedBackbone) -> Terms:
        """What is run for a table."""
        return replace(
            self.scale.terms,
            guidance=Guidance(RUNS[name][1], subject.backbone.num_classes or None),
            methods=(*self.scale.terms.methods, *self.more(name), *self.fitted(name, subject)),
            calibrated=(self.calibrated or {}).get(name, {}),
        )

    def fitted(self, name: str, subject: JudgedBackbone) -> list[Rival]:
        """The fits of a table that are on disk, see `fits`."""
        assert isinstance(subject.sidenet, SideNet)
        return rivals_of(self._fits(name, subject), self.scale.fits, subject.sidenet)

    def _fits(self, name: str, subject: JudgedBackbone) -> Fits:
        return Fits(subject.backbone, RUNS[name][1], self.cache)

    def fits(self) -> None:
        """Fits that say what each change is worth, to be rivals in the tables: coefficients alone,
        with times, and the published form trained to the ends. `tables` takes those there are."""
        for name in self.names:
            subject = self.subject(name)
            assert isinstance(subject.sidenet, SideNet)
            make_rivals(self._fits(name, subject), self.scale.fits, subject.sidenet)

    def references(self) -> None:
        """The converged ends that the tables need, on disk: the longest part, done ahead."""
        for name in self.names:
            subject = self.subject(name)
            prepare(subject, self.terms(name, subject), self.cache, features=self.scale.features)

    def tables(self) -> None:
        """Errors and Fréchet distances; of the error budget and the ablation what is missing."""
        features = efficientnet_features(FEATURE_SIZE) if self.scale.features else None
        for name in self.names:
            subject = self.subject(name)
            terms, out = self.terms(name, subject), self.out / f"evaluate-{name}.json"
            length = terms.length(features=features is not None)
            with progress(length + len(self.scale.budget_nfes), name) as bar:
                result = evaluate(
                    subject, terms, features=features, out=out, resume=True, cache=self.cache,
                    features_name=f"EfficientNet-Lite0 at {FEATURE_SIZE} pixels",
                    progress=partial(bar.update, 1),
                )  # fmt: skip
                if result.budget is None:
                    add_budget(
                        subject, result, self.scale.budget_nfes, partial(bar.update, 1),
                        guidance=terms.guidance,
                    )  # fmt: skip
                    result.save(out)
            if name in PICTURED:
                draw(self.out / f"evaluate-{name}.png", subject, terms, result)

    def times(self) -> None:
        """Errors at equal wall time, every further rival and BA-solver against the others."""
        for name in self.names:
            subject = self.subject(name)
            terms = self.terms(name, subject)
            few = self.scale.timed_images
            more = self.more(name)
            timed = replace(
                terms, images=few, sets=1, tuning_images=min(few // 2, terms.tuning_images),
                methods=(*self.scale.terms.methods, *more),
            )  # fmt: skip
            settings = timed.settings(subject, None) | {
                "nfes": list(timed.nfes),
                "methods": [[rival.name, rival.mark] for rival in timed.rivals],
            }
            make = partial(self._timed, subject, timed, ("bianchor", *more))
            self._kept("equal-time.json", name, settings, make)

    def _timed(
        self, subject: JudgedBackbone, terms: Terms, methods: Sequence[str | Rival]
    ) -> dict[str, list[dict[str, Any]]]:
        """Rows of `equal_time` for each of these methods against `TIMED`."""
        plain = [m for m in TIMED if m in self.scale.terms.methods]
        return {
            as_rival(method).name: equal_time(subject, method, plain, terms, cache=self.cache)
            for method in methods
        }

    def flops(self) -> None:
        """FLOPs of an evaluation, backbone and SideNet, and those of the published size."""
        for name in self.names:
            subject, more = self.subject(name), self.more(name)
            make = partial(
                flops_per_evaluation, subject, ("bianchor", "single-anchor", *more),
                guidance=self.terms(name, subject).guidance,
            )  # fmt: skip
            settings = {m.name: m.mark for m in more} | {
                "backbone": fingerprint(subject.backbone.model)
            }
            self._kept("flops.json", name, settings, make)
        networks = {"networks": ["SideNet", "fitted"]}
        self._kept("flops.json", "SiT-XL/2", networks, published_size_flops)

    def roughness(self) -> None:
        """The study of roughness in t, on the backbones of these tables, with its picture."""
        studies = {}
        for key in dict.fromkeys(RUNS[name][0] for name in self.names):
            studies[key] = self._kept(
                "roughness.json", key, dict(self.scale.rough),
                partial(roughness, load_named(key), **self.scale.rough),
            )  # fmt: skip
        command = "python -m quadflow.analysis.report.site.judge roughness"
        draw_roughness(self.out / "roughness.png", studies, command)

    def effort(self) -> None:
        """The study of updates, pairs and the network's width, with its picture."""
        fits = Fits(load_named(STUDIED), 1.0, self.cache)
        settings = [asdict(self.scale.studied), list(self.scale.pairs)]
        settings = json.loads(json.dumps([*settings, fingerprint(fits.backbone.model)]))
        study = self._kept(
            "effort.json", STUDIED, settings,
            partial(effort_study, fits, self.scale.studied, self.scale.pairs),
        )  # fmt: skip
        command = "python -m quadflow.analysis.report.site.judge effort"
        draw_effort(self.out / "effort.png", study, command)

    def budget(self) -> None:
        """The error budget of the fitted sampler, on the backbones of these tables."""
        for key in dict.fromkeys(RUNS[name][0] for name in self.names):
            fits = Fits(load_named(key), 1.0, self.cache)
            settings = [asdict(self.scale.studied), fingerprint(fits.backbone.model)]
            self._kept(
                "fitted-budget.json", key, json.loads(json.dumps(settings)),
                partial(fitted_budget, fits, self.scale.studied),
            )  # fmt: skip

    def editing(self) -> None:
        """Round trips, edits, and the time of a SideNet, on the shipped models with classes."""
        backbone = load_named("fashion-unet")
        sidenet = load_named_sidenet(backbone, None, "bianchor")
        errors = round_trip_errors(
            backbone, sidenet, nfes=NFES_OF_TRIPS,
            methods=("euler", "heun", "ab2", "ab3", "pec2", "pec3", "bianchor"),
        )  # fmt: skip
        pairs = ((7, 9), (9, 5), (0, 4), (3, 1))
        grid = edit_grid(
            backbone, sidenet, pairs, method="bianchor", nfe=10, strength=0.9, guidance=2.0
        )
        save_png(self.out / "edits.png", tile(grid, 10), scale=3)
        shares = {}
        for name in ("fashion-unet", "mnist-sit"):
            named = load_named(name)
            net = load_named_sidenet(named, None, "bianchor")
            assert net is not None
            shares[name] = [
                overhead(named.model, net, named.shape, named.num_classes, batch=batch)
                for batch in (1, 16, 64)
            ]
        write_json(self.out / "editing.json", {"round_trip": errors, "overhead": shares})

    def _kept(self, file: str, name: str, settings: Any, made: Callable[[], Any]) -> Any:
        """An entry of a JSON file, made if it is missing or was made under other settings."""
        path = self.out / file
        record = read_json_object(path, "record of the judge") if path.exists() else {}
        entry = record.get(name)
        if entry is None or entry["settings"] != settings:
            record[name] = {"settings": settings, "result": made()}
            write_json(path, record)
            # as it will be read, tuples as lists
            record = json.loads(json.dumps(record))
        return record[name]["result"]


NFES_OF_TRIPS = (3, 5, 7, 10, 20)
PARTS = (
    "references", "fits", "tables", "times", "flops", "roughness", "effort", "budget", "editing",
)  # fmt: skip


def fitted_rivals(name: str) -> list[Rival]:
    """The shipped fitted sampler of a table's backbone, at the guidance scale of the table."""
    key, scale = RUNS[name]
    try:
        return [shipped_rival(load_named(key).model, scale)]
    except ValueError:
        return []


def fitted_grids(names: Sequence[str]) -> dict[str, dict[int, list[float]]]:
    """The times that the fitted samplers found: the calibrated grids of the other rivals."""
    found: dict[str, dict[int, list[float]]] = {}
    for name in names:
        scale = RUNS[name][1]
        for rival in fitted_rivals(name):
            fitted = rival.sampler
            assert isinstance(fitted, FittedSampler)
            found[name] = {nfe: fitted.sigmas(nfe, scale) for nfe in rival.budgets or ()}
    return found


def read_grids(path: str | Path) -> dict[str, dict[int, list[float]]]:
    """Calibrated grids of a JSON file {table: {NFE: times}}.

    Raises:
        ValueError: an unknown table, or NFE that are no whole numbers.
    """
    found = {}
    for name, grids in read_json_object(path, "file of grids").items():
        if name not in RUNS:
            raise ValueError(f"{path}: table {name!r} is unknown: must be one of {', '.join(RUNS)}")
        if not all(nfe.isdigit() for nfe in grids):
            raise ValueError(f"{path}: {name}: NFE must be whole numbers, got {list(grids)}")
        found[name] = {int(nfe): times for nfe, times in grids.items()}
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    add("--table", action="append", choices=tuple(RUNS), help="this table alone; may be repeated")
    add("--grids", help="JSON {table: {NFE: times}}: calibrated grids, on which all are judged "
        "too; default: those of the shipped fitted samplers")  # fmt: skip
    add("--sets", type=int, default=1, help="sets of noises, for a spread (%(default)s)")
    add("--quick", action="store_true", help="a try: few images and methods, coarse references")
    add("--out", default=str(FIGURES), help="folder of the results (%(default)s)")
    add("--references", default=str(REFERENCES), help="folder of converged ends (%(default)s)")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"PART {sorted(unknown)[0]!r} is unknown: must be one of {', '.join(PARTS)}")
    scale = QUICK if chosen.quick else FULL
    judge = Judge(
        chosen.table or tuple(RUNS), replace(scale, terms=replace(scale.terms, sets=chosen.sets)),
        Path(chosen.out), Path(chosen.references),
        read_grids(chosen.grids) if chosen.grids else fitted_grids(chosen.table or tuple(RUNS)),
        more=fitted_rivals,
    )  # fmt: skip
    judge.out.mkdir(parents=True, exist_ok=True)
    for part in chosen.parts or PARTS:
        getattr(judge, part)()


if __name__ == "__main__":
    main()
