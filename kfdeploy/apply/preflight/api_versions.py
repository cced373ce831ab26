"""Find the resource of an object, and the releases of Kubernetes that serve an API.

A kind is looked up in the set's definitions, in what the cluster serves, and among Kubernetes' own
kinds. The removed APIs are those of Kubernetes' "Deprecated API Migration Guide".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from kfdeploy.kubernetes.accessors import get_text
from kfdeploy.releaseset.order.contents import SetContents, SetObject, builtin_resource


class ServedKind(Protocol):
    """A kind that an API server serves."""

    @property
    def plural(self) -> str: ...
    @property
    def namespaced(self) -> bool: ...


class KindLookup(Protocol):
    """The kinds that an API server serves."""

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
"""Kubernetes' own kinds that have no namespace."""


_GROUPS: Final = frozenset(
    (
        *("", "apps", "autoscaling", "batch", "extensions", "policy"),
        *("admissionregistration", "apiextensions", "apiregistration", "authentication"),
        *("authorization", "certificates", "coordination", "discovery", "events"),
        *("flowcontrol.apiserver", "internal.apiserver", "networking", "node"),
        *("rbac.authorization", "resource", "scheduling", "storage", "storagemigration"),
    )
)
"""Kubernetes' own groups, without ``.k8s.io``."""


@dataclass(frozen=True, slots=True)
class ApiRemoval:
    """The removal of an API's version from Kubernetes.

    Attributes:
        at: the first release without it.
        instead: the apiVersion that replaces it; empty if none does.
    """

    at: Version
    instead: str = ""


_REMOVED: Final[Mapping[str, Mapping[Version, tuple[str, ...]]]] = {
    # apiVersion: {release: the kinds that it removed; empty for all of them}
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
_INSTEAD_OF_KIND: Final = {"Ingress": "networking.k8s.io/v1", "PodSecurityPolicy": ""}
_SINCE: Final[Mapping[str, Version]] = {
    "ValidatingAdmissionPolicy": (1, 30),
    "ValidatingAdmissionPolicyBinding": (1, 30),
    "MutatingAdmissionPolicy": (1, 36),
    "MutatingAdmissionPolicyBinding": (1, 36),
}
"""Kinds of ``admissionregistration.k8s.io/v1``, and the first release that serves them."""


def find_api_removal(api_version: str, kind: str) -> ApiRemoval | None:
    """Return when Kubernetes removed a kind in a version of its API; None if it has not."""
    for at, kinds in _REMOVED.get(api_version, {}).items():
        if not kinds or kind in kinds:
            group = api_version.rpartition("/")[0]
            by_group = _INSTEAD.get(api_version, f"{group}/v1")
            return ApiRemoval(at, _INSTEAD_OF_KIND.get(kind, by_group))
    return None


def find_first_version(api_version: str, kind: str) -> Version | None:
    """Return the first release of Kubernetes that serves a kind; None if all of them do."""
    return _SINCE.get(kind) if api_version == "admissionregistration.k8s.io/v1" else None


def is_builtin(api_version: str) -> bool:
    """Return whether a group is Kubernetes' own, and of no definition."""
    return api_version.rpartition("/")[0].removesuffix(".k8s.io") in _GROUPS


def parse_minor_version(version: str) -> Version:
    """Return the first two numbers of a version: (1, 36) of ``1.36.3``; (0, 0) of other texts."""
    parts = version.lstrip("v").split(".")
    # A provider may write the minor version as 36+.
    numbers = ["".join(filter(str.isdigit, part)) for part in parts[:2]]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 and all(numbers) else (0, 0)


@dataclass(frozen=True, slots=True)
class ResourceLocation:
    """The resource and namespace of an object; an empty namespace if its kind has none."""

    group: str
    resource: str
    namespace: str


class ResourceLocator:
    """Finds the resource and namespace that the objects of a set have, or will have."""

    def __init__(
        self, contents: SetContents, namespace: str, kinds: KindLookup | None = None
    ) -> None:
        """Args:
        namespace: the namespace of objects that need one and name none: Helm's.
        kinds: the kinds that the cluster serves; without them Kubernetes' own are known.
        """
        self._contents = contents
        self._namespace = namespace
        self._kinds = kinds

    def locate(self, item: SetObject) -> ResourceLocation:
        """Return the resource and namespace of an object."""
        key = item.key
        resource, is_namespaced = self._find_resource(item)
        namespace = (key.namespace or self._namespace) if is_namespaced else ""
        return ResourceLocation(key.group, resource, namespace)

    def _find_resource(self, item: SetObject) -> tuple[str, bool]:
        """Return the resource of an object's kind, and whether it is namespaced."""
        key, crd = item.key, self._contents.crd_of(item)
        if crd is not None:
            return get_text(crd.spec, "names", "plural"), crd.spec.get("scope") != "Cluster"
        served = self._kinds.of(key.api_version, key.kind) if self._kinds else None
        if served is not None:
            return served.plural, served.namespaced
        if is_builtin(key.api_version):
            return builtin_resource(key.kind), key.kind not in CLUSTER_SCOPED
        # Nobody knows the kind: the object's own namespace decides.
        return builtin_resource(key.kind), bool(key.namespace)
