"""Patches that people wrote, tried on what another release renders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal

from kfdeploy.kubernetes.objects import Object, ObjectKey, lookup, parse_pointer
from kfdeploy.kubernetes.workload import CONTAINERS
from kfdeploy.patch import conflicts
from kfdeploy.patch.patch_file import Patch, unhashed

TrialState = Literal["holds", "look", "misfit", "unused"]
"""``look``: it fits, and what it changes is another than it was written for."""

_NEAR: Final = 3
_SHOWN: Final = 80
_NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that a person has to look at.

    Attributes:
        object: ``Deployment kubeflow/web``; empty where there is none.
        field: a JSON pointer, or the names down to a merge's field.
        what: a sentence.
        near: what is there instead.
    """

    object: str
    field: str
    what: str
    near: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "object": self.object,
            "field": self.field,
            "what": self.what,
            "near": list(self.near),
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one patch.

    Attributes:
        generated: of an edited generated one, what would be generated now against what was before:
            ``same``, ``changed`` or ``gone``; empty for a person's own.
    """

    file: str
    state: TrialState
    notes: tuple[Note, ...] = ()
    generated: str = ""

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"file": self.file, "state": self.state}
        if self.generated:
            out["generated"] = self.generated
        return {**out, "notes": [note.to_json() for note in self.notes]}


@dataclass(frozen=True)
class Scene:
    """What patches of one component are tried on.

    Attributes:
        before: what it rendered; empty for a new one.
        now: what it renders.
        everywhere: component to what it renders now, for what has moved.
    """

    component: str
    before: Sequence[Object]
    now: Sequence[Object]
    everywhere: Mapping[str, Sequence[Object]]


def tried(patches: Sequence[Patch], wanted: Sequence[str], scene: Scene) -> dict[str, Trial]:
    """Try a component's patches.

    Args:
        patches: all of them, in the order in which they are applied.
        wanted: files of those that are to be judged.
    """
    notes: dict[str, list[Note]] = {file: [] for file in wanted}
    unfit: set[str] = set()
    for misfit in conflicts.misfits(patches, scene.now):
        if misfit.file in notes:
            patch = next(patch for patch in patches if patch.file == misfit.file)
            notes[misfit.file].append(_explained(misfit, patch, scene))
            unfit.add(misfit.file)
    for patch in patches:
        if patch.file in notes and patch.file not in unfit and patch.form != "transformer":
            for is_misfit, note in _moved(patch, scene):
                notes[patch.file].append(note)
                if is_misfit:
                    unfit.add(patch.file)
    return {
        file: Trial(file, "misfit" if file in unfit else "look" if found else "holds", tuple(found))
        for file, found in notes.items()
    }


# -- what no longer fits ---------------------------------------------------------------------------


def _explained(misfit: conflicts.Misfit, patch: Patch, scene: Scene) -> Note:
    if misfit.object is None:
        return Note("", "", misfit.reason, tuple(near_objects(patch.target, scene)))
    body = next(item.body for item in scene.now if item.key == misfit.object)
    near = tuple(_near_fields(body, misfit.field))
    return Note(str(misfit.object), misfit.field, misfit.reason, near)


def near_objects(target: Mapping[str, str], scene: Scene) -> Iterator[str]:
    """Objects of another name, place or version that may be what a target meant."""
    kind, name = target.get("kind", ""), target.get("name", "").replace("\\", "")
    found: list[tuple[str, ObjectKey]] = [
        (component, item.key)
        for component, items in scene.everywhere.items()
        for item in items
        if item.is_crd == (kind == "CustomResourceDefinition") and item.key.kind == kind
    ]
    same = [(component, key) for component, key in found if _plain(key) == name]
    if not same:
        own = {_plain(key) for component, key in found if component == scene.component}
        names = _close(name, own) or _close(name, {_plain(key) for _, key in found})
        same = [pair for close in names for pair in found if _plain(pair[1]) == close]
    for component, key in same[:_NEAR]:
        where = "" if component == scene.component else f" of component {component}"
        yield f"{key.api_version} {key}{where}"


def _close(name: str, names: set[str]) -> list[str]:
    """Names that are written alike, or begin alike up to one's end."""
    begin = [each for each in sorted(names) if each.startswith(name) or name.startswith(each)]
    alike = get_close_matches(name, sorted(names), _NEAR)
    return list(dict.fromkeys([*alike, *(begin if name else ())]))[:_NEAR]


def _near_fields(body: Any, field: str) -> Iterator[str]:
    """The containers that are there, or the names beside the one that is not."""
    steps = parse_pointer(field) if field.startswith("/") else tuple(field.split("."))
    for index, step in enumerate(steps):
        if step in CONTAINERS:
            there = _at(body, steps[: index + 1])
            if isinstance(there, list):
                yield f"{step}: {', '.join(_named(there))}"
            return
    for end in range(len(steps) - 1, -1, -1):
        parent = _at(body, steps[:end])
        if parent is not _NOTHING:
            names = parent if isinstance(parent, dict) else {}
            yield from _close(steps[end], {str(name) for name in names})
            return


# -- what fits, and is another than before ---------------------------------------------------------


def _moved(patch: Patch, scene: Scene) -> Iterator[tuple[bool, Note]]:
    """Notes on a patch that fits, and whether it is none that can be left."""
    before = {_identity(item.key): item for item in conflicts.targets_of(patch, scene.before)}
    now = {_identity(item.key): item for item in conflicts.targets_of(patch, scene.now)}
    if not before:
        return
    for key in before.keys() - now.keys():
        yield False, Note(str(before[key].key), "", "is no longer among what it changes")
    for key in now.keys() - before.keys():
        yield False, Note(str(now[key].key), "", "is among what it changes, and was not before")
    for key in sorted(before.keys() & now.keys()):
        old, new = before[key], now[key]
        if patch.form == "json":
            for operation in patch.operations:
                if operation.get("op") in ("replace", "remove", "add"):
                    yield from _pointed(str(operation.get("path")), old, new)
        else:
            yield from _merged(patch.data, old.body, new.body, new.key, ())


def _pointed(pointer: str, old: Object, new: Object) -> Iterator[tuple[bool, Note]]:
    steps = parse_pointer(pointer)
    for index, step in enumerate(steps[:-1]):
        if step in CONTAINERS and steps[index + 1].isdigit():
            where = (*steps[: index + 2], "name")
            names = _at(old.body, where), _at(new.body, where)
            if names[0] != names[1]:
                what = f"container {steps[index + 1]} was {_show(names[0])}, is {_show(names[1])}"
                yield False, Note(str(new.key), pointer, what)
                return
    was, is_ = _at(old.body, steps), _at(new.body, steps)
    if was != is_:
        yield False, Note(str(new.key), pointer, f"was {_show(was)}, is {_show(is_)}")


def _merged(
    change: Any, old: Any, new: Any, key: ObjectKey, path: tuple[str, ...]
) -> Iterator[tuple[bool, Note]]:
    field = ".".join(path)
    if isinstance(change, dict):
        for name, value in change.items():
            if path or name not in ("apiVersion", "kind", "metadata"):
                yield from _merged(value, _in(old, name), _in(new, name), key, (*path, str(name)))
            elif name == "metadata":
                more = {k: v for k, v in value.items() if k not in ("name", "namespace")}
                yield from _merged(more, _in(old, name), _in(new, name), key, (name,))
    elif isinstance(change, list) and path and path[-1] in CONTAINERS:
        olds, news = _named(old), _named(new)
        for item in change:
            name = item.get("name") if isinstance(item, dict) else None
            if name in olds and name not in news:
                what = f"there is no container {name} any more; it would be added"
                yield True, Note(str(key), field, what, (f"{path[-1]}: {', '.join(news)}",))
            elif name in olds:
                yield from _merged(item, olds[name], news[name], key, (*path, str(name)))
    elif old != new:
        yield False, Note(str(key), field, f"was {_show(old)}, is {_show(new)}")


def _identity(key: ObjectKey) -> tuple[str, str, str, str]:
    return key.group, key.kind, key.namespace, unhashed(key)


def _plain(key: ObjectKey) -> str:
    return unhashed(key)


def _in(node: Any, name: Any) -> Any:
    return node.get(name, _NOTHING) if isinstance(node, dict) else _NOTHING


def _named(node: Any) -> dict[str, Any]:
    items = node if isinstance(node, list) else []
    return {str(item.get("name")): item for item in items if isinstance(item, dict)}


def _at(body: Any, steps: Sequence[str]) -> Any:
    try:
        return lookup(body, tuple(steps))
    except KeyError:
        return _NOTHING


def _show(value: Any) -> str:
    if value is _NOTHING:
        return "not there"
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
