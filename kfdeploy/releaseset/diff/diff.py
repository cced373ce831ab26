"""Compare two release sets; all that differs is one value."""

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
from kfdeploy.releaseset.diff.sides import Pair, ReleaseObject, SetSide, pair_objects
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
        what: ``added``, ``removed``, ``changed`` (also by a name with another hash of its content),
            or ``moved`` to another release and otherwise as it was.
        key: of the new set's object; of the old set's for one that is removed.
        old_key: the old key where it differs: another version of the kind, or another name.
        release: the release that has it; of the old set for an object that is removed.
        old_release: the old release where it differs.
        fields: the fields that differ, without those of a definition's schemas.
        schema: how many fields of a definition's schemas differ.
        recreate: why it cannot be changed in place.
        kept: why an apply leaves an object that is removed; empty where it deletes it.
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
        """The price of recreating it, as a sentence for people."""
        return _COSTS.get(self.key.kind, "it is away for a moment")

    @property
    def loses_data(self) -> bool:
        return bool(self.recreate) and self.key.kind in _LOSES_DATA

    def to_json(self) -> dict[str, Any]:
        out = {
            "what": self.what,
            "object": self.key,
            "release": self.release,
            "oldObject": self.old_key,
            "oldRelease": self.old_release or None,
            "fields": self.fields if self.what == "changed" else None,
            "schemaFields": self.schema or None,
            "recreate": self.recreate or None,
            "kept": self.kept or None,
        }
        return {key: value for key, value in out.items() if value is not None}


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
        return tuple(change for change in self.objects if change.recreate)

    @property
    def to_delete(self) -> tuple[ObjectChange, ...]:
        return tuple(
            change for change in self.objects if change.what == "removed" and not change.kept
        )

    @property
    def kept(self) -> tuple[ObjectChange, ...]:
        return tuple(change for change in self.objects if change.kept)

    @property
    def to_move(self) -> tuple[ObjectChange, ...]:
        """Objects that change their release and must not be deleted with the old one."""
        return tuple(change for change in self.objects if change.old_release)

    def filter_objects(self, *what: str) -> tuple[ObjectChange, ...]:
        return tuple(change for change in self.objects if change.what in what)

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
                        "object": change.key,
                        "release": change.release,
                        "reasons": change.recreate,
                        "cost": change.cost,
                        "losesData": change.loses_data,
                    }
                    for change in self.to_recreate
                ],
                "delete": [
                    {"object": change.key, "release": change.release} for change in self.to_delete
                ],
                "keep": [
                    {"object": change.key, "release": change.release, "why": change.kept}
                    for change in self.kept
                ],
                "move": [
                    {"object": change.key, "from": change.old_release, "to": change.release}
                    for change in self.to_move
                ],
            },
        }


def compare_sets(old: SetSide, new: SetSide) -> SetDiff:
    """Return what differs between two sets.

    Raises:
        UserError: broken YAML in one of them.
    """
    objects: list[ObjectChange] = []
    kinds: list[KindChange] = []
    connection_changes: list[ConnectionChange] = []
    known = connections.service_names(old, new)
    for pair in pair_objects(old, new):
        change = _compare_object(pair)
        if change is None:
            continue
        objects.append(change)
        if change.key.kind == "CustomResourceDefinition":
            if kind := crds.compare_crd(pair):
                kinds.append(kind)
        elif connection := connections.compare_connections(pair, change.fields, known):
            connection_changes.append(connection)
    return SetDiff(
        old=_describe_side(old),
        new=_describe_side(new),
        images=tuple(
            images.compare_images(old.summary.images.values(), new.summary.images.values())
        ),
        releases=tuple(_compare_releases(old, new)),
        objects=tuple(sorted(objects, key=lambda change: (change.release, change.key))),
        roles=tuple(rights.compare_roles(old, new)),
        bindings=tuple(rights.compare_bindings(old, new)),
        connections=tuple(
            sorted(connection_changes, key=lambda change: (change.key.kind, change.key))
        ),
        kinds=tuple(sorted(kinds, key=lambda kind: kind.name)),
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
        return _describe_removed(old) if old else None
    if old is None:
        return ObjectChange("added", new.key, new.release)
    old_release = old.release if old.release != new.release else ""
    old_key = old.key if old.key != new.key else None
    is_same_text = old.object.text == new.object.text
    differences = () if is_same_text else fields.diff_bodies(old.body, new.body)
    if is_same_text or (not differences and old_key is None):
        moved = ObjectChange("moved", new.key, new.release, old_release=old_release)
        return moved if old_release else None
    # Another name is another object, which is not recreated.
    is_in_place = old.key.name == new.key.name
    return ObjectChange(
        what="changed",
        key=new.key,
        release=new.release,
        old_key=old_key,
        old_release=old_release,
        fields=tuple(filter(None, map(_strip_schema, differences))),
        schema=sum(map(is_schema_field, differences)),
        recreate=find_recreate_reasons(old.body, new.body) if is_in_place else (),
    )


def _describe_removed(old: ReleaseObject) -> ObjectChange:
    kept = _KEPT.get(old.key.kind, "its data would go with it") if is_user_data(old.key) else ""
    return ObjectChange("removed", old.key, old.release, kept=kept)


def _strip_schema(difference: FieldDifference) -> FieldDifference | None:
    """Return a definition's field without schemas; None where it is in one."""
    if is_schema_field(difference):
        return None
    if difference.path[:2] != ("spec", "versions"):
        return difference
    sides = (_drop_schema_key(side) for side in (difference.was, difference.becomes))
    return FieldDifference(difference.path, *sides)


def _drop_schema_key(version: Any) -> Any:
    if not isinstance(version, Mapping):
        return version
    return {key: value for key, value in version.items() if key != "schema"}
