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
from kfdeploy.http.retry import retry_delay
from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.mirror.progress import MirrorProgress
from kfdeploy.mirror.scheduler import TransferImage, TransferScheduler, TransferTask
from kfdeploy.mirror.stores import Destination, Origin, StoreFull
from kfdeploy.oci.manifest import Descriptor
from kfdeploy.oci.registry import errors
from kfdeploy.oci.registry.errors import RegistryError

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
class TransferWorker:
    """Does tasks until there are none; one for each thread."""

    number: int
    scheduler: TransferScheduler
    origin: Origin
    destination: Destination
    progress: MirrorProgress
    cancelled: threading.Event
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(PIECE)))

    def run(self) -> None:
        """Work until the board has nothing more.

        What is no UserError is a mistake of ours, and ends everything.
        """
        while (task := self.scheduler.take_task()) is not None:
            what = task.image.item.name
            size = None if task.placement is None else task.placement.blob.size
            self.progress.start_task(self.number, task.kind, what, size)
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
                    f"{item.name}: reduced to {', '.join(item.platforms)} it is {tree.root.digest},"
                    f" and the lock says {item.digest}",
                    hint="run `kfdeploy lock`, which computes it anew",
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
        unit, blob = task.placement, task.blob
        assert unit is not None
        begun: str | None = ""
        if task.kind == "mount":
            begun = self.destination.mount_blob(unit.place, blob, task.mount_from)
            if begun is None:
                self.progress.count_mounted(blob.size)
                return
        elif self.destination.has_blob(unit.place, blob):
            self.progress.count_skipped(blob.size)
            return
        pieces = BlobStream(self.origin, task.image.item, blob, self)
        try:
            self.destination.put_blob(unit.place, blob, pieces, begun or "")
        except UserError:
            self.progress.count_aborted(pieces.sent)
            raise
        self.progress.count_moved(blob.size)

    def _retry_or_fail(self, task: TransferTask, error: UserError) -> None:
        """Try again, ask another source, or count the images as failed."""
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
    """A blob on its way from an origin (`Pieces`): resumed where its source breaks off."""

    def __init__(
        self, origin: Origin, item: MirrorItem, blob: Descriptor, worker: TransferWorker
    ) -> None:
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
                with self._origin.open_blob(self._item, self._blob, offset) as stream:
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
                            problem = errors.transfer_broken(self._host, self._description, cause)
                            break
                        offset += got
                        digest.update(buffer[:got])
                        if offset == self.size:
                            self._check_digest(digest.hexdigest())
                        self.sent += got
                        self._worker.progress.add_sent_bytes(self._worker.number, got)
                        yield buffer[:got]
                    else:
                        if not self.size:
                            self._check_digest(digest.hexdigest())
                        return
            except RegistryError as error:
                if not error.is_transient or error.is_limit or not offset:
                    raise
                problem = error
            resumed = resumed + 1 if offset - began_at < _PROGRESS else 1
            problem.host = self._host
            if resumed > _RESUMES or not offset:
                raise problem
            self._worker.progress.record_retry(self._item, problem.message)
            if self._worker.cancelled.wait(retry_delay(resumed - 1)):
                raise UserError("interrupted")

    @property
    def _host(self) -> str:
        return self._origin.get_host(self._item)

    @property
    def _description(self) -> str:
        return f"{self._item.source.path}: blob {self._blob.digest[:19]}"

    def _check_digest(self, found: str) -> None:
        algorithm, _, _ = self._blob.digest.partition(":")
        if f"{algorithm}:{found}" != self._blob.digest:
            error = errors.blob_digest_mismatch(
                self._host, self._description, f"{algorithm}:{found}"
            )
            error.host = self._host
            raise error
