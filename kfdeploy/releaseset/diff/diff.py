"""Two release sets: everything that differs, as one value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes.diff import fields
from kfdeploy.kubernetes.diff.fields import FieldDifference, is_schema_field
from kfdeploy.kubernetes.diff.recreate import RecreateReason, find_recreate_reasons
from kfdeploy.kubernetes.helm_release import is_user_data
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset.diff import connections, crds, images, rights
from kfdeploy.releaseset.diff.connections import ConnectionChange
from kfdeploy.releaseset.diff.crds import KindChange
from kfdeploy.releaseset.diff.images import ImageChange
from kfdeploy.releaseset.diff.rights import BindingChange, RoleChange
from kfdeploy.releaseset.diff.sides import Pair, SetSide, pair_objects
from kfdeploy.releaseset.summary import ReleaseSummary

_KEPT: Final = {
    "CustomResourceDefinition": "its objects would go with it",
    "Namespace": "all that is in it would go with it",
    "Profile": "the user's namespace would go with it",
}
_COSTS: Final = {
    "PersistentVolumeClaim": "the data of the claim is lost unless it is copied first",
    "PersistentVolume": "the data stays where it is only with reclaimPolicy Retain",
    "StatefulSet": "its pods stop until the new ones are ready; its claims stay",
    "Deployment": "its pods stop until the new ones are ready",
    "DaemonSet": "its pods stop until the new ones are ready",
    "ReplicaSet": "its pods stop until the new ones are ready",
    "Job": "it runs once more",
    "Pod": "it stops until it is there again",
    "Service": "its address changes; connections break",
    "CustomResourceDefinition": "all objects of the kind are deleted with it",
    "RoleBinding": "its subjects have no rights for a moment",
    "ClusterRoleBinding": "its subjects have no rights for a moment",
    "StorageClass": "claims that are made in between wait",
}
_LOSES_DATA: Final = frozenset(("PersistentVolumeClaim", "CustomResourceDefinition"))


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """One object that is not what, or where, it was.

    Attributes:
        what: ``added``, ``removed``, ``changed`` (also by a name with another sum of its content),
            ``moved`` to another release and otherwise as it was.
        key: as the new set has it; the old one's for what is removed.
        old_key: where it is another: another version of its kind, or another name.
        release: that has it; of the old set for what is removed.
        old_release: where it is another.
        schema: how many fields of a definition's schemas differ; they are not listed.
        recreate: why it cannot be changed in place.
        kept: for what is removed: why an apply leaves it.
    """

    what: str
    key: ObjectKey
    release: str
    old_key: ObjectKey | None = None
    old_release: str = ""
    fields: tuple[FieldDifference, ...] = ()
    schema: int = 0
    recreate: tuple[RecreateReason, ...] = ()
    kept: str = ""

    @property
    def cost(self) -> str:
        """What making it anew means."""
        return _COSTS.get(self.key.kind, "it is away for a moment")

    @property
    def loses_data(self) -> bool:
        return bool(self.recreate) and self.key.kind in _LOSES_DATA

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "what": self.what,
            "object": self.key,
            "release": self.release,
        }
        if self.old_key:
            out["oldObject"] = self.old_key
        if self.old_release:
            out["oldRelease"] = self.old_release
        if self.what == "changed":
            out["fields"] = self.fields
            if self.schema:
                out["schemaFields"] = self.schema
        if self.recreate:
            out["recreate"] = self.recreate
        if self.kept:
            out["kept"] = self.kept
        return out


@dataclass(frozen=True, slots=True)
class ReleaseChange:
    """A release that comes, goes, or comes after others than before."""

    what: str
    name: str
    component: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetDiff:
    """All that differs between two sets."""

    old: Mapping[str, str]
    new: Mapping[str, str]
    images: tuple[ImageChange, ...]
    releases: tuple[ReleaseChange, ...]
    objects: tuple[ObjectChange, ...]
    roles: tuple[RoleChange, ...]
    bindings: tuple[BindingChange, ...]
    connections: tuple[ConnectionChange, ...]
    kinds: tuple[KindChange, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.images or self.releases or self.objects)

    @property
    def to_recreate(self) -> tuple[ObjectChange, ...]:
        return tuple(one for one in self.objects if one.recreate)

    @property
    def to_delete(self) -> tuple[ObjectChange, ...]:
        return tuple(one for one in self.objects if one.what == "removed" and not one.kept)

    @property
    def kept(self) -> tuple[ObjectChange, ...]:
        return tuple(one for one in self.objects if one.kept)

    @property
    def to_move(self) -> tuple[ObjectChange, ...]:
        """Objects that must change their release, and not be deleted with the old one."""
        return tuple(one for one in self.objects if one.old_release)

    def filter_objects(self, *what: str) -> tuple[ObjectChange, ...]:
        return tuple(one for one in self.objects if one.what in what)

    def to_json(self) -> dict[str, Any]:
        return {
            "old": self.old,
            "new": self.new,
            "different": not self.is_empty,
            "images": self.images,
            "releases": self.releases,
            "objects": self.objects,
            "rights": {
                "roles": self.roles,
                "bindings": self.bindings,
            },
            "connections": self.connections,
            "kinds": self.kinds,
            "plan": {
                "recreate": [
                    {
                        "object": one.key,
                        "release": one.release,
                        "reasons": one.recreate,
                        "cost": one.cost,
                        "losesData": one.loses_data,
                    }
                    for one in self.to_recreate
                ],
                "delete": [{"object": one.key, "release": one.release} for one in self.to_delete],
                "keep": [
                    {"object": one.key, "release": one.release, "why": one.kept}
                    for one in self.kept
                ],
                "move": [
                    {"object": one.key, "from": one.old_release, "to": one.release}
                    for one in self.to_move
                ],
            },
        }


def compare_sets(old: SetSide, new: SetSide) -> SetDiff:
    """What differs between two sets.

    Raises:
        UserError: broken YAML in one of them.
    """
    objects: list[ObjectChange] = []
    kinds: list[KindChange] = []
    joined: list[ConnectionChange] = []
    known = connections.service_names(old, new)
    for pair in pair_objects(old, new):
        one = _compare_object(pair)
        if one is None:
            continue
        objects.append(one)
        if one.key.kind == "CustomResourceDefinition":
            if kind := crds.compare_crd(pair):
                kinds.append(kind)
        elif connection := connections.compare_connections(pair, one.fields, known):
            joined.append(connection)
    return SetDiff(
        old=_describe_side(old),
        new=_describe_side(new),
        images=tuple(
            images.compare_images(old.summary.images.values(), new.summary.images.values())
        ),
        releases=tuple(_compare_releases(old, new)),
        objects=tuple(sorted(objects, key=lambda one: (one.release, one.key))),
        roles=tuple(rights.compare_roles(old, new)),
        bindings=tuple(rights.compare_bindings(old, new)),
        connections=tuple(sorted(joined, key=lambda one: (one.key.kind, one.key))),
        kinds=tuple(sorted(kinds, key=lambda one: one.name)),
    )


def _describe_side(side: SetSide) -> dict[str, str]:
    summary = side.summary
    return {
        "set": side.name,
        "environment": summary.environment,
        "upstream": summary.upstream,
        "registry": summary.registry,
        "kubeVersion": summary.kube_version,
        "kfdeploy": summary.kfdeploy,
    }


def _compare_releases(old: SetSide, new: SetSide) -> Iterator[ReleaseChange]:
    before, after = old.releases, new.releases
    for name in sorted({*before, *after}):
        if name not in before:
            yield ReleaseChange("added", name, after[name].component)
        elif name not in after:
            yield ReleaseChange("removed", name, before[name].component)
        elif notes := tuple(_release_notes(before[name], after[name])):
            yield ReleaseChange("changed", name, after[name].component, notes)


def _release_notes(old: ReleaseSummary, new: ReleaseSummary) -> Iterator[str]:
    """Yield what changed of a release's place in the order."""
    needed, needs = set(old.needs), set(new.needs)
    yield from (f"comes after {other}" for other in sorted(needs - needed))
    yield from (f"no longer comes after {other}" for other in sorted(needed - needs))
    if new.wait and not old.wait:
        yield "others wait until it is ready"
    elif old.wait and not new.wait:
        yield "nothing waits for it any more"


def _compare_object(pair: Pair) -> ObjectChange | None:
    old, new = pair
    if new is None:
        if old is None:
            return None
        kept = _KEPT.get(old.key.kind, "its data would go with it") if is_user_data(old.key) else ""
        return ObjectChange("removed", old.key, old.release, kept=kept)
    if old is None:
        return ObjectChange("added", new.key, new.release)
    moved = old.release if old.release != new.release else ""
    renamed = old.key if old.key != new.key else None
    if old.object.text == new.object.text:
        return ObjectChange("moved", new.key, new.release, None, moved) if moved else None
    found = fields.diff_bodies(old.body, new.body)
    listed = [short for one in found if (short := _strip_schema(one)) is not None]
    schema = sum(1 for one in found if is_schema_field(one))
    reasons = (
        find_recreate_reasons(old.body, new.body) if renamed is None or _has_same_name(pair) else ()
    )
    if not found and renamed is None:
        return ObjectChange("moved", new.key, new.release, None, moved) if moved else None
    return ObjectChange(
        "changed", new.key, new.release, renamed, moved, tuple(listed), schema, reasons
    )


def _has_same_name(pair: Pair) -> bool:
    old, new = pair
    return old is not None and new is not None and old.key.name == new.key.name


def _strip_schema(one: FieldDifference) -> FieldDifference | None:
    """A definition's field without schemas; None where it is in one."""
    if is_schema_field(one):
        return None
    if one.path[:2] != ("spec", "versions"):
        return one
    return FieldDifference(one.path, *(_drop_schema_key(side) for side in (one.was, one.becomes)))


def _drop_schema_key(version: Any) -> Any:
    if not isinstance(version, Mapping):
        return version
    return {key: value for key, value in version.items() if key != "schema"}
