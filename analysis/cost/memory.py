"""Peak memory of a job, by running it in a process of its own."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "torch._dynamo", "quadflow", "torchdiffeq"])
_MIB = 2**20 if sys.platform == "darwin" else 2**10  # units of ru_maxrss in a MiB


class JobFailed(RuntimeError):
    """A job raised, or its process died."""


def in_own_process(
    job: Callable[..., Any], *arguments: Any, warm_up: tuple[Any, ...] | None = None
) -> tuple[Any, float]:
    """What job(*arguments) returns, and by how many MiB it raised its process's peak memory.

    The resident set is what is measured, on one torch thread. It is the whole process's, so some
    MiB are the allocator's. job, its arguments and what it returns must be picklable.

    Args:
        warm_up: other arguments, of a small job that is run first, so that what is loaded once does
            not count.

    Raises:
        JobFailed: with the traceback of the job.
    """
    here, there = _CONTEXT.Pipe(duplex=False)
    child = _CONTEXT.Process(target=_measured, args=(there, job, arguments, warm_up))
    child.start()
    there.close()
    try:
        answer = here.recv()
    except EOFError:
        child.join()
        raise JobFailed(f"its process died with exit code {child.exitcode}") from None
    child.join()
    if isinstance(answer, str):
        raise JobFailed(answer)
    value, grown = answer
    return value, grown


def _measured(pipe: Any, job: Any, arguments: tuple[Any, ...], warm_up: Any) -> None:
    import resource  # not on every system

    torch.set_num_threads(1)

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB

    try:
        if warm_up is not None:
            job(*warm_up)
        gc.collect()
        before = peak()
        value = job(*arguments)
        pipe.send((value, peak() - before))
    except BaseException:
        pipe.send(traceback.format_exc())
