"""Find the changes that an apply cannot make in place: the object must be deleted and recreated.

Each rule names the field and the API server's own check. The checks are in k8s.io/kubernetes below
pkg/apis/*/validation and pkg/registry/*, as of 1.36, and in k8s.io/apiextensions-apiserver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes.accessors import (
    Body,
    as_list,
    get_api_group,
    get_spec,
    get_text,
    get_uid,
    get_value,
)
from kfdeploy.kubernetes.diff import fields
from kfdeploy.kubernetes.diff.defaults import is_server_default
from kfdeploy.kubernetes.diff.fields import FieldDifference
from kfdeploy.kubernetes.diff.values import is_same_as_absent, parse_quantity


@dataclass(frozen=True, slots=True)
class RecreateReason:
    """Why an object must be recreated.

    Attributes:
        field: the field that cannot be changed, for people.
        why: why it cannot.
        source: the check in Kubernetes' sources.
    """

    field: str
    why: str
    source: str = ""


def find_recreate_reasons(old: Body, new: Body) -> tuple[RecreateReason, ...]:
    """Return why ``new`` cannot be applied over ``old``; empty if it can.

    Args:
        old: the live object, or that of an earlier set.
        new: the set's object, of the same group, kind, namespace and name.
    """
    kind = (get_api_group(new), get_text(new, "kind"))
    found: list[RecreateReason] = []
    for rule in _IMMUTABLE_FIELDS.get(kind, ()):
        found += _check_immutable_field(rule, old, new)
    if kind in _SPECIAL_CHECKS:
        found += _SPECIAL_CHECKS[kind](old, new)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _ImmutableField:
    """A field that cannot be changed.

    Attributes:
        default: the value that the API server sets if the field is absent.
        keeps: an absent value keeps the live one, which the API server has set.
    """

    path: tuple[str, ...]
    source: str
    default: Any = None
    keeps: bool = False


_APPS: Final = "pkg/registry/apps/{}/strategy.go ValidateUpdate"
_STATEFUL: Final = "pkg/apis/apps/validation ValidateStatefulSetUpdate"
_JOB: Final = "pkg/apis/batch/validation ValidateJobSpecUpdate"
_STORAGE: Final = "pkg/apis/storage/validation ValidateStorageClassUpdate"
_RBAC: Final = "pkg/apis/rbac/validation Validate{}Update"
_CRD: Final = "apiextensions validation ValidateCustomResourceDefinitionSpecUpdate"
_PRIORITY: Final = "pkg/apis/scheduling/validation ValidatePriorityClassUpdate"
_VOLUME: Final = "pkg/apis/core/validation ValidatePersistentVolumeUpdate"

_IMMUTABLE_FIELDS: Final[dict[tuple[str, str], tuple[_ImmutableField, ...]]] = {
    ("apps", "Deployment"): (_ImmutableField(("spec", "selector"), _APPS.format("deployment")),),
    ("apps", "DaemonSet"): (_ImmutableField(("spec", "selector"), _APPS.format("daemonset")),),
    ("apps", "ReplicaSet"): (_ImmutableField(("spec", "selector"), _APPS.format("replicaset")),),
    ("apps", "StatefulSet"): (
        _ImmutableField(("spec", "selector"), _STATEFUL),
        _ImmutableField(("spec", "serviceName"), _STATEFUL),
        _ImmutableField(("spec", "podManagementPolicy"), _STATEFUL, default="OrderedReady"),
        _ImmutableField(("spec", "volumeClaimTemplates"), _STATEFUL),
    ),
    ("batch", "Job"): (
        _ImmutableField(("spec", "selector"), _JOB, keeps=True),
        _ImmutableField(("spec", "template"), _JOB),
        _ImmutableField(("spec", "completionMode"), _JOB, default="NonIndexed"),
        _ImmutableField(("spec", "podFailurePolicy"), _JOB),
        _ImmutableField(("spec", "successPolicy"), _JOB),
        _ImmutableField(("spec", "backoffLimitPerIndex"), _JOB),
        _ImmutableField(("spec", "managedBy"), _JOB),
    ),
    ("rbac.authorization.k8s.io", "RoleBinding"): (
        _ImmutableField(("roleRef",), _RBAC.format("RoleBinding")),
    ),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): (
        _ImmutableField(("roleRef",), _RBAC.format("ClusterRoleBinding")),
    ),
    ("storage.k8s.io", "StorageClass"): (
        _ImmutableField(("provisioner",), _STORAGE),
        _ImmutableField(("parameters",), _STORAGE),
        _ImmutableField(("reclaimPolicy",), _STORAGE, default="Delete"),
        _ImmutableField(("volumeBindingMode",), _STORAGE, default="Immediate"),
    ),
    ("scheduling.k8s.io", "PriorityClass"): (
        _ImmutableField(("value",), _PRIORITY, default=0),
        _ImmutableField(("preemptionPolicy",), _PRIORITY, default="PreemptLowerPriority"),
    ),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): (
        _ImmutableField(("spec", "group"), _CRD),
        _ImmutableField(("spec", "scope"), _CRD),
        _ImmutableField(("spec", "names", "plural"), _CRD),
        _ImmutableField(("spec", "names", "kind"), _CRD),
    ),
    ("node.k8s.io", "RuntimeClass"): (
        _ImmutableField(("handler",), "pkg/apis/node/validation ValidateRuntimeClassUpdate"),
    ),
    ("networking.k8s.io", "IngressClass"): (
        _ImmutableField(
            ("spec", "controller"), "pkg/apis/networking/validation ValidateIngressClassUpdate"
        ),
    ),
    ("", "Secret"): (
        _ImmutableField(
            ("type",), "pkg/apis/core/validation ValidateSecretUpdate", default="Opaque"
        ),
    ),
    ("", "PersistentVolume"): (
        _ImmutableField(("spec", "volumeMode"), _VOLUME, default="Filesystem"),
        *(
            _ImmutableField(("spec", kind), _VOLUME)
            for kind in ("csi", "hostPath", "iscsi", "local", "nfs", "fc", "cephfs", "rbd")
        ),
    ),
}


def _check_immutable_field(rule: _ImmutableField, old: Body, new: Body) -> Iterator[RecreateReason]:
    was, becomes = get_value(old, *rule.path), get_value(new, *rule.path)
    was = rule.default if was is None else was
    becomes = rule.default if becomes is None else becomes
    if becomes is None and rule.keeps:
        return
    for difference in _diff_field(rule.path, was, becomes):
        yield RecreateReason(difference.field, "it cannot be changed", rule.source)


def _diff_field(path: tuple[str, ...], was: Any, becomes: Any) -> Iterator[FieldDifference]:
    """Yield the differences of a field's values, without those that the API server makes."""
    for difference in fields.diff_values(was, becomes, path):
        if not _is_without_effect(difference):
            yield difference


def _is_without_effect(difference: FieldDifference) -> bool:
    was, becomes, path = difference.was, difference.becomes, difference.path
    if all(is_same_as_absent(value, str(path[-1])) for value in (was, becomes)):
        return True
    if was is None:
        return is_server_default(path, becomes)
    return becomes is None and is_server_default(path, was)


# -- kinds with rules of their own -----------------------------------------------------------------


def _is_live(body: Body) -> bool:
    return bool(get_uid(body))


def _check_immutable_data(old: Body, new: Body) -> Iterator[RecreateReason]:
    """Check a ConfigMap or Secret that is marked as immutable."""
    if old.get("immutable") is not True:
        return
    source = f"pkg/apis/core/validation Validate{new.get('kind')}Update"
    if new.get("immutable") is not True:
        yield RecreateReason("immutable", "it is true and cannot be unset", source)
    for difference in fields.diff_bodies(old, new):
        if difference.path[0] in ("data", "binaryData"):
            yield RecreateReason(difference.field, "the object is immutable", source)


_CLUSTER_IPS: Final = "pkg/apis/core/validation ValidateServiceUpdate"
_KEPT_ADDRESS: Final = "pkg/registry/core/service patchAllocatedValues"


def _check_service(old: Body, new: Body) -> Iterator[RecreateReason]:
    """Check a Service's address: headless, or not, is for its lifetime."""
    was, becomes = get_spec(old), get_spec(new)
    if "ExternalName" in (was.get("type"), becomes.get("type")):
        return
    old_address, address = was.get("clusterIP") or "", becomes.get("clusterIP") or ""
    if old_address == "None" and not address:
        why = "it stays headless: the API server keeps the address of a Service that names none"
        yield RecreateReason("spec.clusterIP", why, _KEPT_ADDRESS)
    elif address and address != old_address:
        yield RecreateReason("spec.clusterIP", "it cannot be changed", _CLUSTER_IPS)
    families = [tuple(as_list(spec.get("ipFamilies")))[:1] for spec in (was, becomes)]
    if all(families) and families[0] != families[1]:
        why = "the first family cannot be changed"
        yield RecreateReason("spec.ipFamilies[0]", why, _CLUSTER_IPS)


_CLAIM: Final = "pkg/apis/core/validation ValidatePersistentVolumeClaimUpdate"
_CLAIM_CHANGEABLE: Final = ("resources", "volumeAttributesClassName")


def _check_claim(old: Body, new: Body) -> Iterator[RecreateReason]:
    """Check a claim: its size may grow, and its attributes class may change."""
    was, becomes = get_spec(old), get_spec(new)
    for name in sorted(was.keys() | becomes.keys()):
        if name in _CLAIM_CHANGEABLE or (name not in becomes and _is_live(old)):
            continue  # the cluster has set a value that the new body lacks, or keeps it
        default = "Filesystem" if name == "volumeMode" else None
        values = was.get(name, default), becomes.get(name, default)
        for difference in _diff_field(("spec", name), *values):
            why = "a claim cannot be changed once it exists"
            yield RecreateReason(difference.field, why, _CLAIM)
    path = ("spec", "resources", "requests", "storage")
    old_size, size = (parse_quantity(get_value(body, *path)) for body in (old, new))
    if old_size is not None and size is not None and size < old_size:
        yield RecreateReason(".".join(path), "a volume does not shrink", _CLAIM)


_POD: Final = "pkg/apis/core/validation ValidatePodUpdate"
_POD_CHANGEABLE: Final = frozenset(("image", "activeDeadlineSeconds", "tolerations"))


def _check_pod(old: Body, new: Body) -> Iterator[RecreateReason]:
    found = (
        fields.diff_live(new, old)
        if _is_live(old)
        else _diff_field(("spec",), get_spec(old), get_spec(new))
    )
    for difference in found:
        if difference.path[0] == "spec" and difference.path[-1] not in _POD_CHANGEABLE:
            yield RecreateReason(difference.field, "a pod's fields cannot be changed", _POD)


_SPECIAL_CHECKS: Final[dict[tuple[str, str], Callable[[Body, Body], Iterator[RecreateReason]]]] = {
    ("", "ConfigMap"): _check_immutable_data,
    ("", "Secret"): _check_immutable_data,
    ("", "Service"): _check_service,
    ("", "PersistentVolumeClaim"): _check_claim,
    ("", "Pod"): _check_pod,
}
