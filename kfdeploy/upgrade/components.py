"""Which components a workspace has at another release: upstream's choice, and a person's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kfdeploy.upgrade.settings_edit import ListedComponent
from kfdeploy.upstream.component import ExampleComponent
from kfdeploy.workspace.settings import Component

ComponentState = Literal["same", "moved", "new", "dropped", "own"]


@dataclass(frozen=True, slots=True)
class ComponentChange:
    """What becomes of one component.

    Attributes:
        before: its path; empty for a new one.
        now: its path; empty for a dropped one.
        why: for a person, where it is not plain.
    """

    name: str
    state: ComponentState
    before: str
    now: str
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        out = {"name": self.name, "state": self.state, "before": self.before, "now": self.now}
        return {**out, "why": self.why} if self.why else out


@dataclass(frozen=True, slots=True)
class UnmatchedComponent:
    """A component of a person's own that the new upstream has no folder for."""

    index: int
    component: Component
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ComponentMigration:
    """The components at the new release, in their order, and what became of each."""

    entries: tuple[ListedComponent, ...]
    changes: tuple[ComponentChange, ...]
    unmatched: tuple[UnmatchedComponent, ...]
    absent: tuple[str, ...]
    """Names of the new example's that a person has taken out before, so that they stay out."""


def migrate_components(
    listed: Sequence[Component],
    old: Sequence[ExampleComponent],
    new: Sequence[ExampleComponent],
    *,
    version: str,
    can_build: Callable[[Component, str], bool],
    find_folders: Callable[[str], Iterable[str]],
) -> ComponentMigration:
    """Take a workspace's list to another release.

    What the old example lists follows the new one: its folder may have moved, or it is dropped.
    What a person added, or gave another folder, stays as it is; what a person took out stays out.

    Args:
        listed: the workspace's components.
        old, new: what the examples list.
        version: the new upstream's, for reasons.
        builds: whether the new upstream has something to deploy at a path, of the component's kind.
        folders: the new upstream's folders that end in a path.
    """
    partner = _match_components(old, new)
    example = {component.path: component for component in old}
    entries: list[ListedComponent] = []
    changes: list[ComponentChange] = []
    nowhere: list[UnmatchedComponent] = []
    for index, component in enumerate(listed):
        upstreams = example.get(component.path)
        now, why = "", ""
        state: ComponentState = "own"
        if upstreams is not None and (successor := partner.get(upstreams.path)):
            now = successor.path
            state = "same" if now == component.path else "moved"
        elif upstreams is not None and not _is_customised(component, upstreams):
            state, why = "dropped", f"the example of {version} does not list it"
        elif can_build(component, component.path):
            now = component.path
            if upstreams is not None:
                why = f"the example of {version} does not list it; it stays, as you changed it"
        else:
            elsewhere = [
                path
                for path in find_folders(component.path.partition("/")[2] or component.path)
                if can_build(component, path)
            ]
            if len(elsewhere) == 1:
                state, now = "moved", elsewhere[0]
            elif upstreams is not None:
                state, why = "dropped", f"{version} has nothing at its path"
            else:
                named = [c.path for c in new if c.name == component.name]
                nowhere.append(UnmatchedComponent(index, component, tuple(elsewhere or named)))
                continue
        changes.append(ComponentChange(component.name, state, component.path, now, why))
        if now:
            entries.append(ListedComponent(index, component.name, now))
    there = {entry.path for entry in entries}
    known = {successor.path for successor in partner.values()}
    absent = []
    for position, fresh in enumerate(new):
        if fresh.path in there:
            continue
        if fresh.path in known:
            absent.append(fresh.name)
            continue
        name = _make_unique_name(fresh.name, {entry.name for entry in entries})
        at = _find_insert_position(fresh, position, new, entries)
        entries.insert(at, ListedComponent(None, name, fresh.path))
        there.add(fresh.path)
        changes.append(ComponentChange(name, "new", "", fresh.path))
    return ComponentMigration(tuple(entries), tuple(changes), tuple(nowhere), tuple(absent))


def _match_components(
    old: Sequence[ExampleComponent], new: Sequence[ExampleComponent]
) -> dict[str, ExampleComponent]:
    """The old one's path to the new one: by path, else by name, which leaves out how it is built
    (`component_names`): ``apps/x/upstream`` and ``applications/x/overlays/y`` are both ``x``."""
    by_path = {component.path: component for component in new}
    out = {c.path: by_path[c.path] for c in old if c.path in by_path}
    taken = {component.path for component in out.values()}
    by_name = {c.name: c for c in new if c.path not in taken}
    for component in old:
        if component.path not in out and component.name in by_name:
            out[component.path] = by_name.pop(component.name)
    return out


def _is_customised(component: Component, example: ExampleComponent) -> bool:
    return (
        component.name != example.name
        or component.kind is not None
        or bool(component.values)
        or component.namespace is not None
    )


def _find_insert_position(
    component: ExampleComponent,
    position: int,
    example: Sequence[ExampleComponent],
    entries: Sequence[ListedComponent],
) -> int:
    """Behind the nearest of the example's that comes before it, else ahead of one that follows."""
    at = {entry.path: index for index, entry in enumerate(entries)}
    for before in reversed(example[:position]):
        if before.path in at:
            return at[before.path] + 1
    return min((at[after.path] for after in example[position:] if after.path in at), default=0)


def _make_unique_name(name: str, taken: set[str]) -> str:
    number = 2
    free = name
    while free in taken:
        free = f"{name}-{number}"
        number += 1
    return free
