"""Audit the images that a cluster's pods run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.apply import running_images
from kfdeploy.apply.running_images import ExpectedImages, RunningImage
from kfdeploy.images import lockfile
from kfdeploy.kubernetes.accessors import (
    Body,
    find_controller_reference,
    get_labels,
    get_name,
    get_namespace,
    get_status,
)
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.oci.reference import WrittenRef
from kfdeploy.releaseset.folder import SetFolder

_PROFILE_LABEL: Final = ("app.kubernetes.io/part-of", "kubeflow-profile")
"""Label that the profile controller sets on users' namespaces (kubeflow/kubeflow profile-controller
config/namespace-labels)."""
_INTERMEDIATE_KINDS: Final = (
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
)
"""Kinds that may own a pod and be owned by the workload that people know."""


@dataclass(frozen=True, slots=True)
class ImageAudit:
    """The result of an audit.

    Attributes:
        unused: the set's images that nothing runs now, as upstream names them.
        pods: number of the pods that were audited.
        skipped: namespace to the number of its pods that are not the set's, and were not audited.
    """

    set: str
    context: str
    images: tuple[RunningImage, ...]
    unused: tuple[WrittenRef, ...]
    pods: int
    skipped: Mapping[str, int]

    @property
    def is_good(self) -> bool:
        return not any(image.is_different for image in self.images)

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
    """Compare the images that pods run with a set and its lock.

    Audited are all pods in the set's namespaces and in users' namespaces, and elsewhere the pods of
    the set's workloads. Pods that have ended are left out.

    Args:
        uncovered: images that may come from other registries (``registries.uncovered``).
        everywhere: audit all pods of the cluster.

    Raises:
        UserError: the cluster does not answer, or the lock is broken.
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
    audited = 0
    for pod in cluster.list("v1", "Pod"):
        if get_status(pod).get("phase") in ("Succeeded", "Failed"):
            continue
        owner = owners.find_workload(pod)
        if scope.includes_owner(owner):
            audited += 1
            found += running_images.list_pod_images(pod, owner)
        else:
            skipped[owner.namespace] = skipped.get(owner.namespace, 0) + 1
    images = running_images.classify_running_images(found, known)
    return ImageAudit(
        set=content.name,
        context=cluster.context,
        images=tuple(images),
        unused=tuple(running_images.find_unused_images(images, known)),
        pods=audited,
        skipped=dict(sorted(skipped.items())),
    )


class _WorkloadOwners:
    """Finds the workloads that people know, from their pods."""

    def __init__(self, cluster: Cluster) -> None:
        self._above: dict[ObjectKey, ObjectKey] = {}
        for api_version, kind in _INTERMEDIATE_KINDS:
            for body in cluster.list(api_version, kind, metadata=True):
                if (owner := _find_controller(body)) is not None:
                    self._above[ObjectKey.from_body(body)] = owner

    def find_workload(self, pod: Body) -> ObjectKey:
        """Return the workload at the top of a pod's owners; the pod if it has none."""
        key = _find_controller(pod) or ObjectKey.from_body(
            {**pod, "apiVersion": "v1", "kind": "Pod"}
        )
        while (above := self._above.get(key)) is not None:
            key = above
        return key


def _find_controller(body: Body) -> ObjectKey | None:
    owner = find_controller_reference(body)
    if owner is None:
        return None
    return ObjectKey(owner["apiVersion"], owner["kind"], get_namespace(body), owner["name"])


class _AuditScope:
    """The workloads whose pods are audited."""

    def __init__(self, cluster: Cluster, content: SetFolder, *, everywhere: bool) -> None:
        self._everywhere = everywhere
        keys = [item.key for release in content.releases for item in release.objects]
        self._workloads = {(key.kind, key.namespace, key.name) for key in keys}
        self._namespaces = {key.name for key in keys if key.kind == "Namespace"}
        self._namespaces |= set(
            _list_user_namespaces(cluster.list("v1", "Namespace", metadata=True))
        )

    def includes_owner(self, owner: ObjectKey) -> bool:
        is_of_set = (owner.kind, owner.namespace, owner.name) in self._workloads
        return self._everywhere or is_of_set or owner.namespace in self._namespaces


def _list_user_namespaces(namespaces: Iterable[Body]) -> Iterator[str]:
    label, value = _PROFILE_LABEL
    return (get_name(body) for body in namespaces if get_labels(body).get(label) == value)
