"""Decide what the mirror's workers do next.

An image is read, its blobs are placed, and then it is sealed: its manifests are written. The unit
of work is a blob at a place, not an image: a blob that thirty images share is carried once, to the
first of its places, and mounted from there to the others. Workers never wait for a busy registry:
the scheduler gives them other tasks meanwhile, and sends fewer workers to a registry that fails.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.oci.manifest import Descriptor, ImageTree

TaskKind = Literal["seal", "read", "mount", "carry"]
_ORDER: Final[Mapping[TaskKind, int]] = {"seal": 0, "read": 1, "mount": 2, "carry": 3}
"""Sealing comes first, so that images are complete early. Reading comes before carrying: only when
all images have been read is it known which blobs they share."""
_REOPENED_MAX: Final = 2
_ONE_STRUGGLE_SECONDS: Final = 1.0
"""Failures of one host within this time belong to concurrent requests, and count once."""


@dataclass(eq=False, slots=True)
class TransferImage:
    """An item that is being copied.

    Attributes:
        rank: its position in the order of importance; 0 comes first.
        tree: its manifests, once they have been read.
        missing: number of its blobs that are not yet at their place.
        reopened: how often its blobs had to be placed again.
        is_over: whether it is sealed or has failed.
    """

    item: MirrorItem
    rank: int
    tree: ImageTree | None = None
    missing: int = 0
    reopened: int = 0
    is_over: bool = False


@dataclass(eq=False, slots=True)
class BlobPlacement:
    """A blob at a place, and the images that wait for it.

    Attributes:
        tried: source repositories that could not give the blob.
    """

    blob: Descriptor
    place: str
    images: list[TransferImage] = field(default_factory=list)
    state: Literal["waiting", "queued", "placed", "failed"] = "waiting"
    tried: set[str] = field(default_factory=set)

    @property
    def rank(self) -> int:
        """Return the rank of the first image that needs the blob."""
        return min((image.rank for image in self.images), default=0)


@dataclass(eq=False, slots=True)
class TransferTask:
    """One task of a worker.

    Attributes:
        image: the image; for a blob, the image whose source is asked.
        hosts: the hosts that the task talks to.
        mount_from: a place that has the blob.
        tries: number of failed attempts.
        busy_since: when its host first answered with a rate limit (429); 0 for never.
    """

    kind: TaskKind
    image: TransferImage
    hosts: tuple[str, ...]
    placement: BlobPlacement | None = None
    mount_from: str = ""
    tries: int = 0
    busy_since: float = 0.0

    @property
    def blob(self) -> Descriptor:
        assert self.placement is not None
        return self.placement.blob


@dataclass(slots=True)
class _HostLoad:
    """The limit of concurrent tasks for one registry, and its queue."""

    limit: float
    active: int = 0
    listens_at: float = 0.0
    struggled_at: float = -math.inf
    ready: list[tuple[tuple[int, int, int], int, TransferTask]] = field(default_factory=list)


class TransferScheduler:
    """Hands out tasks to any number of threads."""

    def __init__(
        self,
        items: Iterable[MirrorItem],
        *,
        source: Callable[[MirrorItem], str],
        destination: Callable[[MirrorItem], str],
        place: Callable[[MirrorItem], str],
        jobs: int,
        known: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Queue the items, the most important first.

        Args:
            source: returns the host that an item is read from.
            destination: returns the host that an item is written to.
            place: returns the place of an item's blobs.
            jobs: largest number of concurrent tasks for one host.
            known: for each blob, by digest, a place at the destination that has it already.
        """
        self._source, self._destination, self._place = source, destination, place
        self._jobs = max(1, jobs)
        self._clock = clock
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._hosts: dict[str, _HostLoad] = {}
        self._later: list[tuple[float, int, TransferTask]] = []
        self._placements: dict[tuple[str, str], BlobPlacement] = {}
        self._places: dict[str, str] = dict(known or {})
        self._carried: dict[str, BlobPlacement] = {}
        self._blocked: dict[str, deque[BlobPlacement]] = {}
        self._reading = 0
        self._fresh: dict[int, BlobPlacement] = {}
        self._stopped = False
        self.images = [TransferImage(item, rank) for rank, item in enumerate(items)]
        self._left = len(self.images)
        self.unread = self._left
        self.bytes_found = 0
        """Bytes of blobs to carry, for the images that have been read so far."""
        with self._changed:
            for image in self.images:
                self._queue_task(TransferTask("read", image, (source(image.item),)))

    # -- what workers call -------------------------------------------------------------------------

    def take_task(self) -> TransferTask | None:
        """Return the next task; block until there is one. None when all images are over."""
        with self._changed:
            while not self._stopped and self._left:
                now = self._clock()
                while self._later and self._later[0][0] <= now:
                    self._queue_task(heapq.heappop(self._later)[2])
                task, wait = self._pick_task(now)
                if task is not None:
                    for host in task.hosts:
                        self._hosts[host].active += 1
                    return task
                self._changed.wait(wait)
            self._changed.notify_all()
            return None

    def finish_read(self, task: TransferTask, tree: ImageTree) -> None:
        """Record an image's manifests, and queue the blobs that it needs."""
        image = task.image
        with self._changed:
            self._release_hosts(task)
            self.unread -= 1
            image.tree = tree
            place = self._place(image.item)
            for blob in tree.blobs:
                placement = self._placements.setdefault(
                    (blob.digest, place), BlobPlacement(blob, place)
                )
                if placement.state == "placed":
                    continue
                image.missing += 1
                placement.images.append(image)
                if placement.state in ("waiting", "failed"):
                    self._fresh[id(placement)] = placement
            self._seal_if_complete(image)
            self._schedule_fresh_blobs()

    def finish_placement(self, task: TransferTask) -> list[TransferImage]:
        """Record that a blob is at its place, and return the images that waited for it."""
        placement = task.placement
        assert placement is not None
        with self._changed:
            self._release_hosts(task)
            placement.state = "placed"
            self._places.setdefault(placement.blob.digest, placement.place)
            self._unblock_others(placement)
            waiting, placement.images = placement.images, []
            for image in waiting:
                image.missing -= 1
                self._seal_if_complete(image)
            return waiting

    def finish_seal(self, task: TransferTask) -> None:
        """Record that an image is complete at the destination."""
        with self._changed:
            self._release_hosts(task)
            self._end_image(task.image)

    def retry_later(
        self,
        task: TransferTask,
        seconds: float,
        *,
        struggling_host: str = "",
        is_silent: bool = False,
    ) -> None:
        """Queue a failed task again.

        Args:
            seconds: delay until the next attempt.
            struggling_host: the host that failed: its limit is halved.
            is_silent: send that host no other task during the delay.
        """
        with self._changed:
            self._release_hosts(task, went_well=False)
            now = self._clock()
            if struggling_host:
                host = self._get_host(struggling_host)
                if now - host.struggled_at > _ONE_STRUGGLE_SECONDS:
                    host.struggled_at = now
                    host.limit = max(1.0, host.limit / 2)
                if is_silent:
                    host.listens_at = max(host.listens_at, now + seconds)
            heapq.heappush(self._later, (now + seconds, next(self._numbers), task))
            if task.kind == "read":
                self._schedule_fresh_blobs()
            self._changed.notify_all()

    def fail_task(self, task: TransferTask) -> list[TransferImage]:
        """Give a task up, and return the images that fail with it.

        If another image has the same blob in another source repository, that one is tried first,
        and no image fails yet.
        """
        with self._changed:
            self._release_hosts(task, went_well=False)
            placement = task.placement
            if placement is None:
                if task.kind == "read":
                    self.unread -= 1
                    self._schedule_fresh_blobs()
                return [task.image] if self._end_image(task.image) else []
            placement.tried.add(task.image.item.source.repository)
            placement.images = [image for image in placement.images if not image.is_over]
            for image in placement.images:
                if image.item.source.repository not in placement.tried:
                    self._queue_carry(placement, image)
                    return []
            placement.state = "failed"
            self._unblock_others(placement)
            waiting, placement.images = placement.images, []
            return [image for image in waiting if self._end_image(image)]

    def reopen_image(self, task: TransferTask) -> bool:
        """Place the blobs of an image again, as the destination lost some before it was sealed.

        Returns:
            False if that has been tried too often already; nothing is queued then.
        """
        image = task.image
        if image.reopened >= _REOPENED_MAX or image.tree is None:
            return False
        with self._changed:
            self._release_hosts(task)
            image.reopened += 1
            place = self._place(image.item)
            for blob in image.tree.blobs:
                if self._places.get(blob.digest) == place:
                    del self._places[blob.digest]
                placement = self._placements[blob.digest, place]
                image.missing += 1
                placement.images.append(image)
                if placement.state != "queued":
                    self._schedule_blob(placement)
            return True

    def abandon_images(self) -> list[TransferImage]:
        """Give all unfinished images up, and return them."""
        with self._changed:
            return [image for image in self.images if self._end_image(image)]

    def stop(self) -> None:
        """Give out no more tasks."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    # -- with the lock held ------------------------------------------------------------------------

    def _pick_task(self, now: float) -> tuple[TransferTask | None, float | None]:
        """Return the best task to do now; or None, with the seconds to wait for one if known."""
        best: _HostLoad | None = None
        wait = self._later[0][0] - now if self._later else None
        for host in list(self._hosts.values()):
            while host.ready and self._drop_if_unneeded(host.ready[0][2]):
                heapq.heappop(host.ready)
            if not host.ready or (host.ready[0][2].kind == "carry" and self._reading):
                continue
            if host.listens_at > now:
                wait = min(wait or host.listens_at - now, host.listens_at - now)
            elif (best is None or host.ready < best.ready) and self._has_room(host.ready[0][2]):
                best = host
        return (heapq.heappop(best.ready)[2], None) if best is not None else (None, wait)

    def _schedule_fresh_blobs(self) -> None:
        """Record the end of one read; after the last one, schedule the blobs found so far.

        The place that a shared blob is carried to must not depend on which answer came first: a
        run that continues an interrupted one must look for the blob where that one put it. Images
        that are read later, as their source made them wait, are scheduled on their own.
        """
        self._reading -= 1
        if self._reading == 0:
            fresh = sorted(self._fresh.values(), key=lambda placement: placement.rank)
            self._fresh.clear()
            for placement in fresh:
                if placement.state in ("waiting", "failed"):
                    self._schedule_blob(placement)

    def _drop_if_unneeded(self, task: TransferTask) -> bool:
        """Tell whether no image needs the task any more; free what waited for it then."""
        if task.placement is None:
            return task.image.is_over
        if any(not image.is_over for image in task.placement.images):
            return False
        task.placement.state = "waiting"
        self._unblock_others(task.placement)
        return True

    def _unblock_others(self, placement: BlobPlacement) -> None:
        """Schedule the placements that waited for this one's blob to be carried."""
        digest = placement.blob.digest
        if self._carried.get(digest) is placement:
            del self._carried[digest]
            for other in self._blocked.pop(digest, ()):
                self._schedule_blob(other)

    def _has_room(self, task: TransferTask) -> bool:
        return all(self._hosts[h].active < int(self._hosts[h].limit) for h in task.hosts)

    def _get_host(self, name: str) -> _HostLoad:
        if name not in self._hosts:
            self._hosts[name] = _HostLoad(float(self._jobs))
        return self._hosts[name]

    def _queue_task(self, task: TransferTask) -> None:
        self._reading += task.kind == "read"
        for name in task.hosts:
            self._get_host(name)
        size = task.placement.blob.size if task.placement is not None else 0
        key = (_ORDER[task.kind], task.image.rank, -size)
        heapq.heappush(self._hosts[task.hosts[0]].ready, (key, next(self._numbers), task))
        self._changed.notify()

    def _release_hosts(self, task: TransferTask, *, went_well: bool = True) -> None:
        for name in task.hosts:
            host = self._hosts[name]
            host.active -= 1
            if went_well and host.limit < self._jobs:
                host.limit = min(float(self._jobs), host.limit + 1 / host.limit)
        self._changed.notify()

    def _schedule_blob(self, placement: BlobPlacement) -> None:
        """Mount a blob that another place has; else carry it, or wait for the one that does."""
        placement.images = [image for image in placement.images if not image.is_over]
        if not placement.images:
            placement.state = "waiting"
            return
        digest = placement.blob.digest
        placement.state = "queued"
        placement.tried.clear()
        other = self._places.get(digest)
        if other is not None and other != placement.place:
            image = placement.images[0]
            hosts = (self._destination(image.item),)
            self._queue_task(TransferTask("mount", image, hosts, placement, other))
        elif digest in self._carried and self._carried[digest] is not placement:
            self._blocked.setdefault(digest, deque()).append(placement)
        else:
            self._carried[digest] = placement
            self.bytes_found += placement.blob.size
            self._queue_carry(placement, placement.images[0])

    def _queue_carry(self, placement: BlobPlacement, image: TransferImage) -> None:
        hosts = dict.fromkeys((self._source(image.item), self._destination(image.item)))
        self._queue_task(TransferTask("carry", image, tuple(hosts), placement))

    def _seal_if_complete(self, image: TransferImage) -> None:
        if image.missing == 0 and image.tree is not None and not image.is_over:
            self._queue_task(TransferTask("seal", image, (self._destination(image.item),)))

    def _end_image(self, image: TransferImage) -> bool:
        """Mark an image as over, sealed or failed; return False if it was before."""
        if image.is_over:
            return False
        image.is_over = True
        self._left -= 1
        if not self._left:
            self._changed.notify_all()
        return True
