"""Count what a running mirror has done, what each worker does, and how long the rest takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from kfdeploy.errors import UserError
from kfdeploy.mirror.plan import MirrorFailure, MirrorItem, TransferStats
from kfdeploy.wording import format_bytes

EventState = Literal["retrying", "waiting", "copied", "present", "failed"]
_RATE_SECONDS: Final = 10.0
"""The rate is that of the last seconds: the speed of a line changes during a long run."""


@dataclass(frozen=True, slots=True)
class MirrorEvent:
    """An event of one image, with the progress of the whole run.

    Attributes:
        image: the reference as found; for ``waiting`` the host of the registry.
        done: number of images finished, including failed ones.
        bytes_done: bytes sent so far, including those of running transfers.
        bytes_total: bytes to send for the images that have been read so far.
    """

    image: str
    state: EventState
    done: int
    total: int
    bytes_done: int
    bytes_total: int
    message: str = ""

    def format_line(self) -> str:
        """Return a line for output that is not a terminal."""
        tail = f": {self.message}" if self.message else ""
        return f"[{self.done}/{self.total}] {self.state} {self.image}{tail}"


@dataclass(frozen=True, slots=True)
class WorkerActivity:
    """The current task of one worker.

    Attributes:
        kind: ``read``, ``carry``, ``mount`` or ``seal``.
        size: bytes of the blob; None for a task without one.
        done: bytes of the blob that were sent.
    """

    number: int
    kind: str
    image: str
    size: int | None
    done: int = 0


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """The progress of a mirror at one moment.

    Attributes:
        rate: bytes per second during the last seconds.
        seconds_left: None until all images have been read and the rate is known.
        waiting: a line for each registry that is waited for.
    """

    done: int
    total: int
    bytes_done: int
    bytes_total: int
    rate: float
    seconds_left: float | None
    workers: tuple[WorkerActivity, ...]
    waiting: tuple[str, ...]

    def format_line(self) -> str:
        """Return a line for output that is not a terminal, printed at intervals."""
        left = "" if self.seconds_left is None else f", {format_seconds(self.seconds_left)} left"
        waits = "".join(f"; {text}" for text in self.waiting)
        return (
            f"{self.done} of {self.total} images, {format_bytes(self.bytes_done)} of"
            f" {format_bytes(self.bytes_total)}, {format_bytes(int(self.rate))}/s{left}{waits}"
        )


class MirrorProgress:
    """Counts images and bytes; every method may be called from any thread."""

    def __init__(
        self,
        on_event: Callable[[MirrorEvent], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start at zero.

        Args:
            on_event: called for one event at a time, from any thread.
            clock: returns seconds, as `time.monotonic` does.
        """
        self._on_event = on_event
        self._clock = clock
        self._lock = threading.RLock()
        self._workers: dict[int, WorkerActivity] = {}
        self._waits: dict[str, float] = {}
        self._total = self._done = 0
        self._expected: Callable[[], tuple[int, bool]] = lambda: (0, False)
        self._rates: list[tuple[float, int]] = [(clock(), 0)]
        self.tally = TransferStats()
        self.copied: list[MirrorItem] = []
        self.failed: list[MirrorFailure] = []

    def record_plan(
        self, total: int, present: list[MirrorItem], expected: Callable[[], tuple[int, bool]]
    ) -> None:
        """Record how much there is to do.

        Args:
            total: number of items.
            present: items that need no copy.
            expected: returns the bytes to send, and whether that number is final.
        """
        with self._lock:
            self._total, self._expected = total, expected
            for item in present:
                self._done += 1
                self._emit_event(item.name, "present")

    def start_task(self, number: int, kind: str, image: str, size: int | None) -> None:
        with self._lock:
            self._workers[number] = WorkerActivity(number, kind, image, size)

    def end_task(self, number: int) -> None:
        with self._lock:
            self._workers.pop(number, None)

    def add_sent_bytes(self, number: int, count: int) -> None:
        """Add bytes that a worker has sent of its blob."""
        with self._lock:
            activity = self._workers[number]
            self._workers[number] = replace(activity, done=activity.done + count)

    def count_moved(self, count: int) -> None:
        with self._lock:
            self.tally = replace(self.tally, moved=self.tally.moved + count)

    def count_mounted(self, count: int) -> None:
        with self._lock:
            self.tally = replace(self.tally, mounted=self.tally.mounted + count)

    def count_skipped(self, count: int) -> None:
        with self._lock:
            self.tally = replace(self.tally, skipped=self.tally.skipped + count)

    def count_aborted(self, count: int) -> None:
        """Count the bytes of a transfer that broke off."""
        with self._lock:
            self.tally = replace(self.tally, retried=self.tally.retried + count)

    def record_retry(self, item: MirrorItem, message: str) -> None:
        with self._lock:
            self.tally = replace(self.tally, retries=self.tally.retries + 1)
            self._emit_event(item.name, "retrying", message)

    def record_wait(self, host: str, seconds: float) -> None:
        """Record that a registry asked to wait (429); one event for all workers that wait."""
        with self._lock:
            now = self._clock()
            self.tally = replace(self.tally, retries=self.tally.retries + 1)
            if self._waits.get(host, 0.0) < now:
                self._waits[host] = now + seconds
                self._emit_event(
                    host, "waiting", f"429: it asks to wait {max(1, round(seconds))} s"
                )

    def finish_item(
        self, item: MirrorItem, state: Literal["copied", "failed"], error: UserError | None = None
    ) -> None:
        """Record the end of an item; it failed if there is an error."""
        with self._lock:
            self._done += 1
            if error is None:
                self.copied.append(item)
            else:
                self.failed.append(MirrorFailure(item, error))
            self._emit_event(item.name, state, error.message if error else "")

    def take_snapshot(self) -> ProgressSnapshot:
        """Return the progress now."""
        with self._lock:
            now = self._clock()
            done = self._count_bytes_done()
            total, is_final = self._expected()
            total -= self.tally.skipped
            self._rates = [(at, n) for at, n in self._rates if at >= now - _RATE_SECONDS][-200:]
            since, before = self._rates[0] if self._rates else (now, done)
            self._rates.append((now, done))
            rate = max(0.0, (done - before) / (now - since)) if now > since else 0.0
            left = (total - done) / rate if is_final and rate > 0 else None
            waiting = tuple(
                f"waiting {max(1, round(end - now))} s for {host}"
                for host, end in sorted(self._waits.items())
                if end > now
            )
            workers = tuple(self._workers[n] for n in sorted(self._workers))
            return ProgressSnapshot(
                self._done, self._total, done, total, rate, left, workers, waiting
            )

    def _count_bytes_done(self) -> int:
        return self.tally.moved + sum(at.done for at in self._workers.values())

    def _emit_event(self, name: str, state: EventState, message: str = "") -> None:
        if self._on_event is None:
            return
        total = self._expected()[0] - self.tally.skipped
        self._on_event(
            MirrorEvent(
                name, state, self._done, self._total, self._count_bytes_done(), total, message
            )
        )


def format_seconds(seconds: float) -> str:
    """Format a duration for people: ``45 s``, ``12 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
