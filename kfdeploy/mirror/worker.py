"""Run the tasks of the scheduler: read, carry, mount and seal."""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Final

from kfdeploy.errors import UserError
from kfdeploy.http.retry import retry_delay
from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.mirror.progress import MirrorProgress
from kfdeploy.mirror.scheduler import TransferImage, TransferScheduler, TransferTask
from kfdeploy.mirror.stores import Destination, Origin, ReadableBlob, StoreFull
from kfdeploy.oci.manifest import Descriptor
from kfdeploy.oci.registry import errors
from kfdeploy.oci.registry.errors import RegistryError

PIECE: Final = 512 * 1024
"""Bytes of a worker's buffer: large enough that most time goes to reading, hashing and sending,
which release Python's global lock; small enough that a slow connection shows progress."""
_TRIES: Final = 5
_TRIES_DAMAGED: Final = 3
_RESUMES: Final = 3
_PROGRESS: Final = 4 * 1024 * 1024
"""A source that delivers this many bytes before it breaks off gets its resumes back."""
_LIMIT_SECONDS: Final = 900.0
"""How long a registry may answer a task with 429 before the task fails."""


@dataclass
class TransferWorker:
    """Runs tasks until there are none; there is one worker for each thread."""

    number: int
    scheduler: TransferScheduler
    origin: Origin
    destination: Destination
    progress: MirrorProgress
    cancelled: threading.Event
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(PIECE)))

    def run(self) -> None:
        """Run tasks until the scheduler has no more.

        Any exception but `UserError` is a bug: it leaves this method and ends the whole run.
        """
        while (task := self.scheduler.take_task()) is not None:
            name = task.image.item.name
            size = None if task.placement is None else task.placement.blob.size
            self.progress.start_task(self.number, task.kind, name, size)
            try:
                self._run_task(task)
            except UserError as error:
                if self.cancelled.is_set():
                    return
                self._retry_or_fail(task, error)
            finally:
                self.progress.end_task(self.number)

    def _run_task(self, task: TransferTask) -> None:
        item = task.image.item
        if task.kind == "read":
            tree = self.origin.read_tree(item)
            if tree.root.digest != item.digest:
                raise UserError(
                    f"{item.name}: the index reduced to {', '.join(item.platforms)} has the digest"
                    f" {tree.root.digest}, but images.lock says {item.digest}",
                    hint="run `kfdeploy lock` to compute the digest again",
                )
            self.scheduler.finish_read(task, tree)
        elif task.kind == "seal":
            assert task.image.tree is not None
            self.destination.seal_image(item, task.image.tree)
            self.scheduler.finish_seal(task)
            self.progress.finish_item(item, "copied")
        else:
            self._place_blob(task)
            self.scheduler.finish_placement(task)

    def _place_blob(self, task: TransferTask) -> None:
        placement, blob = task.placement, task.blob
        assert placement is not None
        begun: str | None = ""
        if task.kind == "mount":
            begun = self.destination.mount_blob(placement.place, blob, task.mount_from)
            if begun is None:
                self.progress.count_mounted(blob.size)
                return
        elif self.destination.has_blob(placement.place, blob):
            self.progress.count_skipped(blob.size)
            return
        pieces = BlobStream(self.origin, task.image.item, blob, self)
        try:
            self.destination.put_blob(placement.place, blob, pieces, begun or "")
        except UserError:
            self.progress.count_aborted(pieces.sent)
            raise
        self.progress.count_moved(blob.size)

    def _retry_or_fail(self, task: TransferTask, error: UserError) -> None:
        """Queue the task again, or try another source, or let its images fail."""
        task.tries += 1
        if isinstance(error, StoreFull):
            return self._fail_everything(task, error)
        if isinstance(error, RegistryError):
            if error.is_limit and self._retry_after_limit(task, error):
                return None
            if error.kind == "blob-unknown" and self.scheduler.reopen_image(task):
                self.progress.record_retry(task.image.item, error.message)
                return None
            tries = _TRIES_DAMAGED if error.kind == "content" else _TRIES
            if (error.is_transient or error.kind == "content") and task.tries < tries:
                self.progress.record_retry(task.image.item, error.message)
                seconds = max(error.wait_seconds, retry_delay(task.tries))
                self.scheduler.retry_later(task, seconds, struggling_host=error.host)
                return None
            if error.kind == "full":
                return self._fail_everything(task, error)
        self._fail_images(self.scheduler.fail_task(task), error)
        return None

    def _retry_after_limit(self, task: TransferTask, error: RegistryError) -> bool:
        now = time.monotonic()
        task.busy_since = task.busy_since or now
        seconds = error.wait_seconds or retry_delay(task.tries)
        if now + seconds > task.busy_since + _LIMIT_SECONDS:
            return False
        self.progress.record_wait(error.host, seconds)
        self.scheduler.retry_later(task, seconds, struggling_host=error.host, is_silent=True)
        return True

    def _fail_everything(self, task: TransferTask, error: UserError) -> None:
        self._fail_images(self.scheduler.fail_task(task), error)
        self._fail_images(self.scheduler.abandon_images(), error)

    def _fail_images(self, images: list[TransferImage], error: UserError) -> None:
        for image in images:
            item = image.item
            named = error.with_subject(item.name, item.source.path, item.repository.path)
            self.progress.finish_item(item, "failed", named)


class BlobStream:
    """A blob from an origin, as `BlobPieces`; resumed at the byte where its source broke off."""

    def __init__(
        self, origin: Origin, item: MirrorItem, blob: Descriptor, worker: TransferWorker
    ) -> None:
        self._origin = origin
        self._item = item
        self._blob = blob
        self._worker = worker
        self._offset = 0
        self._hash = hashlib.new(self._algorithm)
        self.sent = 0
        """Bytes that were yielded."""

    @property
    def size(self) -> int:
        return self._blob.size

    def __iter__(self) -> Iterator[memoryview]:
        self._offset = 0
        self._hash = hashlib.new(self._algorithm)
        resumed = 0
        while True:
            began_at = self._offset
            problem = yield from self._read_to_end()
            if problem is None:
                return
            resumed = resumed + 1 if self._offset - began_at < _PROGRESS else 1
            problem.host = self._host
            if resumed > _RESUMES or not self._offset:
                raise problem
            self._worker.progress.record_retry(self._item, problem.message)
            if self._worker.cancelled.wait(retry_delay(resumed - 1)):
                raise UserError("interrupted")

    def _read_to_end(self) -> Generator[memoryview, None, RegistryError | None]:
        """Yield the pieces from the offset on; return why the source broke off, or None."""
        try:
            with self._origin.open_blob(self._item, self._blob, self._offset) as stream:
                while self._offset < self.size:
                    if self._worker.cancelled.is_set():
                        raise UserError("interrupted")
                    piece, cause = self._read_piece(stream)
                    if not piece:
                        return errors.transfer_broken(self._host, self._description, cause)
                    self._offset += len(piece)
                    self._hash.update(piece)
                    if self._offset == self.size:
                        self._check_digest()
                    self.sent += len(piece)
                    self._worker.progress.add_sent_bytes(self._worker.number, len(piece))
                    yield piece
        except RegistryError as error:
            if not error.is_transient or error.is_limit or not self._offset:
                raise
            return error
        if not self.size:
            self._check_digest()
        return None

    def _read_piece(self, stream: ReadableBlob) -> tuple[memoryview, Exception | None]:
        """Return the next bytes; none, with the exception if there was one, if it broke off."""
        buffer = self._worker.buffer[: min(PIECE, self.size - self._offset)]
        try:
            return buffer[: stream.readinto(buffer)], None
        except (OSError, http.client.HTTPException) as error:
            return buffer[:0], error

    @property
    def _host(self) -> str:
        return self._origin.get_host(self._item)

    @property
    def _description(self) -> str:
        return f"{self._item.source.path}: blob {self._blob.digest[:19]}"

    @property
    def _algorithm(self) -> str:
        return self._blob.digest.partition(":")[0]

    def _check_digest(self) -> None:
        found = f"{self._algorithm}:{self._hash.hexdigest()}"
        if found != self._blob.digest:
            error = errors.blob_digest_mismatch(self._host, self._description, found)
            error.host = self._host
            raise error
