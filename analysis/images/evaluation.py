"""`quadflow evaluate`: every sampler at every budget against the converged solve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...adapters import FlowField, Guidance, initial_noise, sample
from ...adapters.backbones.registry import NamedBackbone
from ...adapters.data.images import difference_tile, tile
from ...adapters.sampling.converged import STEPS, rmse, tight_solve
from ...adapters.sampling.sample import default_labels
from ...checks import integer_from
from ...solution import SolveError
from ..report.figures import sample_grid
from .best_grid import SHIFTS, Choice, best_choice
from .distribution import NoiseFloor, noise_floor, paired_distance, precision_recall, save_adm_npz
from .error_budget import ablation_plans, error_budget
from .features import Features, extract
from .peers import Sampling, run_sampler
from .reference_cache import CHUNK, fingerprint, references
from .rivals import Rival, as_rival, grid_of, intervals_of
from .scores import Evaluation, Score, psnr

METHODS = (
    "euler", "heun", "ab2", "ab3", "ab4", "dpmpp-2m", "unipc", "cab", "pec2", "pec3",
    "single-anchor", "bianchor",
)  # fmt: skip
NFES = (3, 5, 7, 10, 20)
EULER_NFES = (50, 100, 200)
BUDGET_IMAGES = 16
PICTURED = 5
FLOOR_STEPS = 24
TUNING_SEED = 1_000_000
"""Seeds of selection noises begin here; those of judged noises lie below."""


@dataclass(frozen=True)
class JudgedBackbone:
    """What is judged: a backbone (see `NamedBackbone`) and its SideNet, if there is one."""

    backbone: NamedBackbone
    sidenet: nn.Module | None

    @property
    def name(self) -> str:
        return self.backbone.name

    def noise_and_labels(self, seed: int, count: int) -> tuple[Tensor, Tensor | None]:
        """Noises (count, *shape), and labels that go round the classes (None without classes)."""
        labels = default_labels(count, self.backbone.num_classes)
        return initial_noise(seed, count, self.backbone.shape), labels

    def to_images(self, x: Tensor) -> Tensor:
        return self.backbone.to_images(x)


@dataclass(frozen=True)
class Terms:
    """What an evaluation runs, on which noises.

    Args:
        images: a set, >= 2; with features >= 4. sets: how many sets, of seeds seed, seed + 1, ...
        guidance: for all methods alike; None: none.
        methods: names of samplers, or rivals. nfes: their budgets. euler_nfes: long Euler runs on
            the uniform grid besides.
        uniform: judge the uniform grid too.
        shifts: grids tried first for every method and budget on `tuning_images` other noises, see
            `best_choice`; the best one is judged. Fewer than two: none is.
        calibrated: NFE -> times (NFE + 1,) from noise to data, in the model's own time; every
            method is judged on it besides, where its NFE has one.
        few: rows on calibrated grids and the long Euler runs are judged on the first so many images
            of a set alone, >= 2, and without features; None: as all others.
        reference_steps: of the converged solve, >= 4, see `tight_solve`.
        floor_seeds: converged sets of other seeds, >= 2, which the Fréchet distance's floor is
            measured between (with the first set's).

    Raises:
        ValueError: bad counts or times, a method that stands twice.
    """

    images: int = 48
    seed: int = 0
    sets: int = 1
    guidance: Guidance = field(default_factory=Guidance)
    methods: Sequence[str | Rival] = METHODS
    nfes: Sequence[int] = NFES
    euler_nfes: Sequence[int] = EULER_NFES
    uniform: bool = True
    shifts: Sequence[float] = SHIFTS
    calibrated: Mapping[int, Sequence[float]] = field(default_factory=dict)
    tuning_images: int = 8
    few: int | None = None
    reference_steps: int = STEPS
    floor_seeds: int = 3

    def __post_init__(self) -> None:
        integer_from(2, self.images, "images")
        integer_from(1, self.sets, "sets")
        integer_from(1, self.tuning_images, "tuning_images")
        if self.few is not None:
            integer_from(2, self.few, "few")
        integer_from(4, self.reference_steps, "reference_steps")
        names = [rival.name for rival in self.rivals]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"methods has {twice[0]!r} twice")
        for nfe, times in self.calibrated.items():
            if len(times) != nfe + 1 or not np.all(np.diff(times)):
                raise ValueError(
                    f"calibrated[{nfe}] must be {nfe + 1} different times, got {list(times)}"
                )

    @property
    def rivals(self) -> list[Rival]:
        """The methods, as rivals."""
        return [as_rival(method) for method in self.methods]

    def times_of(self, nfe: int) -> tuple[float, ...] | None:
        """The calibrated grid of an NFE, if there is one."""
        times = self.calibrated.get(nfe)
        return None if times is None else tuple(map(float, times))

    @property
    def tuned(self) -> bool:
        """Whether best grids are looked for."""
        return len(self.shifts) > 1

    def jobs(self) -> list[tuple[Rival, int, str]]:
        """Every row to be made: rival, NFE, grid."""
        pairs = [(rival, nfe) for rival in self.rivals for nfe in filter(rival.has, self.nfes)]
        shifted = ["uniform"] * self.uniform + ["best"] * self.tuned
        return [
            *((rival, nfe, grid) for rival, nfe in pairs for grid in shifted),
            *((rival, nfe, "calibrated") for rival, nfe in pairs if nfe in self.calibrated),
            *((as_rival("euler"), nfe, "uniform") for nfe in self.euler_nfes),
        ]

    def length(self, *, features: bool) -> int:
        """How often `evaluate` calls its progress."""
        return self.sets + self.tuned + self.floor_seeds * features + len(self.jobs())

    def settings(self, subject: JudgedBackbone, features: str | None) -> dict[str, Any]:
        """All that every row depends on, ready for JSON."""
        own = {
            name: getattr(self, name)
            for name in ("images", "seed", "sets", "tuning_images", "few", "reference_steps")
        }
        known = hasattr(subject.backbone.model, "state_dict")
        return own | {
            "backbone": fingerprint(subject.backbone.model) if known else None,
            "sidenet": None if subject.sidenet is None else fingerprint(subject.sidenet),
            "guidance": repr(self.guidance),
            "shifts": list(self.shifts),
            "features": features,
        }


@dataclass(frozen=True)
class _Set:
    """One set of noises with their converged ends, and features of these where there are some."""

    noise: Tensor
    labels: Tensor | None
    reference: Tensor
    target: Tensor | None

    def first(self, count: int | None) -> _Set:
        """The first so many of them, without features; all of them for None."""
        if count is None:
            return self
        labels = None if self.labels is None else self.labels[:count]
        return _Set(self.noise[:count], labels, self.reference[:count], None)


def evaluate(
    subject: JudgedBackbone,
    terms: Terms | None = None,
    *,
    features: Features | None = None,
    features_name: str | None = None,
    npz: Path | None = None,
    out: Path | None = None,
    resume: bool = False,
    cache: Path | None = None,
    progress: Callable[[], None] | None = None,
) -> Evaluation:
    """Judge samplers by the converged solve from the same noises and labels.

    Args:
        subject: backbone and SideNet; methods that need a SideNet are an error without one.
        terms: what is run; default: `Terms()`.
        features, features_name: for Fréchet distance, precision and recall of the images to the
            converged images.
        npz: folder that gets the first set's images of every row for the ADM suite.
        out: JSON, renewed after every row, so that an interruption loses none.
        resume: go on with the rows of `out`, if it was made under the same terms.
        cache: folder that keeps converged ends, see `references`.
        progress: called `terms.length` times.

    Raises:
        ValueError: too few images or floor seeds for features. What `sample` and `extract` raise.
    """
    terms = terms or Terms()
    if features is not None:
        # precision and recall look at a third neighbour
        integer_from(4, terms.images, "images", " with features")
        integer_from(2, terms.floor_seeds, "floor_seeds")
    tick = progress or (lambda: None)
    work = _Work(subject, terms, features, cache)
    sets, error, nfe = work.sets(tick)
    spans = torch.cat([s.reference for s in sets])
    result = Evaluation(
        subject.name, terms.guidance.scale, terms.images, terms.sets, terms.seed,
        terms.settings(subject, features_name), error, nfe, float(spans.max() - spans.min()),
    )  # fmt: skip
    floor = None
    if features is not None:
        floor = noise_floor([s.target for s in sets if s.target is not None][:1] + work.floor(tick))
        result.features = features_name or type(features).__name__
        result.floor = {"mean": floor.mean, "std": floor.std, "images": floor.n}
    if npz is not None:
        save_adm_npz(npz / f"{subject.name}-converged.npz", subject.to_images(sets[0].reference))
    selection = work.selection(tick) if terms.tuned else None
    if resume and out is not None:
        result.take_over(out)
    judge = _Judge(work, sets, selection, floor, result, npz)
    marks = {rival.name: rival.mark for rival in terms.rivals}
    result.rows = [
        r for r in result.rows
        if r.mark == marks.get(r.method, "")
        and (r.times is None or r.times == terms.times_of(r.nfe))
    ]  # fmt: skip
    done = {row.key for row in result.rows}
    for rival, budget, grid in terms.jobs():
        if (rival.name, budget, grid) not in done:
            result.rows.append(judge(rival, budget, grid))
            if out is not None:
                result.save(out)
        tick()
    if out is not None:
        result.save(out)
    return result


def prepare(subject: JudgedBackbone, terms: Terms, cache: Path, *, features: bool) -> None:
    """Put the converged ends that `evaluate` will ask for on disk.

    Args: as of `evaluate`; features: those for the Fréchet distance's floor too.
    """
    work = _Work(subject, terms, None, cache)
    work.sets(lambda: None)
    work.selection(lambda: None)
    if features:
        list(work.floor_ends())


@dataclass(frozen=True)
class _Work:
    """A subject and what is done with it: noises, their ends, and runs of samplers."""

    subject: JudgedBackbone
    terms: Terms
    features: Features | None
    cache: Path | None

    def sets(self, tick: Callable[[], None]) -> tuple[list[_Set], float, int]:
        """The sets that are judged; the error of the first one's ends, and their evaluations."""
        found, errors, nfe = [], [], 0
        for seed in range(self.terms.seed, self.terms.seed + self.terms.sets):
            noise, labels = self.subject.noise_and_labels(seed, self.terms.images)
            ends = references(
                self.subject.backbone, noise, labels, self.terms.guidance,
                steps=self.terms.reference_steps, folder=self.cache,
            )  # fmt: skip
            found.append(_Set(noise, labels, ends.x, self.extracted(ends.x)))
            errors.append(ends.error)
            nfe = ends.nfe
            tick()
        return found, max(errors), nfe

    def floor_ends(self) -> Iterator[Tensor]:
        """Converged images of further seeds, set by set."""
        first = self.terms.seed + self.terms.sets
        for seed in range(first, first + self.terms.floor_seeds):
            noise, labels = self.subject.noise_and_labels(seed, self.terms.images)
            # as images these are converged long before the reference is as numbers
            yield references(
                self.subject.backbone, noise, labels, self.terms.guidance, steps=FLOOR_STEPS,
                folder=self.cache,
            ).x  # fmt: skip

    def floor(self, tick: Callable[[], None]) -> list[Tensor]:
        """Features of these."""
        found = []
        for ends in self.floor_ends():
            extracted = self.extracted(ends)
            assert extracted is not None
            found.append(extracted)
            tick()
        return found

    def selection(self, tick: Callable[[], None]) -> _Set:
        """The noises on which grids and parameters are chosen."""
        seed, count = TUNING_SEED + self.terms.seed, self.terms.tuning_images
        noise, labels = self.subject.noise_and_labels(seed, count)
        ends = references(
            self.subject.backbone, noise, labels, self.terms.guidance, folder=self.cache,
            steps=max(4, self.terms.reference_steps // 2),
        ).x  # fmt: skip
        tick()
        return _Set(noise, labels, ends, None)

    def extracted(self, x: Tensor) -> Tensor | None:
        """Features of states, as images; None without a feature network."""
        if self.features is None:
            return None
        return extract(self.features, self.subject.to_images(x))

    def run(
        self, rival: Rival, nfe: int, over: _Set, shift: float | None, setting: float | None,
        grid: Sequence[float] | None = None,
    ) -> Sampling:  # fmt: skip
        """A rival on a set, `CHUNK` noises at a time."""
        where: dict[str, Any] = {"shift": shift} if grid is None and shift is not None else {}
        if grid is not None:
            where["grid"] = grid_of(grid, intervals_of(rival.name, nfe))
        backbone = self.subject.backbone
        parts = [
            run_sampler(
                rival.at(setting), backbone.model, over.noise[first : first + CHUNK],
                None if over.labels is None else over.labels[first : first + CHUNK], nfe=nfe,
                sidenet=self.subject.sidenet, guidance=self.terms.guidance,
                convention=backbone.convention, **where,
            )
            for first in range(0, len(over.noise), CHUNK)
        ]  # fmt: skip
        return Sampling(
            torch.cat([p.x for p in parts]), nfe, sum(p.rows for p in parts),
            sum(p.seconds for p in parts), sum(p.sidenet_seconds for p in parts),
        )  # fmt: skip


class _Judge:
    """Makes rows: runs one sampler at one budget on one grid over all sets."""

    def __init__(
        self, work: _Work, sets: Sequence[_Set], selection: _Set | None, floor: NoiseFloor | None,
        result: Evaluation, npz: Path | None,
    ) -> None:  # fmt: skip
        self.work, self.sets, self.selection = work, sets, selection
        self.floor, self.result, self.npz = floor, result, npz

    def __call__(self, rival: Rival, nfe: int, grid: str) -> Score:
        if grid == "uniform" or rival.own_grid:
            return self._scored(rival, nfe, grid, None if rival.own_grid else 1.0, None)
        choice = self._chosen(rival, nfe, grid)
        if grid == "calibrated":
            times = self.work.terms.calibrated[nfe]
            return self._scored(rival, nfe, grid, None, choice.setting, times)
        same = [r for r in self.result.rows if r.key == (rival.name, nfe, "uniform")]
        if same and choice.shift == 1.0 and choice.setting is None:
            row = replace(same[0], grid=grid)
        else:
            row = self._scored(rival, nfe, grid, choice.shift, choice.setting)
        tried = {str(shift): error for shift, error in choice.tried.items()}
        return replace(row, tried=tried, edge=choice.edge)

    def _chosen(self, rival: Rival, nfe: int, grid: str) -> Choice:
        """The best shift and setting on the selection noises; on a calibrated grid, the setting."""
        selection = self.selection
        fixed = self.work.terms.calibrated[nfe] if grid == "calibrated" else None
        if selection is None or (fixed is not None and not rival.settings):
            return Choice(1.0, None, math.nan, {}, False)

        def error(shift: float, setting: float | None) -> float:
            try:
                run = self.work.run(rival, nfe, selection, shift, setting, fixed)
            except SolveError:  # it exploded
                return math.inf
            found = rmse(run.x, selection.reference)
            return found if math.isfinite(found) else math.inf

        shifts = (1.0,) if fixed is not None else self.work.terms.shifts
        return best_choice(error, shifts, rival.settings)

    def _scored(
        self, rival: Rival, nfe: int, grid: str, shift: float | None, setting: float | None,
        times: Sequence[float] | None = None,
    ) -> Score:  # fmt: skip
        terms = self.work.terms
        spare = grid == "calibrated" or nfe in terms.euler_nfes
        sets = [s.first(terms.few if spare else None) for s in self.sets]
        row = partial(
            Score, rival.name, nfe, grid, shift, setting, mark=rival.mark,
            times=None if times is None else tuple(map(float, times)),
            images=len(sets[0].noise) if len(sets[0].noise) < terms.images else None,
        )  # fmt: skip
        try:
            runs = [self.work.run(rival, nfe, s, shift, setting, times) for s in sets]
        except SolveError:
            runs = []
        errors = tuple(rmse(run.x, s.reference) for run, s in zip(runs, sets, strict=False))
        whole = math.sqrt(sum(e * e for e in errors) / len(errors)) if errors else math.inf
        if not math.isfinite(whole):  # it exploded
            return row(math.inf, (math.inf,) * len(sets), -math.inf, 0.0, 0.0, 0)
        if self.npz is not None:
            shown = self.work.subject.to_images(runs[0].x)
            save_adm_npz(self.npz / f"{self.result.backbone}-{rival.name}-{nfe}-{grid}.npz", shown)
        seconds = sum(run.seconds for run in runs)
        return row(
            whole, errors, psnr(whole, self.result.data_range), seconds / len(runs),
            sum(run.sidenet_seconds for run in runs) / seconds, runs[0].rows,
            **self._by_features(runs, sets),
        )  # fmt: skip

    def _by_features(self, runs: Sequence[Sampling], sets: Sequence[_Set]) -> dict[str, Any]:
        """Fréchet distance, precision and recall of images to the converged ones."""
        if self.floor is None or sets[0].target is None:
            return {}
        distances, pairs = [], []
        for run, over in zip(runs, sets, strict=True):
            own = self.work.extracted(run.x)
            assert own is not None and over.target is not None
            distances.append(paired_distance(own, over.target, self.floor).value)
            pairs.append(precision_recall(over.target, own))
        several = len(distances) > 1
        return {
            "frechet": float(np.mean(distances)),
            "frechet_std": float(np.std(distances, ddof=1)) if several else None,
            "precision": float(np.mean([p.precision for p in pairs])),
            "recall": float(np.mean([p.recall for p in pairs])),
        }


def add_budget(
    subject: JudgedBackbone,
    result: Evaluation,
    nfes: Sequence[int],
    progress: Callable[[], None] | None = None,
    *,
    guidance: Guidance | None = None,
) -> None:
    """Put error budget and ablation of BA-solver at these NFE into `result.budget`.

    They are measured on the first `BUDGET_IMAGES` of the images. guidance: what `evaluate` was
    given; default: its scale alone.

    Raises:
        ValueError: a subject without a SideNet, guidance of another scale than the result's.
    """
    if subject.sidenet is None:
        raise ValueError("the error budget of BA-solver needs a SideNet")
    backbone = subject.backbone
    guidance = guidance or Guidance(result.guidance, backbone.num_classes or None)
    if guidance.scale != result.guidance:
        raise ValueError(f"guidance has scale {guidance.scale}, the result {result.guidance}")
    count = min(BUDGET_IMAGES, result.images)  # the oracle solves the flow for every node
    noise, labels = subject.noise_and_labels(result.seed, count)
    flow = FlowField(backbone.model, backbone.convention, labels, guidance)
    reference = tight_solve(flow, noise)
    result.budget = {"images": count, "error budget": {}, "ablation": {}}
    for nfe in nfes:
        result.budget["error budget"][str(nfe)] = error_budget(
            backbone.model, subject.sidenet, noise, labels, reference, intervals=nfe,
            guidance=guidance, convention=backbone.convention,
        )  # fmt: skip
        result.budget["ablation"][str(nfe)] = {
            name: rmse(
                sample(
                    backbone.model, noise, labels, method=plan, nfe=nfe, sidenet=subject.sidenet,
                    guidance=guidance, convention=backbone.convention,
                ).x,
                reference,
            )
            for name, plan in ablation_plans().items()
        }  # fmt: skip
        if progress is not None:
            progress()


def draw(path: Path, subject: JudgedBackbone, terms: Terms, result: Evaluation) -> None:
    """A picture of the first five images of every method and budget, with maps of their distance to
    the converged ones.

    They are sampled anew, on the uniform grid, or each on its best where that was not judged.

    Raises:
        ValueError: no NFE that all methods have.
    """
    work = _Work(subject, terms, None, None)
    grid = "uniform" if terms.uniform else "best"
    rows = {(r.method, r.nfe): r for r in result.rows if r.grid == grid}
    rivals = [r for r in terms.rivals if any(m == r.name for m, _ in rows)]
    nfes = [n for n in terms.nfes if all((r.name, n) in rows for r in rivals)]
    if not rivals or not nfes:
        raise ValueError("no samples to draw: no NFE that all methods have")
    noise, labels = subject.noise_and_labels(result.seed, min(PICTURED, result.images))
    flow = FlowField(subject.backbone.model, subject.backbone.convention, labels, terms.guidance)
    shown = _Set(noise, labels, tight_solve(flow, noise, terms.reference_steps), None)
    wanted = subject.to_images(shown.reference)
    tiles: dict[str, dict[int, np.ndarray]] = {}
    apart: dict[str, dict[int, np.ndarray]] = {}
    for rival in rivals:
        for nfe in nfes:
            row = rows[rival.name, nfe]
            run = work.run(rival, nfe, shown, row.shift, row.setting)
            images = subject.to_images(run.x)
            tiles.setdefault(rival.name, {})[nfe] = tile(images, PICTURED)
            apart.setdefault(rival.name, {})[nfe] = difference_tile(images, wanted, PICTURED)
    scale = "no guidance" if result.guidance == 1 else f"guidance {result.guidance:g}"
    sample_grid(
        path, tiles, tile(wanted, PICTURED),
        {m: {n: rows[m, n].rmse for n in nfes} for m in tiles},
        f"{result.backbone}, {scale}, the same noises everywhere (seed {result.seed}); RMSE over "
        f"{result.images} images", differences=apart,
    )  # fmt: skip
