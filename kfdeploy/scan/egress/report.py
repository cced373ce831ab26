"""What an installation reaches for outside the cluster, with place and way out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kfdeploy.catalogue.records import EGRESS_KINDS
from kfdeploy.images.inventory import SourceLocation
from kfdeploy.kubernetes.objects import ObjectKey

MANIFEST = "manifest"
"""The source of what stands in a rendered manifest; other sources are the catalogue's."""


@dataclass(frozen=True, slots=True)
class EgressRecord:
    """One address at one place.

    ``host`` is empty where there is none, or where it surely lies outside. ``unread`` names a
    program that runs at a version at which nobody has read the fact; else it is empty.
    """

    what: str
    target: str
    need: str
    component: str
    why: str
    way_out: str
    source: str = MANIFEST
    object: ObjectKey | None = None
    field: str = ""
    place: SourceLocation | None = None
    overridden_by: tuple[SourceLocation, ...] = ()
    host: str = ""
    unread: str = ""

    def to_json(self) -> dict[str, Any]:
        """As in ``scan --egress --format json``; what is not known is null, or empty text."""
        out: dict[str, Any] = {
            "what": self.what,
            "target": self.target,
            "need": self.need,
            "component": self.component,
            "object": self.object,
            "field": self.field,
            "file": self.place.file if self.place else None,
            "line": self.place.line if self.place else None,
            "why": self.why,
            "wayOut": self.way_out,
            "source": self.source,
        }
        if self.unread:
            out["unread"] = self.unread
        if self.overridden_by:
            out["overridden_by"] = [{"file": p.file, "line": p.line} for p in self.overridden_by]
        return out


@dataclass(frozen=True, slots=True)
class EgressReport:
    """All records of an upstream, in order.

    ``unread`` names the programs of which nobody has read what they reach for, at the versions that
    run: ``katib 0.15.0``, or the image of a program that the catalogue does not know.
    """

    version: str
    records: tuple[EgressRecord, ...]
    unread: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "upstream": {"version": self.version},
            "egress": self.records,
            "unread": self.unread,
        }


def build_report(
    version: str,
    records: Iterable[EgressRecord],
    namespaces: frozenset[str],
    unread: Iterable[str] = (),
) -> EgressReport:
    """A report, sorted and without doubles.

    Args:
        namespaces: those of all components; ``NAME.NAMESPACE`` of one of them is a Service.
    """
    outside = {r for r in records if not (r.host and r.host.rpartition(".")[2] in namespaces)}
    return EgressReport(version, tuple(sorted(outside, key=_sort_key)), tuple(sorted(set(unread))))


def _sort_key(record: EgressRecord) -> tuple[Any, ...]:
    place = record.place or SourceLocation("", 0)
    key = record.object or ObjectKey("", "", "", "")
    return (
        EGRESS_KINDS.index(record.what),
        record.target,
        record.component,
        key,
        record.field,
        place.file,
        place.line,
        record.source,
        record.why,
    )
