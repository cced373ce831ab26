"""Progress on stderr: bars on a terminal, a plain line a step elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfdeploy.model.transfer import MirrorEvent

Advance = Callable[[str, int, int], None]
_PLAIN_STEPS = 5


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
    def bytes(self, what: str) -> Iterator[Callable[[MirrorEvent], None]]:
        """Copies: what each image does, bytes done, and the time left."""
        if self.quiet:
            yield lambda event: None
        elif self.is_terminal:
            with _bars(what) as update:
                yield update
        else:

            def plain(event: MirrorEvent) -> None:
                if event.state != "present":
                    self.line(event.line())

            yield plain


@contextlib.contextmanager
def _bars(what: str) -> Iterator[Callable[[MirrorEvent], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import (
        Progress as Bars,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)

        def update(event: MirrorEvent) -> None:
            bars.update(
                task,
                completed=event.bytes_done,
                total=event.bytes_total or None,
                description=f"{event.done}/{event.total} {event.image[-40:]}",
            )
            if event.state in ("failed", "retrying"):
                bars.console.print(event.line(), highlight=False)

        yield update
