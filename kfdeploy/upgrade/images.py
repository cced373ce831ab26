"""The images of one release compared with those of another, and the bytes to transfer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kfdeploy.images.sources_file import SourceImage
from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.oci.manifest import ImageTree
from kfdeploy.oci.reference import WrittenRef


@dataclass(frozen=True, slots=True)
class RetaggedRepository:
    """Name a repository whose images have other tags or digests than before."""

    repository: str
    before: tuple[WrittenRef, ...]
    now: tuple[WrittenRef, ...]


@dataclass(frozen=True, slots=True)
class ImageChanges:
    """Hold the references of the manifests, sorted; the retagged are new and dropped as well."""

    new: tuple[SourceImage, ...]
    dropped: tuple[SourceImage, ...]
    retagged: tuple[RetaggedRepository, ...]
    same: int

    @property
    def is_empty(self) -> bool:
        return not (self.new or self.dropped)

    def to_json(self) -> dict[str, Any]:
        return {
            "new": [_image_to_json(image) for image in self.new],
            "dropped": [_image_to_json(image) for image in self.dropped],
            "retagged": self.retagged,
            "same": self.same,
        }


def _image_to_json(image: SourceImage) -> dict[str, Any]:
    return {"ref": image.ref, "need": image.need, "covered": image.covered}


def compare_images(before: Sequence[SourceImage], now: Sequence[SourceImage]) -> ImageChanges:
    """Return the new and the dropped images, and those that differ in tag or digest alone."""
    olds, news = {i.ref: i for i in before}, {i.ref: i for i in now}
    new = [news[ref] for ref in sorted(news.keys() - olds.keys())]
    dropped = [olds[ref] for ref in sorted(olds.keys() - news.keys())]
    added, gone = _group_by_repository(new), _group_by_repository(dropped)
    retagged = [
        RetaggedRepository(repository, gone[repository], added[repository])
        for repository in sorted(added.keys() & gone.keys())
    ]
    return ImageChanges(tuple(new), tuple(dropped), tuple(retagged), len(olds.keys() & news.keys()))


def _group_by_repository(images: Iterable[SourceImage]) -> dict[str, tuple[WrittenRef, ...]]:
    out: dict[str, tuple[WrittenRef, ...]] = {}
    for image in images:
        repository = image.ref.parsed.repository
        out[repository] = (*out.get(repository, ()), image.ref)
    return out


# -- what has to be transferred --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TransferEstimate:
    """Estimate what the private registry lacks, if it has all images of the lock before.

    Attributes:
        size: bytes of the blobs whose size is known.
        at_most: whether the registry may have some of them already. That is so where only the
            whole size of a new image is known, or the blobs of an old image are not.
        unsized: references whose size is not known; they are not in ``size``.
        unlocked: covered references that are not locked; they are not in ``size`` either.
    """

    images: int
    size: int
    at_most: bool
    unsized: tuple[WrittenRef, ...]
    unlocked: tuple[WrittenRef, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "bytes": self.size,
            "atMost": self.at_most,
            "sizeUnknown": self.unsized,
            "notLocked": self.unlocked,
        }


def estimate_transfer(
    before: Sequence[MirrorItem],
    now: Sequence[MirrorItem],
    find_tree: Callable[[MirrorItem], ImageTree | None],
    unlocked: Sequence[WrittenRef],
) -> TransferEstimate:
    """Count the blobs that only the new images have.

    Args:
        before, now: the images of the two locks, for one environment.
        find_tree: returns an image's manifests, if they are known without asking a registry.
        unlocked: covered references that ``now`` does not have.
    """
    there = {item.digest for item in before}
    lacking = {item.digest: item for item in now if item.digest not in there}
    had: set[str] = set()
    at_most = False
    for digest in sorted({item.digest: item for item in before}):
        item = next(item for item in before if item.digest == digest)
        found = find_tree(item)
        at_most = at_most or found is None
        had |= {blob.digest for blob in found.blobs} if found else set()
    blobs: dict[str, int] = {}
    more, is_rough = 0, False
    unsized: list[WrittenRef] = []
    for item in lacking.values():
        found = find_tree(item)
        if found is not None:
            blobs |= {blob.digest: blob.size for blob in found.blobs if blob.digest not in had}
        elif item.size is not None:
            is_rough = True
            more += item.size
        elif not item.belongs_to:
            unsized += item.ids
    return TransferEstimate(
        images=sum(1 for item in lacking.values() if not item.belongs_to),
        size=sum(blobs.values()) + more,
        at_most=bool(lacking) and (at_most or is_rough),
        unsized=tuple(sorted(unsized)),
        unlocked=tuple(sorted(unlocked)),
    )
