"""What a scan found: every image, each place that names it, and what redirects it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kfdeploy.images.redirect import Redirect
from kfdeploy.kubernetes.objects import ObjectKey, Path

NEEDS = ("required", "optional", "user-choice")


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """File and line, relative to the upstream (a remote: ``github.com/ORG/REPO@REF/path``)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, order=True)
class Replacement:
    """One piece of a site's string that a redirect replaces: itself, or by its context."""

    role: str
    old: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class ImageUse:
    """One place that names an image, or for which an operator's own default speaks.

    ``pin`` is ``tag`` where a digest would break what is made of the reference. ``adds`` is what a
    patch must add to an object, for an image that no manifest names; ``source`` is where that image
    was read, and ``note`` what pulls it: in the namespace ``outside``, if that is no user's, where
    admission does not reach it. ``pulled_by`` is ``program`` where no kubelet pulls it.
    """

    component: str
    object: ObjectKey
    field: str
    path: Path
    how: str
    redirect: str
    place: SourceLocation | None = None
    overridden_by: tuple[SourceLocation, ...] = ()
    pieces: tuple[Replacement, ...] = ()
    is_whole_value: bool = True
    variables: tuple[str, ...] = ()
    need: str = "required"
    note: str = ""
    pin: str = ""
    adds: Redirect | None = None
    source: str = ""
    outside: str = ""
    pulled_by: str = ""

    def to_json(self) -> dict[str, Any]:
        """As the contract has it for ``scan --format json``."""
        out: dict[str, Any] = {
            "component": self.component,
            "object": self.object,
            "field": self.field,
        }
        if self.place:
            out |= {"file": self.place.file, "line": self.place.line}
        out |= {"how": self.how, "redirect": self.redirect, "need": self.need}
        if self.overridden_by:
            out["overridden_by"] = [
                {"file": place.file, "line": place.line} for place in self.overridden_by
            ]
        if self.pin:
            out["pin"] = self.pin
        if self.pulled_by:
            out["pulled_by"] = self.pulled_by
        if self.note:
            out["note"] = self.note
        if self.source:
            out["source"] = self.source
        return out


@dataclass(frozen=True, slots=True)
class InventoryImage:
    """One reference, as the cluster would ask for it, with all its places."""

    ref: str
    need: str
    found: tuple[ImageUse, ...]

    def to_json(self) -> dict[str, Any]:
        return {"ref": self.ref, "need": self.need, "found": self.found}


@dataclass(frozen=True, slots=True)
class ScanProblem:
    """What could not be told, or is not fit for a cluster.

    ``about`` is ``name`` where an API server would refuse the object for its name; else empty.
    """

    what: str
    where: str
    about: str = ""

    def to_json(self) -> dict[str, str]:
        out = {"what": self.what, "where": self.where}
        return {**out, "about": self.about} if self.about else out


@dataclass(frozen=True, slots=True, order=True)
class UnreviewedProgram:
    """A program whose hidden images nobody has looked at, at the version that runs.

    ``entry`` and ``nearest`` are the catalogue's entry for it and the nearest version it knows,
    with the images that one had; empty where the catalogue has none.
    """

    component: str
    object: ObjectKey
    image: str
    version: str
    entry: str = ""
    nearest: str = ""
    images: tuple[str, ...] = ()

    @property
    def scan_command(self) -> str:
        """The command that looks into the program's image."""
        return f"kfdeploy scan --image-content --image {self.image}"

    def to_json(self) -> dict[str, Any]:
        return {
            "component": self.component,
            "object": self.object,
            "image": self.image,
            "version": self.version,
            "entry": self.entry,
            "nearest": {"version": self.nearest, "images": self.images},
            "look": self.scan_command,
        }


@dataclass(frozen=True, slots=True)
class UnreviewedGroup:
    """A program that nobody has looked at, at one version, and all images that run it.

    ``program`` is the catalogue's entry; it and ``version`` are empty where the catalogue has none.
    """

    program: str
    version: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class UnavailableReference:
    """An image that is gone from its source; a substitute is for a person to confirm."""

    ref: str
    why: str
    source: str
    substitute: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """All sites of all components, and the catalogue's images that have no site."""

    version: str
    images: tuple[InventoryImage, ...]
    problems: tuple[ScanProblem, ...] = field(default=())
    unknown: tuple[UnreviewedProgram, ...] = field(default=())
    lost: tuple[UnavailableReference, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return {
            "upstream": {"version": self.version},
            "images": self.images,
            "problems": self.problems,
            "unknown": self.unknown,
            "lost": self.lost,
        }

    def find_image(self, ref: str) -> InventoryImage | None:
        return next((image for image in self.images if image.ref == ref), None)


@dataclass(frozen=True, slots=True)
class ComponentScan:
    """One component's images, what could not be told, programs that nobody has looked at, and
    images that are gone from their source."""

    image_uses: tuple[tuple[str, ImageUse], ...] = ()
    problems: tuple[ScanProblem, ...] = ()
    unknown: tuple[UnreviewedProgram, ...] = ()
    lost: tuple[UnavailableReference, ...] = ()


def merge_scans(version: str, parts: Sequence[ComponentScan]) -> Inventory:
    """An inventory of what was found, sorted; an image's need is the strongest of its places."""
    by_ref: dict[str, list[ImageUse]] = {}
    for part in parts:
        for ref, place in part.image_uses:
            by_ref.setdefault(ref, []).append(place)
    images = []
    for ref in sorted(by_ref):
        places = tuple(sorted(set(by_ref[ref]), key=_use_sort_key))
        need = min((place.need for place in places), key=NEEDS.index)
        images.append(InventoryImage(ref, need, places))
    return Inventory(
        version,
        tuple(images),
        tuple(
            sorted({p for part in parts for p in part.problems}, key=lambda p: (p.where, p.what))
        ),
        tuple(sorted({unknown for part in parts for unknown in part.unknown})),
        tuple(sorted({lost for part in parts for lost in part.lost})),
    )


def _use_sort_key(found: ImageUse) -> tuple[Any, ...]:
    place = found.place or SourceLocation("", 0)
    where = (found.component, found.object, found.field, place.file, place.line)
    return (*where, found.pieces, found.how, found.redirect, found.need, found.note, found.source)
