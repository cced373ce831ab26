"""Import a bundle's images into the private registry, from the parts that are here.

Blobs are pushed even if the image needs another part that is missing: disks may come one after the
other, in any order. An image gets its tag when the registry has all of its blobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from kfdeploy import parallel
from kfdeploy.bundle import manifest, part_files, read_layout
from kfdeploy.bundle.layout_store import BundleOrigin
from kfdeploy.bundle.read_layout import AvailableBundle
from kfdeploy.errors import UserError, raise_all
from kfdeploy.files import sha256_hex
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.images.naming import MirrorRef
from kfdeploy.mirror.plan import MirrorItem, MirrorPlan
from kfdeploy.mirror.stores import BlobPieces, Destination, Origin, ReadableBlob
from kfdeploy.oci.manifest import Descriptor, ImageTree
from kfdeploy.oci.reference import ImageRef, WrittenRef

_JOBS: Final = 8
_LOCK_MAX: Final = 64 << 20

OnFileHashed = Callable[[str, int, int], None]
FetchBlob = Callable[[str, str, int], AbstractContextManager[ReadableBlob]]
"""Opens a blob of the private registry: repository, digest, offset."""


@dataclass(frozen=True)
class CheckedBundle:
    """A checked bundle, and its lock."""

    available: AvailableBundle
    lock: Lock

    @property
    def problems(self) -> tuple[UserError, ...]:
        """Return an error for each damaged file of the parts that are here."""
        return self.available.problems

    def list_notes(self, own_lock: bytes | None, *, is_verified: bool) -> list[str]:
        """Return notes for the operator, before anything is pushed.

        Args:
            own_lock: the bytes of the workspace's ``images.lock``.
        """
        notes = []
        if missing := self.available.missing:
            notes.append(
                f"{_format_parts(missing)} of {self.available.bundle.parts}"
                f" {'is' if len(missing) == 1 else 'are'} not here, or can't be used"
            )
        if self.available.is_signed and not is_verified:
            notes.append("the bundle is signed, but no key to check it is named: use --verify-key")
        if own_lock is not None and sha256_hex(own_lock) != self.available.bundle.lock:
            notes.append(
                "the workspace's images.lock differs from the bundle's: the images of the bundle's"
                " lock are pushed"
            )
        return notes

    def to_json(self) -> dict[str, Any]:
        bundle = self.available.bundle
        return {
            "lock": bundle.lock,
            "parts": bundle.parts,
            "missing": self.available.missing,
            "problems": [error.message for error in self.problems],
            "signed": self.available.is_signed,
            **({"since": bundle.since.lock} if bundle.since else {}),
        }


def open_bundle(
    folders: Sequence[Path],
    verify: read_layout.VerifySignature | None = None,
    *,
    hash_blobs: bool = False,
    on_progress: OnFileHashed | None = None,
) -> CheckedBundle:
    """Check the parts of a bundle; of blobs only the size, unless ``hash_blobs``.

    Raises:
        UserError: no part can be used, or the folders belong to different bundles.
    """
    found = read_layout.check_parts(
        read_layout.find_parts(folders),
        verify=verify,
        hash_blobs=hash_blobs,
        on_progress=on_progress,
    )
    path = next(iter(found.parts.values())).folder / manifest.LOCK_FILE
    try:
        data = part_files.read_file(path, _LOCK_MAX)
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if sha256_hex(data) != found.bundle.lock:
        raise UserError(f"{path}: changed while it was read")
    return CheckedBundle(found, lockfile.loads(data.decode(), str(path)))


def accept_any_key(
    keys: Sequence[Path], verify: Callable[[bytes, bytes, Path], None]
) -> read_layout.VerifySignature:
    """Return a check that accepts the signature of any of these keys."""

    def check_signature(data: bytes, signature: bytes) -> None:
        errors = []
        for key in keys:
            try:
                return verify(data, signature, key)
            except UserError as error:
                errors.append(error)
        return raise_all(errors)

    return check_signature


@dataclass(frozen=True)
class BundleImport:
    """The arguments of `run_mirror` for an import.

    Attributes:
        known: a place for each blob, by digest, that the private registry has.
        notes: images that the parts here can't complete, unless the registry has the rest.
    """

    origin: Origin
    destination: Destination
    known: dict[str, str]
    notes: tuple[str, ...]


def prepare_import(
    checked: CheckedBundle,
    plan: MirrorPlan,
    destination: Destination,
    repository: Callable[[str], str],
    fetch: FetchBlob,
    close: Callable[[], None] = lambda: None,
) -> BundleImport:
    """Find the blobs that are here, and those that the private registry has for a delta.

    Args:
        plan: the items of the bundle's lock with their states at the private registry.
        repository: returns the private registry's HOST/PATH for that of a reference as found.
        fetch: opens a blob of the private registry, which may not mount across repositories.
        close: makes running requests of other threads end at once.
    """
    source = BundleOrigin(checked.available)
    known: dict[str, str] = {}
    for item in plan.present:
        for blob in _list_blobs(source, item):
            known.setdefault(blob.digest, destination.get_place(item))
    expected = checked.available.bundle.expected
    needed = {
        blob.digest: blob
        for item in plan.to_copy
        for blob in _list_blobs(source, item)
        if blob.digest in expected and blob.digest not in known
    }

    def find_place(blob: Descriptor) -> str:
        for name in expected[blob.digest]:
            place = _resolve_place(destination, repository(name))
            if destination.has_blob(place, blob):
                return place
        return ""

    for blob, place in parallel.run_in_threads(find_place, needed.values(), _JOBS, close):
        if place:
            known[blob.digest] = place
    origin = _PartialOrigin(source, known, fetch)
    notes = [
        note
        for item in plan.to_copy
        if (note := origin.describe_missing(item, _list_blobs(source, item)))
    ]
    return BundleImport(origin, _PartialDestination(destination), known, tuple(notes))


class _PartialOrigin:
    """The bundle as an `Origin` that leaves out the blobs that are not here."""

    def __init__(self, source: BundleOrigin, known: dict[str, str], fetch: FetchBlob) -> None:
        self._source = source
        self._known = known
        self._fetch = fetch

    def get_host(self, item: MirrorItem) -> str:
        return self._source.get_host(item)

    def read_tree(self, item: MirrorItem) -> ImageTree:
        tree = self._source.read_tree(item)
        absent = self._absent_digests(tree.blobs)
        if not absent:
            return tree
        return _PartialTree(
            tree.root, tree.manifests, frozenset(absent), self.describe_missing(item, tree.blobs)
        )

    def open_blob(
        self, item: MirrorItem, blob: Descriptor, offset: int
    ) -> AbstractContextManager[ReadableBlob]:
        if (
            blob.digest not in self._source.available.bundle.by_digest
            and blob.digest in self._known
        ):
            return self._fetch(self._known[blob.digest], blob.digest, offset)
        return self._source.open_blob(item, blob, offset)

    def describe_missing(self, item: MirrorItem, blobs: Iterable[Descriptor]) -> str:
        """Return which parts or blobs an image lacks; empty if it lacks none."""
        blobs = list(blobs)
        absent = self._absent_digests(blobs)
        if not absent:
            return ""
        found = self._source.available
        if parts := found.list_needed_parts(blobs):
            verb = "is" if len(parts) == 1 else "are"
            text = (
                f"{item.name}: needs {_format_parts(parts)} of the bundle, which"
                f" {verb} not here or damaged"
            )
            if together := found.list_split_parts(blob for blob in blobs if blob.digest in absent):
                text += f"; {_format_parts(together)} together, as one of its blobs is split"
            return text
        return (
            f"{item.name}: {len(absent)} of its blobs are not in the bundle, which builds on an"
            " older lock, and the private registry lacks them"
        )

    def _absent_digests(self, blobs: Iterable[Descriptor]) -> set[str]:
        return {
            blob.digest
            for blob in blobs
            if blob.digest not in self._known and not self._source.available.has_blob(blob.digest)
        }


@dataclass(frozen=True)
class _PartialTree(ImageTree):
    """An image without some of its blobs: the mirror copies the others."""

    absent: frozenset[str]
    missing_reason: str

    @cached_property
    def blobs(self) -> tuple[Descriptor, ...]:
        return tuple(blob for blob in self.all_blobs if blob.digest not in self.absent)

    @property
    def all_blobs(self) -> tuple[Descriptor, ...]:
        return ImageTree(self.root, self.manifests).blobs


class _PartialDestination:
    """The private registry, which seals an image only if it has all of its blobs.

    An earlier run, with another part, may have pushed those that are not here.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination

    def get_host(self, item: MirrorItem) -> str:
        return self._destination.get_host(item)

    def get_place(self, item: MirrorItem) -> str:
        return self._destination.get_place(item)

    def has_blob(self, place: str, blob: Descriptor) -> bool:
        return self._destination.has_blob(place, blob)

    def mount_blob(self, place: str, blob: Descriptor, other: str) -> str | None:
        return self._destination.mount_blob(place, blob, other)

    def put_blob(self, place: str, blob: Descriptor, pieces: BlobPieces, begun: str = "") -> None:
        self._destination.put_blob(place, blob, pieces, begun)

    def seal_image(self, item: MirrorItem, tree: ImageTree) -> None:
        if isinstance(tree, _PartialTree):
            place = self.get_place(item)
            for blob in tree.all_blobs:
                if blob.digest in tree.absent and not self.has_blob(place, blob):
                    raise UserError(
                        tree.missing_reason,
                        hint="run the same command again with the missing parts: what was pushed"
                        " stays",
                    )
        self._destination.seal_image(item, tree)


def _list_blobs(source: BundleOrigin, item: MirrorItem) -> tuple[Descriptor, ...]:
    """Return the blobs of an image; none if the bundle lacks it, which fails later."""
    try:
        return source.read_tree(item).blobs
    except UserError:
        return ()


def _resolve_place(destination: Destination, repository: str) -> str:
    host, _, path = repository.partition("/")
    at = ImageRef(host, path)
    item = MirrorItem((WrittenRef(repository, at),), at, MirrorRef(at, "", ""), "", None, "present")
    return destination.get_place(item)


def _format_parts(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f"parts {', '.join(most)} and {last}" if most else f"part {last}"
