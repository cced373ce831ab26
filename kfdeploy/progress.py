"""Progress on stderr: bars on a terminal, elsewhere a plain line for each step."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Advance = Callable[[str, int, int], None]
"""Takes the item that is done, the number of items done, and the number of all."""
_PLAIN_STEPS = 5


@dataclass(frozen=True, slots=True)
class Progress:
    """Show work while it goes on; nothing when it is quiet."""

    quiet: bool = False

    @property
    def is_terminal(self) -> bool:
        return sys.stderr.isatty()

    def print_line(self, text: str) -> None:
        """Print one step."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def count_items(self, what: str) -> Iterator[Advance]:
        """Show the work over many items, from calls of what it yields."""
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
