"""Processes that start at once: forked from one that has imported torch."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
# not modules of the tests: the server does not know their folder; torch._dynamo is what optimisers
# import when the first one is made
_CONTEXT.set_forkserver_preload(
    ["torch", "torch._dynamo", "accelerate", "quadflow.adapters", "safetensors.torch"]
)


def start(target: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """target(*arguments, **named) in a process of its own."""
    child = _CONTEXT.Process(target=target, args=arguments, kwargs=named)
    child.start()
    return child


def run(target: Callable[..., Any], *arguments: Any, **named: Any) -> int:
    """The same; waits and returns the exit code."""
    child = start(target, *arguments, **named)
    child.join(120)
    assert child.exitcode is not None, "the process does not end"
    return int(child.exitcode)
