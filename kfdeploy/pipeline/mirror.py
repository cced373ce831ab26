"""The lock's images into the private registry.

`plan` asks the private registry what it has, with one small request an image; `run` copies the
rest. An image counts as there only when its tag has the digest of the lock: what was broken off
is copied again, and what was finished is not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kfdeploy.errors import UserError, raise_all
from kfdeploy.model.environment import Mirror, Sources
from kfdeploy.model.lockfile import Lock, LockedImage
from kfdeploy.model.transfer import (
    EventState,
    Failed,
    Item,
    MirrorEvent,
    Plan,
    State,
    Summary,
)
from kfdeploy.tools import pool, skopeo
from kfdeploy.tools.reach import Reaches
from kfdeploy.tools.registry import Client
from kfdeploy.tools.registry_errors import RegistryError

if TYPE_CHECKING:
    from kfdeploy.model.workspace import Environment, Workspace

JOBS: Final = 4
"""Copies at a time: each moves six layers at a time itself."""
ASK_JOBS: Final = 8
_TRIES: Final = 3
_PAUSE_SECONDS: Final = 1.0


def plan(
    lock: Lock,
    workspace: Workspace,
    environment: Environment,
    *,
    client: Client,
    jobs: int = ASK_JOBS,
) -> Plan:
    """Find out what the private registry lacks: one HEAD for each image.

    Raises:
        UserError: two images on one target, or the private registry can't be asked; the same
            complaint about many images is one error.
    """
    targets = Mirror(workspace.registry(environment)).targets(lock.images)
    sources = Sources(workspace.registries.sources)
    groups: dict[str, list[LockedImage]] = {}
    for image in lock.images:
        groups.setdefault(targets[image.id].reference, []).append(image)
    errors: dict[str, UserError] = {}
    items: list[Item] = []

    def ask(reference: str) -> Item | UserError:
        images = groups[reference]
        image = images[0]
        item = Item(
            ids=tuple(i.id for i in images),
            source=sources.locate(image.image),
            target=targets[image.id],
            digest=image.digest,
            size=image.size,
            state="copy",
        )
        try:
            found = client.digest(item.destination)
        except RegistryError as error:
            return error
        return _with_state(item, found)

    for _, item in pool.each(ask, groups, jobs, client.close):
        if isinstance(item, UserError):
            errors.setdefault(item.message, item)
        else:
            items.append(item)
    raise_all([errors[message] for message in sorted(errors)])
    return Plan(tuple(sorted(items, key=lambda i: i.target.reference)))


def run(
    todo: Plan,
    *,
    client: Client,
    jobs: int = JOBS,
    on_event: Callable[[MirrorEvent], None] | None = None,
) -> Summary:
    """Copy what is missing, and see that it has arrived at its digest.

    Images that fail are collected; the others are copied all the same. ^C stops the copies: a
    registry shows an image only when all of it has arrived, so nothing half is left under a tag.

    Args:
        on_event: called in the caller's thread, except for ``copying`` and ``retrying``.

    Raises:
        UserError: skopeo is missing or too old.
        KeyboardInterrupt: after all copies have stopped.
    """
    progress = _Progress(todo, on_event)
    if not todo.to_copy:
        return Summary((), todo.present, ())
    cancelled = threading.Event()

    def stop() -> None:
        cancelled.set()
        client.close()

    copied: list[Item] = []
    failed: list[Failed] = []
    hosts = {host for item in todo.to_copy for host in (item.source.host, item.destination.host)}
    with skopeo.opened(client, hosts, cancelled) as program:

        def work(item: Item) -> UserError | None:
            try:
                _copy(item, program, client, progress, cancelled)
            except UserError as error:
                return error
            return None

        for item, error in pool.each(work, _largest_first(todo.to_copy), jobs, stop):
            if error is None:
                copied.append(item)
                progress.finished(item, "copied")
            else:
                failed.append(Failed(item, error))
                progress.finished(item, "failed", error.message)
    return Summary(
        copied=tuple(sorted(copied, key=lambda i: i.target.reference)),
        present=todo.present,
        failed=tuple(sorted(failed, key=lambda f: f.item.target.reference)),
    )


def opened(workspace: Workspace, environment: Environment, root: Path) -> Client:
    """The client that `plan` and `run` share; to be closed by ``with``.

    Args:
        root: the workspace's folder, which paths in kfdeploy.yaml are relative to.
    """
    return Client(Reaches(workspace.registries, workspace.registry(environment), root))


def _with_state(item: Item, found: str | None) -> Item:
    state: State = "copy" if found is None else "replace"
    if found == item.digest:
        state, found = "present", None
    return replace(item, state=state, replaces=found or "")


def _copy(
    item: Item,
    program: skopeo.Skopeo,
    client: Client,
    progress: _Progress,
    cancelled: threading.Event,
) -> None:
    progress.tell(item, "copying")
    for attempt in range(1, _TRIES + 1):
        try:
            program.copy(item.source, item.destination)
            break
        except skopeo.CopyFailed as error:
            if error.hopeless or attempt == _TRIES:
                raise
            progress.tell(item, "retrying", error.message)
        if cancelled.wait(_PAUSE_SECONDS * 2**attempt):
            raise KeyboardInterrupt
    found = client.digest(item.destination)
    if found != item.digest:
        raise UserError(
            f"{item.target.reference}: copied, and the private registry then has"
            f" {found or 'nothing'} there instead of {item.digest}",
            hint="does the registry change images, or does something else push to this tag?",
        )


def _largest_first(items: Sequence[Item]) -> list[Item]:
    """The largest copy begun last would be waited for alone at the end."""
    return sorted(items, key=lambda i: (-(i.size or 0), i.target.reference))


class _Progress:
    def __init__(self, todo: Plan, on_event: Callable[[MirrorEvent], None] | None) -> None:
        self._on_event = on_event
        self._lock = threading.Lock()
        self._total = len(todo.items)
        self._bytes_total = todo.size
        self._bytes_done = 0
        self._done = 0
        for item in todo.present:
            self._done += 1
            self.tell(item, "present")

    def finished(self, item: Item, state: EventState, message: str = "") -> None:
        with self._lock:
            self._done += 1
            self._bytes_done += item.size or 0
        self.tell(item, state, message)

    def tell(self, item: Item, state: EventState, message: str = "") -> None:
        if self._on_event is None:
            return
        with self._lock:
            event = MirrorEvent(
                image=item.ids[0],
                state=state,
                done=self._done,
                total=self._total,
                bytes_done=self._bytes_done,
                bytes_total=self._bytes_total,
                message=message,
            )
            self._on_event(event)
