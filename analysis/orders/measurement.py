"""A measured order: as text, in files, drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...storage import json_number, read_json_object, write_json
from ..report.records import picked, written
from .figures import order_plot
from .points import OrderPoints


@dataclass(frozen=True)
class OrderMeasurement(OrderPoints):
    """Errors at several step numbers, which of them count, and the order that they show.

    Its entries and what follows from them: see `OrderPoints`.
    """

    def __str__(self) -> str:
        title = f"{self.method} on {self.problem}, {self.what or self.of}"
        lines = [title]
        if self.steps:
            ratios = self.ratios if self.of == "estimate" else ()
            head = f"{'steps':>8}{'error':>12}{'slope':>8}{'nfe':>9}{'calls':>9}"
            lines.append(head + (f"{'est/true':>10}" if ratios else "") + "  note")
        before: tuple[int, float] | None = None
        for i, (n, e) in enumerate(zip(self.steps, self.errors, strict=True)):
            slope = "-"
            if before is not None and math.isfinite(e) and e > 0:
                slope = f"{-math.log(e / before[1]) / math.log(n / before[0]):.2f}"
            before = (n, e) if math.isfinite(e) and e > 0 else None
            error = f"{e:.2e}" if math.isfinite(e) else "-"
            row = f"{n:>8}{error:>12}{slope:>8}{self.nfe[i]:>9}{self.calls[i]:>9}"
            if self.of == "estimate" and self.ratios:
                row += f"{self.ratios[i]:>10.2g}" if math.isfinite(self.ratios[i]) else f"{'-':>10}"
            note = self.notes[i]
            lines.append(f"{row}  {note if len(note) < 60 else note[:57] + '...'}")
        if self.trusted:
            lines.append(
                f"order {self.order:.2f} ± {self.half_width:.2f} (95 %), residual "
                f"{self.residual:.3f} decades: {self.verdict}"
            )
        else:
            lines.append(self.verdict)
        if self.remark and self.steps:
            lines.append(f"({self.remark})")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON: None stands for what is no number."""
        figures = written(self)
        return figures | {
            "promised_order": figures.pop("promised"),
            "measured_order": json_number(self.order),
            "half_width_95": json_number(self.half_width),
            "residual_decades": json_number(self.residual),
            "trusted": self.trusted,
            "verdict": self.verdict,
            "slopes": list(self.slopes),
        }

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> OrderMeasurement:
        """The measurement that `to_dict` wrote; what follows from the points is worked out anew.

        Raises:
            ValueError: an entry is missing.
        """
        names = [f.name for f in fields(cls) if f.name != "promised"]
        values = picked(figures, ["promised_order", *names], "order measurement")
        values["promised"] = values.pop("promised_order")
        return cls(**values | {
            "errors": tuple(math.inf if e is None else e for e in values["errors"]),
            "ratios": tuple(math.nan if r is None else r for r in values["ratios"]),
        })  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> OrderMeasurement:
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        return cls.from_dict(read_json_object(path, "order measurement"))

    def plot(self, path: str | Path, *, command: str = "") -> None:
        """Draw error against steps with the fitted and the promised line; the suffix (pdf, svg,
        png) says the format. command: kept in the file, as what reproduces it."""
        order_plot(path, [self], command=command)


def order_figures(measurements: Sequence[OrderMeasurement]) -> str:
    """One line a measurement: what, promised, measured, verdict."""
    lines = [f"{'method':<22}{'problem':<16}{'of':<10}{'promised':>9}{'measured':>16}  verdict"]
    for m in measurements:
        got = f"{m.order:.2f} ± {m.half_width:.2f}" if m.trusted else "-"
        promised = "-" if m.promised is None else str(m.promised)
        lines.append(f"{m.method:<22}{m.problem:<16}{m.of:<10}{promised:>9}{got:>16}  {m.verdict}")
    return "\n".join(lines)
