"""Plan an apply: compare a release set with a cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kfdeploy.apply import applied_set
from kfdeploy.apply.divergence import DivergenceFinder, ObjectDivergence, is_fully_controlled
from kfdeploy.apply.steps import Action, ApplyPlan, ApplyStep, ObjectRecreation, ReleaseRemoval
from kfdeploy.kubernetes import helm_release
from kfdeploy.kubernetes.accessors import Body, is_being_deleted
from kfdeploy.kubernetes.cluster import bulk, helm_history, ownership
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.helm_history import ReleaseHistory
from kfdeploy.kubernetes.diff.recreate import find_recreate_reasons
from kfdeploy.kubernetes.helm_release import get_release_owner
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.releaseset.folder import SetFolder, SetRelease


@dataclass(frozen=True)
class ClusterState:
    """What a plan reads of a cluster.

    Attributes:
        namespace: the namespace of Helm's records.
        histories: of all releases that have records.
        live: metadata, at least, of the set's objects that exist.
    """

    namespace: str
    histories: Mapping[str, ReleaseHistory]
    live: Mapping[ObjectKey, Body]

    def find_live(self, release: SetRelease) -> Iterator[tuple[ObjectKey, Body]]:
        """Yield the objects of a release that exist."""
        for item in release.objects:
            if (body := self.live.get(item.key)) is not None:
                yield item.key, body


def read_cluster_state(cluster: Cluster, release_set: SetFolder, namespace: str) -> ClusterState:
    """Read what a plan needs."""
    cluster.kinds.refresh()
    keys = [
        item.key for release in release_set.releases for item in (*release.crds, *release.objects)
    ]
    return ClusterState(
        namespace,
        helm_history.read_histories(cluster, namespace),
        bulk.read_objects(cluster, keys, metadata=True),
    )


def plan_apply(
    cluster: Cluster,
    release_set: SetFolder,
    namespace: str,
    find_divergences: DivergenceFinder,
    *,
    only: Collection[str] = (),
) -> ApplyPlan:
    """Return what is to do so that a cluster has what a set says.

    Args:
        namespace: the namespace of Helm's records.
        find_divergences: finds what differs of releases that Helm has as the set does.
        only: plan for these releases; by default for all, and remove those that the set no longer
            has.
    """
    state = read_cluster_state(cluster, release_set, namespace)
    chosen = [release for release in release_set.releases if not only or release.name in only]
    steps = {release.name: _plan_step(release, state) for release in chosen}
    kept = [release for release in chosen if not steps[release.name].has_changes]
    controlled = applied_set.read_controlled_fields(cluster, namespace)
    reasons = _find_repair_reasons(find_divergences(kept), controlled)
    for release in kept:
        step = steps[release.name]
        steps[release.name] = _repair_if_needed(step, reasons.get(release.name, ()))
    complete = tuple(
        _complete_step(cluster, release, steps[release.name], state) for release in chosen
    )
    removals = () if only else tuple(_plan_removals(cluster, release_set, state))
    return ApplyPlan(complete, removals, tuple(_find_unsettled(release_set, state)))


def _find_repair_reasons(
    found: Mapping[str, Sequence[ObjectDivergence]], controlled: Collection[str]
) -> dict[str, list[str]]:
    """Return the divergences that a repair mends, by release.

    Those that something in the cluster changes back at once, and those that the API server could
    not confirm, are left out.
    """
    return {
        name: [
            str(divergence)
            for divergence in divergences
            if not divergence.unconfirmed and not is_fully_controlled(divergence, controlled)
        ]
        for name, divergences in found.items()
    }


def _plan_step(release: SetRelease, state: ClusterState) -> ApplyStep:
    """Choose a release's action by Helm's records."""
    action, why = _choose_action(release, state.histories.get(release.name))
    terminating = tuple(key for key, body in state.find_live(release) if is_being_deleted(body))
    return ApplyStep(release.name, release.wave, action, why, terminating=terminating)


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


def _repair_if_needed(step: ApplyStep, divergences: Sequence[str]) -> ApplyStep:
    """Turn ``keep`` into ``repair`` if the cluster differs, or is deleting some of the objects."""
    why = tuple(divergences) or tuple(f"{key} is being deleted" for key in step.terminating)
    return replace(step, action="repair", why=why) if why else step


def _complete_step(
    cluster: Cluster, release: SetRelease, step: ApplyStep, state: ClusterState
) -> ApplyStep:
    """Add the objects that have to be recreated, or that change hands."""
    if not step.has_changes:
        return step
    return replace(
        step,
        recreate=tuple(_find_recreations(cluster, release, state)),
        transferred=tuple(_find_transferred(release, state)),
        adopted=tuple(_find_adopted(release, state)),
    )


def _find_recreations(
    cluster: Cluster, release: SetRelease, state: ClusterState
) -> Iterator[ObjectRecreation]:
    """Yield the objects that would have to change a field that cannot be changed."""
    items = [item for item in release.objects if item.key in state.live and _can_recreate(item)]
    bodies = bulk.read_objects(cluster, (item.key for item in items))
    for item in items:
        body = bodies.get(item.key)
        reasons = () if body is None else find_recreate_reasons(body, item.body)
        if reasons:
            why = "; ".join(f"{reason.field}: {reason.why}" for reason in reasons)
            yield ObjectRecreation(item.key, why)


_RECREATABLE: Final = frozenset(
    (
        *("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "Pod", "Service"),
        *("RoleBinding", "ClusterRoleBinding", "StorageClass", "PriorityClass", "CSIDriver"),
        *("ConfigMap", "Secret", "RuntimeClass", "VolumeAttributesClass"),
    )
)
"""Kinds that have immutable fields and may be deleted. A claim may not: it holds data."""


def _can_recreate(item: Object) -> bool:
    key = item.key
    return key.kind in _RECREATABLE and ("." not in key.group or key.group.endswith(".k8s.io"))


def _find_transferred(release: SetRelease, state: ClusterState) -> Iterator[ObjectKey]:
    """Yield the objects that another release in Helm's namespace owns."""
    for key, body in state.find_live(release):
        owner = get_release_owner(body)
        if owner.namespace == state.namespace and owner.release not in ("", release.name):
            yield key


def _find_adopted(release: SetRelease, state: ClusterState) -> Iterator[ObjectKey]:
    """Yield the objects that no release owns."""
    for key, body in state.find_live(release):
        if not get_release_owner(body).release:
            yield key


def _find_unsettled(release_set: SetFolder, state: ClusterState) -> Iterator[ObjectKey]:
    """Yield the objects whose transfer to their release was not finished."""
    for release in release_set.releases:
        for key, body in state.find_live(release):
            is_own = get_release_owner(body) == (release.name, state.namespace)
            if is_own and ownership.is_in_transfer(body):
                yield key


def _plan_removals(
    cluster: Cluster, release_set: SetFolder, state: ClusterState
) -> Iterator[ReleaseRemoval]:
    """Plan the removal of releases of an earlier set that this one does not have."""
    names = {release.name for release in release_set.releases}
    needed = {item.key for release in release_set.releases for item in release.objects}
    for name, history in state.histories.items():
        # A record without a digest is of a chart that kfdeploy has not rendered.
        if name not in names and history.newest.digest:
            yield plan_removal(cluster, name, history.objects, state.namespace, needed)


def plan_removal(
    cluster: Cluster,
    name: str,
    objects: Iterable[Object],
    namespace: str,
    needed: Collection[ObjectKey] = (),
) -> ReleaseRemoval:
    """Plan what is deleted with a release, and what stays.

    Args:
        objects: the objects of its record.
        needed: objects that other releases of the set have.
    """
    keys = [item.key for item in objects]
    live = bulk.read_objects(cluster, keys, metadata=True)
    deleted: list[ObjectKey] = []
    kept: list[ObjectKey] = []
    for key in keys:
        if (body := live.get(key)) is None:
            continue
        is_own = get_release_owner(body) in ((name, namespace), ("", ""))
        is_data = helm_release.is_user_data(key) or ownership.is_kept(body)
        goes = is_own and not is_data and key not in needed
        (deleted if goes else kept).append(key)
    return ReleaseRemoval(name, tuple(deleted), tuple(kept))


def ensure_namespace(cluster: Cluster, name: str, *, dry_run: bool = False) -> None:
    """Create the namespace of Helm's records and of the lock, if it does not exist."""
    key = ObjectKey("v1", "Namespace", "", name)
    if cluster.get(key) is None and not dry_run:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
