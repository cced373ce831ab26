"""A release taken away, without what must stay.

`helm uninstall` deletes all that its record lists and that is not marked in the record itself; what
another release has taken on since would go, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

from kfdeploy import parallel
from kfdeploy.errors import UserError
from kfdeploy.kubernetes import helm_release
from kfdeploy.kubernetes.cluster import bulk
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.objects import ObjectKey

_ORDER: Final = (
    # Webhooks first: they would refuse what their own pods no longer judge.
    *("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"),
    *("MutatingAdmissionPolicyBinding", "ValidatingAdmissionPolicyBinding"),
    *("MutatingAdmissionPolicy", "ValidatingAdmissionPolicy", "APIService"),
)
_LAST: Final = (
    # As Helm has it, what others need goes last (helm v4 pkg/release/v1/util/kind_sorter.go).
    *("Ingress", "Service", "CronJob", "Job", "StatefulSet", "HorizontalPodAutoscaler"),
    *("Deployment", "ReplicaSet", "ReplicationController", "Pod", "DaemonSet"),
    *("RoleBinding", "Role", "ClusterRoleBinding", "ClusterRole", "PersistentVolumeClaim"),
    *("PersistentVolume", "StorageClass", "ConfigMap", "Secret", "ServiceAccount"),
    *("PodDisruptionBudget", "ResourceQuota", "LimitRange", "PriorityClass", "NetworkPolicy"),
    *("CustomResourceDefinition", "Namespace"),
)


def sort_for_removal(keys: Iterable[ObjectKey]) -> list[ObjectKey]:
    """Objects in the order in which they go: webhooks, custom resources, all else as Helm."""
    place = {kind: n for n, kind in enumerate(_ORDER)}
    place |= {kind: n + len(_ORDER) + 1 for n, kind in enumerate(_LAST)}
    return sorted(keys, key=lambda key: (place.get(key.kind, len(_ORDER)), key))


def delete_objects(cluster: Cluster, keys: Sequence[ObjectKey], *, seconds: float) -> None:
    """Delete objects, a kind after the other. What is gone already is fine.

    Custom resources are waited for: the operator that ends their finalizers goes after them.

    Args:
        seconds: for which each kind of them is waited for.

    Raises:
        UserError: the API server refuses one, or something holds one.
    """
    for kind, group in groupby(sort_for_removal(keys), key=lambda key: key.kind):
        heap = list(group)
        parallel.map_in_threads(cluster.delete, heap, bulk.JOBS)
        if kind not in _LAST:
            wait_until_gone(cluster, heap, seconds)


def wait_until_gone(cluster: Cluster, keys: Sequence[ObjectKey], seconds: float) -> None:
    """Wait until objects that were deleted are no longer there.

    Raises:
        UserError: they still are after ``seconds``.
    """
    until = time.monotonic() + seconds
    while keys and (keys := list(bulk.read_objects(cluster, keys, metadata=True))):
        if time.monotonic() > until:
            names = ", ".join(map(str, keys))
            raise UserError(
                f"{names}: deleted, and still there after {seconds:g} s",
                hint="`kubectl get ... -o yaml` shows the finalizers that hold it",
            )
        time.sleep(0.2)


def delete_release_records(cluster: Cluster, namespace: str, release: str) -> None:
    """Take all of Helm's records of a release away."""
    labels = f"{helm_release.SELECTOR},name={release}"
    for secret in cluster.list("v1", "Secret", namespace=namespace, labels=labels, metadata=True):
        cluster.delete(ObjectKey("v1", "Secret", namespace, secret["metadata"]["name"]))
