"""A bundle's images into the private registry, as far as its parts are here.

What an image has in the parts that are here is pushed even when another part is missing: disks may
come one after the other, in any order. It gets its tag when the registry has all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from kfdeploy import parallel
from kfdeploy.bundle import manifest as model
from kfdeploy.bundle import part_files, read_layout
from kfdeploy.bundle.layout_store import Source
from kfdeploy.bundle.read_layout import Found
from kfdeploy.errors import UserError, raise_all
from kfdeploy.files import sha256
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.images.naming import Target
from kfdeploy.mirror.plan import Item, Plan
from kfdeploy.mirror.stores import Destination, Origin, Pieces, Readable
from kfdeploy.oci.manifest import Descriptor, Tree
from kfdeploy.oci.reference import ImageRef

_JOBS: Final = 8
_LOCK_MAX: Final = 64 << 20

Each = Callable[[str, int, int], None]
Fetch = Callable[[str, str, int], AbstractContextManager[Readable]]
"""Opens a blob of the private registry: repository, digest, offset."""


@dataclass(frozen=True)
class Opened:
    """A bundle that was checked."""

    found: Found
    lock: Lock

    @property
    def problems(self) -> tuple[UserError, ...]:
        """What is wrong with parts that are here."""
        return self.found.problems

    def notes(self, own_lock: bytes | None, *, is_verified: bool) -> list[str]:
        """What an operator should know before anything is pushed.

        Args:
            own_lock: the bytes of the workspace's ``images.lock``.
        """
        notes = []
        if missing := self.found.missing:
            notes.append(
                f"{_parts(missing)} of {self.found.bundle.parts}"
                f" {'is' if len(missing) == 1 else 'are'} not here, or can't be used"
            )
        if self.found.is_signed and not is_verified:
            notes.append("the bundle is signed, and --verify-key names no key to check that with")
        if own_lock is not None and sha256(own_lock) != self.found.bundle.lock:
            notes.append(
                "the workspace's images.lock is another than the bundle's: the images of the"
                " bundle's are pushed"
            )
        return notes

    def to_json(self) -> dict[str, Any]:
        bundle = self.found.bundle
        return {
            "lock": bundle.lock,
            "parts": bundle.parts,
            "missing": list(self.found.missing),
            "problems": [error.message for error in self.problems],
            "signed": self.found.is_signed,
            **({"since": bundle.since.lock} if bundle.since else {}),
        }


def opened(
    given: Sequence[Path],
    verify: read_layout.Verify | None = None,
    *,
    whole: bool = False,
    each: Each | None = None,
) -> Opened:
    """Check the parts of a bundle; blobs only for being there, unless ``whole``.

    Raises:
        UserError: nothing of it can be used, or folders are of different bundles.
    """
    found = read_layout.check(read_layout.find(given), verify=verify, whole=whole, each=each)
    path = next(iter(found.parts.values())).folder / model.LOCK
    try:
        data = part_files.read(path, _LOCK_MAX)
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if sha256(data) != found.bundle.lock:
        raise UserError(f"{path}: changed while it was read")
    return Opened(found, lockfile.loads(data.decode(), str(path)))


def any_of(
    keys: Sequence[Path], verify: Callable[[bytes, bytes, Path], None]
) -> read_layout.Verify:
    """A check that one of several keys has signed."""

    def check(data: bytes, signature: bytes) -> None:
        errors = []
        for key in keys:
            try:
                return verify(data, signature, key)
            except UserError as error:
                errors.append(error)
        return raise_all(errors)

    return check


@dataclass(frozen=True)
class Arrival:
    """What the mirror's engine works between.

    Attributes:
        known: blobs that the private registry has, by digest, with a place of each.
        notes: images that can't be completed by what is here, unless the registry has the rest.
    """

    origin: Origin
    destination: Destination
    known: dict[str, str]
    notes: tuple[str, ...]


def arrive(
    opened: Opened,
    plan: Plan,
    destination: Destination,
    repository: Callable[[str], str],
    fetch: Fetch,
    close: Callable[[], None] = lambda: None,
) -> Arrival:
    """Find out what is here, and whether what a delta expects is at the private registry.

    Args:
        plan: what the private registry lacks of the bundle's lock.
        repository: the private registry's HOST/PATH for a HOST/PATH of a reference as found.
        fetch: for registries that do not mount blobs across repositories.
        close: makes requests that threads wait for end at once.
    """
    source = Source(opened.found)
    known: dict[str, str] = {}
    for item in plan.present:
        for blob in _blobs(source, item):
            known.setdefault(blob.digest, destination.place(item))
    expected = opened.found.bundle.expected
    needed = {
        blob.digest: blob
        for item in plan.to_copy
        for blob in _blobs(source, item)
        if blob.digest in expected and blob.digest not in known
    }

    def look(blob: Descriptor) -> str:
        for name in expected[blob.digest]:
            place = _place(destination, repository(name))
            if destination.has(place, blob):
                return place
        return ""

    for blob, place in parallel.each(look, needed.values(), _JOBS, close):
        if place:
            known[blob.digest] = place
    origin = _Arriving(source, known, fetch)
    notes = [note for item in plan.to_copy if (note := origin.lacks(item, _blobs(source, item)))]
    return Arrival(origin, _Sealing(destination), known, tuple(notes))


class _Arriving:
    """The bundle as an origin that gives what it has of an image."""

    def __init__(self, source: Source, known: dict[str, str], fetch: Fetch) -> None:
        self._source = source
        self._known = known
        self._fetch = fetch

    def host(self, item: Item) -> str:
        return self._source.host(item)

    def tree(self, item: Item) -> Tree:
        tree = self._source.tree(item)
        absent = self._absent(tree.blobs)
        if not absent:
            return tree
        return _Partial(tree.root, tree.manifests, frozenset(absent), self.lacks(item, tree.blobs))

    def open(self, item: Item, blob: Descriptor, offset: int) -> AbstractContextManager[Readable]:
        if blob.digest not in self._source.found.bundle.by_digest and blob.digest in self._known:
            return self._fetch(self._known[blob.digest], blob.digest, offset)
        return self._source.open(item, blob, offset)

    def lacks(self, item: Item, blobs: Iterable[Descriptor]) -> str:
        """What an image needs that is not here; empty when all of it is."""
        blobs = list(blobs)
        absent = self._absent(blobs)
        if not absent:
            return ""
        found = self._source.found
        if parts := found.needs(blobs):
            is_ = "is" if len(parts) == 1 else "are"
            said = (
                f"{item.name}: needs {_parts(parts)} of the bundle, which {is_} not here or damaged"
            )
            if together := found.together(blob for blob in blobs if blob.digest in absent):
                said += f"; {_parts(together)} at a time, as a blob lies in them in pieces"
            return said
        return (
            f"{item.name}: {len(absent)} of its blobs are not in the bundle, which builds on an"
            " older lock, and the private registry lacks them"
        )

    def _absent(self, blobs: Iterable[Descriptor]) -> set[str]:
        return {
            blob.digest
            for blob in blobs
            if blob.digest not in self._known and not self._source.found.has(blob.digest)
        }


@dataclass(frozen=True)
class _Partial(Tree):
    """An image of which some blobs are not here: the engine brings the others."""

    absent: frozenset[str]
    why: str

    @cached_property
    def blobs(self) -> tuple[Descriptor, ...]:
        return tuple(blob for blob in self.all_blobs if blob.digest not in self.absent)

    @property
    def all_blobs(self) -> tuple[Descriptor, ...]:
        return Tree(self.root, self.manifests).blobs


class _Sealing:
    """The private registry, where an image is sealed only when all of it is there.

    What was not here may be there from an earlier run, with another part.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination

    def host(self, item: Item) -> str:
        return self._destination.host(item)

    def place(self, item: Item) -> str:
        return self._destination.place(item)

    def has(self, place: str, blob: Descriptor) -> bool:
        return self._destination.has(place, blob)

    def mount(self, place: str, blob: Descriptor, other: str) -> str | None:
        return self._destination.mount(place, blob, other)

    def put(self, place: str, blob: Descriptor, pieces: Pieces, begun: str = "") -> None:
        self._destination.put(place, blob, pieces, begun)

    def seal(self, item: Item, tree: Tree) -> None:
        if isinstance(tree, _Partial):
            place = self.place(item)
            for blob in tree.all_blobs:
                if blob.digest in tree.absent and not self.has(place, blob):
                    raise UserError(
                        tree.why,
                        hint="run the same command again with what is missing: what was pushed"
                        " stays",
                    )
        self._destination.seal(item, tree)


def _blobs(source: Source, item: Item) -> tuple[Descriptor, ...]:
    """All blobs of an image; none when the bundle does not have it, which is said later."""
    try:
        return source.tree(item).blobs
    except UserError:
        return ()


def _place(destination: Destination, repository: str) -> str:
    host, _, path = repository.partition("/")
    at = ImageRef(host, path)
    target = Target(repository, "", "", "")
    return destination.place(Item((repository,), at, target, "", None, "present"))


def _parts(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f"parts {', '.join(most)} and {last}" if most else f"part {last}"
