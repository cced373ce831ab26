"""A finding of the preflight: what it is, whether it stops the apply, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["error", "warning", "ok"]
_SHOWN: Final = 5
"""Places that people are shown. JSON has all of them."""


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """One finding.

    Attributes:
        check: name of the check: ``version``, ``api``, ``rights`` ...
        what: the finding, in a sentence.
        where: the objects, images or rights that it is about.
        hint: what to do next.
    """

    check: str
    severity: Severity
    what: str
    where: tuple[str, ...] = ()
    hint: str = ""

    def format_lines(self) -> Iterator[str]:
        """Yield the finding for people."""
        colon = ":" if self.where else ""
        yield f"{self.severity}: {self.what}{colon}"
        yield from (f"    {place}" for place in self.where[:_SHOWN])
        if len(self.where) > _SHOWN:
            yield f"    and {len(self.where) - _SHOWN} more"
        if self.hint:
            yield f"  hint: {self.hint}"
