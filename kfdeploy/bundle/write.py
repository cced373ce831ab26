"""Write the lock's images, and the files that the far side needs, into a bundle.

`prepare_bundle` reads the manifests of each image and plans the parts. `run_mirror` then copies the
blobs from `PreparedBundle.origin` to `PreparedBundle.writer`, and `PreparedBundle.finish_parts`
seals the parts.
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
from kfdeploy.bundle.extras import BundleExtra
from kfdeploy.bundle.manifest import Bundle
from kfdeploy.bundle.plan import DeliveredContents
from kfdeploy.bundle.write_layout import BundlePart, BundleWriter
from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.files import sha256_hex
from kfdeploy.http.retry import retry_delay
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.mirror.plan import MirrorFailure, MirrorItem, MirrorPlan
from kfdeploy.mirror.stores import Origin, ReadableBlob
from kfdeploy.oci.manifest import Descriptor, ImageTree
from kfdeploy.oci.reference import WrittenRef
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.wording import format_bytes

_JOBS: Final = 8
_TRIES: Final = 4
_LIMIT_SECONDS: Final = 900.0

OnImageRead = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """The options of a bundle.

    Attributes:
        to: its folder.
        part_size: bytes; 0 for a bundle that is not in parts.
        only: numbers of the parts to write; empty for all.
        images_only: leave wheels and programs out.
        sets: folders of the release sets to include.
        named_files: paths of files that kfdeploy.yaml names.
    """

    to: Path
    part_size: int = 0
    only: tuple[int, ...] = ()
    images_only: bool = False
    sets: tuple[Path, ...] = ()
    named_files: tuple[str, ...] = ()


@dataclass
class PreparedBundle:
    """A planned bundle, ready to be written.

    Attributes:
        failed: images that could not be read; the bundle can't be finished without them.
        notes: notes for the operator.
    """

    writer: BundleWriter
    origin: Origin
    items: tuple[MirrorItem, ...]
    failed: tuple[MirrorFailure, ...] = ()
    notes: list[str] = field(default_factory=list)
    _trees: dict[tuple[str, str], ImageTree] = field(default_factory=dict, repr=False)

    @property
    def bundle(self) -> Bundle:
        return self.writer.bundle

    def build_plan(self) -> MirrorPlan:
        """Return the items and their states; final only within `BundleWriter.open_for_writing`."""
        return MirrorPlan(tuple(self._with_state(item) for item in self.items))

    def finish_parts(self, sign: Callable[[bytes], bytes] | None) -> tuple[BundlePart, ...]:
        """Seal the complete parts: see `BundleWriter.finish_parts`."""
        return self.writer.finish_parts(sign)

    def format_lines(self) -> list[str]:
        """Return a line for each part, for people."""
        return [
            f"{self.writer.part_folder(part)}:"
            f" {len(self.bundle.list_part_files(part))} blobs and files,"
            f" {format_bytes(self.bundle.count_part_bytes(part))}"
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
                    "folder": str(self.writer.part_folder(part)),
                    "bytes": self.bundle.count_part_bytes(part),
                }
                for part in self.writer.parts
            ],
            **({"since": since.lock, "leftOut": len(since.images)} if since else {}),
        }

    def _with_state(self, item: MirrorItem) -> MirrorItem:
        place = self.writer.get_place(item)
        blobs = self._trees[item.source.repository, item.digest].blobs
        there = all(self.writer.has_blob(place, blob) for blob in blobs)
        return replace(item, state="present" if there else "copy", replaces="")


def prepare_bundle(
    items: Sequence[MirrorItem],
    lock: Lock,
    root: Path,
    options: BundleOptions,
    origin: Origin,
    *,
    older: DeliveredContents | None = None,
    close: Callable[[], None] = lambda: None,
    on_progress: OnImageRead | None = None,
) -> PreparedBundle:
    """Read the manifests of the images, and plan the parts. Nothing is written.

    Args:
        items: the mirror items of ``lock``.
        root: the workspace.
        older: the images and blobs that the far side has already.
        close: makes running requests of other threads end at once.
        on_progress: called for each image read with its name, the number read so far, and the
            number in all.

    Raises:
        UserError: the parts are too small, an option names a part that the bundle does not have,
            or a file can't be in a bundle. Images that can't be read are no error: see
            `PreparedBundle.failed`.
    """
    # In the order of the lock, which is the same for every private registry.
    ordered = sorted(items, key=lambda item: (item.ids, item.belongs_to, item.push_tag))
    trees, failed = _read_trees(ordered, origin, close, on_progress)
    known = [(item, trees[_tree_key(item)]) for item in ordered if _tree_key(item) in trees]
    files, notes = _collect_extras(root, lock, options)
    text = lockfile.dumps(lock).encode()
    bundle = bundle_plan.plan_bundle(
        known,
        lock=sha256_hex(text),
        kfdeploy=__version__,
        part_size=options.part_size,
        common=len(text),
        files=[extra.taken for extra in files],
        older=older,
        wheels_for=() if options.images_only else wheels.describe_platform(),
    )
    _check_part_numbers(bundle, options.only)
    carried = set(bundle.manifest_by_digest)
    bodies = {m.digest: m.body for _, tree in known for m in tree.manifests if m.digest in carried}
    writer = BundleWriter(
        options.to,
        bundle,
        manifests=bodies,
        lock=text,
        files={extra.taken.path: extra.open for extra in files},
        only=options.only,
        keep=bool(failed),
    )
    names = {image.name for image in bundle.images}
    wanted = [
        item for item, _ in known if names & {n.name for n in bundle_plan.list_bundle_images(item)}
    ]
    if bundle.since is not None and bundle.since.images:
        notes.append(f"left out, as both locks have them: {len(bundle.since.images)} images")
    return PreparedBundle(
        writer, _CachedOrigin(origin, trees), tuple(wanted), tuple(failed), notes, trees
    )


def find_delivered(
    text: bytes,
    items: Sequence[MirrorItem],
    known: Callable[[MirrorItem], ImageTree | None],
    origin: Origin,
    close: Callable[[], None] = lambda: None,
) -> tuple[DeliveredContents, list[str]]:
    """Find out which images and blobs the far side has, from its lock.

    Args:
        text: the bytes of the far side's images.lock.
        items: the mirror items of that lock.
        known: returns the cached manifests of an image, or None.
        origin: is asked for manifests that are not cached.

    Returns:
        The images and blobs, and notes about images that can no longer be read.
    """
    trees = {_tree_key(item): tree for item in items if (tree := known(item)) is not None}
    asked = [item for item in items if _tree_key(item) not in trees]
    found, failed = _read_trees(asked, origin, close, None)
    trees |= found
    notes = [
        f"{failure.item.name}: its blobs are not left out, as it can't be read any more:"
        f" {failure.error.message}"
        for failure in failed
    ]
    return DeliveredContents.from_items(
        sha256_hex(text), [(item, trees.get(_tree_key(item))) for item in items]
    ), notes


def _read_trees(
    items: Sequence[MirrorItem],
    origin: Origin,
    close: Callable[[], None],
    on_progress: OnImageRead | None,
) -> tuple[dict[tuple[str, str], ImageTree], list[MirrorFailure]]:
    trees: dict[tuple[str, str], ImageTree] = {}
    failed: list[MirrorFailure] = []
    ended = threading.Event()

    def cancel_requests() -> None:
        ended.set()
        close()

    def read_item(item: MirrorItem) -> ImageTree | UserError:
        try:
            tree = _retry_while_busy(lambda: origin.read_tree(item), ended)
        except UserError as error:
            return error
        if tree.root.digest == item.digest:
            return tree
        return UserError(
            f"{item.name}: its digest is {tree.root.digest}, but images.lock says {item.digest}",
            hint="run `kfdeploy lock` again",
        )

    for done, (item, found) in enumerate(
        parallel.run_in_threads(read_item, items, _JOBS, cancel_requests), 1
    ):
        if isinstance(found, UserError):
            failed.append(MirrorFailure(item, found))
        else:
            trees[_tree_key(item)] = found
        if on_progress is not None:
            on_progress(item.name, done, len(items))
    return trees, sorted(failed, key=lambda failure: failure.item.sort_key)


def _retry_while_busy(read: Callable[[], ImageTree], ended: threading.Event) -> ImageTree:
    """Return the manifests; wait while the source is busy, as no other work can be done."""
    began = time.monotonic()
    tries = 0
    while True:
        try:
            return read()
        except RegistryError as error:
            tries += 1
            seconds = error.wait_seconds or retry_delay(tries)
            is_late = time.monotonic() + seconds > began + _LIMIT_SECONDS
            if is_late or not (error.is_limit or (error.is_transient and tries < _TRIES)):
                raise
            if ended.wait(seconds):
                raise


def _collect_extras(
    root: Path, lock: Lock, options: BundleOptions
) -> tuple[list[BundleExtra], list[str]]:
    found = extras.collect_workspace(root, options.sets, options.named_files)
    notes = [note for path in options.sets if (note := _describe_lock_mismatch(path, lock))]
    if not options.sets:
        notes.append("the bundle has no release set: `kfdeploy render` makes one")
    if not options.images_only:
        programs, program_notes = extras.collect_programs()
        found += [*extras.collect_wheels(), *programs]
        notes += program_notes
    return found, notes


def _describe_lock_mismatch(release_set: Path, lock: Lock) -> str:
    """Return a note if a release set has images that the lock lacks; else empty."""
    path = release_set / bundle_files.LOCK_FILE
    if not path.is_file():
        return ""
    others = [i.id for i in lockfile.read_lock(path) if i.digest != _locked_digest(lock, i.id)]
    if not others:
        return ""
    return (
        f"the release set {release_set.name} was rendered from another images.lock: the bundle"
        f" lacks its {others[0]}" + (f" and {len(others) - 1} more" if others[1:] else "")
    )


def _locked_digest(lock: Lock, ref: WrittenRef) -> str:
    image = lock.find_image(ref)
    return image.digest if image else ""


def _check_part_numbers(bundle: Bundle, only: Iterable[int]) -> None:
    for part in only:
        if not 1 <= part <= bundle.parts:
            raise UserError(
                f"--part {part}: the bundle has parts 1 to {bundle.parts}", exit_code=WRONG_USE
            )


def _tree_key(item: MirrorItem) -> tuple[str, str]:
    return item.source.repository, item.digest


class _CachedOrigin:
    """An `Origin` whose manifests have been read already."""

    def __init__(self, origin: Origin, trees: dict[tuple[str, str], ImageTree]) -> None:
        self._origin = origin
        self._trees = trees

    def get_host(self, item: MirrorItem) -> str:
        return self._origin.get_host(item)

    def read_tree(self, item: MirrorItem) -> ImageTree:
        return self._trees[_tree_key(item)]

    def open_blob(
        self, item: MirrorItem, blob: Descriptor, offset: int
    ) -> AbstractContextManager[ReadableBlob]:
        return self._origin.open_blob(item, blob, offset)
