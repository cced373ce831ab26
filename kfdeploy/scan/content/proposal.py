"""Catalogue entries for what was found and is not known yet, ready for a person to review."""

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


def propose_entries(looked: Iterable[ContentScan], *, source: str = "") -> Iterator[str]:
    """Lines of YAML, a document each component.

    A component that the catalogue has gets the items to add to its file; another one a whole entry.

    Args:
        source: ``OWNER/REPO@TAG`` of a checkout.
    """
    grouped: dict[str, list[ContentScan]] = {}
    for one in looked:
        if one.new_references:
            grouped.setdefault(_component_name(one), []).append(one)
    for index, (component, group) in enumerate(sorted(grouped.items())):
        if index:
            yield "---"
        yield from _format_entry(component, group, source)


def _component_name(looked: ContentScan) -> str:
    if looked.subject.entry:
        return looked.subject.entry.component
    try:
        path = ImageRef.parse(looked.subject.name).path
    except InvalidImageRef:
        path = looked.subject.name.rstrip("/").split("@")[0]
    return path.rsplit("/", 1)[-1].lower()


def _format_entry(component: str, group: Sequence[ContentScan], source: str) -> Iterator[str]:
    known = next((one.subject.entry for one in group if one.subject.entry), None)
    if known:
        yield f"# to add to {known.file or component}"
    yield f"component: {_quote_scalar(component)}"
    programs = sorted({_program_pattern(one.subject.name) for one in group if one.subject.programs})
    if not known:
        yield "programs:"
        yield from (f"- {_quote_scalar(item)}" for item in programs or [f"*/{component}"])
    versions = sorted({str(v) for one in group if (v := one.subject.version)})
    origin = source or _detect_origin(group)
    if versions and not (known and all(known.is_reviewed(one.subject.version) for one in group)):
        yield "read:"
        for version in versions:
            yield f"- versions: {_quote_scalar(version)}"
            yield f"  source: {_quote_scalar(origin)}"
            yield "  note: found by a look into the image; TO REVIEW"
    yield "images:"
    done: set[str] = set()
    for one in group:
        for item in one.new_references:
            if item.ref not in done:
                done.add(item.ref)
                yield from _format_image(item, one, origin, bool(versions))


def _program_pattern(image: str) -> str:
    """The repository below any registry and mirror."""
    try:
        ref = ImageRef.parse(image)
    except InvalidImageRef:
        return image
    return f"*/{host_qualified_path(ref).partition('/')[2]}"


def _detect_origin(group: Sequence[ContentScan]) -> str:
    for one in group:
        match = _REPOSITORY.fullmatch(one.labels.get(_SOURCE_LABEL, ""))
        if match:
            tag = one.labels.get("org.opencontainers.image.version") or "TAG"
            return f"{match[1]}@{re.sub(r'[^A-Za-z0-9._/-]', '-', tag)}"
    return UNKNOWN


def _format_image(
    item: FoundReference, looked: ContentScan, origin: str, has_version: bool
) -> Iterator[str]:
    find = item.occurrences[0]
    yield f"# {find.location}: {'; '.join(find.candidate.evidence)}"
    if item.joined:
        yield "# its tag is joined to it at run time: complete it"
    yield f"- ref: {_quote_scalar(item.ref)}"
    if has_version and looked.subject.version:
        yield f"  versions: {_quote_scalar(str(looked.subject.version))}"
    yield "  need: optional"
    yield f"  when: {_quote_scalar(_WHEN)}"
    line = f":{find.path}:{find.line}" if find.line and looked.subject.programs == () else ""
    yield f"  source: {_quote_scalar(origin + line)}"
    names = item.names
    if names:
        program = _redirect_target(looked.subject.programs)
        yield "  redirect:"
        yield f"    kind: {program[0]}"
        yield f"    name: {_quote_scalar(program[1])}"
        yield f"    container: {_quote_scalar(program[2])}"
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
    """A YAML scalar that every reader takes for this text."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)
