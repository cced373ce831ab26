"""The lock's images, and what else the far side needs, into a bundle.

`prepare` reads what each image consists of and lays out the parts; the mirror's engine then brings
the blobs between `Prepared.origin` and `Prepared.writer`, and `Prepared.finish` seals the parts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from kfdeploy import __version__, parallel
from kfdeploy.bundle import extras, wheels
from kfdeploy.bundle import manifest as bundle_files
from kfdeploy.bundle import plan as bundle_plan
from kfdeploy.bundle.extras import Along
from kfdeploy.bundle.manifest import Bundle
from kfdeploy.bundle.plan import Older
from kfdeploy.bundle.write_layout import Part, Writer
from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.files import sha256
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.mirror.plan import Failed, Item, Plan, show_bytes
from kfdeploy.mirror.stores import Origin, Readable
from kfdeploy.oci.manifest import Descriptor, Tree
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.transport import pause_after

_JOBS: Final = 8
_TRIES: Final = 4
_LIMIT_SECONDS: Final = 900.0

Each = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a bundle is to be.

    Attributes:
        to: its folder.
        part_size: bytes; 0 for a single part.
        only: the parts to write; all when empty.
        images_only: without wheels and programs.
        sets: release sets' folders that go along.
        named: files that kfdeploy.yaml names.
    """

    to: Path
    part_size: int = 0
    only: tuple[int, ...] = ()
    images_only: bool = False
    sets: tuple[Path, ...] = ()
    named: tuple[str, ...] = ()


@dataclass
class Prepared:
    """A bundle that can be written.

    Attributes:
        failed: images that could not be read: the bundle can't be finished without them.
        notes: what an operator should know.
    """

    writer: Writer
    origin: Origin
    items: tuple[Item, ...]
    failed: tuple[Failed, ...] = ()
    notes: list[str] = field(default_factory=list)
    _trees: dict[tuple[str, str], Tree] = field(default_factory=dict, repr=False)

    @property
    def bundle(self) -> Bundle:
        return self.writer.bundle

    def plan(self) -> Plan:
        """What is to be fetched; exact within `Writer.opened`, which moves what is there."""
        return Plan(tuple(self._with_state(item) for item in self.items))

    def finish(self, sign: Callable[[bytes], bytes] | None) -> tuple[Part, ...]:
        """Seal what is whole: see `Writer.finish`."""
        return self.writer.finish(sign)

    def lines(self) -> list[str]:
        """The layout for people: a line for each part."""
        return [
            f"{self.writer.folder(part)}: {len(self.bundle.content(part))} blobs and files,"
            f" {show_bytes(self.bundle.size(part))}"
            for part in self.writer.parts
        ]

    def to_json(self) -> dict[str, Any]:
        since = self.bundle.since
        return {
            "folder": str(self.writer.root),
            "lock": self.bundle.lock,
            "partSize": self.bundle.part_size or None,
            "parts": [
                {
                    "part": part,
                    "folder": str(self.writer.folder(part)),
                    "bytes": self.bundle.size(part),
                }
                for part in self.writer.parts
            ],
            **({"since": since.lock, "leftOut": len(since.images)} if since else {}),
        }

    def _with_state(self, item: Item) -> Item:
        place = self.writer.place(item)
        blobs = self._trees[item.source.repository, item.digest].blobs
        there = all(self.writer.has(place, blob) for blob in blobs)
        return replace(item, state="present" if there else "copy", replaces="")


def prepare(
    items: Sequence[Item],
    lock: Lock,
    root: Path,
    wish: Wish,
    origin: Origin,
    *,
    older: Older | None = None,
    close: Callable[[], None] = lambda: None,
    each: Each | None = None,
) -> Prepared:
    """Read what the images consist of, and lay out the parts. Nothing is written.

    Args:
        items: what a mirror of ``lock`` has.
        root: the workspace.
        older: what the far side has already.
        close: makes requests that threads wait for end at once.
        each: called with each image that was read, how many are, and of how many.

    Raises:
        UserError: parts too small, a part that the bundle does not have, or something that can't
            be taken along. Images that can't be read are no error: they are in `Prepared.failed`.
    """
    # In the order of the lock, which is the same for every private registry.
    ordered = sorted(items, key=lambda item: (item.ids, item.belongs_to, item.push_tag))
    trees, failed = _read(ordered, origin, close, each)
    known = [(item, trees[_key(item)]) for item in ordered if _key(item) in trees]
    along, notes = _along(root, lock, wish)
    text = lockfile.dumps(lock).encode()
    bundle = bundle_plan.plan(
        known,
        lock=sha256(text),
        kfdeploy=__version__,
        part_size=wish.part_size,
        common=len(text),
        files=[one.taken for one in along],
        older=older,
        wheels_for=() if wish.images_only else wheels.made_for(),
    )
    _must_have_parts(bundle, wish.only)
    carried = set(bundle.manifest_by_digest)
    bodies = {m.digest: m.body for _, tree in known for m in tree.manifests if m.digest in carried}
    writer = Writer(
        wish.to,
        bundle,
        manifests=bodies,
        lock=text,
        files={one.taken.path: one.open for one in along},
        only=wish.only,
        keep=bool(failed),
    )
    names = {image.name for image in bundle.images}
    wanted = [item for item, _ in known if names & {n.name for n in bundle_plan.names(item)}]
    if bundle.since is not None and bundle.since.images:
        notes.append(f"left out, as both locks have them: {len(bundle.since.images)} images")
    return Prepared(writer, _Read(origin, trees), tuple(wanted), tuple(failed), notes, trees)


def older(
    text: bytes,
    items: Sequence[Item],
    known: Callable[[Item], Tree | None],
    origin: Origin,
    close: Callable[[], None] = lambda: None,
) -> tuple[Older, list[str]]:
    """What the far side has, by the lock that it has.

    Args:
        text: the bytes of the lock's file.
        items: what a mirror of it has.
        known: the manifests of an image, if they are known without asking.
        origin: is asked for the others.

    Returns:
        That, and notes about images whose blobs can't be told any more.
    """
    trees = {_key(item): tree for item in items if (tree := known(item)) is not None}
    asked = [item for item in items if _key(item) not in trees]
    found, failed = _read(asked, origin, close, None)
    trees |= found
    notes = [
        f"{one.item.name}: its blobs are not left out, as it can't be read any more:"
        f" {one.error.message}"
        for one in failed
    ]
    return Older.of(sha256(text), [(item, trees.get(_key(item))) for item in items]), notes


def _read(
    items: Sequence[Item], origin: Origin, close: Callable[[], None], each: Each | None
) -> tuple[dict[tuple[str, str], Tree], list[Failed]]:
    trees: dict[tuple[str, str], Tree] = {}
    failed: list[Failed] = []
    ended = threading.Event()

    def stop() -> None:
        ended.set()
        close()

    def work(item: Item) -> Tree | UserError:
        try:
            tree = _patiently(lambda: origin.tree(item), ended)
        except UserError as error:
            return error
        if tree.root.digest == item.digest:
            return tree
        return UserError(
            f"{item.name}: it is {tree.root.digest}, and the lock says {item.digest}",
            hint="run `kfdeploy lock`",
        )

    for done, (item, found) in enumerate(parallel.each(work, items, _JOBS, stop), 1):
        if isinstance(found, UserError):
            failed.append(Failed(item, found))
        else:
            trees[_key(item)] = found
        if each is not None:
            each(item.name, done, len(items))
    return trees, sorted(failed, key=lambda one: one.item.sort_key)


def _patiently(read: Callable[[], Tree], ended: threading.Event) -> Tree:
    """What a source says once it listens: nothing else can be done meanwhile."""
    began = time.monotonic()
    tries = 0
    while True:
        try:
            return read()
        except RegistryError as error:
            tries += 1
            seconds = error.wait_seconds or pause_after(tries)
            is_late = time.monotonic() + seconds > began + _LIMIT_SECONDS
            if is_late or not (error.is_limit or (error.may_pass and tries < _TRIES)):
                raise
            if ended.wait(seconds):
                raise


def _along(root: Path, lock: Lock, wish: Wish) -> tuple[list[Along], list[str]]:
    found = extras.workspace(root, wish.sets, wish.named)
    notes = [note for path in wish.sets if (note := _note_on(path, lock))]
    if not wish.sets:
        notes.append("there is no release set: the bundle goes without one (`kfdeploy render`)")
    if not wish.images_only:
        programs, notes_of_programs = extras.programs()
        found += [*extras.own(), *programs]
        notes += notes_of_programs
    return found, notes


def _note_on(release_set: Path, lock: Lock) -> str:
    """What is to be said of a set whose images are not all the lock's."""
    path = release_set / bundle_files.LOCK
    if not path.is_file():
        return ""
    others = [i.id for i in lockfile.read(path) if i.digest != _digest(lock, i.id)]
    if not others:
        return ""
    return (
        f"the release set {release_set.name} was rendered from another images.lock: the bundle has"
        f" not its {others[0]}" + (f" and {len(others) - 1} more" if others[1:] else "")
    )


def _digest(lock: Lock, name: str) -> str:
    image = lock.find(name)
    return image.digest if image else ""


def _must_have_parts(bundle: Bundle, only: Iterable[int]) -> None:
    for part in only:
        if not 1 <= part <= bundle.parts:
            raise UserError(
                f"--part {part}: the bundle has the parts 1 to {bundle.parts}", exit_code=WRONG_USE
            )


def _key(item: Item) -> tuple[str, str]:
    return item.source.repository, item.digest


class _Read:
    """An origin whose images have been read."""

    def __init__(self, origin: Origin, trees: dict[tuple[str, str], Tree]) -> None:
        self._origin = origin
        self._trees = trees

    def host(self, item: Item) -> str:
        return self._origin.host(item)

    def tree(self, item: Item) -> Tree:
        return self._trees[_key(item)]

    def open(self, item: Item, blob: Descriptor, offset: int) -> AbstractContextManager[Readable]:
        return self._origin.open(item, blob, offset)
