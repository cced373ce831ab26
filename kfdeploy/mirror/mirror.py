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
from kfdeploy.mirror.plan import Item, Plan, State, Summary, wanted_items
from kfdeploy.mirror.progress import Watch
from kfdeploy.mirror.registry_store import RegistryDestination, RegistryOrigin
from kfdeploy.mirror.scheduler import Board
from kfdeploy.mirror.stores import Destination, Origin
from kfdeploy.mirror.worker import Worker
from kfdeploy.oci.registry.access import Reaches
from kfdeploy.oci.registry.client import Client, manifest_path
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.manifest_cache import Manifests
from kfdeploy.oci.registry.settings import MirrorSettings
from kfdeploy.oci.registry.transport import Patience

JOBS: Final = 8
"""Blobs on the way at a time."""
ASK_JOBS: Final = 16
"""Small requests at a time: what they take is mostly waiting."""
_ASK_SECONDS: Final = 60.0
_TICK_SECONDS: Final = 0.2
_PATIENCE: Final = Patience(busy_seconds=0.0, outage_seconds=60.0, tries=3)
"""A registry that is busy is not waited for by a worker: the board has other work for it."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What a mirror works between."""

    client: Client
    manifests: Manifests
    origin: RegistryOrigin
    destination: RegistryDestination


@contextlib.contextmanager
def opened(settings: MirrorSettings, root: Path, cache: Cache) -> Iterator[Sides]:
    """The registries that a workspace names, until the block ends.

    Args:
        root: the workspace's folder, which paths in kfdeploy.yaml are relative to.
    """
    with Client(Reaches(settings, root), patience=_PATIENCE) as client:
        manifests = Manifests(client, cache)
        yield Sides(
            client,
            manifests,
            RegistryOrigin(client, manifests),
            RegistryDestination(client, settings.private, root),
        )


def asking(settings: MirrorSettings, root: Path) -> Client:
    """A client that only asks; to be closed by ``with``. Arguments as for `opened`."""
    return Client(Reaches(settings, root))


def plan(
    lock: Lock,
    settings: MirrorSettings,
    *,
    client: Client,
    jobs: int = ASK_JOBS,
    by_tag: Container[str] = (),
    answered: Container[tuple[str, str]] = (),
) -> Plan:
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
    items: list[Item] = []

    def ask(item: Item) -> Item | UserError:
        try:
            found = client.digest(item.destination, patience=_ASK_SECONDS)
            if found not in (None, item.digest) and registry.immutable_tags:
                if item.belongs_to:
                    # Cosign moves the tag of a list of signatures; the list that is there stays.
                    return replace(item, state="present")
                for name in item.ids:
                    if name in by_tag:
                        return item.target.immovable(name, str(found))
                item = replace(item, push_tag=item.target.digest_tag)
                found = client.digest(item.destination, patience=_ASK_SECONDS)
        except RegistryError as error:
            return error
        return _with_state(item, found)

    wanted: list[Item] = []
    for item in wanted_items(lock, registry, settings.sources, settings.platforms):
        if (manifest_path(item.destination), item.digest) in answered:
            items.append(replace(item, state="present"))
        else:
            wanted.append(item)
    if items:
        client.exchange.has_answered(registry.host)
    for _, found in parallel.each(ask, wanted, max(jobs, ASK_JOBS), client.close):
        if isinstance(found, UserError):
            errors.setdefault(found.message, found)
        else:
            items.append(found)
    raise_all([errors[message] for message in sorted(errors)])
    return Plan(tuple(sorted(items, key=_by_target)))


def run(
    todo: Plan,
    origin: Origin,
    destination: Destination,
    *,
    jobs: int = JOBS,
    known: Mapping[str, str] | None = None,
    watch: Watch | None = None,
    stop: Callable[[], None] = lambda: None,
    on_tick: Callable[[], None] = lambda: None,
) -> Summary:
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
    watch = watch or Watch()
    items = sorted(todo.to_copy, key=lambda i: (bool(i.belongs_to), -(i.size or 0), _by_target(i)))
    board = Board(
        items,
        source=origin.host,
        destination=destination.host,
        place=destination.place,
        jobs=jobs,
        known=known,
    )
    watch.starts(
        len(todo.items), list(todo.present), lambda: (board.bytes_found, board.unread == 0)
    )
    cancelled = threading.Event()
    mistakes: list[BaseException] = []

    def work(number: int) -> None:
        try:
            Worker(number, board, origin, destination, watch, cancelled).run()
        except BaseException as error:
            mistakes.append(error)
            board.stop()

    threads = [
        threading.Thread(target=work, args=(number,), name=f"mirror-{number}")
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
    return Summary(
        copied=tuple(sorted(watch.copied, key=_by_target)),
        present=todo.present,
        failed=tuple(sorted(watch.failed, key=lambda f: _by_target(f.item))),
        tally=watch.tally,
    )


def places(todo: Plan, sides: Sides) -> dict[str, str]:
    """Blobs that the private registry has in images that are there, by digest, with their place.

    As far as the cache knows their manifests: nobody is asked.
    """
    if not todo.to_copy:
        return {}
    sources = {item.digest: (item.source.digest, item.platforms) for item in todo.present}
    blobs = sides.manifests.known_blobs(sources)
    found: dict[str, str] = {}
    for item in todo.present:
        for digest in blobs.get(item.digest, ()):
            found.setdefault(digest, sides.destination.place(item))
    return found


def _with_state(item: Item, found: str | None) -> Item:
    state: State = "copy" if found is None else "replace"
    if found == item.digest:
        state, found = "present", None
    return replace(item, state=state, replaces=found or "")


def _by_target(item: Item) -> str:
    return item.sort_key
