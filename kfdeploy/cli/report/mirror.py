"""A running mirror as a live table on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kfdeploy.mirror.progress import MirrorEvent, MirrorProgress, ProgressSnapshot, format_seconds
from kfdeploy.wording import format_bytes

_REFRESH_PER_SECOND: Final = 4
_DOES: Final = {"read": "asks for", "carry": "sends", "mount": "mounts", "seal": "finishes"}
_SAID: Final = ("failed", "retrying", "waiting")


@contextlib.contextmanager
def show_live_table() -> Iterator[MirrorProgress]:
    """Show the table until the block ends; failures stay above it.

    Yields:
        The object that takes the events of the mirror.
    """
    console = Console(stderr=True)

    def print_event(event: MirrorEvent) -> None:
        if event.state in _SAID:
            console.print(event.format_line(), highlight=False, markup=False)

    watch = MirrorProgress(print_event)
    with Live(
        console=console,
        get_renderable=lambda: build_table(watch.take_snapshot()),
        refresh_per_second=_REFRESH_PER_SECOND,
        transient=True,
    ):
        yield watch


def build_table(now: ProgressSnapshot) -> Group:
    """Return a line for the whole mirror, and a line for each worker."""
    whole = Table.grid(padding=(0, 1))
    left = "" if now.seconds_left is None else f"{format_seconds(now.seconds_left)} left"
    whole.add_row(
        f"{now.done}/{now.total} images",
        ProgressBar(total=max(1, now.bytes_total), completed=now.bytes_done, width=30),
        f"{format_bytes(now.bytes_done)} of {format_bytes(now.bytes_total)}",
        f"{format_bytes(int(now.rate))}/s",
        left,
    )
    workers = Table.grid(padding=(0, 1))
    for at in now.workers:
        size = "" if at.size is None else f"{format_bytes(at.done)} of {format_bytes(at.size)}"
        workers.add_row(str(at.number + 1), _DOES[at.kind], Text(at.image[-60:]), size)
    return Group(whole, *(Text(text) for text in now.waiting), workers)
