"""An apply as people read it: what it waits for, and its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kfdeploy.apply.steps import ApplyResult
from kfdeploy.kubernetes.cluster.wait import ABSENT

if TYPE_CHECKING:
    from kfdeploy.kubernetes.cluster.wait import WaitProgress

_EVERY_SECONDS: Final = 10.0
_SHOWN: Final = 5


@dataclass
class WaitReporter:
    """Print what an apply waits for, at most every ten seconds."""

    print_line: Callable[[str], None]
    _next_report: float = field(default_factory=lambda: time.monotonic() + _EVERY_SECONDS)

    def report_waiting(self, what: str, waiting: WaitProgress) -> None:
        now = time.monotonic()
        if not waiting.pending or now < self._next_report:
            return
        self._next_report = now + _EVERY_SECONDS
        self.print_line(
            f"  waiting{f' for {what}' if what else ''}: {waiting.ready} of {waiting.total}"
            f" workloads are ready"
        )
        # Objects that exist and are not ready come first: they say why it takes so long.
        pending = sorted(waiting.pending, key=lambda item: item.state == ABSENT)
        for item in pending[:_SHOWN]:
            self.print_line(f"    {item}")
        if len(pending) > _SHOWN:
            self.print_line(f"    and {len(pending) - _SHOWN} more")


def format_outcomes(name: str, outcomes: ApplyResult) -> Iterator[str]:
    """Yield a line for each release that was touched, and a summary."""
    for result in outcomes.results:
        if result.outcome != "unchanged":
            revision = f", revision {result.revision}" if result.revision else ""
            yield f"{result.release}: {result.outcome_text}{revision}"
    for release in outcomes.removed:
        yield f"{release}: removed"
    counts: dict[str, int] = {}
    for result in outcomes.results:
        counts[result.outcome_text] = counts.get(result.outcome_text, 0) + 1
    summary = ", ".join(f"{count} {word}" for word, count in counts.items())
    state = "applied" if outcomes.is_good else "not applied"
    yield f"releases/{name}: {state}: {summary} in {outcomes.seconds:.0f} s"


def format_failures(outcomes: ApplyResult) -> Iterator[str]:
    """Yield an error for each release that failed and each object that is not ready."""
    for result in outcomes.results:
        if result.outcome in ("failed", "rolled back"):
            why = "\n    ".join(line for text in result.why for line in text.splitlines())
            yield f"error: {result.release}: {result.outcome}: {why}"
    for line in outcomes.not_ready:
        yield f"error: not ready: {line}"
