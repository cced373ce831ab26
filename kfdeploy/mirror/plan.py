"""What a mirror would do, is doing and has done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from kfdeploy.codec import to_json
from kfdeploy.errors import UserError
from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.images.naming import MirrorNaming, MirrorRef, PullSources
from kfdeploy.oci.manifest import matches_platform
from kfdeploy.oci.reference import ImageRef
from kfdeploy.wording import format_bytes

if TYPE_CHECKING:
    from kfdeploy.oci.registry.settings import PrivateRegistry

MirrorState = Literal["copy", "replace", "present"]


@dataclass(frozen=True, slots=True)
class MirrorItem:
    """One image, or what belongs to one (a signature), and its place in the private registry.

    Attributes:
        ids: references as found that it stands for.
        source: where it is copied from (after `registries.sources`), at its digest there.
        target: its name in the private registry.
        digest: what the private registry is to have: the source's, or that of the index reduced
            to ``platforms``.
        size: bytes of its blobs; None when the lock does not say.
        state: ``replace`` when the tag is there with another digest.
        platforms: what an index is reduced to; empty for all.
        push_tag: the tag it is pushed as; empty for a referrer, which is found by its subject.
        belongs_to: what it is to an image, such as ``sha256-….sig``; empty for images themselves.
    """

    ids: tuple[str, ...]
    source: ImageRef
    target: MirrorRef
    digest: str
    size: int | None
    state: MirrorState
    replaces: str = ""
    platforms: tuple[str, ...] = ()
    push_tag: str = ""
    belongs_to: str = ""

    @property
    def repository(self) -> ImageRef:
        """Its repository in the private registry."""
        host, _, path = self.target.repository.partition("/")
        return ImageRef(host, path)

    @property
    def destination(self) -> ImageRef:
        """Where the private registry is asked for it."""
        at = self.repository
        return ImageRef(at.host, at.path, self.push_tag, "" if self.push_tag else self.digest)

    @property
    def name(self) -> str:
        """For people: the image as found, and what it is to that."""
        return f"{self.ids[0]} ({self.belongs_to})" if self.belongs_to else self.ids[0]

    @property
    def sort_key(self) -> str:
        """By target."""
        return str(self.destination)

    def to_json(self) -> dict[str, Any]:
        return {
            "refs": self.ids,
            "from": str(self.source),
            "to": str(self.destination),
            "digest": self.digest,
            "bytes": self.size,
            "state": self.state,
            **({"replaces": self.replaces} if self.replaces else {}),
            **({"belongsTo": self.belongs_to} if self.belongs_to else {}),
        }


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    """What a mirror would do; sorted by target."""

    items: tuple[MirrorItem, ...]

    @property
    def to_copy(self) -> tuple[MirrorItem, ...]:
        return tuple(item for item in self.items if item.state != "present")

    @property
    def present(self) -> tuple[MirrorItem, ...]:
        return tuple(item for item in self.items if item.state == "present")

    @property
    def size(self) -> int:
        """Bytes to copy at most: layers that images share are counted for each, and are sent
        once; images of unknown size count nothing."""
        return sum(item.size or 0 for item in self.to_copy)

    @property
    def unsized(self) -> int:
        """Images to copy whose size is not known."""
        return sum(item.size is None for item in self.to_copy)

    def to_json(self) -> dict[str, Any]:
        return {
            "copy": self.to_copy,
            "present": self.present,
            "bytes": self.size,
            "unknownSizes": self.unsized,
        }

    def format_lines(self) -> list[str]:
        """The plan for people: a line for each image to copy, and what it comes to."""
        result = []
        for item in self.to_copy:
            size = "size unknown" if item.size is None else format_bytes(item.size)
            note = f", replaces {item.replaces}" if item.replaces else ""
            result.append(f"{item.ids[0]} -> {item.target.reference} ({size}{note})")
        unknown = f" and {self.unsized} of unknown size" if self.unsized else ""
        result.append(
            f"{len(self.to_copy)} to copy ({format_bytes(self.size)} at most{unknown}),"
            f" {len(self.present)} present"
        )
        return result


@dataclass(frozen=True, slots=True)
class MirrorFailure:
    """An image that is not in the private registry afterwards."""

    item: MirrorItem
    error: UserError

    def to_json(self) -> dict[str, Any]:
        return {
            "refs": self.item.ids,
            "to": str(self.item.destination),
            "reason": self.error.message,
            "hint": self.error.hint,
        }


@dataclass(frozen=True, slots=True)
class TransferStats:
    """What became of the blobs, in bytes.

    Attributes:
        moved: sent, and there afterwards.
        mounted: taken over from another repository of the private registry.
        skipped: were there already.
        retried: sent in vain, as the transfer broke off.
        retries: how often anything was tried again.
    """

    moved: int = 0
    mounted: int = 0
    skipped: int = 0
    retried: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class MirrorSummary:
    """What a mirror did."""

    copied: tuple[MirrorItem, ...]
    present: tuple[MirrorItem, ...]
    failed: tuple[MirrorFailure, ...]
    tally: TransferStats = TransferStats()

    @property
    def size(self) -> int:
        """Bytes of the images copied, as `Plan.size` counts them."""
        return sum(item.size or 0 for item in self.copied)

    def list_errors(self) -> list[UserError]:
        """One for each image that failed."""
        return [failed.error for failed in self.failed]

    def to_json(self) -> dict[str, Any]:
        return {
            "copied": self.copied,
            "present": self.present,
            "failed": self.failed,
            "bytes": self.size,
            **to_json(self.tally),
        }

    def format_lines(self) -> list[str]:
        """The result for people."""
        counts = f"{len(self.present)} present, {len(self.failed)} failed"
        tally = self.tally
        moved = [f"{format_bytes(tally.moved)} sent"]
        for size, word in ((tally.mounted, "mounted"), (tally.skipped, "were there")):
            moved += [f"{format_bytes(size)} {word}"] if size else []
        again = f", {tally.retries} tried again" if tally.retries else ""
        return [f"{len(self.copied)} copied ({', '.join(moved)}), {counts}{again}"]


def list_mirror_items(
    lock: Lock,
    registry: PrivateRegistry,
    sources: Mapping[str, str],
    platforms: tuple[str, ...] = (),
) -> list[MirrorItem]:
    """What a private registry is to have of a lock, each once, sorted by target.

    Args:
        sources: `registries.sources`.
        platforms: the environment's.

    Raises:
        UserError: two images on one target.
    """
    targets = MirrorNaming(registry, platforms).mirror_refs(lock.images)
    located = PullSources(sources)
    groups: dict[str, list[LockedImage]] = {}
    for image in lock.images:
        groups.setdefault(targets[image.id].reference, []).append(image)
    items: dict[str, MirrorItem] = {}
    for images in groups.values():
        image, target = images[0], targets[images[0].id]
        item = MirrorItem(
            ids=tuple(i.id for i in images),
            source=located.resolve_ref(image.image),
            target=target,
            digest=target.digest,
            size=image.size,
            state="copy",
            push_tag=target.push_tag,
            # What is not reduced stays as it is, whatever its platforms are called.
            platforms=platforms if target.digest != image.digest else (),
        )
        for one in (item, *_list_attached_items(item, image)):
            items.setdefault(one.sort_key, one)
    return sorted(items.values(), key=lambda item: item.sort_key)


def _list_attached_items(item: MirrorItem, image: LockedImage) -> Iterator[MirrorItem]:
    """What belongs to an image, as far as what it belongs to is mirrored: nothing belongs to an
    index that was reduced."""
    kept = {image.digest}
    if item.platforms:
        kept = {d for name, d in image.platforms.items() if matches_platform(name, item.platforms)}
    for one in image.attached or ():
        if one.subject in kept or not item.platforms:
            yield replace(
                item,
                source=one.ref_in(item.source),
                digest=one.digest,
                size=None,
                platforms=(),
                push_tag=one.tag,
                belongs_to=one.name,
            )
