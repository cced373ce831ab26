"""Compare the images of two sets: added, dropped, or at another tag, digest or place."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from kfdeploy.releaseset.summary import ImageSummary

ImageChangeKind = Literal["added", "dropped", "tag", "digest", "place"]


@dataclass(frozen=True, slots=True)
class ImageChange:
    """One image that is not what it was.

    Attributes:
        what: ``place`` is another registry or repository with the same last name.
    """

    what: ImageChangeKind
    old: ImageSummary | None
    new: ImageSummary | None

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "old": _image_json(self.old), "new": _image_json(self.new)}


def _image_json(image: ImageSummary | None) -> dict[str, Any] | None:
    if image is None:
        return None
    return {
        "ref": image.ref,
        "source": str(image.source or ""),
        "mirror": str(image.mirror),
        "digest": image.digest,
        "need": image.need,
    }


def compare_images(old: Iterable[ImageSummary], new: Iterable[ImageSummary]) -> list[ImageChange]:
    """Return what changed, sorted by the reference that is there now, else was."""
    first, second = {image.ref: image for image in old}, {image.ref: image for image in new}
    changes = [
        ImageChange("digest", first[ref], second[ref])
        for ref in first.keys() & second.keys()
        if first[ref].digest != second[ref].digest
    ]
    gone = [image for ref, image in first.items() if ref not in second]
    come = [image for ref, image in second.items() if ref not in first]
    for what, name_of in _SUCCESSIONS:
        for before, after in _match_unique(gone, come, name_of):
            gone.remove(before)
            come.remove(after)
            changes.append(
                ImageChange("digest" if _has_same_tag(before, after) else what, before, after)
            )
    changes += [ImageChange("added", None, image) for image in come]
    changes += [ImageChange("dropped", image, None) for image in gone]
    return sorted(changes, key=_current_ref)


def _current_ref(change: ImageChange) -> str:
    image = change.new or change.old
    return image.ref.text if image else ""


def _has_same_tag(before: ImageSummary, after: ImageSummary) -> bool:
    old, new = before.upstream, after.upstream
    return (old.repository, old.tag) == (new.repository, new.tag)


def _repository_of(image: ImageSummary) -> str:
    return image.upstream.repository


def _variant_of(image: ImageSummary) -> str:
    """Return repository and tag without digits: ``v1-gpu`` and ``v2-gpu`` are one variant."""
    return f"{_repository_of(image)}:{re.sub('[0-9]+', '', image.upstream.tag)}"


def _last_name(image: ImageSummary) -> str:
    return _repository_of(image).rpartition("/")[2]


_NameOf = Callable[[ImageSummary], str]
_SUCCESSIONS: Final[tuple[tuple[ImageChangeKind, _NameOf], ...]] = (
    ("tag", _variant_of),
    ("tag", _repository_of),
    ("place", _last_name),
)
"""The names by which one image follows another, the surest first, and what the change then is."""


def _match_unique(
    gone: Iterable[ImageSummary], come: Iterable[ImageSummary], name_of: _NameOf
) -> Iterator[tuple[ImageSummary, ImageSummary]]:
    """Yield images that share a name with exactly one of the other set; others stay unmatched."""
    before, after = _group_by_name(gone, name_of), _group_by_name(come, name_of)
    for name in sorted(before.keys() & after.keys()):
        if len(before[name]) == len(after[name]) == 1:
            yield before[name][0], after[name][0]


def _group_by_name(
    images: Iterable[ImageSummary], name_of: _NameOf
) -> dict[str, list[ImageSummary]]:
    groups: defaultdict[str, list[ImageSummary]] = defaultdict(list)
    for image in images:
        groups[name_of(image)].append(image)
    return groups
