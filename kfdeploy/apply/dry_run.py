"""A set tried on a cluster without changing it: each object as a server-side dry run."""

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
    """One object's rehearsal.

    Attributes:
        refused: the API server's words, when it would refuse it.
        untried: why it can't be told yet: its kind or its namespace comes with the set.
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
    """Try each object of some releases, in the set's order.

    Args:
        skip: objects that are deleted first, and would be refused as they are.
    """
    cluster.kinds.refresh()
    made = {
        item.key.name
        for release in releases
        for item in release.objects
        if item.key.kind == "Namespace"
    }
    work = [
        (r.name, item) for r in releases for item in (*r.crds, *r.objects) if item.key not in skip
    ]

    def try_object(pair: tuple[str, Object]) -> DryRunResult:
        release, item = pair
        key = item.key
        if cluster.kinds.of(key.api_version, key.kind) is None:
            return DryRunResult(release, key, untried="its kind is not served yet")
        try:
            cluster.apply(item, manager=_MANAGER, force=True, dry_run=True)
        except ApiError as error:
            if error.status == 404 and key.namespace in made:
                return DryRunResult(
                    release, key, untried=f"the namespace {key.namespace} is not there yet"
                )
            if "does not support dry run" in error.said:
                return DryRunResult(release, key, untried=error.said)
            return DryRunResult(
                release, key, refused=f"{error.status} {error.reason}: {error.said}"
            )
        return DryRunResult(release, key)

    return tuple(parallel.map_in_threads(try_object, work, _JOBS))
