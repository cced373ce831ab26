"""Report what leads each image of a set to the private registry; weak redirects by name."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.images.inventory import UnreviewedGroup
from kfdeploy.oci.reference import ImageRef, WrittenRef
from kfdeploy.releaseset.summary import REDIRECTS, ImageSummary, SetSummary

_REDIRECTS: Final = {
    "patch": "a patch of the field that names them",
    "env": "a variable",
    "flag": "a flag",
    "config": "a key or file of a configuration",
    "admission": "admission",
    "none": "nothing",
}
NODE_MIRROR: Final = "a node's registry mirror"
COPIED: Final = "nothing: a program copies them itself, past the nodes"
UNNAMED: Final = "no object: only those who name them pull them"
_WEAK: Final = (_REDIRECTS["admission"], NODE_MIRROR, COPIED, _REDIRECTS["none"])
_STRENGTH: Final = (
    *(_REDIRECTS[word] for word in ("patch", "env", "flag", "config")),
    UNNAMED,
    *_WEAK,
)
"""All redirects in words, the strongest first."""


@dataclass(frozen=True, slots=True)
class RedirectReport:
    """The images of a set by what leads them to the private registry, each image once.

    Attributes:
        refs_by_redirect: redirect in words to the images whose weakest place it leads; the
            strongest redirect comes first.
        by_tag: images that some place must have by tag alone, and the reference there.
        loose: images that users may name in a place that nothing redirects.
        not_mirrored: images that the private registry need not have, and why.
        not_read: programs that may pull images which nobody knows: nobody read their code at the
            version that runs.
    """

    refs_by_redirect: Mapping[str, Sequence[WrittenRef]]
    by_tag: Mapping[WrittenRef, ImageRef]
    loose: Sequence[WrittenRef]
    not_mirrored: Mapping[str, str]
    not_read: Sequence[str] = ()

    @property
    def conclusion(self) -> str:
        """A sentence about all that the set could pull besides."""
        if not self.not_read:
            return "nothing else in the set can be pulled from outside"
        return "nothing else that the set names can be pulled from outside; see what was not read"

    @property
    def weak_refs(self) -> Sequence[WrittenRef]:
        """Images that only admission or a node's mirror leads, or nothing."""
        return [ref for redirect in _WEAK for ref in self.refs_by_redirect.get(redirect, ())]

    def to_json(self) -> dict[str, Any]:
        return {
            "redirects": self.refs_by_redirect,
            "byTag": self.by_tag,
            "loose": self.loose,
            "notMirrored": self.not_mirrored,
            "notRead": self.not_read,
        }

    def to_lines(self) -> Iterator[str]:
        """Yield a line for each redirect, and the images of the weak ones by name."""
        weak = set(self.weak_refs)
        for redirect, refs in self.refs_by_redirect.items():
            yield f"  {len(refs):4} by {redirect}"
            yield from (f"         {ref}" for ref in refs if ref in weak)
        if self.by_tag:
            count = len(self.by_tag)
            yield f"  {count:4} of them by tag alone in some place, where a digest breaks it"
        if self.loose:
            count = len(self.loose)
            yield f"  {count:4} of them users may name in places that nothing redirects"
        if self.not_mirrored:
            yield f"  {len(self.not_mirrored):4} of them not mirrored (see the notes)"
        if self.not_read:
            count = len(self.not_read)
            yield f"  programs not read for images that their code names: {count} (see the notes)"


def report_redirects(summary: SetSummary, accepted: Container[str]) -> RedirectReport:
    """Group the images of a set by the weakest redirect that one of their places has.

    Args:
        accepted: images that a person accepted without a redirect (``registries.uncovered``).
    """
    images = [image for _, image in sorted(summary.images.items())]
    groups: dict[str, list[WrittenRef]] = {redirect: [] for redirect in _STRENGTH}
    for image in images:
        groups[_weakest_redirect(image, accepted)].append(image.ref)
    return RedirectReport(
        refs_by_redirect={redirect: refs for redirect, refs in groups.items() if refs},
        by_tag={image.ref: image.by_tag for image in images if image.by_tag},
        loose=[image.ref for image in images if image.is_loose],
        not_mirrored=summary.not_mirrored,
        not_read=[_describe_group(group) for group in summary.unreviewed],
    )


def _weakest_redirect(image: ImageSummary, accepted: Container[str]) -> str:
    if not image.redirects:
        return UNNAMED
    words = [redirect.partition(" ")[0] for redirect in image.redirects]
    weakest = max(words, key=REDIRECTS.index)
    if weakest == "none" and image.is_copied:
        return COPIED
    if weakest == "none" and image.ref.text in accepted:
        return NODE_MIRROR
    return _REDIRECTS[weakest]


def _describe_group(group: UnreviewedGroup) -> str:
    """Return a program by the catalogue's name for it, and by the images that run it."""
    first, *others = group.images
    images = f"{first} and {len(others)} more" if others else first
    if not group.program:
        return images
    return f"{group.program} {group.version or 'of this tag'} ({images})"
