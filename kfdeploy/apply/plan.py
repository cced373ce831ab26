"""A release set against a cluster -> what `apply` has to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.apply import applied_set, divergence
from kfdeploy.apply.divergence import DivergenceFinder, ObjectDivergence
from kfdeploy.apply.steps import Action, ApplyPlan, ApplyStep, ObjectRecreation, ReleaseRemoval
from kfdeploy.kubernetes import helm_release
from kfdeploy.kubernetes.cluster import bulk as live
from kfdeploy.kubernetes.cluster import helm_history, ownership
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.helm_history import ReleaseHistory
from kfdeploy.kubernetes.diff.recreate import find_recreate_reasons
from kfdeploy.kubernetes.helm_release import OWNER, OWNER_NAMESPACE
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.releaseset.folder import SetFolder, SetRelease

Body = Mapping[str, Any]


@dataclass(frozen=True)
class ClusterState:
    """What the plan was made of, as the cluster had it.

    Attributes:
        histories: Helm's, of all releases in its namespace.
        live: metadata, at least, of the set's objects that are there.
    """

    histories: Mapping[str, ReleaseHistory]
    live: Mapping[ObjectKey, Body]


def read_cluster_state(cluster: Cluster, release_set: SetFolder, namespace: str) -> ClusterState:
    """Ask a cluster for all that a plan needs."""
    cluster.kinds.refresh()
    keys = [
        item.key for release in release_set.releases for item in (*release.crds, *release.objects)
    ]
    return ClusterState(
        helm_history.read_histories(cluster, namespace),
        live.read_objects(cluster, keys, metadata=True),
    )


def plan_apply(
    cluster: Cluster,
    release_set: SetFolder,
    namespace: str,
    find_divergences: DivergenceFinder,
    *,
    only: Collection[str] = (),
) -> ApplyPlan:
    """What has to be done so that a cluster has what a set says.

    Args:
        namespace: of Helm's records.
        find_divergences: finds what differs of releases that Helm has as the set has them.
        only: these releases; by default all, and those that the set no longer has are removed.
    """
    state = read_cluster_state(cluster, release_set, namespace)
    chosen = [one for one in release_set.releases if not only or one.name in only]
    actions = {one.name: _choose_action(one, state.histories.get(one.name)) for one in chosen}
    kept = [one for one in chosen if actions[one.name][0] == "keep"]
    repairs = _find_repair_reasons(
        find_divergences(kept), applied_set.read_controlled_fields(cluster, namespace)
    )
    steps = []
    for one in chosen:
        action, why = actions[one.name]
        going = tuple(_find_terminating(one, state))
        if action == "keep" and (found := repairs.get(one.name)):
            action, why = "repair", tuple(found)
        elif action == "keep" and going:
            action, why = "repair", tuple(f"{key} is being deleted" for key in going)
        elif action == "keep":
            steps.append(ApplyStep(one.name, one.wave, "keep"))
            continue
        steps.append(
            ApplyStep(
                one.name,
                one.wave,
                action,
                why,
                tuple(_find_recreations(cluster, one, state)),
                tuple(_find_transferred(one, state, namespace)),
                tuple(_find_adopted(one, state)),
                going,
            )
        )
    removals = () if only else tuple(_plan_removals(cluster, release_set, state, namespace))
    return ApplyPlan(tuple(steps), removals, tuple(_find_unsettled(release_set, state, namespace)))


def _find_repair_reasons(
    found: Mapping[str, Sequence[ObjectDivergence]], controlled: Collection[str]
) -> dict[str, list[str]]:
    """What is worth a repair: not what is changed back at once, nor what nobody could confirm."""
    return {
        name: [
            str(one)
            for one in divergences
            if not one.unconfirmed and not divergence.is_fully_controlled(one, controlled)
        ]
        for name, divergences in found.items()
    }


def _choose_action(
    release: SetRelease, history: ReleaseHistory | None
) -> tuple[Action, tuple[str, ...]]:
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


def _find_recreations(
    cluster: Cluster, release: SetRelease, state: ClusterState
) -> Iterator[ObjectRecreation]:
    """Objects whose kind has fields that can't change, and where one would have to."""
    there = [item for item in release.objects if item.key in state.live and _can_recreate(item)]
    bodies = live.read_objects(cluster, (item.key for item in there))
    for item in there:
        if (body := bodies.get(item.key)) is not None:
            reasons = find_recreate_reasons(body, item.body)
            if reasons:
                yield ObjectRecreation(
                    item.key, "; ".join(f"{one.field}: {one.why}" for one in reasons)
                )


_RECREATABLE: Final = frozenset(
    (
        *("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "Pod", "Service"),
        *("RoleBinding", "ClusterRoleBinding", "StorageClass", "PriorityClass", "CSIDriver"),
        *("ConfigMap", "Secret", "RuntimeClass", "VolumeAttributesClass"),
    )
)
"""Kinds that have immutable fields and may be deleted; a claim holds data."""


def _can_recreate(item: Object) -> bool:
    key = item.key
    return key.kind in _RECREATABLE and ("." not in key.group or key.group.endswith(".k8s.io"))


def _get_helm_owner(body: Body) -> tuple[str, str]:
    """The Helm release, and its namespace, that an object says it is of."""
    notes = (body.get("metadata") or {}).get("annotations") or {}
    return notes.get(OWNER, ""), notes.get(OWNER_NAMESPACE, "")


def _find_transferred(
    release: SetRelease, state: ClusterState, namespace: str
) -> Iterator[ObjectKey]:
    for item in release.objects:
        body = state.live.get(item.key)
        if body is not None:
            name, where = _get_helm_owner(body)
            if where == namespace and name and name != release.name:
                yield item.key


def _find_adopted(release: SetRelease, state: ClusterState) -> Iterator[ObjectKey]:
    for item in release.objects:
        body = state.live.get(item.key)
        if body is not None and not _get_helm_owner(body)[0]:
            yield item.key


def _find_terminating(release: SetRelease, state: ClusterState) -> Iterator[ObjectKey]:
    for item in release.objects:
        if "deletionTimestamp" in ((state.live.get(item.key) or {}).get("metadata") or {}):
            yield item.key


def _find_unsettled(
    release_set: SetFolder, state: ClusterState, namespace: str
) -> Iterator[ObjectKey]:
    for release in release_set.releases:
        for item in release.objects:
            body = state.live.get(item.key)
            if (
                body is not None
                and _get_helm_owner(body) == (release.name, namespace)
                and ownership.is_in_transfer(body)
            ):
                yield item.key


def _plan_removals(
    cluster: Cluster, release_set: SetFolder, state: ClusterState, namespace: str
) -> Iterator[ReleaseRemoval]:
    """Releases that a set of this tool's has installed, and this one does not have."""
    names = {release.name for release in release_set.releases}
    ours = {item.key for release in release_set.releases for item in release.objects}
    for name, history in state.histories.items():
        if name not in names and history.newest.digest:
            yield plan_removal(cluster, name, history.objects, namespace, ours)


def plan_removal(
    cluster: Cluster,
    name: str,
    objects: Iterable[Object],
    namespace: str,
    ours: Collection[ObjectKey] = (),
) -> ReleaseRemoval:
    """What is deleted with a release, and what stays.

    Args:
        objects: of its record.
        ours: objects that other releases of the set have.
    """
    keys = [item.key for item in objects]
    there = live.read_objects(cluster, keys, metadata=True)
    deleted: list[ObjectKey] = []
    kept: list[ObjectKey] = []
    for key in keys:
        if key in there:
            body = there[key]
            stays = key in ours or helm_release.is_user_data(key) or ownership.is_kept(body)
            other = _get_helm_owner(body) not in ((name, namespace), ("", ""))
            (kept if stays or other else deleted).append(key)
    return ReleaseRemoval(name, tuple(deleted), tuple(kept))


def ensure_namespace(cluster: Cluster, name: str, *, dry_run: bool = False) -> None:
    """Helm's namespace, which keeps the lock, too."""
    key = ObjectKey("v1", "Namespace", "", name)
    if cluster.get(key) is None and not dry_run:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
