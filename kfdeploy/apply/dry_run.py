"""Try a set on a cluster without changing it: a server-side dry run of each object."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy import parallel
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.errors import ApiError
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.releaseset.folder import SetRelease

_JOBS: Final = 8
_MANAGER: Final = "helm"


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """The result of one object's dry run.

    Attributes:
        refused: the API server's message if it refuses the object.
        untried: why the object cannot be tried yet: its kind or namespace comes with the set.
    """

    release: str
    key: ObjectKey
    refused: str = ""
    untried: str = ""

    def to_json(self) -> dict[str, Any]:
        why = {"refused": self.refused} if self.refused else {"untried": self.untried}
        return {"release": self.release, "object": self.key, **why}


def dry_run_releases(
    cluster: Cluster, releases: Sequence[SetRelease], skip: Collection[ObjectKey]
) -> tuple[DryRunResult, ...]:
    """Try each object of some releases, and return the results in the set's order.

    Args:
        skip: objects that an apply deletes first; as they are, they would be refused.
    """
    cluster.kinds.refresh()
    objects = (item for release in releases for item in release.objects)
    namespaces = {item.key.name for item in objects if item.key.kind == "Namespace"}
    work = [
        (release.name, item)
        for release in releases
        for item in (*release.crds, *release.objects)
        if item.key not in skip
    ]

    def try_object(pair: tuple[str, Object]) -> DryRunResult:
        return _try_object(cluster, *pair, namespaces)

    return tuple(parallel.map_in_threads(try_object, work, _JOBS))


def _try_object(
    cluster: Cluster, release: str, item: Object, namespaces: Collection[str]
) -> DryRunResult:
    key = item.key
    if cluster.kinds.of(key.api_version, key.kind) is None:
        return DryRunResult(release, key, untried="its kind is not served yet")
    try:
        cluster.apply(item, manager=_MANAGER, force=True, dry_run=True)
    except ApiError as error:
        if error.status == 404 and key.namespace in namespaces:
            why = f"the namespace {key.namespace} does not exist yet"
            return DryRunResult(release, key, untried=why)
        if "does not support dry run" in error.said:
            return DryRunResult(release, key, untried=error.said)
        why = f"{error.status} {error.reason}: {error.said}"
        return DryRunResult(release, key, refused=why)
    return DryRunResult(release, key)
