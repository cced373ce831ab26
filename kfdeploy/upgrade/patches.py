"""Patches that people wrote, tried on the objects of another release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal

from kfdeploy.kubernetes.name_hash import strip_name_hash
from kfdeploy.kubernetes.objects import Object, ObjectKey, get_field, parse_pointer
from kfdeploy.kubernetes.workload import CONTAINERS
from kfdeploy.patch import conflicts
from kfdeploy.patchfile.patch_file import Patch

PatchCheckState = Literal["holds", "look", "misfit", "unused"]
"""``look``: it fits, but what it changes is not what it was written for."""

_MAX_SUGGESTIONS: Final = 3
_SHOWN: Final = 80
_NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class PatchNote:
    """Describe one thing that a person has to look at.

    Attributes:
        object: ``Deployment kubeflow/web``; empty where there is none.
        field: a JSON pointer, or the path of a merge's field.
        what: a sentence.
        suggestions: objects or fields that may be meant.
    """

    object: str
    field: str
    what: str
    suggestions: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "object": self.object,
            "field": self.field,
            "what": self.what,
            "near": self.suggestions,
        }


@dataclass(frozen=True, slots=True)
class PatchCheck:
    """Hold the outcome for one patch.

    Attributes:
        generated: for an edited generated patch, the text generated now compared with the one
            before: ``same``, ``changed`` or ``gone``. Empty for a person's own patch.
    """

    file: str
    state: PatchCheckState
    notes: tuple[PatchNote, ...] = ()
    generated: str = ""

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"file": self.file, "state": self.state}
        if self.generated:
            out["generated"] = self.generated
        return {**out, "notes": self.notes}


@dataclass(frozen=True)
class PatchContext:
    """Hold the objects that the patches of one component are tried on.

    Attributes:
        before: its objects at the release before; empty for a new component.
        now: its objects at the new release.
        everywhere: the objects of all components at the new release, to find moved ones.
    """

    component: str
    before: Sequence[Object]
    now: Sequence[Object]
    everywhere: Mapping[str, Sequence[Object]]


def check_patches(
    patches: Sequence[Patch], wanted: Sequence[str], context: PatchContext
) -> dict[str, PatchCheck]:
    """Return the outcome for a component's patches.

    Args:
        patches: all of them, in the order in which they are applied.
        wanted: the files of those to report.
    """
    notes: dict[str, list[PatchNote]] = {file: [] for file in wanted}
    unfit: set[str] = set()
    for misfit in conflicts.find_conflicts(patches, context.now):
        if misfit.file in notes:
            patch = next(patch for patch in patches if patch.file == misfit.file)
            notes[misfit.file].append(_explain_conflict(misfit, patch, context))
            unfit.add(misfit.file)
    for patch in patches:
        if patch.file in notes and patch.file not in unfit and patch.form != "transformer":
            for makes_misfit, note in _compare_targets(patch, context):
                notes[patch.file].append(note)
                if makes_misfit:
                    unfit.add(patch.file)
    return {
        file: PatchCheck(
            file, "misfit" if file in unfit else "look" if found else "holds", tuple(found)
        )
        for file, found in notes.items()
    }


# -- what no longer fits ---------------------------------------------------------------------------


def _explain_conflict(
    misfit: conflicts.PatchConflict, patch: Patch, context: PatchContext
) -> PatchNote:
    if misfit.object is None:
        return PatchNote("", "", misfit.reason, tuple(suggest_objects(patch.target, context)))
    body = next(item.body for item in context.now if item.key == misfit.object)
    near = tuple(_suggest_fields(body, misfit.field))
    return PatchNote(str(misfit.object), misfit.field, misfit.reason, near)


def suggest_objects(target: Mapping[str, str], context: PatchContext) -> Iterator[str]:
    """Yield objects of another name, namespace or version that a target may mean."""
    kind, name = target.get("kind", ""), target.get("name", "").replace("\\", "")
    found: list[tuple[str, ObjectKey]] = [
        (component, item.key)
        for component, items in context.everywhere.items()
        for item in items
        if item.is_crd == (kind == "CustomResourceDefinition") and item.key.kind == kind
    ]
    same = [(component, key) for component, key in found if _plain_name(key) == name]
    if not same:
        own = {_plain_name(key) for component, key in found if component == context.component}
        names = _find_close_names(name, own) or _find_close_names(
            name, {_plain_name(key) for _, key in found}
        )
        same = [pair for close in names for pair in found if _plain_name(pair[1]) == close]
    for component, key in same[:_MAX_SUGGESTIONS]:
        where = "" if component == context.component else f" of component {component}"
        yield f"{key.api_version} {key}{where}"


def _find_close_names(name: str, names: set[str]) -> list[str]:
    """Return names that are spelled alike, or of which one begins with the other."""
    begin = [each for each in sorted(names) if each.startswith(name) or name.startswith(each)]
    alike = get_close_matches(name, sorted(names), _MAX_SUGGESTIONS)
    return list(dict.fromkeys([*alike, *(begin if name else ())]))[:_MAX_SUGGESTIONS]


def _suggest_fields(body: Any, field: str) -> Iterator[str]:
    """Yield the containers that exist, or names like the one that does not."""
    steps = parse_pointer(field) if field.startswith("/") else tuple(field.split("."))
    for index, step in enumerate(steps):
        if step in CONTAINERS:
            there = _lookup_path(body, steps[: index + 1])
            if isinstance(there, list):
                yield f"{step}: {', '.join(_index_by_name(there))}"
            return
    for end in range(len(steps) - 1, -1, -1):
        parent = _lookup_path(body, steps[:end])
        if parent is not _NOTHING:
            names = parent if isinstance(parent, dict) else {}
            yield from _find_close_names(steps[end], {str(name) for name in names})
            return


# -- what fits, and changes something else ---------------------------------------------------------


def _compare_targets(patch: Patch, context: PatchContext) -> Iterator[tuple[bool, PatchNote]]:
    """Yield notes on a patch that fits, each with whether it makes the patch a misfit."""
    before = {
        _object_identity(item.key): item for item in conflicts.select_targets(patch, context.before)
    }
    now = {
        _object_identity(item.key): item for item in conflicts.select_targets(patch, context.now)
    }
    if not before:
        return
    for key in before.keys() - now.keys():
        yield False, PatchNote(str(before[key].key), "", "is no longer matched by the patch")
    for key in now.keys() - before.keys():
        yield (
            False,
            PatchNote(str(now[key].key), "", "is matched by the patch, and was not before"),
        )
    for key in sorted(before.keys() & now.keys()):
        old, new = before[key], now[key]
        if patch.form == "json":
            for operation in patch.operations:
                if operation.get("op") in ("replace", "remove", "add"):
                    yield from _compare_pointer(str(operation.get("path")), old, new)
        else:
            yield from _compare_merge(patch.data, old.body, new.body, new.key, ())


def _compare_pointer(pointer: str, old: Object, new: Object) -> Iterator[tuple[bool, PatchNote]]:
    steps = parse_pointer(pointer)
    for index, step in enumerate(steps[:-1]):
        if step in CONTAINERS and steps[index + 1].isdigit():
            where = (*steps[: index + 2], "name")
            names = _lookup_path(old.body, where), _lookup_path(new.body, where)
            if names[0] != names[1]:
                what = (
                    f"container {steps[index + 1]} was {_format_value(names[0])},"
                    f" is {_format_value(names[1])}"
                )
                yield False, PatchNote(str(new.key), pointer, what)
                return
    was, is_ = _lookup_path(old.body, steps), _lookup_path(new.body, steps)
    if was != is_:
        yield (
            False,
            PatchNote(str(new.key), pointer, f"was {_format_value(was)}, is {_format_value(is_)}"),
        )


def _compare_merge(
    change: Any, old: Any, new: Any, key: ObjectKey, path: tuple[str, ...]
) -> Iterator[tuple[bool, PatchNote]]:
    field = ".".join(path)
    if isinstance(change, dict):
        for name, value in change.items():
            if path or name not in ("apiVersion", "kind", "metadata"):
                yield from _compare_merge(
                    value, _get_member(old, name), _get_member(new, name), key, (*path, str(name))
                )
            elif name == "metadata":
                more = {k: v for k, v in value.items() if k not in ("name", "namespace")}
                yield from _compare_merge(
                    more, _get_member(old, name), _get_member(new, name), key, (name,)
                )
    elif isinstance(change, list) and path and path[-1] in CONTAINERS:
        olds, news = _index_by_name(old), _index_by_name(new)
        for item in change:
            name = item.get("name") if isinstance(item, dict) else None
            if name in olds and name not in news:
                what = f"container {name} no longer exists; the patch would add it"
                yield True, PatchNote(str(key), field, what, (f"{path[-1]}: {', '.join(news)}",))
            elif name in olds:
                yield from _compare_merge(item, olds[name], news[name], key, (*path, str(name)))
    elif old != new:
        yield (
            False,
            PatchNote(str(key), field, f"was {_format_value(old)}, is {_format_value(new)}"),
        )


def _object_identity(key: ObjectKey) -> tuple[str, str, str, str]:
    return key.group, key.kind, key.namespace, strip_name_hash(key)


def _plain_name(key: ObjectKey) -> str:
    return strip_name_hash(key)


def _get_member(node: Any, name: Any) -> Any:
    return node.get(name, _NOTHING) if isinstance(node, dict) else _NOTHING


def _index_by_name(node: Any) -> dict[str, Any]:
    items = node if isinstance(node, list) else []
    return {str(item.get("name")): item for item in items if isinstance(item, dict)}


def _lookup_path(body: Any, steps: Sequence[str]) -> Any:
    try:
        return get_field(body, tuple(steps))
    except KeyError:
        return _NOTHING


def _format_value(value: Any) -> str:
    if value is _NOTHING:
        return "not there"
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
