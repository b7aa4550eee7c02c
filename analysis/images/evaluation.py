"""`quadflow evaluate`: every sampler at every budget against the converged solve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...adapters import FlowField, Guidance, initial_noise, sample
from ...adapters.backbones.registry import NamedBackbone
from ...adapters.data.images import tile
from ...adapters.sampling.converged import STEPS, Converged, converged, rmse, tight_solve
from ...adapters.sampling.sample import default_labels
from ...checks import integer_from
from ...storage import write_json
from ..report.figures import sample_grid
from ..report.machine import machine
from ..report.tables import guided, starred
from .distribution import NoiseFloor, noise_floor, paired_distance, precision_recall, save_adm_npz
from .error_budget import ablation_plans, error_budget
from .features import Features, extract
from .peers import Sampling, run_sampler

METHODS = (
    "euler", "heun", "ab2", "ab3", "ab4", "dpmpp-2m", "unipc", "pec2", "pec3", "single-anchor",
    "bianchor",
)  # fmt: skip
NFES = (3, 5, 7, 10, 20)
EULER_NFES = (50, 100, 200)
SHIFTS = (0.6, 0.8, 1.0, 1.5, 2.5)
BUDGET_IMAGES = 16
FLOOR_STEPS = 40
TUNING_SEED = 1_000_000


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

    def flow(self, labels: Tensor | None, guidance: Guidance) -> FlowField:
        return FlowField(self.backbone.model, self.backbone.convention, labels, guidance)

    def to_images(self, x: Tensor) -> Tensor:
        return self.backbone.to_images(x)


@dataclass(frozen=True)
class Score:
    """One sampler at one budget. shift: of the grid; tuned: chosen as the best one on other noises.
    rmse: to the converged states, in their units. psnr: decibels, against the peak-to-peak range of
    the converged states. frechet, precision, recall: None without features. seconds: of the
    sampling; sidenet_share: the SideNet's part of it."""

    method: str
    nfe: int
    shift: float
    tuned: bool
    rmse: float
    psnr: float
    seconds: float
    sidenet_share: float
    rows: int
    frechet: float | None = None
    precision: float | None = None
    recall: float | None = None


@dataclass
class Evaluation:
    """All rows of a subject, and what they are measured against.

    reference_rmse: the converged solve's own error. reference_nfe: its evaluations. data_range:
    peak to peak of its states. floor: Fréchet distance of converged sets that differ by seed,
    None without features.
    """

    backbone: str
    guidance: float
    images: int
    seed: int
    reference_rmse: float
    reference_nfe: int
    data_range: float
    features: str | None = None
    floor: dict[str, Any] | None = None
    rows: list[Score] = field(default_factory=list)
    budget: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON, where the infinite PSNR of no error at all is None."""
        rows = [asdict(r) | ({"psnr": None} if math.isinf(r.psnr) else {}) for r in self.rows]
        return asdict(self) | {
            "rows": rows,
            "torch": torch.__version__,
            "machine": machine(),
        }

    def save(self, path: str | Path) -> None:
        """Write it as JSON; the file appears whole or not at all."""
        write_json(path, self.to_dict())


def psnr(error: float, data_range: float) -> float:
    """20 log10(range / RMSE) in decibels; infinite without an error."""
    return math.inf if error == 0 else 20 * math.log10(data_range / error)


def best_shift(
    subject: JudgedBackbone,
    method: str,
    nfe: int,
    guidance: Guidance,
    shifts: Sequence[float],
    noise: Tensor,
    labels: Tensor | None,
    reference: Converged,
) -> float:
    """The shift of the smallest RMSE on these noises, which should not be those that are judged."""
    errors = {}
    for shift in shifts:
        run = _run(subject, method, nfe, guidance, shift, noise, labels)
        errors[shift] = rmse(run.x, reference.x)
    return min(errors, key=lambda s: (errors[s], abs(math.log(s))))


def _run(
    subject: JudgedBackbone, method: str, nfe: int, guidance: Guidance, shift: float,
    noise: Tensor, labels: Tensor | None,
) -> Sampling:  # fmt: skip
    return run_sampler(
        method, subject.backbone.model, noise, labels, nfe=nfe, sidenet=subject.sidenet,
        guidance=guidance, convention=subject.backbone.convention, shift=shift,
    )  # fmt: skip


def evaluate(
    subject: JudgedBackbone,
    *,
    images: int = 48,
    seed: int = 0,
    guidance: Guidance | None = None,
    methods: Sequence[str] = METHODS,
    nfes: Sequence[int] = NFES,
    euler_nfes: Sequence[int] = EULER_NFES,
    shifts: Sequence[float] = SHIFTS,
    tuning_images: int = 8,
    reference_steps: int = STEPS,
    features: Features | None = None,
    features_name: str | None = None,
    floor_seeds: int = 3,
    npz: Path | None = None,
    out: Path | None = None,
    progress: Callable[[], None] | None = None,
    pictures: dict[str, Any] | None = None,
) -> Evaluation:
    """Judge samplers by the converged solve from the same noises and labels.

    Args:
        subject: backbone and SideNet; methods that need a SideNet are an error without one.
        images: how many, >= 2; with features >= 4. seed: of their noises.
        guidance: for all methods alike.
        methods, nfes: what is judged; euler_nfes: long Euler runs on the uniform grid besides.
        shifts: grids tried for every method and budget on `tuning_images` other noises; the best
            one is judged beside the uniform grid. Fewer than two: the uniform grid alone.
        reference_steps: of the converged solve, >= 4, see `tight_solve`; half as many to choose
            the shifts.
        features, features_name: for Fréchet distance, precision and recall of the images to the
            converged images.
        floor_seeds: converged sets of other seeds, >= 2, which the Fréchet distance's floor is
            measured between (with the reference itself).
        npz: folder that gets the images of every row for the ADM suite.
        out: JSON, renewed after every row, so that an interruption loses none.
        progress: called `evaluation_length` times.
        pictures: gets a tile of the first ten images for every method and budget.

    Raises:
        ValueError: bad counts. What `sample` and `extract` raise.
    """
    # precision and recall look at a third neighbour
    least, why = (2, "") if features is None else (4, " with features")
    if images < least:
        raise ValueError(f"images must be >= {least}{why}, got {images}")
    integer_from(4, reference_steps, "reference_steps")
    if features is not None and floor_seeds < 2:
        raise ValueError(f"floor_seeds must be >= 2, got {floor_seeds}")
    guidance = guidance or Guidance()
    tick = progress or (lambda: None)
    noise, labels = subject.noise_and_labels(seed, images)
    reference = converged(subject.flow(labels, guidance), noise, reference_steps)
    tick()
    result = Evaluation(
        subject.name, guidance.scale, images, seed, reference.error, reference.nfe,
        float(reference.x.max() - reference.x.min()),
    )  # fmt: skip
    scores = None
    if features is not None:
        scores = _scores(features, subject, guidance, reference.x, seed, floor_seeds, tick)
        floor = scores.floor
        result.features = features_name or type(features).__name__
        result.floor = {"mean": floor.mean, "std": floor.std, "images": floor.n}
    if npz is not None:
        save_adm_npz(npz / f"{subject.name}-converged.npz", subject.to_images(reference.x))
    judge = _Judge(subject, guidance, noise, labels, reference, result, scores, npz, out, pictures)

    tuned = len(shifts) > 1
    if tuned:
        tuning_noise, tuning_labels = subject.noise_and_labels(TUNING_SEED + seed, tuning_images)
        tuning = converged(
            subject.flow(tuning_labels, guidance), tuning_noise, max(4, reference_steps // 2)
        )
        tick()
    for method in methods:
        for nfe in nfes:
            uniform = judge(method, nfe, 1.0, False)
            tick()
            if tuned:
                shift = best_shift(
                    subject, method, nfe, guidance, shifts, tuning_noise, tuning_labels, tuning
                )
                if shift == 1.0:
                    judge.keep(replace(uniform, tuned=True))
                else:
                    judge(method, nfe, shift, True)
                tick()
    for nfe in euler_nfes:
        judge("euler", nfe, 1.0, False)
        tick()
    if pictures is not None:
        pictures["converged"] = tile(subject.to_images(reference.x)[:10], 5)
    if out is not None:
        result.save(out)
    return result


@dataclass(frozen=True)
class _ByFeatures:
    """Scores by features. target: those of the converged images."""

    features: Features
    target: Tensor
    floor: NoiseFloor

    def of(self, shown: Tensor) -> dict[str, float]:
        """Fréchet distance, precision and recall of images to the converged ones."""
        own = extract(self.features, shown)
        pair = precision_recall(self.target, own)
        distance = paired_distance(own, self.target, self.floor).value
        return {"frechet": distance, "precision": pair.precision, "recall": pair.recall}


def _scores(
    features: Features, subject: JudgedBackbone, guidance: Guidance, x: Tensor, seed: int,
    seeds: int, tick: Callable[[], None],
) -> _ByFeatures:  # fmt: skip
    """Scores against converged states x (B, ...); the floor is that of so many other seeds."""
    sets = [extract(features, subject.to_images(x))]
    for other in range(1, seeds + 1):
        noise, labels = subject.noise_and_labels(seed + other, len(x))
        # as images these are converged long before the reference is as numbers
        found = tight_solve(subject.flow(labels, guidance), noise, FLOOR_STEPS)
        sets.append(extract(features, subject.to_images(found)))
        tick()
    return _ByFeatures(features, sets[0], noise_floor(sets))


@dataclass(frozen=True)
class _Judge:
    """Runs one sampler at one budget, and keeps its row, images and picture."""

    subject: JudgedBackbone
    guidance: Guidance
    noise: Tensor
    labels: Tensor | None
    reference: Converged
    result: Evaluation
    scores: _ByFeatures | None
    npz: Path | None
    out: Path | None
    pictures: dict[str, Any] | None

    def __call__(self, method: str, nfe: int, shift: float, tuned: bool) -> Score:
        subject = self.subject
        run = _run(subject, method, nfe, self.guidance, shift, self.noise, self.labels)
        error = rmse(run.x, self.reference.x)
        shown = subject.to_images(run.x)
        row = Score(
            method, nfe, shift, tuned, error, psnr(error, self.result.data_range), run.seconds,
            run.sidenet_seconds / run.seconds, run.rows,
            **(self.scores.of(shown) if self.scores is not None else {}),
        )  # fmt: skip
        if self.npz is not None:
            kind = "tuned" if tuned else "uniform"
            save_adm_npz(self.npz / f"{subject.name}-{method}-{nfe}-{kind}.npz", shown)
        if self.pictures is not None and not tuned:
            self.pictures.setdefault(method, {})[nfe] = tile(shown[:10], 5)
        self.keep(row)
        return row

    def keep(self, row: Score) -> None:
        """Enter a row, on disk too."""
        self.result.rows.append(row)
        if self.out is not None:
            self.result.save(self.out)


def evaluation_length(
    methods: Sequence[str] = METHODS,
    nfes: Sequence[int] = NFES,
    euler_nfes: Sequence[int] = EULER_NFES,
    shifts: Sequence[float] = SHIFTS,
    floor_seeds: int = 3,
    *,
    features: bool,
) -> int:
    """How often `evaluate` calls its progress."""
    tuned = len(shifts) > 1
    rows = len(methods) * len(nfes) * (1 + tuned) + len(euler_nfes)
    return 1 + tuned + floor_seeds * features + rows


def table(result: dict[str, Any], *, tuned: bool, key: str = "rmse") -> str:
    """One figure of an `Evaluation` (as a dict) by method and NFE, as text; the best of a column is
    starred."""
    rows = [r for r in result["rows"] if r["tuned"] == tuned]
    cells = {(r["method"], r["nfe"]): r for r in rows}
    methods = list(dict.fromkeys(r["method"] for r in rows))
    # the long runs of Euler stand alone
    nfes = [n for n in sorted({r["nfe"] for r in rows}) if all((m, n) in cells for m in methods)]
    figures = {m: {n: cells[m, n][key] for n in nfes} for m in methods}
    grid = "its own best shift" if tuned else "the uniform grid"
    title = (
        f"{result['backbone']}: {key} to the converged solve, {guided(result['guidance'])}, {grid}"
    )
    return "\n".join([title, *starred(figures, 15)])


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
    reference = tight_solve(subject.flow(labels, guidance), noise)
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


def draw(path: Path, result: Evaluation, pictures: dict[str, Any]) -> None:
    """A picture of the first ten images of every method and budget, RMSE above each."""
    errors: dict[str, dict[int, float]] = {}
    for row in result.rows:
        if not row.tuned:
            errors.setdefault(row.method, {})[row.nfe] = row.rmse
    tiles = {m: t for m, t in pictures.items() if m != "converged"}
    scale = "no guidance" if result.guidance == 1 else f"guidance {result.guidance:g}"
    title = (
        f"{result.backbone}, {scale}, the same noises everywhere (seed {result.seed}); RMSE over "
        f"{result.images} images to the converged solve"
    )
    # columns are the budgets of all methods, without the long runs unless there are no others
    common = {n for row in tiles.values() for n in row if all(n in r for r in tiles.values())}
    common = common.difference(EULER_NFES) or common
    if not common:
        raise ValueError("no samples to draw: no NFE that all methods have")
    shown = {m: {n: t for n, t in row.items() if n in common} for m, row in tiles.items()}
    sample_grid(path, shown, pictures["converged"], errors, title)
