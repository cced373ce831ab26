"""Report what an installation connects to outside the cluster: where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kfdeploy.catalogue.records import EGRESS_KINDS
from kfdeploy.images.inventory import SourceLocation
from kfdeploy.kubernetes.objects import ObjectKey

MANIFEST = "manifest"
"""The source of an address in a rendered manifest; the catalogue has other sources."""


@dataclass(frozen=True, slots=True)
class EgressRecord:
    """One address at one place.

    Attributes:
        why: why something connects to it.
        way_out: what to do without the Internet.
        source: MANIFEST, or where the catalogue's fact was read.
        place: file and line; None for a fact of the catalogue.
        host: the host of an address in a manifest; empty for a bucket or a fact of the catalogue.
        unread: the program if nobody has read the fact at the version that runs; else empty.
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
        """Return the record as in ``scan --egress --format json``. Unknown is null or ""."""
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

    ``unread`` has the programs whose connections nobody has read at the versions that run:
    ``katib 0.15.0``, or the image of a program that is not in the catalogue.
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
    """Return a report, sorted and without duplicates.

    Args:
        version: the upstream's version.
        records: records of all components.
        namespaces: namespaces of all components; ``NAME.NAMESPACE`` in one of them is a Service.
        unread: programs whose connections nobody has read.
    """
    outside = {record for record in records if not _is_service(record.host, namespaces)}
    return EgressReport(version, tuple(sorted(outside, key=_sort_key)), tuple(sorted(set(unread))))


def _is_service(host: str, namespaces: frozenset[str]) -> bool:
    return bool(host) and host.rpartition(".")[2] in namespaces


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
