"""Remove a set from a cluster: by a plan, the last wave first. Users' data stays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfdeploy.apply import applied_set
from kfdeploy.apply.steps import ReleaseRemoval, format_count
from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.kubernetes import helm_release
from kfdeploy.kubernetes.accessors import get_spec, get_text, list_mappings
from kfdeploy.kubernetes.cluster import bulk, delete, helm_history, ownership
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.lease import HeldLease
from kfdeploy.kubernetes.helm_release import get_release_owner
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset.folder import SetFolder


@dataclass(frozen=True)
class DestroyPlan:
    """The plan of a destroy.

    Attributes:
        releases: the last wave first.
        data: what ``--delete-data`` names; it is deleted at the end.
        kept: names of the set's CRDs that stay, with the number of objects of their kind.
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
        """Yield the plan for people."""
        for removal in self.releases:
            yield f"remove {removal.release}: {format_count(len(removal.deleted))}"
            yield from (f"  keeps {key}" for key in removal.kept)
        for name, count in self.kept.items():
            if count:
                yield f"keeps CustomResourceDefinition {name} and its {format_count(count)}"
        for key in self.data:
            yield f"DELETES {key}, and all that is in it"


def plan_destroy(
    cluster: Cluster, release_set: SetFolder, namespace: str, delete_data: Sequence[str]
) -> DestroyPlan:
    """Return what a destroy would delete.

    Args:
        namespace: the namespace of Helm's records.
        delete_data: ``NAME``, ``KIND/NAME`` or ``KIND/NAMESPACE/NAME`` of the users' data to delete
            as well.

    Raises:
        UserError: ``delete_data`` names data that the set does not have.
    """
    histories = helm_history.read_histories(cluster, namespace)
    waves = {release.name: release.wave for release in release_set.releases}
    installed = [name for name in histories if name in waves]
    data = _resolve_data(release_set, delete_data)
    releases = tuple(
        _plan_release(cluster, name, histories[name], namespace, data)
        for name in sorted(installed, key=lambda name: (-waves[name], name))
    )
    crds = sorted(item.key for release in release_set.releases for item in release.crds)
    kept = {key.name: _count_custom_resources(cluster, key) for key in crds if key not in data}
    return DestroyPlan(releases, tuple(sorted(data)), kept)


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
        if key in data:  # deleted at the end
            continue
        is_own = get_release_owner(body) == (name, namespace)
        is_data = helm_release.is_user_data(key) or ownership.is_kept(body)
        (deleted if is_own and not is_data else kept).append(key)
    return ReleaseRemoval(name, tuple(deleted), tuple(kept))


def _resolve_data(release_set: SetFolder, names: Sequence[str]) -> set[ObjectKey]:
    """Return the objects of the set that ``--delete-data`` names."""
    candidates = [
        item.key
        for release in release_set.releases
        for item in (*release.crds, *release.objects)
        if helm_release.is_user_data(item.key)
    ]
    out = set()
    for name in names:
        found = {key for key in candidates if name in _list_names(key)}
        if not found:
            similar = sorted(_list_names(key)[0] for key in candidates if key.name in name)[:5]
            raise UserError(
                f"--delete-data {name}: the set has no such Namespace, PersistentVolumeClaim,"
                " PersistentVolume, Profile or CustomResourceDefinition",
                hint=f"it has {', '.join(similar)}"
                if similar
                else "`kfdeploy destroy --dry-run` lists what stays",
                exit_code=WRONG_USE,
            )
        if len(found) > 1:
            names = ", ".join(sorted(_list_names(key)[0] for key in found))
            raise UserError(
                f"--delete-data {name}: the set has several objects of this name: {names}",
                hint="name the kind too, as KIND/NAME or KIND/NAMESPACE/NAME",
                exit_code=WRONG_USE,
            )
        out |= found
    return out


def _list_names(key: ObjectKey) -> tuple[str, ...]:
    """Return the names that ``--delete-data`` accepts for an object, the full one first."""
    path = f"{key.namespace}/{key.name}" if key.namespace else key.name
    return f"{key.kind}/{path}", f"{key.kind.lower()}/{path}", key.name


def _count_custom_resources(cluster: Cluster, crd: ObjectKey) -> int:
    """Return the number of objects of a definition's kind; 0 if it is not served."""
    spec = get_spec(cluster.get(crd))
    versions = list_mappings(spec, "versions")
    stored = next((get_text(version, "name") for version in versions if version.get("storage")), "")
    api_version = f"{get_text(spec, 'group')}/{stored}"
    return len(cluster.list(api_version, get_text(spec, "names", "kind"), metadata=True))


def destroy_set(
    cluster: Cluster,
    plan: DestroyPlan,
    namespace: str,
    held: HeldLease,
    seconds: float,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Do what a plan says. If it is interrupted, a new plan continues it.

    Args:
        seconds: time-out of each wait until deleted objects are gone.
        say: called with a line for each step.

    Raises:
        UserError: the API server refuses a deletion, a finalizer holds an object, or the lock was
            lost.
    """
    # Profiles go first, while their controller runs: it removes their finalizers.
    profiles = [key for key in plan.data if key.kind == "Profile"]
    delete.delete_objects(cluster, profiles, seconds=seconds)
    for removal in plan.releases:
        held.ensure_held()
        say(f"removes {removal.release}")
        delete.delete_objects(cluster, removal.deleted, seconds=seconds)
        delete.delete_release_records(cluster, namespace, removal.release)
    held.ensure_held()
    delete.delete_objects(cluster, plan.data, seconds=seconds)
    applied_set.delete_state(cluster, namespace)
