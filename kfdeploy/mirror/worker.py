"""What the mirror's workers do with a task of the board."""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from kfdeploy.errors import UserError
from kfdeploy.mirror.plan import Item
from kfdeploy.mirror.progress import Watch
from kfdeploy.mirror.scheduler import Board, Image, Task
from kfdeploy.mirror.stores import Destination, Origin, StoreFull
from kfdeploy.oci.manifest import Descriptor
from kfdeploy.oci.registry import errors
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.transport import pause_after

PIECE: Final = 512 * 1024
"""Bytes that a worker holds: large enough that reading, hashing and sending, which run without
Python's lock, are most of the work; small enough that progress shows on a slow line."""
_TRIES: Final = 5
_TRIES_DAMAGED: Final = 3
_RESUMES: Final = 3
_PROGRESS: Final = 4 * 1024 * 1024
"""Bytes after which a source that broke off counts as one that works."""
_LIMIT_SECONDS: Final = 900.0
"""How long a registry may put a request off (429) until it counts as failed."""


@dataclass
class Worker:
    """Does tasks until there are none; one for each thread."""

    number: int
    board: Board
    origin: Origin
    destination: Destination
    watch: Watch
    cancelled: threading.Event
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(PIECE)))

    def run(self) -> None:
        """Work until the board has nothing more.

        What is no UserError is a mistake of ours, and ends everything.
        """
        while (task := self.board.take()) is not None:
            what = task.image.item.name
            size = None if task.unit is None else task.unit.blob.size
            self.watch.begins(self.number, task.kind, what, size)
            try:
                self._do(task)
            except UserError as error:
                if self.cancelled.is_set():
                    return
                self._went_wrong(task, error)
            finally:
                self.watch.ends(self.number)

    def _do(self, task: Task) -> None:
        item = task.image.item
        if task.kind == "read":
            tree = self.origin.tree(item)
            if tree.root.digest != item.digest:
                raise UserError(
                    f"{item.name}: reduced to {', '.join(item.platforms)} it is {tree.root.digest},"
                    f" and the lock says {item.digest}",
                    hint="run `kfdeploy lock`, which computes it anew",
                )
            self.board.was_read(task, tree)
        elif task.kind == "seal":
            assert task.image.tree is not None
            self.destination.seal(item, task.image.tree)
            self.board.is_sealed(task)
            self.watch.finished(item, "copied")
        else:
            self._place(task)
            self.board.is_placed(task)

    def _place(self, task: Task) -> None:
        unit, blob = task.unit, task.blob
        assert unit is not None
        begun: str | None = ""
        if task.kind == "mount":
            begun = self.destination.mount(unit.place, blob, task.mount_from)
            if begun is None:
                self.watch.mounted(blob.size)
                return
        elif self.destination.has(unit.place, blob):
            self.watch.skipped(blob.size)
            return
        pieces = Sending(self.origin, task.image.item, blob, self)
        try:
            self.destination.put(unit.place, blob, pieces, begun or "")
        except UserError:
            self.watch.broke(pieces.sent)
            raise
        self.watch.moved(blob.size)

    def _went_wrong(self, task: Task, error: UserError) -> None:
        """Try again, ask another source, or count the images as failed."""
        task.tries += 1
        if isinstance(error, StoreFull):
            return self._give_up(task, error)
        if isinstance(error, RegistryError):
            if error.is_limit and self._waits(task, error):
                return None
            if error.kind == "blob-unknown" and self.board.reopen(task):
                self.watch.retries(task.image.item, error.message)
                return None
            tries = _TRIES_DAMAGED if error.kind == "content" else _TRIES
            if (error.may_pass or error.kind == "content") and task.tries < tries:
                self.watch.retries(task.image.item, error.message)
                seconds = max(error.wait_seconds, pause_after(task.tries))
                self.board.again(task, seconds, struggles=error.host)
                return None
            if error.kind == "full":
                return self._give_up(task, error)
        self._fail(self.board.failed(task), error)
        return None

    def _waits(self, task: Task, error: RegistryError) -> bool:
        now = time.monotonic()
        task.busy_since = task.busy_since or now
        seconds = error.wait_seconds or pause_after(task.tries)
        if now + seconds > task.busy_since + _LIMIT_SECONDS:
            return False
        self.watch.waits(error.host, seconds)
        self.board.again(task, seconds, struggles=error.host, is_silent=True)
        return True

    def _give_up(self, task: Task, error: UserError) -> None:
        self._fail(self.board.failed(task), error)
        self._fail(self.board.give_up(), error)

    def _fail(self, images: list[Image], error: UserError) -> None:
        for image in images:
            item = image.item
            named = error.about(item.name, item.source.path, item.repository.path)
            self.watch.finished(item, "failed", named)


class Sending:
    """A blob on its way from an origin (`Pieces`): resumed where its source breaks off."""

    def __init__(self, origin: Origin, item: Item, blob: Descriptor, worker: Worker) -> None:
        self._origin = origin
        self._item = item
        self._blob = blob
        self._worker = worker
        self.sent = 0
        """Bytes that were given out."""

    @property
    def size(self) -> int:
        return self._blob.size

    def __iter__(self) -> Iterator[memoryview]:
        algorithm, _, _ = self._blob.digest.partition(":")
        digest = hashlib.new(algorithm)
        buffer = self._worker.buffer
        offset = 0
        resumed = 0
        while True:
            began_at = offset
            problem: RegistryError
            try:
                with self._origin.open(self._item, self._blob, offset) as stream:
                    while offset < self.size:
                        if self._worker.cancelled.is_set():
                            raise UserError("interrupted")
                        wanted = min(PIECE, self.size - offset)
                        try:
                            got = stream.readinto(buffer[:wanted])
                            cause: Exception | None = None
                        except (OSError, http.client.HTTPException) as error:
                            got, cause = 0, error
                        if not got:
                            problem = errors.broke_off(self._host, self._what, cause)
                            break
                        offset += got
                        digest.update(buffer[:got])
                        if offset == self.size:
                            self._check(digest.hexdigest())
                        self.sent += got
                        self._worker.watch.passed(self._worker.number, got)
                        yield buffer[:got]
                    else:
                        if not self.size:
                            self._check(digest.hexdigest())
                        return
            except RegistryError as error:
                if not error.may_pass or error.is_limit or not offset:
                    raise
                problem = error
            resumed = resumed + 1 if offset - began_at < _PROGRESS else 1
            problem.host = self._host
            if resumed > _RESUMES or not offset:
                raise problem
            self._worker.watch.retries(self._item, problem.message)
            if self._worker.cancelled.wait(pause_after(resumed - 1)):
                raise UserError("interrupted")

    @property
    def _host(self) -> str:
        return self._origin.host(self._item)

    @property
    def _what(self) -> str:
        return f"{self._item.source.path}: blob {self._blob.digest[:19]}"

    def _check(self, found: str) -> None:
        algorithm, _, _ = self._blob.digest.partition(":")
        if f"{algorithm}:{found}" != self._blob.digest:
            error = errors.damaged(self._host, self._what, f"{algorithm}:{found}")
            error.host = self._host
            raise error
