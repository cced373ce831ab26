"""The inventory: every image, each place that names it, and what redirects it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kfdeploy.images.redirect import Redirect
from kfdeploy.kubernetes.objects import ObjectKey, Path
from kfdeploy.oci.reference import WrittenRef

NEEDS = ("required", "optional", "user-choice")
"""How much an installation needs an image; the strongest comes first."""


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A line of a file, relative to the upstream (a remote: ``github.com/ORG/REPO@REF/path``)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, order=True)
class Replacement:
    """One piece of a site's string that a redirect replaces.

    Attributes:
        role: ``reference``, or ``hub``, ``name`` or ``tag`` of a reference that is joined.
        old: what is looked for in the string: the piece, or the text around it too.
        offset: of the piece in ``old``.
        text: the piece.
    """

    role: str
    old: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class ImageUse:
    """One place that names an image, or a program that pulls one by its own default.

    Attributes:
        ref: the image, as the cluster would ask for it.
        path: of the field in the object; empty for an image that no manifest names.
        how: in what the image is named: ``pod-spec``, ``env``, ``config``, ``catalogue``, ...
        redirect: what leads it to the private registry: ``patch``, ``env NAME``, ``none``, ...
        variables: that a script reads before its own default.
        note: what pulls an image that no manifest names.
        pin: ``tag`` where a digest would break what is made of the reference; else empty.
        adds: what a patch must add to the object, for an image that no manifest names.
        source: where such an image was read.
        outside: the namespace in which such an image is pulled, if it is no user's: admission does
            not reach it there.
        pulled_by: ``program`` where no kubelet pulls it; else empty.
    """

    ref: WrittenRef
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
        """Return an entry of ``found`` of ``scan --format json``."""
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

    ref: WrittenRef
    need: str
    found: tuple[ImageUse, ...]

    def to_json(self) -> dict[str, Any]:
        return {"ref": self.ref, "need": self.need, "found": self.found}


@dataclass(frozen=True, slots=True)
class ScanProblem:
    """Something that a scan could not decide, or that is not fit for a cluster.

    Attributes:
        about: ``name`` where an API server would refuse the object for its name; else empty.
    """

    what: str
    where: str
    about: str = ""

    def to_json(self) -> dict[str, str]:
        out = {"what": self.what, "where": self.where}
        return {**out, "about": self.about} if self.about else out


@dataclass(frozen=True, slots=True, order=True)
class UnreviewedProgram:
    """A program whose source nobody has read for hidden images, at the version that runs.

    Attributes:
        image: as its container names it, whether or not that is a reference.
        entry: the catalogue's entry for it; empty where there is none, like all that follows.
        nearest: the closest version that was read.
        images: the hidden images of that version.
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
        """The command that searches the program's image."""
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
    """A program that nobody has read at one version, and all images that run it.

    Attributes:
        program: the catalogue's entry; empty where there is none, as ``version`` is then.
    """

    program: str
    version: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class UnavailableReference:
    """An image that is gone from its source.

    Attributes:
        substitute: an image to take instead, if a person confirms it; empty where none is known.
    """

    ref: WrittenRef
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

    def find_image(self, ref: WrittenRef) -> InventoryImage | None:
        return next((image for image in self.images if image.ref == ref), None)


@dataclass(frozen=True, slots=True)
class ComponentScan:
    """What a scan found in one component, in no particular order."""

    image_uses: tuple[ImageUse, ...] = ()
    problems: tuple[ScanProblem, ...] = ()
    unknown: tuple[UnreviewedProgram, ...] = ()
    lost: tuple[UnavailableReference, ...] = ()


def merge_scans(version: str, parts: Sequence[ComponentScan]) -> Inventory:
    """Return the inventory of all components, sorted.

    An image's need is the strongest of its places.
    """
    uses_by_ref: dict[WrittenRef, set[ImageUse]] = {}
    for part in parts:
        for use in part.image_uses:
            uses_by_ref.setdefault(use.ref, set()).add(use)
    images = []
    for ref, uses in sorted(uses_by_ref.items()):
        need = min((use.need for use in uses), key=NEEDS.index)
        images.append(InventoryImage(ref, need, tuple(sorted(uses, key=_use_sort_key))))
    return Inventory(
        version,
        tuple(images),
        tuple(
            sorted({p for part in parts for p in part.problems}, key=lambda p: (p.where, p.what))
        ),
        tuple(sorted({unknown for part in parts for unknown in part.unknown})),
        tuple(sorted({lost for part in parts for lost in part.lost})),
    )


def _use_sort_key(use: ImageUse) -> tuple[Any, ...]:
    place = use.place or SourceLocation("", 0)
    where = (use.component, use.object, use.field, place.file, place.line)
    return (*where, use.pieces, use.how, use.redirect, use.need, use.note, use.source)
