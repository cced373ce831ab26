"""What a check before applying found: one thing, whether it stops, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["error", "warning", "ok"]
_SHOWN: Final = 5
"""Places that people are shown; JSON has them all."""


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """One finding.

    Attributes:
        check: the check's word, for programs: ``version``, ``api``, ``rights`` ...
        where: what it is about, one by one.
        hint: what next.
    """

    check: str
    severity: Severity
    what: str
    where: tuple[str, ...] = ()
    hint: str = ""

    def format_lines(self) -> Iterator[str]:
        """For people."""
        colon = ":" if self.where else ""
        yield f"{self.severity}: {self.what}{colon}"
        yield from (f"    {place}" for place in self.where[:_SHOWN])
        if len(self.where) > _SHOWN:
            yield f"    and {len(self.where) - _SHOWN} more"
        if self.hint:
            yield f"  hint: {self.hint}"
