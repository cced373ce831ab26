"""Compare the candidates of an image or a checkout with the catalogue and the manifests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from kfdeploy.catalogue.facts import Catalogue, WorkloadProgram
from kfdeploy.catalogue.records import CatalogueEntry
from kfdeploy.catalogue.versions import Version
from kfdeploy.images.inventory import Inventory
from kfdeploy.oci.reference import ImageRef
from kfdeploy.scan.content.candidate import LIKELY
from kfdeploy.scan.content.layer import LocatedCandidate

Status = Literal["new", "hidden", "other version", "unused", "manifest"]
_ORDER: Final = ("new", "other version", "hidden", "manifest", "unused")
CODE: Final = frozenset(("go", "python", "script"))
"""Languages of operators: a constant in one of them is a default, whatever manifests say."""
PLACES: Final = 20
"""The number of places that are listed for one reference."""


@dataclass(frozen=True, slots=True)
class ScanSubject:
    """An image with the containers that run it, or a checkout.

    Attributes:
        name: the reference as the manifests have it, or the name of a folder.
        programs: the containers that run it.
    """

    name: str
    programs: tuple[WorkloadProgram, ...] = ()

    @property
    def entry(self) -> CatalogueEntry | None:
        return next((program.entry for program in self.programs if program.entry), None)

    @property
    def version(self) -> Version | None:
        return next((program.version for program in self.programs if program.version), None)


@dataclass(frozen=True, slots=True)
class FoundReference:
    """A reference that was found in an image or a checkout.

    Attributes:
        joined: whether the program appends a tag, or a part of one, at run time.
        occurrences: its places, those with the highest score first.
        note: what the catalogue or the manifests say about it.
    """

    ref: str
    status: Status
    score: int
    joined: bool
    occurrences: tuple[LocatedCandidate, ...]
    note: str = ""

    @property
    def is_likely(self) -> bool:
        return self.score >= LIKELY

    @property
    def names(self) -> tuple[str, ...]:
        """Return flags and variables near it: those near most places first, then the nearest."""
        names = [name for find in self.occurrences for name in find.names]
        return tuple(sorted(dict.fromkeys(names), key=lambda name: -names.count(name)))

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "ref": self.ref,
            "status": self.status,
            "score": self.score,
            "likely": self.is_likely,
        }
        if self.joined:
            out["joined"] = True
        if self.note:
            out["note"] = self.note
        if self.names:
            out["names"] = self.names
        out["evidence"] = list(self.occurrences[0].candidate.evidence)
        out["places"] = [
            {"file": find.path, "how": find.how}
            | ({"line": find.line} if find.line else {"offset": find.offset})
            for find in self.occurrences[:PLACES]
        ]
        return out


@dataclass(frozen=True, slots=True)
class ContentScan:
    """A subject, and the references that were found in it.

    Attributes:
        where: what was read: a reference of the private registry, a folder, the daemon.
        bytes: the size of its layers when inflated.
        problems: what was damaged or cut off; if there are any, references may be missing.
        labels: labels of the image's configuration, which may name its source and version.
    """

    subject: ScanSubject
    where: str
    references: tuple[FoundReference, ...]
    platform: str = ""
    layers: int = 0
    bytes: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def new_references(self) -> tuple[FoundReference, ...]:
        """Return the likely references that the catalogue does not have for this version."""
        return tuple(
            item
            for item in self.references
            if item.status in ("new", "other version") and item.is_likely
        )

    def to_json(self) -> dict[str, Any]:
        entry, version = self.subject.entry, self.subject.version
        out: dict[str, Any] = {"image": self.subject.name, "read": self.where}
        if self.platform:
            out["platform"] = self.platform
        out |= {
            "component": entry.component if entry else None,
            "version": str(version) if version else None,
            "known": bool(entry and entry.is_reviewed(version)),
            "layers": self.layers,
            "bytes": self.bytes,
            "found": self.references,
            "problems": self.problems,
        }
        if self.notes:
            out["notes"] = self.notes
        return out


def classify_candidates(
    finds: Iterable[LocatedCandidate],
    subject: ScanSubject,
    facts: Catalogue,
    inventory: Inventory | None,
) -> tuple[FoundReference, ...]:
    """Return each reference once, with what is known about it.

    New references come first, then by score.
    """
    grouped: dict[str, list[LocatedCandidate]] = {}
    for find in finds:
        grouped.setdefault(find.candidate.ref, []).append(find)
    out = []
    for ref, places in grouped.items():
        places.sort(key=lambda f: (-f.candidate.score, f.path, f.line, f.offset))
        best = places[0].candidate
        joined = all(place.candidate.joined for place in places)
        status, note = _classify_reference(ref, joined, subject, facts, inventory)
        kinds = {place.how for place in places}
        if status == "new" and "manifest" in kinds and not kinds & CODE:
            status, note = "manifest", "a manifest of the checkout"
        out.append(FoundReference(ref, status, best.score, joined, tuple(places), note))
    return tuple(sorted(out, key=lambda i: (_ORDER.index(i.status), -i.score, i.ref)))


def _classify_reference(
    ref: str, joined: bool, subject: ScanSubject, facts: Catalogue, inventory: Inventory | None
) -> tuple[Status, str]:
    own = subject.entry
    # Defaults of other programs do not count. A checkout may belong to any entry.
    entries = [own] if own else ([] if subject.programs else list(facts.entries))
    for entry in entries:
        for unused in entry.unused:
            if _is_same_image(ref, unused.ref, joined) or fnmatchcase(ref, unused.ref):
                return "unused", unused.why
    elsewhere = False
    for entry in entries:
        at_version = list(entry.images if own is None else entry.images_at(subject.version))
        for image in entry.images:
            if any(_is_same_image(ref, known, joined) for known in image.references):
                if image in at_version:
                    return "hidden", f"{entry.component}: {image.when}"
                elsewhere = True
    named = _find_in_manifests(ref, joined, inventory) if inventory else ""
    if named:
        return "manifest", named
    if elsewhere and own is not None:
        return "other version", f"the catalogue of {own.component} has it for other versions"
    return "new", ""


def _find_in_manifests(ref: str, joined: bool, inventory: Inventory) -> str:
    """Return the place where the manifests name the same image; empty if they do not."""
    for image in inventory.images:
        if _is_same_image(ref, image.ref.text, joined):
            found = image.found[0]
            if found.how != "catalogue":
                more = "" if ref == image.ref.text else f" as {image.ref}"
                return f"{found.component}: {found.object}{more}"
    return ""


def _is_same_image(ref: str, other: str, joined: bool) -> bool:
    """Return whether two references name one image.

    Of a joined reference only the repository and the beginning of the tag are known.
    """
    found, known = ImageRef.try_parse(ref), ImageRef.try_parse(other)
    if found is None or known is None:
        return False
    if joined:
        return found.repository == known.repository and known.tag.startswith(found.tag)
    return found.with_default_tag() == known.with_default_tag()


def select_subjects(
    programs: Iterable[WorkloadProgram], *, covered: frozenset[str]
) -> tuple[list[ScanSubject], list[str]]:
    """Split the images of workloads into those to scan and those to leave out.

    Left out are images that are not covered, and programs that create no objects (a database).
    """
    grouped: dict[str, list[WorkloadProgram]] = {}
    for program in programs:
        grouped.setdefault(program.image, []).append(program)
    wanted, skipped = [], []
    for image in sorted(grouped):
        subject = ScanSubject(image, tuple(grouped[image]))
        entry = subject.entry
        creates_nothing = entry is not None and any(read.versions.is_any for read in entry.read)
        if creates_nothing or image not in covered:
            skipped.append(image)
        else:
            wanted.append(subject)
    return wanted, skipped


def list_likely_references(scans: Sequence[ContentScan]) -> Iterator[str]:
    """Yield all likely references, sorted, each once."""
    refs = {item.ref for scan in scans for item in scan.references if item.is_likely}
    yield from sorted(refs)
