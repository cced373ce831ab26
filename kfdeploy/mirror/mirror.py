"""Copy the lock's images into the private registry.

`plan_mirror` asks the private registry what it has, with one small request for each image.
`run_mirror` copies the rest. An image is present only if its tag leads to the digest of the lock,
and the tag is written after everything else of the image: an interrupted run is continued by the
next one, which does not repeat finished images.

kfdeploy transfers the blobs itself: docs/decisions/009.
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
from kfdeploy.oci.reference import WrittenRef
from kfdeploy.oci.registry.access import AccessResolver
from kfdeploy.oci.registry.client import RegistryClient, manifest_path
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.manifest_cache import ManifestCache
from kfdeploy.oci.registry.settings import MirrorSettings
from kfdeploy.oci.registry.transport import RetryPolicy

JOBS: Final = 8
"""Blobs transferred at the same time."""
ASK_JOBS: Final = 16
"""Small requests at the same time: they mostly wait for an answer."""
_ASK_SECONDS: Final = 60.0
_TICK_SECONDS: Final = 0.2
_PATIENCE: Final = RetryPolicy(busy_seconds=0.0, outage_seconds=60.0, tries=3)
"""Workers do not wait for a busy registry: the scheduler has other work for them."""


@dataclass(frozen=True, slots=True)
class MirrorEndpoints:
    """The registries that a mirror copies between, with the client that talks to them."""

    client: RegistryClient
    manifests: ManifestCache
    origin: RegistryOrigin
    destination: RegistryDestination


@contextlib.contextmanager
def open_endpoints(settings: MirrorSettings, root: Path, cache: Cache) -> Iterator[MirrorEndpoints]:
    """Open the registries that a workspace names; close them when the block ends.

    Args:
        root: the workspace's folder, to which paths in kfdeploy.yaml are relative.
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
    """Return a client for queries, to be closed by ``with``; arguments as for `open_endpoints`."""
    return RegistryClient(AccessResolver(settings, root))


def plan_mirror(
    lock: Lock,
    settings: MirrorSettings,
    *,
    client: RegistryClient,
    jobs: int = ASK_JOBS,
    by_tag: Container[WrittenRef] = (),
    answered: Container[tuple[str, str]] = (),
) -> MirrorPlan:
    """Find out what the private registry lacks, with one HEAD request for each image.

    Args:
        by_tag: references that some object must have by tag alone; such a tag can't be replaced
            by another name at a registry with immutable tags.
        answered: paths of manifests (`manifest_path`) with the digests that the private registry
            has just returned for them: it is not asked again.

    Raises:
        UserError: two images have one target, the private registry can't be asked, or an immutable
            tag would have to move. The same message about many images is one error.
    """
    registry = settings.private
    present: list[MirrorItem] = []
    unanswered: list[MirrorItem] = []
    for item in list_mirror_items(lock, registry, settings.sources, settings.platforms):
        if (manifest_path(item.destination), item.digest) in answered:
            present.append(replace(item, state="present"))
        else:
            unanswered.append(item)
    if present:
        client.transport.mark_answered(registry.host)

    def query_item(item: MirrorItem) -> MirrorItem | UserError:
        try:
            return _query_state(client, item, by_tag, immutable_tags=registry.immutable_tags)
        except RegistryError as error:
            return error

    answers = [
        answer
        for _, answer in parallel.run_in_threads(
            query_item, unanswered, max(jobs, ASK_JOBS), client.close
        )
    ]
    errors = {answer.message: answer for answer in answers if isinstance(answer, UserError)}
    raise_all([errors[message] for message in sorted(errors)])
    found = [answer for answer in answers if isinstance(answer, MirrorItem)]
    return MirrorPlan(tuple(sorted([*present, *found], key=_target_key)))


def _query_state(
    client: RegistryClient, item: MirrorItem, by_tag: Container[WrittenRef], *, immutable_tags: bool
) -> MirrorItem | UserError:
    """Return the item with its state at the private registry, or why its tag can't be written."""
    found = client.get_digest(item.destination, patience=_ASK_SECONDS)
    if found in (None, item.digest) or not immutable_tags:
        return _with_state(item, found)
    if item.belongs_to:
        # Cosign moves the tag of a list of signatures; the list that is there stays.
        return replace(item, state="present")
    for name in item.ids:
        if name in by_tag:
            return item.target.immovable_tag_error(name, str(found))
    item = replace(item, push_tag=item.target.digest_tag)
    return _with_state(item, client.get_digest(item.destination, patience=_ASK_SECONDS))


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
    """Copy what is missing.

    Failures are collected, and the other images are copied all the same. ^C stops the transfers. A
    tag is written only when the whole image has arrived, so no tag leads to half an image.

    Args:
        known: a place at the destination for each blob, by digest, that it is known to have: see
            `find_known_places`.
        progress: receives what happens.
        stop: makes running transfers end at once.
        on_tick: called in the caller's thread about five times a second.

    Raises:
        KeyboardInterrupt: after all transfers have stopped.
    """
    progress = progress or MirrorProgress()
    items = sorted(todo.to_copy, key=lambda i: (bool(i.belongs_to), -(i.size or 0), _target_key(i)))
    scheduler = TransferScheduler(
        items,
        source=origin.get_host,
        destination=destination.get_host,
        place=destination.get_place,
        jobs=jobs,
        known=known,
    )
    progress.record_plan(
        len(todo.items), list(todo.present), lambda: (scheduler.bytes_found, scheduler.unread == 0)
    )
    cancelled = threading.Event()
    crashes: list[BaseException] = []

    def run_worker(number: int) -> None:
        try:
            TransferWorker(number, scheduler, origin, destination, progress, cancelled).run()
        except BaseException as error:
            crashes.append(error)
            scheduler.stop()

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
    except BaseException:
        cancelled.set()
        scheduler.stop()
        stop()
        raise
    finally:
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if crashes:
        stop()
        raise crashes[0]
    return MirrorSummary(
        copied=tuple(sorted(progress.copied, key=_target_key)),
        present=todo.present,
        failed=tuple(sorted(progress.failed, key=lambda f: _target_key(f.item))),
        tally=progress.tally,
    )


def find_known_places(todo: MirrorPlan, endpoints: MirrorEndpoints) -> dict[str, str]:
    """Return a place for each blob, by digest, of the images that the private registry has.

    Only images whose manifests are cached count: no registry is asked.
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
