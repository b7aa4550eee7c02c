"""Hypothesis with plain draws from one seed: the same cases in every run, each of its own.

Hypothesis' own draws take constants from whatever modules are loaded, so that cases change with
code that has nothing to do with them, and many are small changes of earlier ones. Here numbers are
uniform, and the sequence depends on the seed alone.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, PrimitiveProvider


class PlainDraws(PrimitiveProvider):
    """A backend of hypothesis: bounded numbers, uniformly."""

    source = random.Random()

    def draw_boolean(self, p: float = 0.5) -> bool:
        return self.source.random() < p

    def draw_integer(self, min_value: int | None = None, max_value: int | None = None,
                     *, weights: Any = None, shrink_towards: int = 0) -> int:  # fmt: skip
        if min_value is None or max_value is None:
            raise ValueError("integers need both bounds")
        return self.source.randint(min_value, max_value)

    def draw_float(self, *, min_value: float = 0.0, max_value: float = 1.0,
                   **_: Any) -> float:  # fmt: skip
        return self.source.uniform(min_value, max_value)

    def draw_string(self, *_: Any, **__: Any) -> str:
        raise NotImplementedError("no case draws text")

    def draw_bytes(self, *_: Any, **__: Any) -> bytes:
        raise NotImplementedError("no case draws bytes")


AVAILABLE_PROVIDERS["plain-draws"] = f"{__name__}.PlainDraws"


def seeded(seed: int, examples: int, **more: Any) -> settings:
    """Settings of a run of so many cases from this seed. A failing case is shown as drawn."""
    PlainDraws.source = random.Random(seed)
    return settings(
        max_examples=examples, deadline=None, database=None, backend="plain-draws",
        phases=(Phase.generate,), suppress_health_check=list(HealthCheck), print_blob=False, **more,
    )  # fmt: skip
