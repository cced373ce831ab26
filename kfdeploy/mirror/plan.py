"""Define the plan of a mirror, its items and its result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from kfdeploy.codec import to_json
from kfdeploy.errors import UserError
from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.images.naming import MirrorNaming, MirrorRef, PullSources
from kfdeploy.oci.manifest import matches_platform
from kfdeploy.oci.reference import ImageRef, WrittenRef
from kfdeploy.wording import format_bytes

if TYPE_CHECKING:
    from kfdeploy.oci.registry.settings import PrivateRegistry

MirrorState = Literal["copy", "replace", "present"]


@dataclass(frozen=True, slots=True)
class MirrorItem:
    """One image, or an artifact attached to one (a signature), and its target.

    Attributes:
        ids: the references, as found, that the item stands for.
        source: the reference to copy from, after `registries.sources`, with its digest there.
        target: its name in the private registry.
        digest: the digest at the private registry: that of the source, or of the index reduced to
            ``platforms``.
        size: bytes of its blobs; None if the lock does not say.
        state: ``replace`` if the tag leads to another digest now.
        replaces: that other digest; else empty.
        platforms: the platforms that an index is reduced to; empty for all.
        push_tag: the tag to push; empty for a referrer, which is found by its subject.
        belongs_to: the name of an attached artifact, such as ``sha256-….sig``; empty for images.
    """

    ids: tuple[WrittenRef, ...]
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
        """Return its repository in the private registry."""
        return self.target.repository

    @property
    def destination(self) -> ImageRef:
        """Return the reference to ask the private registry for."""
        if self.push_tag:
            return replace(self.repository, tag=self.push_tag)
        return replace(self.repository, digest=self.digest)

    @property
    def name(self) -> str:
        """Return the image as found, with the name of the attached artifact, for people."""
        return f"{self.ids[0]} ({self.belongs_to})" if self.belongs_to else self.ids[0].text

    @property
    def sort_key(self) -> str:
        """Return the target as text."""
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
    """The items of a mirror with their states; sorted by target."""

    items: tuple[MirrorItem, ...]

    @property
    def to_copy(self) -> tuple[MirrorItem, ...]:
        return tuple(item for item in self.items if item.state != "present")

    @property
    def present(self) -> tuple[MirrorItem, ...]:
        return tuple(item for item in self.items if item.state == "present")

    @property
    def size(self) -> int:
        """Return the upper limit of bytes to copy.

        Layers that images share are counted for each image, and are sent once. Images of unknown
        size count as 0.
        """
        return sum(item.size or 0 for item in self.to_copy)

    @property
    def unsized(self) -> int:
        """Count the images to copy whose size is not known."""
        return sum(item.size is None for item in self.to_copy)

    def to_json(self) -> dict[str, Any]:
        return {
            "copy": self.to_copy,
            "present": self.present,
            "bytes": self.size,
            "unknownSizes": self.unsized,
        }

    def format_lines(self) -> list[str]:
        """Return a line for each image to copy, and one with the totals, for people."""
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
    """An image that could not be copied, and why."""

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
    """Bytes of blobs by what happened to them, and the number of retries.

    Attributes:
        moved: sent, and complete at the destination.
        mounted: mounted from another repository of the private registry.
        skipped: present before.
        retried: sent by transfers that broke off, and sent again.
        retries: the number of retries of any request, not bytes.
    """

    moved: int = 0
    mounted: int = 0
    skipped: int = 0
    retried: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class MirrorSummary:
    """The result of a mirror."""

    copied: tuple[MirrorItem, ...]
    present: tuple[MirrorItem, ...]
    failed: tuple[MirrorFailure, ...]
    tally: TransferStats = TransferStats()

    @property
    def size(self) -> int:
        """Return the bytes of the images copied, counted as `MirrorPlan.size` does."""
        return sum(item.size or 0 for item in self.copied)

    def list_errors(self) -> list[UserError]:
        """Return an error for each image that failed."""
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
        """Return the result as lines for people."""
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
    """Return the items that a private registry must have for a lock, sorted by target.

    Args:
        sources: `registries.sources` of kfdeploy.yaml.
        platforms: the environment's platforms, such as ``linux/amd64``; empty for all.

    Raises:
        UserError: two images have one target.
    """
    targets = MirrorNaming(registry, platforms).mirror_refs(lock.images)
    located = PullSources(sources)
    groups: dict[str, list[LockedImage]] = {}
    for image in lock.images:
        groups.setdefault(str(targets[image.id].reference), []).append(image)
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
            # An image that is not reduced stays as it is, whatever its platforms are called.
            platforms=platforms if target.digest != image.digest else (),
        )
        for entry in (item, *_list_attached_items(item, image)):
            items.setdefault(entry.sort_key, entry)
    return sorted(items.values(), key=lambda item: item.sort_key)


def list_earlier_items(
    lock: Lock,
    registry: PrivateRegistry,
    sources: Mapping[str, str],
    platforms: tuple[str, ...] = (),
) -> list[MirrorItem]:
    """Return what a lock of any age brought into a private registry.

    An image that was locked before the environment named platforms was mirrored with all of them.

    Raises:
        UserError: two images on one target.
    """
    reduced = Lock([image for image in lock if image.digest_for(platforms)])
    whole = Lock([image for image in lock if not image.digest_for(platforms)])
    return [
        *list_mirror_items(reduced, registry, sources, platforms),
        *list_mirror_items(whole, registry, sources),
    ]


def _list_attached_items(item: MirrorItem, image: LockedImage) -> Iterator[MirrorItem]:
    """Yield the artifacts attached to manifests that are mirrored.

    Nothing is attached to a reduced index: its digest is another.
    """
    kept = {image.digest}
    if item.platforms:
        kept = {d for name, d in image.platforms.items() if matches_platform(name, item.platforms)}
    for artifact in image.attached or ():
        if artifact.subject in kept or not item.platforms:
            yield replace(
                item,
                source=artifact.ref_in(item.source),
                digest=artifact.digest,
                size=None,
                platforms=(),
                push_tag=artifact.tag,
                belongs_to=artifact.name,
            )
