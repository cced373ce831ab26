"""Images that come, go, or move to another tag, digest or place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kfdeploy.oci.reference import ImageRef

ImageChangeKind = Literal["added", "dropped", "tag", "digest", "place"]


@dataclass(frozen=True, slots=True)
class SetImage:
    """An image of a set.

    Attributes:
        ref: as upstream names it.
        mirror: as the set names it.
        source: repository at the digest that it is mirrored from; empty when it is not locked.
    """

    ref: str
    mirror: str
    source: str
    need: str

    @property
    def digest(self) -> str:
        """What the mirror has, else what was locked; empty for an image that goes by its tag."""
        return self.mirror.partition("@")[2] or self.source.partition("@")[2]

    def to_json(self) -> dict[str, str]:
        named = {"ref": self.ref, "source": self.source, "mirror": self.mirror}
        return {**named, "digest": self.digest, "need": self.need}


@dataclass(frozen=True, slots=True)
class ImageChange:
    """One image that is not what it was.

    Attributes:
        what: ``place`` is another registry or repository whose last name is the same.
    """

    what: ImageChangeKind
    old: SetImage | None
    new: SetImage | None

    def to_json(self) -> dict[str, Any]:
        sides = {"old": self.old, "new": self.new}
        return {"what": self.what, **{k: v.to_json() if v else None for k, v in sides.items()}}


def read_set_images(summary: Mapping[str, Any]) -> list[SetImage]:
    """The images of a set's summary."""
    return [
        SetImage(ref, str(entry["mirror"]), str(entry.get("source", "")), str(entry.get("need")))
        for ref, entry in summary["images"].items()
    ]


def compare_images(old: Iterable[SetImage], new: Iterable[SetImage]) -> list[ImageChange]:
    """What changed, sorted by the reference that is there now, else was."""
    first, second = {one.ref: one for one in old}, {one.ref: one for one in new}
    found = [
        ImageChange("digest", first[ref], second[ref])
        for ref in first.keys() & second.keys()
        if first[ref].digest != second[ref].digest
    ]
    gone = [one for ref, one in first.items() if ref not in second]
    come = [one for ref, one in second.items() if ref not in first]
    ways: tuple[tuple[ImageChangeKind, Callable[[SetImage], str]], ...] = (
        ("tag", _variant_of),
        ("tag", _repository_of),
        ("place", _last_name),
    )
    for what, name_of in ways:
        for before, after in _match_unique(gone, come, name_of):
            gone.remove(before)
            come.remove(after)
            kind: ImageChangeKind = "digest" if _has_same_tag(before, after) else what
            found.append(ImageChange(kind, before, after))
    found += [ImageChange("added", None, one) for one in come]
    found += [ImageChange("dropped", one, None) for one in gone]
    return sorted(found, key=lambda change: (change.new or change.old or _NONE).ref)


_NONE = SetImage("", "", "", "")


def _has_same_tag(before: SetImage, after: SetImage) -> bool:
    one, two = ImageRef.parse(before.ref), ImageRef.parse(after.ref)
    return one.repository == two.repository and one.tag == two.tag


def _repository_of(image: SetImage) -> str:
    return ImageRef.parse(image.ref).repository


def _variant_of(image: SetImage) -> str:
    """The repository and the tag without numbers: ``v1-gpu`` and ``v2-gpu`` are one variant."""
    return f"{_repository_of(image)}:{re.sub('[0-9]+', '', ImageRef.parse(image.ref).tag)}"


def _last_name(image: SetImage) -> str:
    return _repository_of(image).rpartition("/")[2]


def _match_unique(
    gone: Iterable[SetImage], come: Iterable[SetImage], name_of: Callable[[SetImage], str]
) -> Iterator[tuple[SetImage, SetImage]]:
    """Those that share a name with exactly one of the other side; several are not guessed at."""
    before, after = _group_by_name(gone, name_of), _group_by_name(come, name_of)
    for name in sorted(before.keys() & after.keys()):
        if len(before[name]) == len(after[name]) == 1:
            yield before[name][0], after[name][0]


def _group_by_name(
    images: Iterable[SetImage], name_of: Callable[[SetImage], str]
) -> dict[str, list[SetImage]]:
    out: dict[str, list[SetImage]] = {}
    for image in images:
        out.setdefault(name_of(image), []).append(image)
    return out
