"""The lock's images into the private registry.

`plan` asks the private registry what it has, with one small request an image; `run` brings the
rest. An image counts as there only when its tag has the digest of the lock, and its tag is written
when all of it is there: what was broken off is taken up again, and what was finished is not.

Blobs are carried by kfdeploy itself: docs/decisions/009.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from kfdeploy import parallel
from kfdeploy.cache import Cache
from kfdeploy.errors import UserError, raise_all
from kfdeploy.images.lockfile import Lock
from kfdeploy.mirror.plan import (
    MirrorItem,
    MirrorPlan,
    MirrorState,
    MirrorSummary,
    list_mirror_items,
)
from kfdeploy.mirror.progress import MirrorProgress
from kfdeploy.mirror.registry_store import RegistryDestination, RegistryOrigin
from kfdeploy.mirror.scheduler import TransferScheduler
from kfdeploy.mirror.stores import Destination, Origin
from kfdeploy.mirror.worker import TransferWorker
from kfdeploy.oci.registry.access import AccessResolver
from kfdeploy.oci.registry.client import RegistryClient, manifest_path
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.manifest_cache import ManifestCache
from kfdeploy.oci.registry.settings import MirrorSettings
from kfdeploy.oci.registry.transport import RetryPolicy

JOBS: Final = 8
"""Blobs on the way at a time."""
ASK_JOBS: Final = 16
"""Small requests at a time: what they take is mostly waiting."""
_ASK_SECONDS: Final = 60.0
_TICK_SECONDS: Final = 0.2
_PATIENCE: Final = RetryPolicy(busy_seconds=0.0, outage_seconds=60.0, tries=3)
"""A registry that is busy is not waited for by a worker: the board has other work for it."""


@dataclass(frozen=True, slots=True)
class MirrorEndpoints:
    """What a mirror works between."""

    client: RegistryClient
    manifests: ManifestCache
    origin: RegistryOrigin
    destination: RegistryDestination


@contextlib.contextmanager
def open_endpoints(settings: MirrorSettings, root: Path, cache: Cache) -> Iterator[MirrorEndpoints]:
    """The registries that a workspace names, until the block ends.

    Args:
        root: the workspace's folder, which paths in kfdeploy.yaml are relative to.
    """
    with RegistryClient(AccessResolver(settings, root), retry_policy=_PATIENCE) as client:
        manifests = ManifestCache(client, cache)
        yield MirrorEndpoints(
            client,
            manifests,
            RegistryOrigin(client, manifests),
            RegistryDestination(client, settings.private, root),
        )


def open_client(settings: MirrorSettings, root: Path) -> RegistryClient:
    """A client that only asks; to be closed by ``with``. Arguments as for `opened`."""
    return RegistryClient(AccessResolver(settings, root))


def plan_mirror(
    lock: Lock,
    settings: MirrorSettings,
    *,
    client: RegistryClient,
    jobs: int = ASK_JOBS,
    by_tag: Container[str] = (),
    answered: Container[tuple[str, str]] = (),
) -> MirrorPlan:
    """Find out what the private registry lacks: one HEAD for each image.

    Args:
        by_tag: references that some place must have by tag alone, which matters to a registry that
            does not move tags.
        answered: paths of manifests (`manifest_path`) with their digests, as the private registry
            has just given them: it is not asked again.

    Raises:
        UserError: two images on one target, the private registry can't be asked, or a tag would
            have to move that can't; the same complaint about many images is one error.
    """
    registry = settings.private
    errors: dict[str, UserError] = {}
    items: list[MirrorItem] = []

    def query_item(item: MirrorItem) -> MirrorItem | UserError:
        try:
            found = client.get_digest(item.destination, patience=_ASK_SECONDS)
            if found not in (None, item.digest) and registry.immutable_tags:
                if item.belongs_to:
                    # Cosign moves the tag of a list of signatures; the list that is there stays.
                    return replace(item, state="present")
                for name in item.ids:
                    if name in by_tag:
                        return item.target.immovable_tag_error(name, str(found))
                item = replace(item, push_tag=item.target.digest_tag)
                found = client.get_digest(item.destination, patience=_ASK_SECONDS)
        except RegistryError as error:
            return error
        return _with_state(item, found)

    wanted: list[MirrorItem] = []
    for item in list_mirror_items(lock, registry, settings.sources, settings.platforms):
        if (manifest_path(item.destination), item.digest) in answered:
            items.append(replace(item, state="present"))
        else:
            wanted.append(item)
    if items:
        client.transport.mark_answered(registry.host)
    for _, found in parallel.run_in_threads(query_item, wanted, max(jobs, ASK_JOBS), client.close):
        if isinstance(found, UserError):
            errors.setdefault(found.message, found)
        else:
            items.append(found)
    raise_all([errors[message] for message in sorted(errors)])
    return MirrorPlan(tuple(sorted(items, key=_target_key)))


def run_mirror(
    todo: MirrorPlan,
    origin: Origin,
    destination: Destination,
    *,
    jobs: int = JOBS,
    known: Mapping[str, str] | None = None,
    progress: MirrorProgress | None = None,
    stop: Callable[[], None] = lambda: None,
    on_tick: Callable[[], None] = lambda: None,
) -> MirrorSummary:
    """Bring what is missing.

    Images that fail are collected; the others are brought all the same. ^C stops the transfers: a
    registry shows an image only when all of it has arrived, so nothing half is left under a tag.

    Args:
        known: blobs, by digest, with a place at the destination that has them: see `places`.
        watch: is told what happens.
        stop: makes transfers under way end at once.
        on_tick: called now and then in the caller's thread.

    Raises:
        KeyboardInterrupt: after all transfers have stopped.
    """
    progress = progress or MirrorProgress()
    items = sorted(todo.to_copy, key=lambda i: (bool(i.belongs_to), -(i.size or 0), _target_key(i)))
    board = TransferScheduler(
        items,
        source=origin.get_host,
        destination=destination.get_host,
        place=destination.get_place,
        jobs=jobs,
        known=known,
    )
    progress.record_plan(
        len(todo.items), list(todo.present), lambda: (board.bytes_found, board.unread == 0)
    )
    cancelled = threading.Event()
    mistakes: list[BaseException] = []

    def run_worker(number: int) -> None:
        try:
            TransferWorker(number, board, origin, destination, progress, cancelled).run()
        except BaseException as error:
            mistakes.append(error)
            board.stop()

    threads = [
        threading.Thread(target=run_worker, args=(number,), name=f"mirror-{number}")
        for number in range(jobs if items else 0)
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_TICK_SECONDS)
                on_tick()
        finished = True
    except BaseException:
        finished = False
        raise
    finally:
        if not finished or mistakes:
            cancelled.set()
            board.stop()
            stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if mistakes:
        raise mistakes[0]
    return MirrorSummary(
        copied=tuple(sorted(progress.copied, key=_target_key)),
        present=todo.present,
        failed=tuple(sorted(progress.failed, key=lambda f: _target_key(f.item))),
        tally=progress.tally,
    )


def find_known_places(todo: MirrorPlan, endpoints: MirrorEndpoints) -> dict[str, str]:
    """Blobs that the private registry has in images that are there, by digest, with their place.

    As far as the cache knows their manifests: nobody is asked.
    """
    if not todo.to_copy:
        return {}
    sources = {item.digest: (item.source.digest, item.platforms) for item in todo.present}
    blobs = endpoints.manifests.get_cached_blobs(sources)
    found: dict[str, str] = {}
    for item in todo.present:
        for digest in blobs.get(item.digest, ()):
            found.setdefault(digest, endpoints.destination.get_place(item))
    return found


def _with_state(item: MirrorItem, found: str | None) -> MirrorItem:
    state: MirrorState = "copy" if found is None else "replace"
    if found == item.digest:
        state, found = "present", None
    return replace(item, state=state, replaces=found or "")


def _target_key(item: MirrorItem) -> str:
    return item.sort_key
