"""Edges of the order: which object comes before which, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from kfdeploy.releaseset.order.contents import SetObject

EdgeReason = Literal[
    "kind", "namespace", "name", "webhook", "injector", "conversion", "api-service", "policy",
    "issuer", "certificate", "ca",
]  # fmt: skip
_WORDS: Final[dict[EdgeReason, str]] = {
    "kind": "defines",
    "namespace": "holds",
    "name": "is used by",
    "webhook": "judges",
    "injector": "changes the pods of",
    "conversion": "converts",
    "api-service": "serves",
    "policy": "judges",
    "issuer": "signs",
    "certificate": "gives the secret of",
    "ca": "gives the CA of",
}

HELM_ORDER: Final = (
    "PriorityClass", "Namespace", "NetworkPolicy", "ResourceQuota", "LimitRange",
    "PodSecurityPolicy", "PodDisruptionBudget", "ServiceAccount", "Secret", "SecretList",
    "ConfigMap", "StorageClass", "PersistentVolume", "PersistentVolumeClaim",
    "CustomResourceDefinition", "ClusterRole", "ClusterRoleList", "ClusterRoleBinding",
    "ClusterRoleBindingList", "Role", "RoleList", "RoleBinding", "RoleBindingList", "Service",
    "DaemonSet", "Pod", "ReplicationController", "ReplicaSet", "Deployment",
    "HorizontalPodAutoscaler", "StatefulSet", "Job", "CronJob", "IngressClass", "Ingress",
    "APIService", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
)  # fmt: skip
"""The kinds in the order in which Helm creates a release's objects: InstallOrder in
pkg/release/v1/util/kind_sorter.go of Helm 4.2, and the same in 3.18 and later."""
_RANK: Final = {kind: number for number, kind in enumerate(HELM_ORDER)}


def creation_rank(kind: str) -> tuple[int, str]:
    """Return when Helm creates objects of a kind: unknown kinds come last, by name."""
    rank = _RANK.get(kind)
    return (len(HELM_ORDER), kind) if rank is None else (rank, "")


@dataclass(frozen=True, slots=True)
class OrderEdge:
    """One object before another.

    Attributes:
        where: the field that says so, and its object where it is neither of the two.
        needs_ready: the first must be ready, not only there.
        can_share_release: the two may be in one release, because Helm creates the first one earlier
            and nothing waits until it is ready, or because the second one waits by itself, as pods
            do for a Secret.
    """

    first: SetObject
    then: SetObject
    why: EdgeReason
    where: str
    needs_ready: bool
    can_share_release: bool

    @property
    def is_admission(self) -> bool:
        return self.why in ("webhook", "injector", "policy")

    def to_json(self) -> dict[str, Any]:
        return {
            "why": self.why,
            "first": self.first.key,
            "then": self.then.key,
            "field": self.where,
            "ready": self.needs_ready,
        }

    def to_sentence(self, more: int = 0) -> str:
        """Return the edge as a sentence; ``more`` objects have the same reason."""
        others = f" and {more} more" if more else ""
        must = "must be ready: it " if self.needs_ready else ""
        return f"{self.first} {must}{_WORDS[self.why]} {self.then}{others} ({self.where})"
