"""What a scan found: every image, each place that names it, and what redirects it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kfdeploy.model.objects import ObjectKey, Path

NEEDS = ("required", "optional", "user-choice")


@dataclass(frozen=True, slots=True)
class Place:
    """File and line, relative to the upstream (a remote: ``github.com/ORG/REPO@REF/path``)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """One piece of a site's string that a redirect replaces: itself, or by its context."""

    role: str
    old: str
    offset: int
    text: str

    def to_json(self) -> list[Any]:
        return [self.role, self.old, self.offset, self.text]


@dataclass(frozen=True, slots=True)
class Found:
    """One place that names an image."""

    component: str
    object: ObjectKey
    field: str
    path: Path
    how: str
    redirect: str
    place: Place | None = None
    overridden_by: tuple[Place, ...] = ()
    pieces: tuple[Piece, ...] = ()
    whole: bool = True
    variables: tuple[str, ...] = ()
    need: str = "required"
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """As the contract has it for ``scan --format json``."""
        out: dict[str, Any] = {
            "component": self.component,
            "object": self.object.to_json(),
            "field": self.field,
        }
        if self.place:
            out |= {"file": self.place.file, "line": self.place.line}
        out |= {"how": self.how, "redirect": self.redirect, "need": self.need}
        if self.overridden_by:
            out["overridden_by"] = [
                {"file": place.file, "line": place.line} for place in self.overridden_by
            ]
        if self.note:
            out["note"] = self.note
        return out


@dataclass(frozen=True, slots=True)
class Image:
    """One reference, as the cluster would ask for it, with all its places."""

    ref: str
    need: str
    found: tuple[Found, ...]

    def to_json(self) -> dict[str, Any]:
        return {"ref": self.ref, "need": self.need, "found": [f.to_json() for f in self.found]}


@dataclass(frozen=True, slots=True)
class Problem:
    what: str
    where: str

    def to_json(self) -> dict[str, str]:
        return {"what": self.what, "where": self.where}


@dataclass(frozen=True, slots=True)
class Inventory:
    """All sites of all components, and the catalogue's images that have no site."""

    version: str
    images: tuple[Image, ...]
    problems: tuple[Problem, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return {
            "upstream": {"version": self.version},
            "images": [image.to_json() for image in self.images],
            "problems": [problem.to_json() for problem in self.problems],
        }

    def get(self, ref: str) -> Image | None:
        return next((image for image in self.images if image.ref == ref), None)


def gather(
    version: str, found: Iterable[tuple[str, Found]], problems: Sequence[Problem]
) -> Inventory:
    """An inventory of what was found, sorted; an image's need is the strongest of its places."""
    by_ref: dict[str, list[Found]] = {}
    for ref, place in found:
        by_ref.setdefault(ref, []).append(place)
    images = []
    for ref in sorted(by_ref):
        places = tuple(sorted(set(by_ref[ref]), key=_order))
        need = min((place.need for place in places), key=NEEDS.index)
        images.append(Image(ref, need, places))
    return Inventory(
        version, tuple(images), tuple(sorted(set(problems), key=lambda p: (p.where, p.what)))
    )


def _order(found: Found) -> tuple[Any, ...]:
    place = found.place or Place("", 0)
    return (found.component, found.object, found.field, place.file, place.line, found.pieces)


# --- the form kept in the cache -------------------------------------------------------------------


def found_to_cache(ref: str, found: Found) -> dict[str, Any]:
    """Everything of a place, to be read back by `found_from_cache`."""
    place = found.place
    return {
        "ref": ref,
        "component": found.component,
        "object": found.object.to_json(),
        "field": found.field,
        "path": list(found.path),
        "how": found.how,
        "redirect": found.redirect,
        "place": [place.file, place.line] if place else None,
        "overridden": [[p.file, p.line] for p in found.overridden_by],
        "pieces": [piece.to_json() for piece in found.pieces],
        "whole": found.whole,
        "variables": list(found.variables),
        "need": found.need,
        "note": found.note,
    }


def found_from_cache(data: Mapping[str, Any]) -> tuple[str, Found]:
    place = data["place"]
    return data["ref"], Found(
        component=data["component"],
        object=ObjectKey.from_json(data["object"]),
        field=data["field"],
        path=tuple(data["path"]),
        how=data["how"],
        redirect=data["redirect"],
        place=Place(*place) if place else None,
        overridden_by=tuple(Place(*p) for p in data["overridden"]),
        pieces=tuple(Piece(*piece) for piece in data["pieces"]),
        whole=data["whole"],
        variables=tuple(data["variables"]),
        need=data["need"],
        note=data["note"],
    )


__all__ = [
    "NEEDS",
    "Found",
    "Image",
    "Inventory",
    "Piece",
    "Place",
    "Problem",
    "found_from_cache",
    "found_to_cache",
    "gather",
    "replace",
]
