"""Progress on stderr: bars on a terminal, a plain line a step elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfdeploy.mirror.progress import MirrorEvent, Watch

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

    def line(self, text: str) -> None:
        """One step."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def counting(self, what: str) -> Iterator[Advance]:
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

            def plain(name: str, done: int, total: int) -> None:
                step = max(1, total // _PLAIN_STEPS)
                if done == total or done % step == 0:
                    self.line(f"{what}: {done} of {total}")

            yield plain

    @contextlib.contextmanager
    def mirroring(self) -> Iterator[tuple[Watch, Callable[[], None]]]:
        """A mirror: what it is to tell, and what it calls now and then."""
        from kfdeploy.mirror.progress import Watch

        if self.quiet:
            yield Watch(), lambda: None
        elif self.is_terminal:
            from kfdeploy.cli.report.mirror import live

            with live() as watch:
                yield watch, lambda: None
        else:
            shown = [time.monotonic()]

            def plain(event: MirrorEvent) -> None:
                if event.state != "present":
                    self.line(event.line())

            def tick() -> None:
                if time.monotonic() - shown[0] >= _PLAIN_SECONDS:
                    shown[0] = time.monotonic()
                    self.line(watch.snapshot().line())

            watch = Watch(plain)
            yield watch, tick
