"""Images of one release against those of another, and the bytes that have to be carried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from kfdeploy.model.image import ImageRef, InvalidImageRef
from kfdeploy.model.lockfile import Lock
from kfdeploy.model.manifest import Tree
from kfdeploy.model.sources import SourceImage
from kfdeploy.model.transfer import Item
from kfdeploy.model.workspace import Images, Workspace


@dataclass(frozen=True, slots=True)
class Retagged:
    """A repository that is named by other tags than before."""

    repository: str
    before: tuple[str, ...]
    now: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "repository": self.repository,
            "before": list(self.before),
            "now": list(self.now),
        }


@dataclass(frozen=True, slots=True)
class ImageChanges:
    """References as found, sorted; what is ``retagged`` is among ``new`` and ``dropped`` too."""

    new: tuple[SourceImage, ...]
    dropped: tuple[SourceImage, ...]
    retagged: tuple[Retagged, ...]
    same: int

    @property
    def is_nothing(self) -> bool:
        return not (self.new or self.dropped)

    def to_json(self) -> dict[str, Any]:
        return {
            "new": [_image(image) for image in self.new],
            "dropped": [_image(image) for image in self.dropped],
            "retagged": [one.to_json() for one in self.retagged],
            "same": self.same,
        }


def _image(image: SourceImage) -> dict[str, Any]:
    return {"ref": image.ref, "need": image.need, "covered": image.covered}


def compared(before: Sequence[SourceImage], now: Sequence[SourceImage]) -> ImageChanges:
    """What is new, what is dropped, and which of these differ in their tag or digest alone."""
    olds, news = {i.ref: i for i in before}, {i.ref: i for i in now}
    new = [news[ref] for ref in sorted(news.keys() - olds.keys())]
    dropped = [olds[ref] for ref in sorted(olds.keys() - news.keys())]
    added, gone = _by_repository(new), _by_repository(dropped)
    retagged = [
        Retagged(repository, gone[repository], added[repository])
        for repository in sorted(added.keys() & gone.keys())
    ]
    return ImageChanges(tuple(new), tuple(dropped), tuple(retagged), len(olds.keys() & news.keys()))


def _by_repository(images: Iterable[SourceImage]) -> dict[str, tuple[str, ...]]:
    out: dict[str, tuple[str, ...]] = {}
    for image in images:
        repository = ImageRef.parse(image.ref).repository
        out[repository] = (*out.get(repository, ()), image.ref)
    return out


# -- what has to be carried ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Carry:
    """What the private registry lacks, if it has all of the lock before.

    Attributes:
        size: bytes of blobs, as far as they are known.
        at_most: whether some of them may be there already: of an image only its whole size is
            known, or of an old one not which blobs it has.
        unsized: references whose size nobody knows; they are not in ``size``.
        unlocked: covered references that are not locked, so that nothing is known of them.
    """

    images: int
    size: int
    at_most: bool
    unsized: tuple[str, ...]
    unlocked: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "bytes": self.size,
            "atMost": self.at_most,
            "sizeUnknown": list(self.unsized),
            "notLocked": list(self.unlocked),
        }


def carried(
    before: Sequence[Item],
    now: Sequence[Item],
    tree: Callable[[Item], Tree | None],
    unlocked: Sequence[str],
) -> Carry:
    """Count the blobs that only the new images have.

    Args:
        before, now: the images of the two locks, for one environment.
        tree: an image's manifests, where they are known without asking anybody.
    """
    there = {item.digest for item in before}
    lacking = {item.digest: item for item in now if item.digest not in there}
    had: set[str] = set()
    at_most = False
    for digest in sorted({item.digest: item for item in before}):
        item = next(item for item in before if item.digest == digest)
        found = tree(item)
        at_most = at_most or found is None
        had |= {blob.digest for blob in found.blobs} if found else set()
    blobs: dict[str, int] = {}
    more, is_rough = 0, False
    unsized: list[str] = []
    for item in lacking.values():
        found = tree(item)
        if found is not None:
            blobs |= {blob.digest: blob.size for blob in found.blobs if blob.digest not in had}
        elif item.size is not None:
            is_rough = True
            more += item.size
        elif not item.belongs_to:
            unsized += item.ids
    return Carry(
        images=sum(1 for item in lacking.values() if not item.belongs_to),
        size=sum(blobs.values()) + more,
        at_most=bool(lacking) and (at_most or is_rough),
        unsized=tuple(sorted(unsized)),
        unlocked=tuple(sorted(unlocked)),
    )


# -- settings that name images ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StaleSetting:
    """A setting that names no image of the new release.

    Attributes:
        key: its place in ``kfdeploy.yaml``.
        was_used: whether it named one of the release before.
        near: references of the same repository that there are now.
    """

    key: str
    value: str
    was_used: bool
    near: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "value": self.value,
            "wasUsed": self.was_used,
            "near": list(self.near),
        }


def stale(
    workspace: Workspace, before: Iterable[str], now: Iterable[str]
) -> tuple[StaleSetting, ...]:
    """Substitutes, exclusions and exceptions that name nothing any more.

    Args:
        before, now: the references as found at each release.
    """
    olds, news = set(before), set(now)
    out = list(unused_substitutes(workspace.images, news, olds))
    for name, patterns in (
        ("images.exclude", [one.ref for one in workspace.images.exclude]),
        ("registries.uncovered", workspace.registries.uncovered),
    ):
        for index, pattern in enumerate(patterns):
            if not _matched(pattern, news):
                used = _matched(pattern, olds)
                key = f"{name}[{index}]"
                out.append(StaleSetting(key, pattern, used, _near(pattern, news)))
    return tuple(out)


def unused_substitutes(
    images: Images, now: Iterable[str], before: Iterable[str] = ()
) -> Iterator[StaleSetting]:
    """Substitutes of images that nothing names.

    Args:
        now, before: the references as found, and those of a release before.
    """
    news, olds = set(now), set(before)
    for ref in images.substitutes:
        if not _named(ref, news):
            key = f"images.substitutes[{ref!r}]"
            yield StaleSetting(key, ref, _named(ref, olds), _near(ref, news))


def _named(ref: str, refs: Iterable[str]) -> bool:
    wanted = ImageRef.parse(ref).with_default_tag()
    return any(each.with_default_tag() == wanted for _, each in _parsed(refs))


def _parsed(refs: Iterable[str]) -> Iterator[tuple[str, ImageRef]]:
    """Without what is no reference, which `lock` says."""
    for ref in refs:
        with suppress(InvalidImageRef):
            yield ref, ImageRef.parse(ref)


def _matched(pattern: str, refs: Iterable[str]) -> bool:
    return any(fnmatchcase(ref, pattern) for ref in refs)


def _near(ref: str, refs: Iterable[str]) -> tuple[str, ...]:
    if "*" in ref:
        return ()
    repository = ImageRef.parse(ref).repository
    return tuple(sorted(ref for ref, each in _parsed(refs) if each.repository == repository))


def still_locked(ids: Iterable[str], locks: Sequence[Lock], workspace: Workspace) -> Lock:
    """What earlier locks have for references, each from the first that has it.

    What is now substituted by an image of another repository is another image.
    """
    instead = _substitutes(workspace.images.substitutes)
    found = []
    for ref in ids:
        wanted = ImageRef.parse(ref).with_default_tag()
        repository = instead.get(wanted, wanted).repository
        kept = (lock.find(ref) for lock in locks)
        image = next((i for i in kept if i and i.image.repository == repository), None)
        if image is not None:
            found.append(image)
    return Lock(found)


def _substitutes(settings: Mapping[str, str]) -> dict[ImageRef, ImageRef]:
    return {ImageRef.parse(o).with_default_tag(): ImageRef.parse(n) for o, n in settings.items()}
