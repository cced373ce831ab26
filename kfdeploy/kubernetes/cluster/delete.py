"""Delete objects in a safe order, and Helm's records of a release.

`helm uninstall` is not used: it deletes everything that its record lists, unless the record itself
marks it, and so also the objects that another release has taken over since.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

from kfdeploy import parallel
from kfdeploy.errors import UserError
from kfdeploy.kubernetes import helm_release
from kfdeploy.kubernetes.accessors import get_name
from kfdeploy.kubernetes.cluster import bulk
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.objects import ObjectKey

_FIRST: Final = (
    # Webhooks first: without their pods they would refuse all that they are asked about.
    *("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"),
    *("MutatingAdmissionPolicyBinding", "ValidatingAdmissionPolicyBinding"),
    *("MutatingAdmissionPolicy", "ValidatingAdmissionPolicy", "APIService"),
)
_LAST: Final = (
    # Helm's order: what others need goes last (helm v4 pkg/release/v1/util/kind_sorter.go).
    *("Ingress", "Service", "CronJob", "Job", "StatefulSet", "HorizontalPodAutoscaler"),
    *("Deployment", "ReplicaSet", "ReplicationController", "Pod", "DaemonSet"),
    *("RoleBinding", "Role", "ClusterRoleBinding", "ClusterRole", "PersistentVolumeClaim"),
    *("PersistentVolume", "StorageClass", "ConfigMap", "Secret", "ServiceAccount"),
    *("PodDisruptionBudget", "ResourceQuota", "LimitRange", "PriorityClass", "NetworkPolicy"),
    *("CustomResourceDefinition", "Namespace"),
)


def sort_for_removal(keys: Iterable[ObjectKey]) -> list[ObjectKey]:
    """Return objects in the order of deletion: webhooks, custom resources, the rest as Helm."""
    ranks = {kind: rank for rank, kind in enumerate((*_FIRST, "", *_LAST))}
    return sorted(keys, key=lambda key: (ranks.get(key.kind, len(_FIRST)), key))


def delete_objects(cluster: Cluster, keys: Sequence[ObjectKey], *, seconds: float) -> None:
    """Delete objects, one kind after the other. Objects that do not exist are skipped.

    Custom resources are gone before the next kind is deleted: the operator that removes their
    finalizers must still run.

    Args:
        seconds: time-out of each wait for a kind of custom resources.

    Raises:
        UserError: the API server refuses a deletion, or a finalizer holds an object.
    """
    for kind, group in groupby(sort_for_removal(keys), key=lambda key: key.kind):
        own = list(group)
        parallel.map_in_threads(cluster.delete, own, bulk.JOBS)
        if kind not in _LAST:
            wait_until_gone(cluster, own, seconds)


def wait_until_gone(cluster: Cluster, keys: Sequence[ObjectKey], seconds: float) -> None:
    """Wait until deleted objects no longer exist.

    Raises:
        UserError: some still exist after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while keys and (keys := list(bulk.read_objects(cluster, keys, metadata=True))):
        if time.monotonic() > deadline:
            names = ", ".join(map(str, keys))
            raise UserError(
                f"{names}: deleted, and still there after {seconds:g} s",
                hint="`kubectl get ... -o yaml` shows the finalizers that hold it",
            )
        time.sleep(0.2)


def delete_release_records(cluster: Cluster, namespace: str, release: str) -> None:
    """Delete all of Helm's records of a release."""
    labels = f"{helm_release.SELECTOR},name={release}"
    for secret in cluster.list("v1", "Secret", namespace=namespace, labels=labels, metadata=True):
        cluster.delete(ObjectKey("v1", "Secret", namespace, get_name(secret)))
