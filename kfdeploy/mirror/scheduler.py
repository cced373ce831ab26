"""What the mirror's workers do next: images are read, their blobs placed, their manifests sealed.

The unit of work is a blob at its place, not an image: a blob that thirty images share is carried
once, to the first of its places, and mounted from there to the others. Workers never wait for a
registry that is busy; the board gives them what can be done meanwhile, and gives a registry that
struggles fewer of them.
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
"""Sealing first, so that an image is whole as early as can be; reading before carrying, as only
who has read all images knows what they share."""
_REOPENED_MAX: Final = 2
_ONE_STRUGGLE_SECONDS: Final = 1.0
"""What goes wrong within this time of each other was on its way together, and counts once."""


@dataclass(eq=False, slots=True)
class TransferImage:
    """An item on its way.

    Attributes:
        missing: its blobs that are not yet at their place.
    """

    item: MirrorItem
    rank: int
    tree: ImageTree | None = None
    missing: int = 0
    reopened: int = 0
    is_over: bool = False


@dataclass(eq=False, slots=True)
class BlobPlacement:
    """A blob at a place, and the images that wait for it."""

    blob: Descriptor
    place: str
    images: list[TransferImage] = field(default_factory=list)
    state: Literal["waiting", "queued", "placed", "failed"] = "waiting"
    tried: set[str] = field(default_factory=set)

    @property
    def rank(self) -> int:
        """That of the first image that needs it."""
        return min((image.rank for image in self.images), default=0)


@dataclass(eq=False, slots=True)
class TransferTask:
    """One piece of work.

    Attributes:
        image: for a unit, the image whose source is asked.
        mount_from: a place that has the blob.
        tries: how often it went wrong.
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
    """How much one registry bears."""

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
        """Take what is to be done, the most important first.

        Args:
            known: blobs, by digest, and a place at the destination that has them already.
        """
        self._source, self._destination, self._place = source, destination, place
        self._jobs = max(1, jobs)
        self._clock = clock
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._hosts: dict[str, _HostLoad] = {}
        self._later: list[tuple[float, int, TransferTask]] = []
        self._units: dict[tuple[str, str], BlobPlacement] = {}
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
        """Bytes of blobs that are to be carried, as far as images have been read."""
        with self._changed:
            for image in self.images:
                self._queue_task(TransferTask("read", image, (source(image.item),)))

    # -- what workers call -------------------------------------------------------------------------

    def take_task(self) -> TransferTask | None:
        """The next task; waits for one. None when everything is over."""
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
        """An image's manifests are there: what it needs joins the rest."""
        image = task.image
        with self._changed:
            self._release_hosts(task)
            self.unread -= 1
            image.tree = tree
            place = self._place(image.item)
            for blob in tree.blobs:
                unit = self._units.setdefault((blob.digest, place), BlobPlacement(blob, place))
                if unit.state == "placed":
                    continue
                image.missing += 1
                unit.images.append(image)
                if unit.state in ("waiting", "failed"):
                    self._fresh[id(unit)] = unit
            self._seal_if_complete(image)
            self._schedule_fresh_blobs()

    def finish_placement(self, task: TransferTask) -> list[TransferImage]:
        """A blob is at its place."""
        unit = task.placement
        assert unit is not None
        with self._changed:
            self._release_hosts(task)
            unit.state = "placed"
            digest = unit.blob.digest
            self._places.setdefault(digest, unit.place)
            if self._carried.get(digest) is unit:
                del self._carried[digest]
                for other in self._blocked.pop(digest, ()):
                    self._schedule_blob(other)
            waiting, unit.images = unit.images, []
            for image in waiting:
                image.missing -= 1
                self._seal_if_complete(image)
            return waiting

    def finish_seal(self, task: TransferTask) -> None:
        """An image is whole at the destination."""
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
        """A task went wrong, and is tried again.

        Args:
            seconds: when.
            struggles: the host that does not bear as much.
            is_silent: that host wants to hear nothing until then.
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
        """A task can't be done; returns the images that fail with it.

        A blob that one source can't give is asked of the next image that has it elsewhere.
        """
        with self._changed:
            self._release_hosts(task, went_well=False)
            unit = task.placement
            if unit is None:
                if task.kind == "read":
                    self.unread -= 1
                    self._schedule_fresh_blobs()
                return [task.image] if self._end_image(task.image) else []
            unit.tried.add(task.image.item.source.repository)
            unit.images = [image for image in unit.images if not image.is_over]
            for image in unit.images:
                if image.item.source.repository not in unit.tried:
                    self._queue_carry(unit, image)
                    return []
            unit.state = "failed"
            digest = unit.blob.digest
            if self._carried.get(digest) is unit:
                del self._carried[digest]
                blocked = self._blocked.pop(digest, deque())
                while blocked:
                    other = blocked.popleft()
                    if digest in self._carried:
                        self._blocked.setdefault(digest, deque()).append(other)
                    else:
                        self._schedule_blob(other)
            waiting, unit.images = unit.images, []
            return [image for image in waiting if self._end_image(image)]

    def reopen_image(self, task: TransferTask) -> bool:
        """The destination has lost blobs of an image that was to be sealed: see to each again.

        Returns:
            Whether that is worth another try.
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
                unit = self._units[blob.digest, place]
                image.missing += 1
                unit.images.append(image)
                if unit.state != "queued":
                    self._schedule_blob(unit)
            return True

    def abandon_images(self) -> list[TransferImage]:
        """Nothing more can be done; returns the images that were not over."""
        with self._changed:
            return [image for image in self.images if self._end_image(image)]

    def stop(self) -> None:
        """Give out no more tasks."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    # -- with the lock held ------------------------------------------------------------------------

    def _pick_task(self, now: float) -> tuple[TransferTask | None, float | None]:
        """The best task that can be done now; or how long to wait for one."""
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
        """One image less is being read; when none is, it is known what they share.

        Which place a shared blob goes to first must not hang on which answer came first: a run that
        goes on after another must look for it where that one put it. Only images whose source
        keeps them waiting are not waited for.
        """
        self._reading -= 1
        if self._reading == 0:
            fresh = sorted(self._fresh.values(), key=lambda unit: unit.rank)
            self._fresh.clear()
            for unit in fresh:
                if unit.state in ("waiting", "failed"):
                    self._schedule_blob(unit)

    def _drop_if_unneeded(self, task: TransferTask) -> bool:
        """Whether nobody waits for a task any more."""
        if task.placement is None:
            return task.image.is_over
        if any(not image.is_over for image in task.placement.images):
            return False
        task.placement.state = "waiting"
        self._unblock_others(task.placement)
        return True

    def _unblock_others(self, unit: BlobPlacement) -> None:
        """Another place that waited for this one to be served first has its turn."""
        digest = unit.blob.digest
        if self._carried.get(digest) is unit:
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

    def _schedule_blob(self, unit: BlobPlacement) -> None:
        """Have a blob brought to its place: mounted where another place has it, else carried."""
        unit.images = [image for image in unit.images if not image.is_over]
        if not unit.images:
            unit.state = "waiting"
            return
        digest = unit.blob.digest
        unit.state = "queued"
        unit.tried.clear()
        other = self._places.get(digest)
        if other is not None and other != unit.place:
            image = unit.images[0]
            hosts = (self._destination(image.item),)
            self._queue_task(TransferTask("mount", image, hosts, unit, other))
        elif digest in self._carried and self._carried[digest] is not unit:
            self._blocked.setdefault(digest, deque()).append(unit)
        else:
            self._carried[digest] = unit
            self.bytes_found += unit.blob.size
            self._queue_carry(unit, unit.images[0])

    def _queue_carry(self, unit: BlobPlacement, image: TransferImage) -> None:
        hosts = dict.fromkeys((self._source(image.item), self._destination(image.item)))
        self._queue_task(TransferTask("carry", image, tuple(hosts), unit))

    def _seal_if_complete(self, image: TransferImage) -> None:
        if image.missing == 0 and image.tree is not None and not image.is_over:
            self._queue_task(TransferTask("seal", image, (self._destination(image.item),)))

    def _end_image(self, image: TransferImage) -> bool:
        """An image is done with, one way or the other; whether it was not before."""
        if image.is_over:
            return False
        image.is_over = True
        self._left -= 1
        if not self._left:
            self._changed.notify_all()
        return True
