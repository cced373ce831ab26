"""Plan the contents of a bundle and of each part.

First fit, in the order of the lock: an image goes undivided into the first part with room for the
blobs that it adds. The plan depends only on the images, the files and the size of a part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kfdeploy.bundle.manifest import (
    Bundle,
    BundleBlob,
    BundleFile,
    BundleImage,
    BundleManifest,
    DeltaBase,
)
from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.oci.manifest import ImageTree
from kfdeploy.oci.reference import host_qualified_path
from kfdeploy.wording import format_bytes

_UNITS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)(I?)B?", re.IGNORECASE | re.ASCII)
# A file takes more of a disk than its bytes: the rest of its last block, its entry in the folder,
# and its line in SHA256SUMS.
_BLOCK: Final = 4096
_ENTRY: Final = 512
_PART_MAX: Final = 9999
_PIECE_JSON: Final = 48
"""Bytes of ``bundle.json`` that a piece of a blob takes."""


@dataclass(frozen=True)
class DeliveredContents:
    """The images and blobs that the far side has already.

    Attributes:
        lock: the sha256 of its lock in hexadecimal.
        images: names to digests.
        blobs: digest to repositories, as HOST/PATH of references as found.
    """

    lock: str
    images: Mapping[str, str]
    blobs: Mapping[str, frozenset[str]]

    @classmethod
    def from_items(
        cls, lock: str, items: Iterable[tuple[MirrorItem, ImageTree | None]]
    ) -> DeliveredContents:
        """Collect the images of a lock, and the blobs of those whose manifests are known."""
        images: dict[str, str] = {}
        blobs: dict[str, frozenset[str]] = {}
        for item, tree in items:
            images.update({image.name: image.digest for image in list_bundle_images(item)})
            places = frozenset(host_qualified_path(ref.parsed) for ref in item.ids)
            for blob in tree.blobs if tree else ():
                blobs[blob.digest] = blobs.get(blob.digest, frozenset()) | places
        return cls(lock, images, blobs)


def parse_size(text: str) -> int:
    """Return the bytes of ``4.7G``, ``700MB`` (decimal, as disks are sold), ``4GiB`` or ``4700``.

    Raises:
        UserError: it is not a size, or 0.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is not None and (match[2] or not match[3]):
        size = int(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2].upper()])
        if size > 0:
            return size
    raise UserError(
        f"--part-size {text}: not a size",
        hint="write for example 4.7G, 700M or 4GiB",
        exit_code=WRONG_USE,
    )


def list_bundle_images(item: MirrorItem) -> list[BundleImage]:
    """Return the names that an image or an attached artifact has in a bundle."""
    found: dict[str, list[str]] = {}
    for ref in item.ids:
        parsed = ref.parsed.with_default_tag()
        if item.belongs_to:
            end = f":{item.push_tag}" if item.push_tag else f"@{item.digest}"
            found.setdefault(f"{parsed.repository}{end}", []).append(ref.text)
        else:
            found.setdefault(str(parsed), []).append(ref.text)
    tag = item.push_tag if item.belongs_to else ""
    return [
        BundleImage(name, tuple(sorted(refs)), item.digest, item.belongs_to, tag)
        for name, refs in sorted(found.items())
    ]


def plan_bundle(
    items: Sequence[tuple[MirrorItem, ImageTree]],
    *,
    lock: str,
    kfdeploy: str,
    part_size: int = 0,
    common: int = 0,
    files: Sequence[BundleFile] = (),
    older: DeliveredContents | None = None,
    wheels_for: Sequence[str] = (),
) -> Bundle:
    """Assign images and files to the parts of a bundle.

    Args:
        items: images and attached artifacts, in the order of the lock.
        lock: the sha256 of ``images.lock`` in hexadecimal.
        kfdeploy: the version of kfdeploy.
        part_size: bytes that a part may take on its disk; 0 for a bundle that is not in parts.
        common: bytes of the lock, which is in every part.
        files: the other files; their ``part`` is assigned here.
        older: the images and blobs to leave out.
        wheels_for: Python and platform of the wheels.

    Raises:
        UserError: parts of this size can't hold the lists that each part needs, or a file.
    """
    images: dict[str, BundleImage] = {}
    left_out: dict[str, str] = {}
    manifests: dict[str, BundleManifest] = {}
    sizes: dict[str, int] = {}
    expected: dict[str, tuple[int, tuple[str, ...]]] = {}
    groups: list[list[str]] = []
    for item, tree in items:
        carried = list_bundle_images(item)
        for image in carried[:]:
            if older and older.images.get(image.name) == image.digest:
                left_out[image.name] = image.digest
                carried.remove(image)
        if not carried:
            continue
        images.update({image.name: image for image in carried})
        manifests.update(
            {m.digest: BundleManifest(m.digest, m.size, m.media_type) for m in tree.manifests}
        )
        group = []
        for blob in tree.blobs:
            if older and blob.digest in older.blobs:
                places = tuple(sorted(older.blobs[blob.digest]))
                expected[blob.digest] = (blob.size, places)
            elif blob.digest not in sizes:
                sizes[blob.digest] = blob.size
                group.append(blob.digest)
        groups.append(group)
    draft = Bundle(
        kfdeploy=kfdeploy,
        lock=lock,
        part_size=part_size,
        parts=_PART_MAX if part_size else 1,
        images=tuple(sorted(images.values(), key=lambda image: image.name)),
        manifests=tuple(sorted(manifests.values(), key=lambda entry: entry.digest)),
        blobs=tuple(
            BundleBlob(digest, size, ((_PART_MAX if part_size else 1, size),))
            for digest, size in sorted(sizes.items())
        ),
        files=tuple(sorted(files, key=lambda taken: taken.path)),
        since=DeltaBase(older.lock, left_out, expected) if older else None,
        wheels_for=tuple(wheels_for),
    )
    return _split_into_parts(draft, groups, sizes, common) if part_size else draft


def _split_into_parts(
    draft: Bundle, groups: Sequence[Sequence[str]], sizes: Mapping[str, int], common: int
) -> Bundle:
    packer = _PartPacker(draft.part_size, draft.part_size - _count_reserved_bytes(draft, common))
    if packer.room < draft.part_size // 8:
        needed = (draft.part_size - packer.room) * 8 // 7 * 21 // 20 // 1000
        raise UserError(
            f"--part-size: parts of {format_bytes(draft.part_size)} are too small: manifests and"
            f" lists, which every part needs, take {format_bytes(draft.part_size - packer.room)}",
            hint=f"use at least `--part-size {needed}K`",
            exit_code=WRONG_USE,
        )
    part_of: dict[str, int] = {}
    for folder in ("workspace", "wheels"):
        group = [taken for taken in draft.files if taken.path.startswith(f"{folder}/")]
        parts = packer.place_files([taken.size for taken in group], folder)
        part_of.update({taken.path: part for taken, part in zip(group, parts, strict=True)})
    for taken in draft.files:
        if taken.path not in part_of:
            part_of[taken.path] = packer.place_files([taken.size], taken.path)[0]
    pieces: dict[str, tuple[tuple[int, int], ...]] = {}
    for blobs in groups:
        pieces.update(packer.place_blobs(blobs, sizes))
    return replace(
        draft,
        parts=max(1, len(packer.free)),
        blobs=tuple(replace(blob, pieces=pieces[blob.digest]) for blob in draft.blobs),
        files=tuple(replace(taken, part=part_of[taken.path]) for taken in draft.files),
    )


def _count_reserved_bytes(draft: Bundle, common: int) -> int:
    """Return the most bytes that the files of every part can take."""
    smallest = max(1, draft.part_size // 8)
    pieces = sum(b.size // smallest + 2 for b in draft.blobs if b.size > smallest)
    own = len(draft.dumps()) + pieces * _PIECE_JSON
    files = [own, common, len(draft.build_index()), *(entry.size for entry in draft.manifests)]
    # part.json, oci-layout, SHA256SUMS and its signature.
    return sum(map(_disk_cost, files)) + 4 * (_BLOCK + _ENTRY)


def _disk_cost(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK + _ENTRY


class _PartPacker:
    """Fills parts by first fit."""

    def __init__(self, size: int, room: int) -> None:
        self.size = size
        self.room = room
        self.free: list[int] = []

    def place_files(self, sizes: Sequence[int], what: str) -> list[int]:
        """Return the part of each file: the same for all if they fit; files are not split."""
        total = sum(map(_disk_cost, sizes))
        if total <= self.room:
            return [self._take_first_fit(total)] * len(sizes)
        if max(map(_disk_cost, sizes)) > self.room:
            raise UserError(
                f"--part-size: {what} does not fit into a part of {format_bytes(self.size)}",
                hint="use larger parts, or leave wheels and programs out with --images-only",
            )
        return [self._take_first_fit(_disk_cost(size)) for size in sizes]

    def place_blobs(
        self, blobs: Sequence[str], sizes: Mapping[str, int]
    ) -> dict[str, tuple[tuple[int, int], ...]]:
        """Return part and bytes of each blob's pieces: all in one part if they fit."""
        total = sum(_disk_cost(sizes[blob]) for blob in blobs)
        if not blobs:
            return {}
        if total <= self.room:
            part = self._take_first_fit(total)
            return {blob: ((part, sizes[blob]),) for blob in blobs}
        return {blob: tuple(self._split_blob(sizes[blob])) for blob in blobs}

    def _split_blob(self, size: int) -> Iterable[tuple[int, int]]:
        most = (self.room - _ENTRY) // _BLOCK * _BLOCK
        while size > most:
            yield self._take_first_fit(_disk_cost(most)), most
            size -= most
        yield self._take_first_fit(_disk_cost(size)), size

    def _take_first_fit(self, cost: int) -> int:
        for number, free in enumerate(self.free, 1):
            if free >= cost:
                self.free[number - 1] -= cost
                return number
        self.free.append(self.room - cost)
        return len(self.free)
