"""Progress on stderr: bars on a terminal, a plain line a step elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfdeploy.mirror.progress import MirrorEvent, MirrorProgress

Advance = Callable[[str, int, int], None]
_PLAIN_STEPS = 5
_PLAIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How work is shown while it goes on."""

    quiet: bool = False

    @property
    def is_terminal(self) -> bool:
        return sys.stderr.isatty()

    def print_line(self, text: str) -> None:
        """One step."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def count_items(self, what: str) -> Iterator[Advance]:
        """Work over many items; called with the item, how many are done, and of how many."""
        if self.quiet:
            yield lambda name, done, total: None
        elif self.is_terminal:
            from rich.console import Console
            from rich.progress import Progress as Bars

            with Bars(console=Console(stderr=True), transient=True) as bars:
                task = bars.add_task(what, total=None)
                yield lambda name, done, total: bars.update(
                    task, completed=done, total=total, description=f"{what} {name}"
                )
        else:

            def print_step(name: str, done: int, total: int) -> None:
                step = max(1, total // _PLAIN_STEPS)
                if done == total or done % step == 0:
                    self.print_line(f"{what}: {done} of {total}")

            yield print_step

    @contextlib.contextmanager
    def watch_mirror(self) -> Iterator[tuple[MirrorProgress, Callable[[], None]]]:
        """A mirror: what it is to tell, and what it calls now and then."""
        from kfdeploy.mirror.progress import MirrorProgress

        if self.quiet:
            yield MirrorProgress(), lambda: None
        elif self.is_terminal:
            from kfdeploy.cli.report.mirror import show_live_table

            with show_live_table() as watch:
                yield watch, lambda: None
        else:
            shown = [time.monotonic()]

            def print_event(event: MirrorEvent) -> None:
                if event.state != "present":
                    self.print_line(event.format_line())

            def print_snapshot() -> None:
                if time.monotonic() - shown[0] >= _PLAIN_SECONDS:
                    shown[0] = time.monotonic()
                    self.print_line(watch.take_snapshot().format_line())

            watch = MirrorProgress(print_event)
            yield watch, print_snapshot
