"""The references found in images and checkouts, as people read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kfdeploy.scan.content import proposal
from kfdeploy.scan.content.compare import ContentScan, FoundReference, list_likely_references

_STATES = {
    "new": "NEW",
    "other version": "NEW at this version",
    "hidden": "known",
    "manifest": "in the manifests",
    "unused": "known, unused",
}
_PLACES = 3
_ALIKE = 3


def format_contents(looked: Sequence[ContentScan], form: str, source: str = "") -> Iterator[str]:
    """Yield a table with the proposed entries behind it, CSV, or the likely references alone."""
    if form == "refs":
        yield from list_likely_references(looked)
        return
    if form == "csv":
        yield "image,ref,status,score,file,line"
        for one in looked:
            for item in one.references:
                find = item.occurrences[0]
                cells = (one.subject.name, item.ref, item.status, str(item.score))
                yield ",".join((*cells, _quote_csv_cell(find.path), str(find.line or "")))
        return
    for one in looked:
        yield from _format_image_content(one)
    entries = list(proposal.propose_entries(looked, source=source))
    if entries:
        yield ""
        yield "# For catalogue/ in the workspace, once reviewed:"
        yield from entries


def _quote_csv_cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def _format_image_content(one: ContentScan) -> Iterator[str]:
    entry, version = one.subject.entry, one.subject.version
    known = f"{entry.component} {version or ''}".rstrip() if entry else "not in the catalogue"
    size = f", {one.layers} layers, {one.bytes >> 20} MiB" if one.layers else ""
    yield f"{one.subject.name}: {known}{size}{f', {one.platform}' if one.platform else ''}"
    shown = [item for item in one.references if item.is_likely]
    for item in shown:
        yield f"  {item.ref}{':...' if item.joined else ''}  {_STATES[item.status]}"
        yield from _format_evidence(item)
    rest = len(one.references) - len(shown)
    if rest:
        yield f"  {rest} less likely, listed by --format json"
    if not one.references and not one.problems:
        yield "  no reference"


def _format_evidence(item: FoundReference) -> Iterator[str]:
    if item.note:
        yield f"    {item.note}"
    for find in item.occurrences[:_PLACES]:
        yield f"    {find.location}: {'; '.join(find.candidate.evidence)}"
    if len(item.occurrences) > _PLACES:
        yield f"    and {len(item.occurrences) - _PLACES} more places"
    if item.names and item.status in ("new", "other version"):
        yield f"    perhaps set by {', '.join(item.names)}"


def format_problems(looked: Sequence[ContentScan]) -> Iterator[str]:
    """Yield an error for each image that could not be read to its end; many alike share one."""
    images: dict[str, list[str]] = {}
    for one in looked:
        for problem in one.problems:
            images.setdefault(problem, []).append(one.subject.name)
    for problem, names in images.items():
        if len(names) > _ALIKE:
            yield f"error: {problem}"
            yield f"  {len(names)} images, such as {names[0]}"
        else:
            yield from (f"error: {name}: {problem}" for name in names)
    for one in looked:
        yield from (f"note: {one.subject.name}: {note}" for note in one.notes)
