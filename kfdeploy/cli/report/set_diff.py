"""What differs between two release sets, as people read it: a plan first, details after it.

Text and Markdown have the same sections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from kfdeploy.cli.report import sections as show_sections
from kfdeploy.cli.report.sections import DANGER, Item, Section
from kfdeploy.kubernetes.diff import hunks
from kfdeploy.terminal import counted

if TYPE_CHECKING:
    from kfdeploy.kubernetes.diff.fields import Difference
    from kfdeploy.releaseset.diff.diff import ObjectChange, SetDiff
    from kfdeploy.releaseset.diff.images import ImageChange, SetImage
    from kfdeploy.releaseset.diff.rights import Grant

_SIGNS: Final = {"added": "+", "removed": "-", "dropped": "-", "moved": ">", "extended": "~"}
_KINDS: Final = {"added": "+", "dropped": "="}


def sections(diff: SetDiff) -> list[Section]:
    """All of it, the plan first; what has nothing to say is left out, but for the plan."""
    made = [make(diff) for make in _SECTIONS.values()]
    return [one for one in made if one.items or one.name == "plan"]


def names() -> tuple[str, ...]:
    """The sections that there are."""
    return tuple(_SECTIONS)


def text(diff: SetDiff, only: Sequence[str] = ()) -> Iterator[str]:
    """Lines for a terminal.

    Args:
        only: names of the sections that are wanted; all when left out.
    """
    yield from show_sections.text(list(_head(diff)), _wanted(diff, only))


def markdown(diff: SetDiff, only: Sequence[str] = ()) -> Iterator[str]:
    """A description for a merge request; arguments as for `text`."""
    yield from show_sections.markdown(list(_head(diff)), _wanted(diff, only))


def _wanted(diff: SetDiff, only: Sequence[str]) -> list[Section]:
    if diff.is_empty:
        return []
    return [one for one in sections(diff) if not only or one.name in only]


def _head(diff: SetDiff) -> Iterator[str]:
    old, new = diff.old, diff.new
    yield f"{old['set']} -> {new['set']}"
    for name in ("upstream", "environment", "registry", "kubeVersion"):
        if old[name] != new[name]:
            yield f"  {name} {old[name]} -> {new[name]}"


# -- sections --------------------------------------------------------------------------------------


def _plan(diff: SetDiff) -> Section:
    items: list[Item] = []
    for one in diff.to_recreate:
        lost = " ITS DATA IS LOST" if one.loses_data else ""
        reasons = [f"{reason.field}: {reason.why}" for reason in one.recreate]
        items.append(Item(DANGER, f"recreate {_named(one)}{lost}", (*reasons, f"then: {one.cost}")))
    blocked = [(kind, block) for kind in diff.kinds for block in kind.blocks]
    items += [Item(DANGER, f"migrate {kind.name}", (block,)) for kind, block in blocked]
    items += [Item("-", f"delete {_named(one)}") for one in diff.to_delete]
    items += [Item("=", f"keep {_named(one)}: {one.kept}") for one in diff.kept]
    ways: dict[tuple[str, str], list[str]] = {}
    for one in diff.to_move:
        ways.setdefault((one.old_release, one.release), []).append(str(one.key))
    items += [
        Item(">", f"move {counted(len(moved), 'object')} from {first} to {then}", tuple(moved))
        for (first, then), moved in ways.items()
    ]
    numbers = {
        "to recreate": len(diff.to_recreate),
        "to delete": len(diff.to_delete),
        "no longer in the set and kept": len(diff.kept),
        "to move between releases": len(diff.to_move),
    }
    note = ", ".join(f"{number} {what}" for what, number in numbers.items() if number)
    return Section("plan", "beyond changes in place", note or "nothing", tuple(items), open=True)


def _named(one: ObjectChange) -> str:
    return f"{one.key} ({one.release})"


def _kinds(diff: SetDiff) -> Section:
    items = [
        Item(_KINDS.get(one.what, "~"), f"{one.name} ({one.kind})", (*one.notes, *one.blocks))
        for one in diff.kinds
    ]
    return Section("kinds", "kinds of custom resources", _numbers(diff.kinds), tuple(items))


def _rights(diff: SetDiff) -> Section:
    items = []
    for role in diff.roles:
        held = ", ".join(role.holders) or "nobody in the set"
        lines = [f"held by {held}"]
        lines += [f"+ {_grant(one)}" for one in role.gains]
        lines += [f"- {one}" for one in role.loses]
        sign = DANGER if role.is_dangerous else _SIGNS.get(role.what, "~")
        items.append(Item(sign, f"{role.key}: {role.what}", tuple(lines)))
    for binding in diff.bindings:
        lines = [f"role {binding.role}"]
        lines += [f"+ {who}" for who in binding.gains]
        lines += [f"- {who}" for who in binding.loses]
        lines += [binding.danger] if binding.danger else []
        sign = DANGER if binding.danger else _SIGNS.get(binding.what, "~")
        items.append(Item(sign, f"{binding.key}: {binding.what}", tuple(lines)))
    dangers = sum(item.sign == DANGER for item in items)
    note = (
        f"{counted(len(diff.roles), 'role')} and {counted(len(diff.bindings), 'binding')} change"
        f" what is allowed, {dangers} of them dangerously"
    )
    ordered = sorted(items, key=lambda item: item.sign != DANGER)
    return Section("rights", "rights", note, tuple(ordered))


def _grant(grant: Grant) -> str:
    return f"{grant}  ! {grant.danger}" if grant.danger else str(grant)


def _connections(diff: SetDiff) -> Section:
    items = [
        Item(
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
    note = f"{counted(len(items), 'object')} that lead, open or close connections; what programs do"
    return Section("connections", "connections", f"{note} besides, no manifest says", tuple(items))


def _images(diff: SetDiff) -> Section:
    items = [_image(one) for one in diff.images]
    return Section("images", "images", _numbers(diff.images), tuple(items))


def _image(change: ImageChange) -> Item:
    old, new = change.old, change.new
    if old and new:
        text = f"{old.ref} -> {new.ref}" if old.ref != new.ref else new.ref
        lines = [f"mirror {_short(old)} -> {_short(new)}"]
    else:
        some = old or new
        text = f"{some.ref} ({some.need})" if some else ""
        lines = [f"mirror {_short(some)}"] if some and new else []
    return Item(_SIGNS.get(change.what, "~"), text, tuple(lines))


def _short(image: SetImage) -> str:
    """Its mirror's reference; a digest by its first twelve figures."""
    name, at, digest = image.mirror.partition("@")
    return f"{name}{at}{digest[: len('sha256:') + 12]}"


def _releases(diff: SetDiff) -> Section:
    items = [
        Item(_SIGNS.get(one.what, "~"), f"{one.name} ({one.component})", one.notes)
        for one in diff.releases
    ]
    return Section("releases", "releases", _numbers(diff.releases), tuple(items))


def _objects(diff: SetDiff) -> Section:
    """What comes and goes; the plan has what is moved or kept."""
    items = [Item(_SIGNS.get(one.what, "~"), _named(one)) for one in diff.of("added", "removed")]
    return Section("objects", "objects", _numbers(diff.objects), tuple(items))


def _fields(diff: SetDiff) -> Section:
    items: list[Item] = []
    marks: dict[tuple[str, str, str], int] = {}
    for one in diff.of("changed"):
        told: list[Difference] = []
        for field in one.fields:
            if _is_mark(field):
                line = (field.field, hunks.one_line(field.was), hunks.one_line(field.becomes))
                marks[line] = marks.get(line, 0) + 1
            else:
                told.append(field)
        if told or one.schema or one.old_key:
            items += _object(one, told)
    note = f"of {counted(len(diff.of('changed')), 'object')}"
    often = [
        Item("~", f"{field}: {was} -> {becomes}", (f"in {counted(number, 'object')}",))
        for (field, was, becomes), number in sorted(marks.items())
    ]
    return Section("fields", "fields", note, (*items, *often))


def _is_mark(field: Difference) -> bool:
    """A label or an annotation, which changes alike in many objects."""
    path = field.path
    return "metadata" in path and ("labels" in path or "annotations" in path)


def _object(one: ObjectChange, told: Sequence[Difference]) -> Iterator[Item]:
    was = f", which was {one.old_key.api_version} {one.old_key}" if one.old_key else ""
    schema = (f"{counted(one.schema, 'field')} of its schemas and columns",) if one.schema else ()
    lines: list[str] = list(schema)
    hunk: list[str] = []
    for field in told:
        if field.is_hidden or field.path[0] == "binaryData":
            lines.append(f"{field.field}: {_hidden(field)}")
        elif hunks.is_short(field.was) and hunks.is_short(field.becomes):
            was_text, text = hunks.one_line(field.was), hunks.one_line(field.becomes)
            lines.append(f"{field.field}: {was_text} -> {text}")
        else:
            hunk += [f"@@ {field.field}", *hunks.hunk(field.was, field.becomes)]
    yield Item("~", f"{_named(one)}{was}", tuple(lines), tuple(hunk))


def _hidden(field: Difference) -> str:
    if field.was is None:
        return "added (not shown)"
    return "removed (not shown)" if field.becomes is None else "changed (not shown)"


_WORDS: Final = {
    "tag": "with another tag",
    "digest": "with another digest",
    "place": "from another place",
}


def _numbers(changes: Iterable[object]) -> str:
    found: dict[str, int] = {}
    for one in changes:
        what = str(getattr(one, "what", ""))
        found[what] = found.get(what, 0) + 1
    return ", ".join(f"{n} {_WORDS.get(what, what)}" for what, n in sorted(found.items()))


_SECTIONS: Final[dict[str, Callable[[SetDiff], Section]]] = {
    "plan": _plan,
    "kinds": _kinds,
    "rights": _rights,
    "connections": _connections,
    "images": _images,
    "releases": _releases,
    "objects": _objects,
    "fields": _fields,
}
