"""A cluster, against what should be there: the images that its pods run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kfdeploy.apply import running_images
from kfdeploy.apply.running_images import Known, Running
from kfdeploy.images import lockfile
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset.folder import SetFolder, open_set

_PROFILE: Final = ("app.kubernetes.io/part-of", "kubeflow-profile")
"""Label that the profile controller gives users' namespaces (kubeflow/kubeflow profile-controller
config/namespace-labels)."""
_BETWEEN: Final = (
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
)
"""What stands between a pod and the workload that people know."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What runs.

    Attributes:
        unused: the set's images that nothing runs now, as upstream names them.
        pods: how many were looked at.
        skipped: namespace to its pods that were not looked at, as they are not the set's.
    """

    set: str
    context: str
    images: tuple[Running, ...]
    unused: tuple[str, ...]
    pods: int
    skipped: Mapping[str, int]

    @property
    def is_good(self) -> bool:
        return not any(one.is_different for one in self.images)

    def to_json(self) -> dict[str, Any]:
        return {
            "set": self.set,
            "context": self.context,
            "good": self.is_good,
            "pods": self.pods,
            "images": [one.to_json() for one in self.images],
            "unused": list(self.unused),
            "skipped": dict(self.skipped),
        }


def images(
    cluster: Cluster, folder: Path, uncovered: Sequence[str] = (), *, everywhere: bool = False
) -> Audit:
    """The images that pods run, against a set and its lock.

    Looked at are all pods in the set's own namespaces and in users', elsewhere those of the set's
    workloads; what else a cluster runs has not come from here.

    Args:
        uncovered: images that may come from elsewhere (``registries.uncovered``).
        everywhere: look at all pods there are.

    Raises:
        UserError: the folder is no release set; the cluster can't be asked.
    """
    content = open_set(folder)
    known = Known(
        content.summary["images"],
        lockfile.read(folder / "images.lock"),
        str(content.summary["registry"]),
        uncovered,
    )
    owners = _Owners(cluster)
    scope = _Scope(cluster, content, everywhere=everywhere)
    skipped: dict[str, int] = {}
    found: list[running_images.Use] = []
    looked = 0
    for pod in cluster.list("v1", "Pod"):
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        owner = owners.of(pod)
        if scope.has(owner):
            looked += 1
            found += running_images.uses(pod, owner)
        else:
            skipped[owner.namespace] = skipped.get(owner.namespace, 0) + 1
    judged = running_images.running(found, known)
    return Audit(
        set=content.name,
        context=cluster.context,
        images=tuple(judged),
        unused=tuple(running_images.unused(judged, known)),
        pods=looked,
        skipped=dict(sorted(skipped.items())),
    )


class _Owners:
    """From pods to the workloads that people know."""

    def __init__(self, cluster: Cluster) -> None:
        self._above: dict[ObjectKey, ObjectKey] = {}
        for api_version, kind in _BETWEEN:
            for body in cluster.list(api_version, kind, metadata=True):
                if (owner := _controller(body)) is not None:
                    self._above[ObjectKey.of(body)] = owner

    def of(self, pod: Mapping[str, Any]) -> ObjectKey:
        """The workload at the top; the pod itself where there is none."""
        key = _controller(pod) or ObjectKey.of({**pod, "apiVersion": "v1", "kind": "Pod"})
        while (above := self._above.get(key)) is not None:
            key = above
        return key


def _controller(body: Mapping[str, Any]) -> ObjectKey | None:
    meta = body["metadata"]
    for owner in meta.get("ownerReferences") or ():
        if owner.get("controller"):
            namespace = meta.get("namespace", "")
            return ObjectKey(owner["apiVersion"], owner["kind"], namespace, owner["name"])
    return None


class _Scope:
    """Whose pods are looked at."""

    def __init__(self, cluster: Cluster, content: SetFolder, *, everywhere: bool) -> None:
        self._everywhere = everywhere
        keys = [item.key for release in content.releases for item in release.objects]
        self._workloads = {(key.kind, key.namespace, key.name) for key in keys}
        self._namespaces = {key.name for key in keys if key.kind == "Namespace"}
        self._namespaces |= set(_users(cluster.list("v1", "Namespace", metadata=True)))

    def has(self, owner: ObjectKey) -> bool:
        of_set = (owner.kind, owner.namespace, owner.name) in self._workloads
        return self._everywhere or of_set or owner.namespace in self._namespaces


def _users(namespaces: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    name, value = _PROFILE
    for body in namespaces:
        if (body["metadata"].get("labels") or {}).get(name) == value:
            yield body["metadata"]["name"]
