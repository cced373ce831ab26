"""The addresses outside the cluster that an installation uses, as people read them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence

from kfdeploy.codec import to_json
from kfdeploy.scan.egress.report import MANIFEST, EgressRecord, EgressReport

_HEADER = ("what", "target", "need", "component", "object", "field", "file", "line")


def format_egress(content: EgressReport, form: str) -> Iterator[str]:
    """Yield a table, JSON, CSV, or the targets alone (``refs``)."""
    if form == "json":
        yield json.dumps(to_json(content), indent=2, ensure_ascii=False)
    elif form == "refs":
        yield from dict.fromkeys(record.target for record in content.records)
    elif form == "csv":
        yield _format_csv_row((*_HEADER, "why", "wayOut", "source"))
        yield from (_format_csv_row(_csv_values(record)) for record in content.records)
    else:
        yield from _format_table(content.records)


def format_unread(content: EgressReport) -> Iterator[str]:
    """Yield a note on programs whose version nobody has reviewed for addresses."""
    if content.unread:
        yield f"note: nobody has reviewed which addresses these use: {', '.join(content.unread)}"
        yield "  to search: `kfdeploy scan` names their images and the command for each"


def _format_table(records: Sequence[EgressRecord]) -> Iterator[str]:
    """Yield each address once for each reason, with its first place."""
    seen: dict[tuple[str, str, str, str], list[EgressRecord]] = {}
    for record in records:
        key = (record.what, record.target, record.need, record.why)
        seen.setdefault(key, []).append(record)
    for (what, target, need, why), places in seen.items():
        first = places[0]
        more = f" (+{len(places) - 1})" if len(places) > 1 else ""
        yield f"{what:15}  {need:11}  {target}"
        yield f"  {first.component}: {_describe_location(first)}{more}"
        yield f"  why: {why}"
        yield f"  way out: {first.way_out}"
        if first.unread:
            yield f"  reviewed at another version: {first.unread} runs here"
    count = len({record.target for record in records})
    yield f"{count} address{'' if count == 1 else 'es'} outside the cluster"


def _describe_location(record: EgressRecord) -> str:
    if record.place:
        return str(record.place)
    if record.source != MANIFEST:
        return record.source
    return f"{record.object} {record.field}"


def _csv_values(record: EgressRecord) -> tuple[str, ...]:
    place = record.place
    return (
        record.what,
        record.target,
        record.need,
        record.component,
        str(record.object or ""),
        record.field,
        place.file if place else "",
        str(place.line) if place else "",
        record.why,
        record.way_out,
        record.source,
    )


def _format_csv_row(values: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(values)
    return out.getvalue()
