"""The components of a workspace at another release: upstream's choice, and people's own."""

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
    """Describe what becomes of one component.

    Attributes:
        before: its path at the release before; empty for a new component.
        now: its path at the new release; empty for a dropped component.
        why: the reason, where it is not obvious.
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
    """Name a component that a person added and that the new upstream has no folder for.

    Attributes:
        index: its place in the workspace's list.
        candidates: paths of the new upstream that may be meant.
    """

    index: int
    component: Component
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ComponentMigration:
    """Hold the components at the new release, in their order, and what became of each.

    Attributes:
        absent: components of the new example that a person removed before; they stay out.
    """

    entries: tuple[ListedComponent, ...]
    changes: tuple[ComponentChange, ...]
    unmatched: tuple[UnmatchedComponent, ...]
    absent: tuple[str, ...]


def migrate_components(
    listed: Sequence[Component],
    old: Sequence[ExampleComponent],
    new: Sequence[ExampleComponent],
    *,
    version: str,
    can_build: Callable[[Component, str], bool],
    find_folders: Callable[[str], Iterable[str]],
) -> ComponentMigration:
    """Return a workspace's components at another release.

    A component that the old example lists follows the new example: its folder may have moved, or
    it is dropped. A component that a person added, or gave another folder, stays as it is. A
    component that a person removed stays out.

    Args:
        listed: the workspace's components.
        old, new: the components that the examples list.
        version: the version of the new upstream, for the reasons.
        can_build: returns whether the new upstream has something of the component's kind at a path.
        find_folders: returns the folders of the new upstream that end in a path.
    """
    followed = _ComponentFollower(old, new, version, can_build, find_folders)
    entries: list[ListedComponent] = []
    changes: list[ComponentChange] = []
    unmatched: list[UnmatchedComponent] = []
    for index, component in enumerate(listed):
        change = followed.follow(component)
        if change is None:
            candidates = followed.suggest_paths(component)
            unmatched.append(UnmatchedComponent(index, component, candidates))
            continue
        changes.append(change)
        if change.now:
            entries.append(ListedComponent(index, component.name, change.now))
    listed_paths = {entry.path for entry in entries}
    successors = {successor.path for successor in followed.successors.values()}
    absent = []
    for position, fresh in enumerate(new):
        if fresh.path in listed_paths:
            continue
        if fresh.path in successors:
            absent.append(fresh.name)
            continue
        name = _make_unique_name(fresh.name, {entry.name for entry in entries})
        at = _find_insert_position(fresh, position, new, entries)
        entries.insert(at, ListedComponent(None, name, fresh.path))
        listed_paths.add(fresh.path)
        changes.append(ComponentChange(name, "new", "", fresh.path))
    return ComponentMigration(tuple(entries), tuple(changes), tuple(unmatched), tuple(absent))


class _ComponentFollower:
    """Find what becomes of each component that a workspace lists."""

    def __init__(
        self,
        old: Sequence[ExampleComponent],
        new: Sequence[ExampleComponent],
        version: str,
        can_build: Callable[[Component, str], bool],
        find_folders: Callable[[str], Iterable[str]],
    ) -> None:
        self.successors = _match_components(old, new)
        self._examples = {component.path: component for component in old}
        self._new = new
        self._version = version
        self._can_build = can_build
        self._find_folders = find_folders

    def follow(self, component: Component) -> ComponentChange | None:
        """Return the change; None where the new upstream has no folder for a person's own."""
        name, path = component.name, component.path
        example = self._examples.get(path)
        if successor := self.successors.get(path):
            state: ComponentState = "same" if successor.path == path else "moved"
            return ComponentChange(name, state, path, successor.path)
        unlisted = f"the example of {self._version} does not list it"
        if example is not None and not _is_customised(component, example):
            return ComponentChange(name, "dropped", path, "", unlisted)
        if self._can_build(component, path):
            why = f"{unlisted}; it stays, as you changed it" if example is not None else ""
            return ComponentChange(name, "own", path, path, why)
        moved_to = self._find_moved(component)
        if len(moved_to) == 1:
            return ComponentChange(name, "moved", path, moved_to[0])
        if example is not None:
            why = f"{self._version} has nothing at its path"
            return ComponentChange(name, "dropped", path, "", why)
        return None

    def suggest_paths(self, component: Component) -> tuple[str, ...]:
        """Return paths of the new upstream that a component's path may mean now."""
        named = [example.path for example in self._new if example.name == component.name]
        return tuple(self._find_moved(component) or named)

    def _find_moved(self, component: Component) -> list[str]:
        """List the folders whose path differs in its first segment alone."""
        ending = component.path.partition("/")[2] or component.path
        return [path for path in self._find_folders(ending) if self._can_build(component, path)]


def _match_components(
    old: Sequence[ExampleComponent], new: Sequence[ExampleComponent]
) -> dict[str, ExampleComponent]:
    """Map the path of each old component to its successor: the one of its path, else of its name.

    A name leaves out how a component is built (`component_names`): ``apps/x/upstream`` and
    ``applications/x/overlays/y`` are both ``x``.
    """
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
    """Return the place behind its nearest predecessor in the example, else before a successor."""
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
