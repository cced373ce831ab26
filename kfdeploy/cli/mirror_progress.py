"""The progress of a mirror on stderr: a live table on a terminal, elsewhere a line an event."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from kfdeploy.mirror.progress import MirrorEvent, MirrorProgress
from kfdeploy.progress import Progress

_SNAPSHOT_SECONDS = 30.0


@contextlib.contextmanager
def watch_mirror(progress: Progress) -> Iterator[tuple[MirrorProgress, Callable[[], None]]]:
    """Yield the object that takes a mirror's events, and a function to call now and then."""
    if progress.quiet:
        yield MirrorProgress(), lambda: None
    elif progress.is_terminal:
        from kfdeploy.cli.report.mirror import show_live_table

        with show_live_table() as watch:
            yield watch, lambda: None
    else:
        shown = [time.monotonic()]

        def print_event(event: MirrorEvent) -> None:
            if event.state != "present":
                progress.print_line(event.format_line())

        def print_snapshot() -> None:
            if time.monotonic() - shown[0] >= _SNAPSHOT_SECONDS:
                shown[0] = time.monotonic()
                progress.print_line(watch.take_snapshot().format_line())

        watch = MirrorProgress(print_event)
        yield watch, print_snapshot
