"""A cluster, against what should be there: the images that its pods run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.apply import running_images
from kfdeploy.apply.running_images import ExpectedImages, RunningImage
from kfdeploy.images import lockfile
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset.folder import SetFolder

_PROFILE: Final = ("app.kubernetes.io/part-of", "kubeflow-profile")
"""Label that the profile controller gives users' namespaces (kubeflow/kubeflow profile-controller
config/namespace-labels)."""
_INTERMEDIATE_KINDS: Final = (
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
)
"""What stands between a pod and the workload that people know."""


@dataclass(frozen=True, slots=True)
class ImageAudit:
    """What runs.

    Attributes:
        unused: the set's images that nothing runs now, as upstream names them.
        pods: how many were looked at.
        skipped: namespace to its pods that were not looked at, as they are not the set's.
    """

    set: str
    context: str
    images: tuple[RunningImage, ...]
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
            "images": self.images,
            "unused": self.unused,
            "skipped": self.skipped,
        }


def audit_images(
    cluster: Cluster, content: SetFolder, uncovered: Sequence[str] = (), *, everywhere: bool = False
) -> ImageAudit:
    """The images that pods run, against a set and its lock.

    Looked at are all pods in the set's own namespaces and in users', elsewhere those of the set's
    workloads; what else a cluster runs has not come from here.

    Args:
        uncovered: images that may come from elsewhere (``registries.uncovered``).
        everywhere: look at all pods there are.

    Raises:
        UserError: the cluster can't be asked.
    """
    known = ExpectedImages(
        content.summary.images,
        lockfile.read_lock(content.folder / "images.lock"),
        content.summary.registry,
        uncovered,
    )
    owners = _WorkloadOwners(cluster)
    scope = _AuditScope(cluster, content, everywhere=everywhere)
    skipped: dict[str, int] = {}
    found: list[running_images.PodImageUse] = []
    looked = 0
    for pod in cluster.list("v1", "Pod"):
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        owner = owners.find_workload(pod)
        if scope.includes_owner(owner):
            looked += 1
            found += running_images.list_pod_images(pod, owner)
        else:
            skipped[owner.namespace] = skipped.get(owner.namespace, 0) + 1
    judged = running_images.classify_running_images(found, known)
    return ImageAudit(
        set=content.name,
        context=cluster.context,
        images=tuple(judged),
        unused=tuple(running_images.find_unused_images(judged, known)),
        pods=looked,
        skipped=dict(sorted(skipped.items())),
    )


class _WorkloadOwners:
    """From pods to the workloads that people know."""

    def __init__(self, cluster: Cluster) -> None:
        self._above: dict[ObjectKey, ObjectKey] = {}
        for api_version, kind in _INTERMEDIATE_KINDS:
            for body in cluster.list(api_version, kind, metadata=True):
                if (owner := _find_controller(body)) is not None:
                    self._above[ObjectKey.from_body(body)] = owner

    def find_workload(self, pod: Mapping[str, Any]) -> ObjectKey:
        """The workload at the top; the pod itself where there is none."""
        key = _find_controller(pod) or ObjectKey.from_body(
            {**pod, "apiVersion": "v1", "kind": "Pod"}
        )
        while (above := self._above.get(key)) is not None:
            key = above
        return key


def _find_controller(body: Mapping[str, Any]) -> ObjectKey | None:
    meta = body["metadata"]
    for owner in meta.get("ownerReferences") or ():
        if owner.get("controller"):
            namespace = meta.get("namespace", "")
            return ObjectKey(owner["apiVersion"], owner["kind"], namespace, owner["name"])
    return None


class _AuditScope:
    """Whose pods are looked at."""

    def __init__(self, cluster: Cluster, content: SetFolder, *, everywhere: bool) -> None:
        self._everywhere = everywhere
        keys = [item.key for release in content.releases for item in release.objects]
        self._workloads = {(key.kind, key.namespace, key.name) for key in keys}
        self._namespaces = {key.name for key in keys if key.kind == "Namespace"}
        self._namespaces |= set(
            _list_user_namespaces(cluster.list("v1", "Namespace", metadata=True))
        )

    def includes_owner(self, owner: ObjectKey) -> bool:
        of_set = (owner.kind, owner.namespace, owner.name) in self._workloads
        return self._everywhere or of_set or owner.namespace in self._namespaces


def _list_user_namespaces(namespaces: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    name, value = _PROFILE
    for body in namespaces:
        if (body["metadata"].get("labels") or {}).get(name) == value:
            yield body["metadata"]["name"]
