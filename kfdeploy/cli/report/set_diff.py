"""The differences between two release sets as people read them: a plan first, then details.

Text and Markdown have the same sections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from kfdeploy.cli.report import sections
from kfdeploy.cli.report.sections import DANGER, ReportSection, SectionItem
from kfdeploy.kubernetes.diff import hunks
from kfdeploy.wording import pluralize

if TYPE_CHECKING:
    from kfdeploy.kubernetes.diff.fields import FieldDifference
    from kfdeploy.releaseset.diff.diff import ObjectChange, SetDiff
    from kfdeploy.releaseset.diff.images import ImageChange
    from kfdeploy.releaseset.diff.rights import Grant
    from kfdeploy.releaseset.summary import ImageSummary

_SIGNS: Final = {"added": "+", "removed": "-", "dropped": "-", "moved": ">", "extended": "~"}
_KINDS: Final = {"added": "+", "dropped": "="}


def build_sections(diff: SetDiff) -> list[ReportSection]:
    """Return the sections, the plan first; empty ones are left out, except for the plan."""
    made = [make(diff) for make in _SECTIONS.values()]
    return [one for one in made if one.items or one.name == "plan"]


def section_names() -> tuple[str, ...]:
    """Return the names of all sections."""
    return tuple(_SECTIONS)


def format_text(diff: SetDiff, only: Sequence[str] = ()) -> Iterator[str]:
    """Yield lines for a terminal.

    Args:
        only: names of the sections to print; empty for all.
    """
    yield from sections.format_text(list(_format_head(diff)), _select_sections(diff, only))


def format_markdown(diff: SetDiff, only: Sequence[str] = ()) -> Iterator[str]:
    """Yield Markdown for a merge request; arguments as for `format_text`."""
    yield from sections.format_markdown(list(_format_head(diff)), _select_sections(diff, only))


def _select_sections(diff: SetDiff, only: Sequence[str]) -> list[ReportSection]:
    if diff.is_empty:
        return []
    return [one for one in build_sections(diff) if not only or one.name in only]


def _format_head(diff: SetDiff) -> Iterator[str]:
    old, new = diff.old, diff.new
    yield f"{old['set']} -> {new['set']}"
    for name in ("upstream", "environment", "registry", "kubeVersion"):
        if old[name] != new[name]:
            yield f"  {name} {old[name]} -> {new[name]}"


# -- sections --------------------------------------------------------------------------------------


def _plan_section(diff: SetDiff) -> ReportSection:
    items: list[SectionItem] = []
    for one in diff.to_recreate:
        lost = " ITS DATA IS LOST" if one.loses_data else ""
        reasons = [f"{reason.field}: {reason.why}" for reason in one.recreate]
        items.append(
            SectionItem(
                DANGER, f"recreate {_name_object(one)}{lost}", (*reasons, f"then: {one.cost}")
            )
        )
    blocked = [(kind, block) for kind in diff.kinds for block in kind.blocks]
    items += [SectionItem(DANGER, f"migrate {kind.name}", (block,)) for kind, block in blocked]
    items += [SectionItem("-", f"delete {_name_object(one)}") for one in diff.to_delete]
    items += [SectionItem("=", f"keep {_name_object(one)}: {one.kept}") for one in diff.kept]
    ways: dict[tuple[str, str], list[str]] = {}
    for one in diff.to_move:
        ways.setdefault((one.old_release, one.release), []).append(str(one.key))
    items += [
        SectionItem(
            ">", f"move {pluralize(len(moved), 'object')} from {first} to {then}", tuple(moved)
        )
        for (first, then), moved in ways.items()
    ]
    numbers = {
        "to recreate": len(diff.to_recreate),
        "to delete": len(diff.to_delete),
        "no longer in the set and kept": len(diff.kept),
        "to move between releases": len(diff.to_move),
    }
    note = ", ".join(f"{number} {what}" for what, number in numbers.items() if number)
    return ReportSection(
        "plan", "beyond changes in place", note or "nothing", tuple(items), open=True
    )


def _name_object(one: ObjectChange) -> str:
    return f"{one.key} ({one.release})"


def _kinds_section(diff: SetDiff) -> ReportSection:
    items = [
        SectionItem(
            _KINDS.get(one.what, "~"), f"{one.name} ({one.kind})", (*one.notes, *one.blocks)
        )
        for one in diff.kinds
    ]
    return ReportSection(
        "kinds", "kinds of custom resources", _count_changes(diff.kinds), tuple(items)
    )


def _rights_section(diff: SetDiff) -> ReportSection:
    items = []
    for role in diff.roles:
        held = ", ".join(role.holders) or "nobody in the set"
        lines = [f"held by {held}"]
        lines += [f"+ {_format_grant(one)}" for one in role.gains]
        lines += [f"- {one}" for one in role.loses]
        sign = DANGER if role.is_dangerous else _SIGNS.get(role.what, "~")
        items.append(SectionItem(sign, f"{role.key}: {role.what}", tuple(lines)))
    for binding in diff.bindings:
        lines = [f"role {binding.role}"]
        lines += [f"+ {who}" for who in binding.gains]
        lines += [f"- {who}" for who in binding.loses]
        lines += [binding.danger] if binding.danger else []
        sign = DANGER if binding.danger else _SIGNS.get(binding.what, "~")
        items.append(SectionItem(sign, f"{binding.key}: {binding.what}", tuple(lines)))
    dangers = sum(item.sign == DANGER for item in items)
    note = (
        f"{pluralize(len(diff.roles), 'role')} and"
        f" {pluralize(len(diff.bindings), 'binding')} change"
        f" what is allowed, {dangers} of them dangerously"
    )
    ordered = sorted(items, key=lambda item: item.sign != DANGER)
    return ReportSection("rights", "rights", note, tuple(ordered))


def _format_grant(grant: Grant) -> str:
    return f"{grant}  ! {grant.danger}" if grant.danger else str(grant)


def _connections_section(diff: SetDiff) -> ReportSection:
    items = [
        SectionItem(
            _SIGNS.get(one.what, "~"),
            f"{one.key}: {one.about}",
            (
                *(f"+ {line}" for line in one.gains),
                *(f"- {line}" for line in one.loses),
                *(f"changed: {line}" for line in one.fields if one.what == "changed"),
            ),
        )
        for one in diff.connections
    ]
    note = (
        f"{pluralize(len(items), 'object')} that route, allow or deny connections;"
        " what programs connect to is in no manifest"
    )
    return ReportSection("connections", "connections", note, tuple(items))


def _images_section(diff: SetDiff) -> ReportSection:
    items = [_image_item(one) for one in diff.images]
    return ReportSection("images", "images", _count_changes(diff.images), tuple(items))


def _image_item(change: ImageChange) -> SectionItem:
    old, new = change.old, change.new
    if old and new:
        text = f"{old.ref} -> {new.ref}" if old.ref != new.ref else new.ref.text
        lines = [f"mirror {_shorten_mirror_ref(old)} -> {_shorten_mirror_ref(new)}"]
    else:
        some = old or new
        text = f"{some.ref} ({some.need})" if some else ""
        lines = [f"mirror {_shorten_mirror_ref(some)}"] if some and new else []
    return SectionItem(_SIGNS.get(change.what, "~"), text, tuple(lines))


def _shorten_mirror_ref(image: ImageSummary) -> str:
    """Return the reference in the mirror, with the first twelve figures of its digest."""
    name, at, digest = str(image.mirror).partition("@")
    return f"{name}{at}{digest[: len('sha256:') + 12]}"


def _releases_section(diff: SetDiff) -> ReportSection:
    items = [
        SectionItem(_SIGNS.get(one.what, "~"), f"{one.name} ({one.component})", one.notes)
        for one in diff.releases
    ]
    return ReportSection("releases", "releases", _count_changes(diff.releases), tuple(items))


def _objects_section(diff: SetDiff) -> ReportSection:
    """Build the section of new and removed objects; the plan has those that move or stay."""
    items = [
        SectionItem(_SIGNS.get(one.what, "~"), _name_object(one))
        for one in diff.filter_objects("added", "removed")
    ]
    return ReportSection("objects", "objects", _count_changes(diff.objects), tuple(items))


def _fields_section(diff: SetDiff) -> ReportSection:
    items: list[SectionItem] = []
    marks: dict[tuple[str, str, str], int] = {}
    for one in diff.filter_objects("changed"):
        shown: list[FieldDifference] = []
        for field in one.fields:
            if _is_label_or_annotation(field):
                line = (
                    field.field,
                    hunks.format_inline(field.was),
                    hunks.format_inline(field.becomes),
                )
                marks[line] = marks.get(line, 0) + 1
            else:
                shown.append(field)
        if shown or one.schema or one.old_key:
            items += _object_items(one, shown)
    note = f"of {pluralize(len(diff.filter_objects('changed')), 'object')}"
    often = [
        SectionItem("~", f"{field}: {was} -> {becomes}", (f"in {pluralize(number, 'object')}",))
        for (field, was, becomes), number in sorted(marks.items())
    ]
    return ReportSection("fields", "fields", note, (*items, *often))


def _is_label_or_annotation(field: FieldDifference) -> bool:
    """Return whether it is a label or an annotation; those often change alike in many objects."""
    path = field.path
    return "metadata" in path and ("labels" in path or "annotations" in path)


def _object_items(
    one: ObjectChange, differences: Sequence[FieldDifference]
) -> Iterator[SectionItem]:
    was = f", which was {one.old_key.api_version} {one.old_key}" if one.old_key else ""
    schema = (f"{pluralize(one.schema, 'field')} of its schemas and columns",) if one.schema else ()
    lines: list[str] = list(schema)
    hunk: list[str] = []
    for field in differences:
        if field.is_hidden or field.path[0] == "binaryData":
            lines.append(f"{field.field}: {_describe_hidden(field)}")
        elif hunks.is_single_line(field.was) and hunks.is_single_line(field.becomes):
            was_text, text = hunks.format_inline(field.was), hunks.format_inline(field.becomes)
            lines.append(f"{field.field}: {was_text} -> {text}")
        else:
            hunk += [f"@@ {field.field}", *hunks.diff_lines(field.was, field.becomes)]
    yield SectionItem("~", f"{_name_object(one)}{was}", tuple(lines), tuple(hunk))


def _describe_hidden(field: FieldDifference) -> str:
    if field.was is None:
        return "added (not shown)"
    return "removed (not shown)" if field.becomes is None else "changed (not shown)"


_WORDS: Final = {
    "tag": "with another tag",
    "digest": "with another digest",
    "place": "from another place",
}


def _count_changes(changes: Iterable[object]) -> str:
    found: dict[str, int] = {}
    for one in changes:
        what = str(getattr(one, "what", ""))
        found[what] = found.get(what, 0) + 1
    return ", ".join(f"{n} {_WORDS.get(what, what)}" for what, n in sorted(found.items()))


_SECTIONS: Final[dict[str, Callable[[SetDiff], ReportSection]]] = {
    "plan": _plan_section,
    "kinds": _kinds_section,
    "rights": _rights_section,
    "connections": _connections_section,
    "images": _images_section,
    "releases": _releases_section,
    "objects": _objects_section,
    "fields": _fields_section,
}
