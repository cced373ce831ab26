"""A release set against a cluster -> what `apply` has to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.apply import applied_set, drift
from kfdeploy.apply.drift import Drift, Drifts
from kfdeploy.apply.steps import Action, Recreation, Removal, Step, Steps
from kfdeploy.kubernetes import helm_release
from kfdeploy.kubernetes.cluster import bulk as live
from kfdeploy.kubernetes.cluster import helm_history, ownership
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.helm_history import History
from kfdeploy.kubernetes.diff.recreate import must_recreate
from kfdeploy.kubernetes.helm_release import OWNER, OWNER_NAMESPACE
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.releaseset.folder import SetFolder, SetRelease

Body = Mapping[str, Any]


@dataclass(frozen=True)
class State:
    """What the plan was made of, as the cluster had it.

    Attributes:
        histories: Helm's, of all releases in its namespace.
        live: metadata, at least, of the set's objects that are there.
    """

    histories: Mapping[str, History]
    live: Mapping[ObjectKey, Body]


def look(cluster: Cluster, release_set: SetFolder, namespace: str) -> State:
    """Ask a cluster for all that a plan needs."""
    cluster.kinds.refresh()
    keys = [
        item.key for release in release_set.releases for item in (*release.crds, *release.objects)
    ]
    return State(helm_history.read(cluster, namespace), live.read(cluster, keys, metadata=True))


def plan(
    cluster: Cluster,
    release_set: SetFolder,
    namespace: str,
    drifts: Drifts,
    *,
    only: Collection[str] = (),
) -> Steps:
    """What has to be done so that a cluster has what a set says.

    Args:
        namespace: of Helm's records.
        drifts: what differs of releases that Helm has as the set has them.
        only: these releases; by default all, and those that the set no longer has are removed.
    """
    state = look(cluster, release_set, namespace)
    chosen = [one for one in release_set.releases if not only or one.name in only]
    actions = {one.name: _action(one, state.histories.get(one.name)) for one in chosen}
    kept = [one for one in chosen if actions[one.name][0] == "keep"]
    drifted = _drifted(drifts(kept), applied_set.controlled(cluster, namespace))
    steps = []
    for one in chosen:
        action, why = actions[one.name]
        going = tuple(_going(one, state))
        if action == "keep" and (found := drifted.get(one.name)):
            action, why = "repair", tuple(found)
        elif action == "keep" and going:
            action, why = "repair", tuple(f"{key} is being deleted" for key in going)
        elif action == "keep":
            steps.append(Step(one.name, one.wave, "keep"))
            continue
        steps.append(
            Step(
                one.name,
                one.wave,
                action,
                why,
                tuple(_recreations(cluster, one, state)),
                tuple(_moved(one, state, namespace)),
                tuple(_taken(one, state)),
                going,
            )
        )
    removals = () if only else tuple(_removals(cluster, release_set, state, namespace))
    return Steps(tuple(steps), removals, tuple(_handed(release_set, state, namespace)))


def _drifted(
    found: Mapping[str, Sequence[Drift]], controlled: Collection[str]
) -> dict[str, list[str]]:
    """What is worth a repair: not what is changed back at once, nor what nobody could confirm."""
    return {
        name: [
            str(one)
            for one in drifts
            if not one.unconfirmed and not drift.is_controlled(one, controlled)
        ]
        for name, drifts in found.items()
    }


def _action(release: SetRelease, history: History | None) -> tuple[Action, tuple[str, ...]]:
    if history is None:
        return "install", ()
    newest = history.newest
    if newest.is_pending:
        return "finish", (f"revision {newest.revision} was interrupted ({newest.status})",)
    if newest.status != "deployed":
        return "finish", (f"revision {newest.revision} is {newest.status}",)
    if newest.digest != release.digest:
        return "upgrade", (f"revision {newest.revision} is of another set",)
    return "keep", ()


def _recreations(cluster: Cluster, release: SetRelease, state: State) -> Iterator[Recreation]:
    """Objects whose kind has fields that can't change, and where one would have to."""
    there = [item for item in release.objects if item.key in state.live and _may_be_fixed(item)]
    bodies = live.read(cluster, (item.key for item in there))
    for item in there:
        if (body := bodies.get(item.key)) is not None:
            reasons = must_recreate(body, item.body)
            if reasons:
                yield Recreation(item.key, "; ".join(f"{one.field}: {one.why}" for one in reasons))


_FIXED: Final = frozenset(
    (
        *("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "Pod", "Service"),
        *("RoleBinding", "ClusterRoleBinding", "StorageClass", "PriorityClass", "CSIDriver"),
        *("ConfigMap", "Secret", "RuntimeClass", "VolumeAttributesClass"),
    )
)
"""Kinds that have immutable fields and may be deleted; a claim holds data."""


def _may_be_fixed(item: Object) -> bool:
    key = item.key
    return key.kind in _FIXED and ("." not in key.group or key.group.endswith(".k8s.io"))


def _owner(body: Body) -> tuple[str, str]:
    """The Helm release, and its namespace, that an object says it is of."""
    notes = (body.get("metadata") or {}).get("annotations") or {}
    return notes.get(OWNER, ""), notes.get(OWNER_NAMESPACE, "")


def _moved(release: SetRelease, state: State, namespace: str) -> Iterator[ObjectKey]:
    for item in release.objects:
        body = state.live.get(item.key)
        if body is not None:
            name, where = _owner(body)
            if where == namespace and name and name != release.name:
                yield item.key


def _taken(release: SetRelease, state: State) -> Iterator[ObjectKey]:
    for item in release.objects:
        body = state.live.get(item.key)
        if body is not None and not _owner(body)[0]:
            yield item.key


def _going(release: SetRelease, state: State) -> Iterator[ObjectKey]:
    for item in release.objects:
        if "deletionTimestamp" in ((state.live.get(item.key) or {}).get("metadata") or {}):
            yield item.key


def _handed(release_set: SetFolder, state: State, namespace: str) -> Iterator[ObjectKey]:
    for release in release_set.releases:
        for item in release.objects:
            body = state.live.get(item.key)
            if (
                body is not None
                and _owner(body) == (release.name, namespace)
                and ownership.is_handed_over(body)
            ):
                yield item.key


def _removals(
    cluster: Cluster, release_set: SetFolder, state: State, namespace: str
) -> Iterator[Removal]:
    """Releases that a set of this tool's has installed, and this one does not have."""
    names = {release.name for release in release_set.releases}
    ours = {item.key for release in release_set.releases for item in release.objects}
    for name, history in state.histories.items():
        if name not in names and history.newest.digest:
            yield removal(cluster, name, history.objects, namespace, ours)


def removal(
    cluster: Cluster,
    name: str,
    objects: Iterable[Object],
    namespace: str,
    ours: Collection[ObjectKey] = (),
) -> Removal:
    """What is deleted with a release, and what stays.

    Args:
        objects: of its record.
        ours: objects that other releases of the set have.
    """
    keys = [item.key for item in objects]
    there = live.read(cluster, keys, metadata=True)
    deleted: list[ObjectKey] = []
    kept: list[ObjectKey] = []
    for key in keys:
        if key in there:
            body = there[key]
            stays = key in ours or helm_release.is_data(key) or ownership.is_kept(body)
            other = _owner(body) not in ((name, namespace), ("", ""))
            (kept if stays or other else deleted).append(key)
    return Removal(name, tuple(deleted), tuple(kept))


def make_namespace(cluster: Cluster, name: str, *, dry_run: bool = False) -> None:
    """Helm's namespace, which keeps the lock, too."""
    key = ObjectKey("v1", "Namespace", "", name)
    if cluster.get(key) is None and not dry_run:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
