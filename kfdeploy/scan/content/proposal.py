"""Propose catalogue entries for new references, for a person to review."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from kfdeploy.catalogue.facts import WorkloadProgram
from kfdeploy.oci.reference import ImageRef, InvalidImageRef, host_qualified_path
from kfdeploy.scan.content.compare import ContentScan, FoundReference

_PLAIN: Final = re.compile(r"[A-Za-z][\w./@:-]*[\w/]|-{1,2}[a-z][\w-]*[a-z0-9]", re.ASCII)
_WORDS: Final = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))
_SOURCE_LABEL: Final = "org.opencontainers.image.source"
_REPOSITORY: Final = re.compile(r"https?://(?:www\.)?github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
UNKNOWN: Final = "OWNER/REPO@TAG"
_WHEN: Final = "TO REVIEW: what pulls it, under which condition"


def propose_entries(scans: Iterable[ContentScan], *, source: str = "") -> Iterator[str]:
    """Yield lines of YAML, one document for each component.

    For a component that the catalogue has, the document holds the items to add to its file; for
    another one it is a whole entry.

    Args:
        source: ``OWNER/REPO@TAG`` of a checkout.
    """
    grouped: dict[str, list[ContentScan]] = {}
    for scan in scans:
        if scan.new_references:
            grouped.setdefault(_component_name(scan), []).append(scan)
    for index, (component, group) in enumerate(sorted(grouped.items())):
        if index:
            yield "---"
        yield from _format_entry(component, group, source)


def _component_name(scan: ContentScan) -> str:
    if scan.subject.entry:
        return scan.subject.entry.component
    try:
        path = ImageRef.parse(scan.subject.name).path
    except InvalidImageRef:
        path = scan.subject.name.rstrip("/").split("@")[0]
    return path.rsplit("/", 1)[-1].lower()


def _format_entry(component: str, group: Sequence[ContentScan], source: str) -> Iterator[str]:
    known = next((scan.subject.entry for scan in group if scan.subject.entry), None)
    if known:
        yield f"# to add to {known.file or component}"
    yield f"component: {_quote_scalar(component)}"
    programs = sorted(
        {_program_pattern(scan.subject.name) for scan in group if scan.subject.programs}
    )
    if not known:
        yield "programs:"
        yield from (f"- {_quote_scalar(item)}" for item in programs or [f"*/{component}"])
    versions = sorted({str(scan.subject.version) for scan in group if scan.subject.version})
    origin = source or _detect_origin(group)
    if versions and not (known and all(known.is_reviewed(scan.subject.version) for scan in group)):
        yield "read:"
        for version in versions:
            yield f"- versions: {_quote_scalar(version)}"
            yield f"  source: {_quote_scalar(origin)}"
            yield "  note: found by a look into the image; TO REVIEW"
    yield "images:"
    done: set[str] = set()
    for scan in group:
        for item in scan.new_references:
            if item.ref not in done:
                done.add(item.ref)
                yield from _format_image(item, scan, origin, bool(versions))


def _program_pattern(image: str) -> str:
    """Return a pattern for a program's repository on any registry or mirror."""
    try:
        ref = ImageRef.parse(image)
    except InvalidImageRef:
        return image
    return f"*/{host_qualified_path(ref).partition('/')[2]}"


def _detect_origin(group: Sequence[ContentScan]) -> str:
    for scan in group:
        match = _REPOSITORY.fullmatch(scan.labels.get(_SOURCE_LABEL, ""))
        if match:
            tag = scan.labels.get("org.opencontainers.image.version") or "TAG"
            return f"{match[1]}@{re.sub(r'[^A-Za-z0-9._/-]', '-', tag)}"
    return UNKNOWN


def _format_image(
    item: FoundReference, scan: ContentScan, origin: str, has_version: bool
) -> Iterator[str]:
    find = item.occurrences[0]
    yield f"# {find.location}: {'; '.join(find.candidate.evidence)}"
    if item.joined:
        yield "# its tag is joined to it at run time: complete it"
    yield f"- ref: {_quote_scalar(item.ref)}"
    if has_version and scan.subject.version:
        yield f"  versions: {_quote_scalar(str(scan.subject.version))}"
    yield "  need: optional"
    yield f"  when: {_quote_scalar(_WHEN)}"
    line = f":{find.path}:{find.line}" if find.line and not scan.subject.programs else ""
    yield f"  source: {_quote_scalar(origin + line)}"
    names = item.names
    if names:
        kind, name, container = _redirect_target(scan.subject.programs)
        yield "  redirect:"
        yield f"    kind: {kind}"
        yield f"    name: {_quote_scalar(name)}"
        yield f"    container: {_quote_scalar(container)}"
        way = "flag" if names[0].startswith("-") else "env"
        yield f"    {way}: {_quote_scalar(names[0])}"
        if len(names) > 1:
            yield f"    # or {', '.join(names[1:])}"


def _redirect_target(programs: Sequence[WorkloadProgram]) -> tuple[str, str, str]:
    if not programs:
        return "Deployment", "TO-REVIEW", "TO-REVIEW"
    first = programs[0]
    return first.object.kind, first.object.name, first.container


def _quote_scalar(text: str) -> str:
    """Return a YAML scalar that YAML 1.1 and 1.2 both read as this text."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)
