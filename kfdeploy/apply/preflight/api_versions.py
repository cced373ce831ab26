"""Which API a kind is asked for by: from the set's definitions, the cluster's, or Kubernetes' own.

What was removed from Kubernetes, and when: its "Deprecated API Migration Guide".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from kfdeploy.releaseset.order.contents import SetContents, SetObject, builtin_resource


class ServedKind(Protocol):
    """A kind as an API server has it."""

    @property
    def plural(self) -> str: ...
    @property
    def namespaced(self) -> bool: ...


class KindLookup(Protocol):
    """What an API server serves."""

    def of(self, api_version: str, kind: str) -> ServedKind | None: ...


Version = tuple[int, int]

CLUSTER_SCOPED: Final = frozenset(
    (
        *("APIService", "CSIDriver", "CSINode", "CertificateSigningRequest", "ClusterRole"),
        *("ClusterRoleBinding", "ClusterTrustBundle", "CustomResourceDefinition", "DeviceClass"),
        *("FlowSchema", "IngressClass", "MutatingAdmissionPolicy"),
        *("MutatingAdmissionPolicyBinding", "MutatingWebhookConfiguration", "Namespace", "Node"),
        *("PersistentVolume", "PriorityClass", "PriorityLevelConfiguration", "RuntimeClass"),
        *("StorageClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
        *("ValidatingWebhookConfiguration", "VolumeAttributesClass"),
    )
)
"""Kubernetes' own kinds that are in no namespace."""


_GROUPS: Final = frozenset(
    (
        *("", "apps", "autoscaling", "batch", "extensions", "policy"),
        *("admissionregistration", "apiextensions", "apiregistration", "authentication"),
        *("authorization", "certificates", "coordination", "discovery", "events"),
        *("flowcontrol.apiserver", "internal.apiserver", "networking", "node"),
        *("rbac.authorization", "resource", "scheduling", "storage", "storagemigration"),
    )
)
"""Groups that no definition brings, without ``.k8s.io``."""


@dataclass(frozen=True, slots=True)
class ApiRemoval:
    """A version of an API that Kubernetes no longer has since ``at``; ``instead`` may be empty."""

    at: Version
    instead: str = ""


_REMOVED: Final[Mapping[str, Mapping[Version, tuple[str, ...]]]] = {
    # apiVersion: {release: its kinds that went; none for all of them}
    "extensions/v1beta1": {(1, 22): ("Ingress",), (1, 16): ()},
    "apps/v1beta1": {(1, 16): ()},
    "apps/v1beta2": {(1, 16): ()},
    "admissionregistration.k8s.io/v1beta1": {
        (1, 22): ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    },
    "apiextensions.k8s.io/v1beta1": {(1, 22): ()},
    "apiregistration.k8s.io/v1beta1": {(1, 22): ()},
    "certificates.k8s.io/v1beta1": {(1, 22): ("CertificateSigningRequest",)},
    "coordination.k8s.io/v1beta1": {(1, 22): ("Lease",)},
    "networking.k8s.io/v1beta1": {(1, 22): ("Ingress", "IngressClass")},
    "rbac.authorization.k8s.io/v1beta1": {(1, 22): ()},
    "scheduling.k8s.io/v1beta1": {(1, 22): ("PriorityClass",)},
    "storage.k8s.io/v1beta1": {
        (1, 22): ("CSIDriver", "CSINode", "StorageClass", "VolumeAttachment"),
        (1, 27): ("CSIStorageCapacity",),
    },
    "batch/v1beta1": {(1, 25): ()},
    "discovery.k8s.io/v1beta1": {(1, 25): ()},
    "events.k8s.io/v1beta1": {(1, 25): ()},
    "autoscaling/v2beta1": {(1, 25): ()},
    "autoscaling/v2beta2": {(1, 26): ()},
    "policy/v1beta1": {(1, 25): ()},
    "node.k8s.io/v1beta1": {(1, 25): ()},
    "flowcontrol.apiserver.k8s.io/v1beta1": {(1, 26): ()},
    "flowcontrol.apiserver.k8s.io/v1beta2": {(1, 29): ()},
    "flowcontrol.apiserver.k8s.io/v1beta3": {(1, 32): ()},
}
_INSTEAD: Final = {
    "extensions/v1beta1": "apps/v1",
    "apps/v1beta1": "apps/v1",
    "apps/v1beta2": "apps/v1",
    "autoscaling/v2beta1": "autoscaling/v2",
    "autoscaling/v2beta2": "autoscaling/v2",
    "events.k8s.io/v1beta1": "events.k8s.io/v1",
}
_SINCE: Final[Mapping[str, Version]] = {
    "ValidatingAdmissionPolicy": (1, 30),
    "ValidatingAdmissionPolicyBinding": (1, 30),
    "MutatingAdmissionPolicy": (1, 36),
    "MutatingAdmissionPolicyBinding": (1, 36),
}
"""Kinds of ``admissionregistration.k8s.io/v1``, and the release that has them first."""


def find_api_removal(api_version: str, kind: str) -> ApiRemoval | None:
    """When Kubernetes removed a version of an API; None where it has not."""
    for at, kinds in _REMOVED.get(api_version, {}).items():
        if not kinds or kind in kinds:
            group = api_version.rpartition("/")[0]
            instead = _INSTEAD.get(api_version, f"{group}/v1")
            if kind == "Ingress":
                instead = "networking.k8s.io/v1"
            return ApiRemoval(at, "" if kind == "PodSecurityPolicy" else instead)
    return None


def find_first_version(api_version: str, kind: str) -> Version | None:
    """The first release of Kubernetes that serves it, where that matters today."""
    return _SINCE.get(kind) if api_version == "admissionregistration.k8s.io/v1" else None


def is_builtin(api_version: str) -> bool:
    """Whether a group is Kubernetes' own, which no definition brings."""
    return api_version.rpartition("/")[0].removesuffix(".k8s.io") in _GROUPS


def parse_minor_version(version: str) -> Version:
    """``1.36.3`` is (1, 36); what cannot be read is (0, 0)."""
    parts = version.lstrip("v").split(".")
    numbers = ["".join(c for c in part if c.isdigit()) for part in parts[:2]]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 and all(numbers) else (0, 0)


@dataclass(frozen=True, slots=True)
class ResourceLocation:
    """Where an API server has an object: resource, and namespace ("" for what is in none)."""

    group: str
    resource: str
    namespace: str


class ResourceLocator:
    """Where the objects of a set are, or will be."""

    def __init__(
        self, contents: SetContents, namespace: str, kinds: KindLookup | None = None
    ) -> None:
        """Args:
        namespace: of objects that name none and must be in one: Helm's.
        kinds: what the cluster serves; without it Kubernetes' own kinds are known.
        """
        self._contents = contents
        self._namespace = namespace
        self._kinds = kinds

    def locate(self, item: SetObject) -> ResourceLocation:
        """An object's place."""
        key, crd = item.key, self._contents.crd_of(item)
        if crd is not None:
            names = crd.spec.get("names") or {}
            resource, namespaced = str(names.get("plural", "")), crd.spec.get("scope") != "Cluster"
        elif self._kinds and (found := self._kinds.of(key.api_version, key.kind)) is not None:
            resource, namespaced = found.plural, found.namespaced
        else:
            resource = builtin_resource(key.kind)
            # Of a kind that nobody knows here, the object itself says it.
            known = is_builtin(key.api_version)
            namespaced = key.kind not in CLUSTER_SCOPED if known else bool(key.namespace)
        namespace = (key.namespace or self._namespace) if namespaced else ""
        return ResourceLocation(key.group, resource, namespace)
