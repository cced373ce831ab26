"""What a case gives: lines of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tests.bench.measure import Samples
from tests.bench.sites import Site
from tests.support.madeset import FULL, Shape

Kind = Literal["ratio", "difference", "value"]


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report.

    Attributes:
        ours, theirs: what each round gave, in ``unit``.
        kind: how the two are compared: ours / theirs, ours - theirs, or ours alone.
        target: what the comparison may be at most; None where it only informs.
    """

    benchmark: str
    release: str
    ours: Samples
    theirs: Samples | None
    kind: Kind
    target: float | None
    unit: str = "s"

    @property
    def value(self) -> float:
        if self.theirs is None or self.kind == "value":
            return self.ours.median
        if self.kind == "ratio":
            return self.ours.median / self.theirs.median
        return self.ours.median - self.theirs.median

    @property
    def cpu_ratio(self) -> float | None:
        """Ours / theirs in seconds of busy cores; only where that is a comparison."""
        if self.kind != "ratio" or self.theirs is None or not self.theirs.cpu_median:
            return None
        return self.ours.cpu_median / self.theirs.cpu_median

    @property
    def is_met(self) -> bool | None:
        return None if self.target is None else self.value <= self.target

    def to_json(self) -> dict[str, Any]:
        def samples(taken: Samples | None) -> dict[str, Any] | None:
            if taken is None:
                return None
            values = [round(value, 4) for value in taken.values]
            return {
                "what": taken.name,
                "median": round(taken.median, 4),
                "values": values,
                "cpuSeconds": round(taken.cpu_median, 4),
            }

        return {
            "benchmark": self.benchmark,
            "release": self.release,
            "unit": self.unit,
            "ours": samples(self.ours),
            "theirs": samples(self.theirs),
            "compared": self.kind,
            "value": round(self.value, 4),
            "cpuRatio": None if self.cpu_ratio is None else round(self.cpu_ratio, 4),
            "target": self.target,
            "met": self.is_met,
        }


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often each is measured: work of seconds, and work of tenths; and the made set's shape."""

    long: int
    short: int
    shape: Shape = FULL


Measured = Iterator[Result]
Case = Callable[[Site, Rounds], Measured]
