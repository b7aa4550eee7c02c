"""A training to the ends of the flow from first to last: folder, pairs, updates, the best kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..flow.field import Convention, Guidance
from ..training.fit import FitConfig, Recording, Writers, fit, make_accelerator
from .effort import LOOKS, Effort, Wish, halves_of
from .pairs import Pairs, Task
from .training import Budget, EndpointLoss, Selection, Trainee, looks

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Work:
    """A fit under way. task, effort: see there. pairs: by guidance scale. root: folder of pairs
    and training state. resume: go on with the state there."""

    task: Task
    effort: Effort
    pairs: Mapping[float, Pairs]
    root: Path
    resume: bool
    accelerator: Any


def task_of(
    model: Any,
    shape: Sequence[int],
    num_classes: int | None,
    convention: Convention | str,
    null_label: int | None,
    guided: Guidance | None,
    extras: Mapping[str, Any] | None,
    null_extras: Mapping[str, Any] | None,
    dtype: torch.dtype,
    seed: int,
) -> tuple[Task, Any]:
    """The task of a fit's arguments, and the accelerator whose device it is on."""
    accelerator = make_accelerator()
    if isinstance(model, nn.Module):
        model.to(accelerator.device)
    classes = getattr(model, "num_classes", None) if num_classes is None else num_classes
    task = Task(
        model, tuple(shape), classes or 0, convention, null_label, guided or Guidance(),
        extras or {}, null_extras or {}, dtype, accelerator.device, seed,
    )  # fmt: skip
    return task, accelerator


@contextmanager
def work_on(
    task: Task,
    wish: Wish,
    effort: Effort,
    folder: str | Path | None,
    resume: bool,
    accelerator: Any,
) -> Iterator[Work]:
    """The work of a fit, its pairs made, the model frozen while it lasts.

    folder: where pairs and training state are kept; None for a temporary one.

    Raises:
        ValueError: pairs of another model in the folder.
    """
    with ExitStack() as stack, _frozen(task.model):
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="quadflow-fit-"))
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        known = {}
        for scale in wish.guidance:
            rows = effort.learning
            known[scale] = Pairs(
                task, scale, rows.stop, steps=effort.steps, exact=rows.start, folder=root
            )
            known[scale].make()
        yield Work(task, effort, known, root, resume, accelerator)


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """No parameter of the model gets a gradient while this lasts."""
    wanted = (
        [p for p in model.parameters() if p.requires_grad] if isinstance(model, nn.Module) else []
    )
    for p in wanted:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in wanted:
            p.requires_grad_(True)


def evaluate_once(task: Task, scale: float, count: int = 2) -> Tensor:
    """The velocity at the first noises: (count, *shape)."""
    rows = range(count)
    flow = task.flow(rows, scale)
    with torch.no_grad():
        return flow.evaluate(flow.resolved.noise_t, task.noise(rows))[0]


def check_deterministic(task: Task, scale: float) -> None:
    """Raise unless the model gives the same velocity twice.

    Raises:
        ValueError: it does not.
    """
    first, second = (evaluate_once(task, scale) for _ in range(2))
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5):
        raise ValueError(
            "model: two evaluations of the same states gave different velocities; a sampler can be "
            "fitted to a deterministic model alone: call model.eval(), or take its noise out"
        )


def seeded(seed: int, make: Callable[[], Module]) -> Module:
    """A module that is made anew, its random numbers those of the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def train_to_ends(
    work: Work,
    trainee: Trainee,
    budgets: Sequence[Budget],
    fingerprint: Mapping[str, Any],
    *,
    learning_rate: float = 1e-3,
    look_first: bool = False,
) -> None:
    """Train a module in place to the best weights on the selection noises, or back to its start.

    Args:
        work, trainee, budgets: see there. fingerprint: what the training depends on besides the
            task and the number of pairs. learning_rate: of the beginning, from where a cosine goes
            to zero. look_first: what it starts as is one of the weights to choose from.

    Raises:
        MemoryError: an update does not fit into memory. What `fit` raises.
    """
    task, effort, root = work.task, work.effort, work.root
    loss = EndpointLoss(task, trainee, budgets, effort.learning)
    every = effort.every
    config = FitConfig(
        effort.updates, effort.batch_size, learning_rate=learning_rate, decay="cosine",
        ema_decay=0.99, warmup=max(1, effort.updates // 20), seed=task.seed,
    )  # fmt: skip
    selection = Selection(task, trainee, budgets, effort.choosing, root, effort.updates)
    recording = Recording(
        log=root / "training.jsonl", log_every=max(1, every // 4), state=root / "state.pt",
        checkpoint_every=max(1, effort.updates // LOOKS), samples_every=every, resume=work.resume,
        overwrite=not work.resume,
    )  # fmt: skip
    if not work.resume:
        for path in (selection.path, selection.log):
            path.unlink(missing_ok=True)
    if look_first and not looks(root):
        selection(trainee.module, 0)
    whole = {**task.identity(), "pairs": effort.pairs, **fingerprint}
    try:
        fit(
            trainee.module, loss, config, recording=recording, writers=Writers(samples=selection),
            fingerprint=_json(whole), accelerator=work.accelerator, description="fitting",
        )  # fmt: skip
    except RuntimeError as error:
        if "out of memory" in str(error).lower() or "can't allocate" in str(error).lower():
            raise MemoryError(
                f"an update of batch_size={effort.batch_size} does not fit into memory: give a "
                "smaller batch_size (or guided=Guidance(pair='two calls'))"
            ) from error
        raise
    selection.restore()
    trainee.module.eval().requires_grad_(False)


def _json(value: Any) -> Any:
    """Tuples as lists, as they come back from JSON."""
    if isinstance(value, Mapping):
        return {k: _json(v) for k, v in value.items()}
    return [_json(v) for v in value] if isinstance(value, (list, tuple)) else value


def figures_of(
    work: Work, budgets: Sequence[Budget], reported: int, minutes: float
) -> dict[str, Any]:
    """What is kept of every fit, for JSON: looks, effort, evaluations, seed, minutes.

    reported: samples that every budget was run on for its report, see `evaluations`.
    """
    seen = looks(work.root)
    return {
        "looks": seen, "effort": _json(asdict(work.effort)), "seed": work.task.seed,
        "evaluations": evaluations(work, budgets, seen, reported), "minutes": round(minutes, 2),
    }  # fmt: skip


def evaluations(
    work: Work, budgets: Sequence[Budget], seen: Sequence[Any], reported: int
) -> dict[str, int]:
    """Evaluations of the backbone on single states that a fit takes, by what they are for.

    pairs: of their converged solves, whether they were made now or found in the folder. start: the
    search for what the training starts as. updates: forward; backpropagation computes them once
    more. looks: on the selection noises. report: of `reported` samples a budget.
    """
    each = [b.nfe * halves_of(b.scale) for b in budgets]
    done = seen[-1]["step"] if seen else 0
    turns = sum(each[i % len(each)] for i in range(done))
    return {
        "pairs": sum(halves_of(scale) * p.evaluations for scale, p in work.pairs.items()),
        "start": sum(b.rows for b in budgets),
        "updates": work.effort.batch_size * turns,
        "looks": sum(each) * len(seen) * len(work.effort.choosing),
        "report": sum(each) * reported,
    }
