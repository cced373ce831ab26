"""A set out of a cluster: by plan, last wave first, and what users have made stays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfdeploy.apply import applied_set
from kfdeploy.apply.steps import ReleaseRemoval
from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.kubernetes import helm_release
from kfdeploy.kubernetes.cluster import bulk, delete, helm_history, ownership
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.lease import HeldLease
from kfdeploy.kubernetes.helm_release import OWNER, OWNER_NAMESPACE
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset.folder import SetFolder


@dataclass(frozen=True)
class DestroyPlan:
    """What `destroy` is going to do.

    Attributes:
        releases: last wave first.
        data: what was named with ``--delete-data``: deleted at the end.
        kept: CRDs of the set that stay, with how many objects of each kind there are.
    """

    releases: tuple[ReleaseRemoval, ...]
    data: tuple[ObjectKey, ...]
    kept: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "releases": self.releases,
            "data": self.data,
            "customResources": self.kept,
        }

    def format_lines(self) -> Iterator[str]:
        for one in self.releases:
            yield f"remove {one.release}: {_format_count(len(one.deleted))}"
            for key in one.kept:
                yield f"  keeps {key}"
        for name, count in self.kept.items():
            if count:
                yield f"keeps CustomResourceDefinition {name} and its {_format_count(count)}"
        for key in self.data:
            yield f"DELETES {key}, and all that is in it"


def _format_count(count: int) -> str:
    return f"{count} object" if count == 1 else f"{count} objects"


def plan_destroy(
    cluster: Cluster, release_set: SetFolder, namespace: str, delete_data: Sequence[str]
) -> DestroyPlan:
    """What would go.

    Args:
        namespace: of Helm's records.
        delete_data: ``NAME``, ``KIND/NAME`` or ``KIND/NAMESPACE/NAME`` of what is to go although it
            is data.

    Raises:
        UserError: data that is named, and that the set does not have.
    """
    histories = helm_history.read_histories(cluster, namespace)
    wave = {release.name: release.wave for release in release_set.releases}
    known = [name for name in histories if name in wave]
    data_keys = _resolve_data(release_set, delete_data)
    goes = []
    for name in sorted(known, key=lambda one: (-wave[one], one)):
        goes.append(_plan_release(cluster, name, histories[name], namespace, data_keys))
    crds = [item.key for release in release_set.releases for item in release.crds]
    kept = {
        key.name: _count_custom_resources(cluster, key)
        for key in sorted(crds)
        if key not in data_keys
    }
    return DestroyPlan(tuple(goes), tuple(sorted(data_keys)), kept)


def _plan_release(
    cluster: Cluster,
    name: str,
    history: helm_history.ReleaseHistory,
    namespace: str,
    data: Collection[ObjectKey],
) -> ReleaseRemoval:
    deleted: list[ObjectKey] = []
    kept: list[ObjectKey] = []
    keys = [item.key for item in history.objects]
    for key, body in bulk.read_objects(cluster, keys, metadata=True).items():
        notes = body["metadata"].get("annotations") or {}
        owner = (notes.get(OWNER, ""), notes.get(OWNER_NAMESPACE, ""))
        stays = (
            helm_release.is_user_data(key) or ownership.is_kept(body) or owner != (name, namespace)
        )
        if key not in data:
            (kept if stays else deleted).append(key)
    return ReleaseRemoval(name, tuple(deleted), tuple(kept))


def _resolve_data(release_set: SetFolder, names: Sequence[str]) -> set[ObjectKey]:
    """The set's data that is named."""
    there = [
        item.key
        for release in release_set.releases
        for item in (*release.crds, *release.objects)
        if helm_release.is_user_data(item.key)
    ]
    out = set()
    for name in names:
        found = [key for key in there if name in _list_names(key)]
        if not found:
            near = ", ".join(sorted(_list_names(key)[0] for key in there if key.name in name)[:5])
            raise UserError(
                f"--delete-data {name}: the set has no such Namespace, claim, Profile or"
                " CustomResourceDefinition",
                hint=f"it has {near}" if near else "`kfdeploy destroy --dry-run` lists what stays",
                exit_code=WRONG_USE,
            )
        if len(set(found)) > 1:
            several = ", ".join(sorted(_list_names(key)[0] for key in set(found)))
            raise UserError(
                f"--delete-data {name}: the set has several of that name: {several}",
                hint="name the kind too",
                exit_code=WRONG_USE,
            )
        out |= set(found)
    return out


def _list_names(key: ObjectKey) -> tuple[str, ...]:
    where = f"{key.namespace}/" if key.namespace else ""
    long = f"{key.kind}/{where}{key.name}"
    return long, f"{key.kind.lower()}/{where}{key.name}", key.name


def _count_custom_resources(cluster: Cluster, crd: ObjectKey) -> int:
    """How many objects of a kind there are; 0 where it is not served."""
    body = cluster.get(crd)
    if body is None:
        return 0
    spec = body["spec"]
    version = next((v["name"] for v in spec["versions"] if v.get("storage")), "")
    api = f"{spec['group']}/{version}"
    return len(cluster.list(api, spec["names"]["kind"], metadata=True))


def destroy_set(
    cluster: Cluster,
    what: DestroyPlan,
    namespace: str,
    held: HeldLease,
    seconds: float,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Do what a plan says; interrupted and run again, it goes on.

    Args:
        seconds: for which what is deleted is waited for to be gone.

    Raises:
        UserError: the API server refuses, something holds an object, or the lock was lost.
    """
    # While their controller is there to end what their finalizers are for.
    profiles = [key for key in what.data if key.kind == "Profile"]
    delete.delete_objects(cluster, profiles, seconds=seconds)
    for one in what.releases:
        held.ensure_held()
        say(f"removes {one.release}")
        delete.delete_objects(cluster, one.deleted, seconds=seconds)
        delete.delete_release_records(cluster, namespace, one.release)
    held.ensure_held()
    delete.delete_objects(cluster, what.data, seconds=seconds)
    applied_set.delete_state(cluster, namespace)
