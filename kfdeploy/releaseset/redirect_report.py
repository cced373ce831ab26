"""How each image of a release set is led to the private registry, and what rests on less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WAYS = {
    "patch": "a patch of the field that names them",
    "env": "a variable",
    "flag": "a flag",
    "config": "a key or file of a configuration",
    "admission": "admission",
    "none": "nothing",
}
NODE_MIRROR = "a node's registry mirror"
COPIED = "nothing: a program copies them itself, past the nodes"
UNNAMED = "no object: only those who name them pull them"


@dataclass(frozen=True, slots=True)
class RedirectReport:
    """The images of a set by what leads them, each once, by the weakest of its places.

    Attributes:
        ways: what leads to the images; in the order of strength, the weaker ones last.
        by_tag: images that some place has by tag alone, with what it says there.
        loose: images that users may name in a place that nothing redirects.
        not_mirrored: images that are named and that the private registry need not have, and why.
        not_read: programs that may pull images which nobody knows: their code was not read at the
            version that runs.
    """

    refs_by_redirect: Mapping[str, Sequence[str]]
    by_tag: Mapping[str, str]
    loose: Sequence[str]
    not_mirrored: Mapping[str, str]
    not_read: Sequence[str] = ()

    @property
    def conclusion(self) -> str:
        """What holds for all that is not counted."""
        if not self.not_read:
            return "nothing else in the set can be pulled from outside"
        return "nothing else that the set names can be pulled from outside; see what was not read"

    @property
    def weak_refs(self) -> Sequence[str]:
        """What rests on admission or a node's mirror alone, or on nothing."""
        return [
            ref
            for way in (_WAYS["admission"], NODE_MIRROR, COPIED, _WAYS["none"])
            for ref in self.refs_by_redirect.get(way, ())
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "redirects": {way: list(refs) for way, refs in self.refs_by_redirect.items()},
            "byTag": dict(self.by_tag),
            "loose": list(self.loose),
            "notMirrored": dict(self.not_mirrored),
            "notRead": list(self.not_read),
        }

    def to_lines(self) -> Iterator[str]:
        """For people: a line a way, and the images of the weak ones by name."""
        weak = set(self.weak_refs)
        for way, refs in self.refs_by_redirect.items():
            yield f"  {len(refs):4} by {way}"
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


def report_redirects(summary: Mapping[str, Any], uncovered: Sequence[str]) -> RedirectReport:
    """The proof of a set, from its summary.

    Args:
        uncovered: images that a person accepted without a redirect.
    """
    order = [*_WAYS.values()]
    order[-1:-1] = (NODE_MIRROR, COPIED)
    order.insert(order.index(_WAYS["admission"]), UNNAMED)
    ways: dict[str, list[str]] = {way: [] for way in order}
    for ref, image in sorted(summary["images"].items()):
        ways[_weakest_redirect(ref, image, uncovered)].append(ref)
    return RedirectReport(
        {way: refs for way, refs in ways.items() if refs},
        {r: i["byTag"] for r, i in sorted(summary["images"].items()) if "byTag" in i},
        [ref for ref, image in sorted(summary["images"].items()) if image.get("loose")],
        dict(sorted(summary.get("notMirrored", {}).items())),
        [_describe_program(one) for one in summary.get("notRead", ())],
    )


def _describe_program(one: Mapping[str, Any]) -> str:
    """A program that nobody has read, by the catalogue's name for it, and as it runs."""
    first, *others = one["images"]
    runs = f"{first} and {len(others)} more" if others else str(first)
    if not one["program"]:
        return runs
    return f"{one['program']} {one['version'] or 'of this tag'} ({runs})"


def _weakest_redirect(ref: str, image: Mapping[str, Any], uncovered: Sequence[str]) -> str:
    redirects = image.get("redirects", ())
    if not redirects:
        return UNNAMED
    words = [redirect.partition(" ")[0] for redirect in redirects]
    weakest = max(words, key=list(_WAYS).index)
    if weakest == "none" and image.get("copied"):
        return COPIED
    if weakest == "none" and ref in uncovered:
        return NODE_MIRROR
    return _WAYS[weakest]
