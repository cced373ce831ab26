"""What a mirror would do, is doing and has done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from kfdeploy.errors import UserError
from kfdeploy.model.environment import Target
from kfdeploy.model.image import ImageRef

State = Literal["copy", "replace", "present"]
EventState = Literal["copying", "retrying", "copied", "present", "failed"]


@dataclass(frozen=True, slots=True)
class Item:
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
    target: Target
    digest: str
    size: int | None
    state: State
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

    def to_json(self) -> dict[str, Any]:
        return {
            "refs": list(self.ids),
            "from": str(self.source),
            "to": str(self.destination),
            "digest": self.digest,
            "bytes": self.size,
            "state": self.state,
            **({"replaces": self.replaces} if self.replaces else {}),
            **({"belongsTo": self.belongs_to} if self.belongs_to else {}),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a mirror would do; sorted by target."""

    items: tuple[Item, ...]

    @property
    def to_copy(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.state != "present")

    @property
    def present(self) -> tuple[Item, ...]:
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
            "copy": [item.to_json() for item in self.to_copy],
            "present": [item.to_json() for item in self.present],
            "bytes": self.size,
            "unknownSizes": self.unsized,
        }

    def lines(self) -> list[str]:
        """The plan for people: a line for each image to copy, and what it comes to."""
        result = []
        for item in self.to_copy:
            size = "size unknown" if item.size is None else show_bytes(item.size)
            note = f", replaces {item.replaces}" if item.replaces else ""
            result.append(f"{item.ids[0]} -> {item.target.reference} ({size}{note})")
        unknown = f" and {self.unsized} of unknown size" if self.unsized else ""
        result.append(
            f"{len(self.to_copy)} to copy ({show_bytes(self.size)} at most{unknown}),"
            f" {len(self.present)} present"
        )
        return result


@dataclass(frozen=True, slots=True)
class MirrorEvent:
    """Progress of one image, with where the whole stands.

    Attributes:
        bytes_done: of images that are finished, failed ones included.
        done: images finished, failed ones included.
    """

    image: str
    state: EventState
    done: int
    total: int
    bytes_done: int
    bytes_total: int
    message: str = ""

    def line(self) -> str:
        """For output that is no terminal."""
        tail = f": {self.message}" if self.message else ""
        return f"[{self.done}/{self.total}] {self.state} {self.image}{tail}"


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that is not in the private registry afterwards."""

    item: Item
    error: UserError

    def to_json(self) -> dict[str, Any]:
        return {
            "refs": list(self.item.ids),
            "to": self.item.target.reference,
            "reason": self.error.message,
            "hint": self.error.hint,
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """What a mirror did."""

    copied: tuple[Item, ...]
    present: tuple[Item, ...]
    failed: tuple[Failed, ...]

    @property
    def size(self) -> int:
        """Bytes of the images copied, as `Plan.size` counts them."""
        return sum(item.size or 0 for item in self.copied)

    def errors(self) -> list[UserError]:
        """One for each image that failed."""
        return [failed.error for failed in self.failed]

    def to_json(self) -> dict[str, Any]:
        return {
            "copied": [item.to_json() for item in self.copied],
            "present": [item.to_json() for item in self.present],
            "failed": [failed.to_json() for failed in self.failed],
            "bytes": self.size,
        }

    def lines(self) -> list[str]:
        counts = f"{len(self.present)} present, {len(self.failed)} failed"
        return [f"{len(self.copied)} copied ({show_bytes(self.size)}), {counts}"]


class TimeLeft:
    """How long the rest takes, by the bytes so far; images where no size is known."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()

    def seconds(self, event: MirrorEvent, already: int) -> float | None:
        """Seconds left; None before anything is done.

        Args:
            already: images that were present from the beginning.
        """
        share = (
            event.bytes_done / event.bytes_total
            if event.bytes_total
            else (event.done - already) / max(1, event.total - already)
        )
        return None if share <= 0 else (self._clock() - self._start) * (1 - share) / share


def show_bytes(count: int) -> str:
    """Bytes for people: ``1.5 GiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
