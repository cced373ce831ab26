"""Catalogue entries for what was found and is not known yet, ready for a person to review."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from kfdeploy.catalogue.facts import Program
from kfdeploy.oci.reference import ImageRef, InvalidImageRef, neutral_path
from kfdeploy.scan.content.compare import Listed, Looked

_PLAIN: Final = re.compile(r"[A-Za-z][\w./@:-]*[\w/]|-{1,2}[a-z][\w-]*[a-z0-9]", re.ASCII)
_WORDS: Final = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))
_SOURCE_LABEL: Final = "org.opencontainers.image.source"
_REPOSITORY: Final = re.compile(r"https?://(?:www\.)?github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
UNKNOWN: Final = "OWNER/REPO@TAG"
_WHEN: Final = "TO REVIEW: what pulls it, under which condition"


def entries(looked: Iterable[Looked], *, source: str = "") -> Iterator[str]:
    """Lines of YAML, a document each component.

    A component that the catalogue has gets the items to add to its file; another one a whole entry.

    Args:
        source: ``OWNER/REPO@TAG`` of a checkout.
    """
    grouped: dict[str, list[Looked]] = {}
    for one in looked:
        if one.news:
            grouped.setdefault(_component(one), []).append(one)
    for index, (component, group) in enumerate(sorted(grouped.items())):
        if index:
            yield "---"
        yield from _entry(component, group, source)


def _component(looked: Looked) -> str:
    if looked.subject.entry:
        return looked.subject.entry.component
    try:
        path = ImageRef.parse(looked.subject.name).path
    except InvalidImageRef:
        path = looked.subject.name.rstrip("/").split("@")[0]
    return path.rsplit("/", 1)[-1].lower()


def _entry(component: str, group: Sequence[Looked], source: str) -> Iterator[str]:
    known = next((one.subject.entry for one in group if one.subject.entry), None)
    if known:
        yield f"# to add to {known.file or component}"
    yield f"component: {_scalar(component)}"
    programs = sorted({_pattern(one.subject.name) for one in group if one.subject.programs})
    if not known:
        yield "programs:"
        yield from (f"- {_scalar(item)}" for item in programs or [f"*/{component}"])
    versions = sorted({str(v) for one in group if (v := one.subject.version)})
    origin = source or _origin(group)
    if versions and not (known and all(known.is_read(one.subject.version) for one in group)):
        yield "read:"
        for version in versions:
            yield f"- versions: {_scalar(version)}"
            yield f"  source: {_scalar(origin)}"
            yield "  note: found by a look into the image; TO REVIEW"
    yield "images:"
    done: set[str] = set()
    for one in group:
        for item in one.news:
            if item.ref not in done:
                done.add(item.ref)
                yield from _image(item, one, origin, bool(versions))


def _pattern(image: str) -> str:
    """The repository below any registry and mirror."""
    try:
        ref = ImageRef.parse(image)
    except InvalidImageRef:
        return image
    return f"*/{neutral_path(ref).partition('/')[2]}"


def _origin(group: Sequence[Looked]) -> str:
    for one in group:
        match = _REPOSITORY.fullmatch(one.labels.get(_SOURCE_LABEL, ""))
        if match:
            tag = one.labels.get("org.opencontainers.image.version") or "TAG"
            return f"{match[1]}@{re.sub(r'[^A-Za-z0-9._/-]', '-', tag)}"
    return UNKNOWN


def _image(item: Listed, looked: Looked, origin: str, has_version: bool) -> Iterator[str]:
    find = item.finds[0]
    yield f"# {find.place}: {'; '.join(find.candidate.evidence)}"
    if item.joined:
        yield "# its tag is joined to it at run time: complete it"
    yield f"- ref: {_scalar(item.ref)}"
    if has_version and looked.subject.version:
        yield f"  versions: {_scalar(str(looked.subject.version))}"
    yield "  need: optional"
    yield f"  when: {_scalar(_WHEN)}"
    line = f":{find.path}:{find.line}" if find.line and looked.subject.programs == () else ""
    yield f"  source: {_scalar(origin + line)}"
    names = item.names
    if names:
        program = _program(looked.subject.programs)
        yield "  redirect:"
        yield f"    kind: {program[0]}"
        yield f"    name: {_scalar(program[1])}"
        yield f"    container: {_scalar(program[2])}"
        way = "flag" if names[0].startswith("-") else "env"
        yield f"    {way}: {_scalar(names[0])}"
        if len(names) > 1:
            yield f"    # or {', '.join(names[1:])}"


def _program(programs: Sequence[Program]) -> tuple[str, str, str]:
    if not programs:
        return "Deployment", "TO-REVIEW", "TO-REVIEW"
    first = programs[0]
    return first.object.kind, first.object.name, first.container


def _scalar(text: str) -> str:
    """A YAML scalar that every reader takes for this text."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)
