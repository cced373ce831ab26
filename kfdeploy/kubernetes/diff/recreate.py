"""What an apply cannot change in place: the object must go and come again.

Each rule names the field and the API server's own check. The checks lie in k8s.io/kubernetes below
pkg/apis/*/validation and pkg/registry/*, as of 1.36, and in k8s.io/apiextensions-apiserver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes.diff import fields
from kfdeploy.kubernetes.diff.defaults import is_server_default
from kfdeploy.kubernetes.diff.fields import FieldDifference
from kfdeploy.kubernetes.diff.values import is_same_as_absent, parse_quantity

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RecreateReason:
    """Why an object must be made anew.

    Attributes:
        field: the field that cannot change, for people.
        why: what the API server holds against it.
        source: the check in Kubernetes' sources.
    """

    field: str
    why: str
    source: str = ""


def find_recreate_reasons(old: Body, new: Body) -> tuple[RecreateReason, ...]:
    """Why ``new`` cannot be applied over ``old``; empty where it can.

    Args:
        old: the object as it lives, or as an earlier set has it.
        new: the object as the set has it. Both are the same group, kind, namespace and name.
    """
    kind = (_get_api_group(new), str(new.get("kind", "")))
    found: list[RecreateReason] = []
    for rule in _FIXED.get(kind, ()):
        found += _check_immutable_field(rule, old, new)
    if special := _SPECIAL.get(kind):
        found += special(old, new)
    return tuple(found)


def _get_api_group(body: Body) -> str:
    return str(body.get("apiVersion", "")).rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class _ImmutableField:
    """A field that cannot change.

    Attributes:
        path: where it is.
        default: what the API server takes where it is absent.
        keeps: an absent value leaves what is there: the API server, not the set, gave it.
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

_FIXED: Final[dict[tuple[str, str], tuple[_ImmutableField, ...]]] = {
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
    was, becomes = _get_value(old, rule.path), _get_value(new, rule.path)
    was = rule.default if was is None else was
    becomes = rule.default if becomes is None else becomes
    if becomes is None and rule.keeps:
        return
    for one in _diff_field(rule.path, was, becomes):
        yield RecreateReason(one.field, "it cannot be changed", rule.source)


def _diff_field(path: tuple[str, ...], was: Any, becomes: Any) -> Iterator[FieldDifference]:
    """How two values of a field differ, but for what the API server itself adds."""
    for one in fields.diff_values(was, becomes, path):
        if is_same_as_absent(one.was, _field_name(one)) and is_same_as_absent(
            one.becomes, _field_name(one)
        ):
            continue
        if one.becomes is None and is_server_default(one.path, one.was):
            continue
        if one.was is None and is_server_default(one.path, one.becomes):
            continue
        yield one


def _field_name(one: FieldDifference) -> str:
    return str(one.path[-1])


def _get_value(body: Body, path: tuple[str, ...]) -> Any:
    node: Any = body
    for step in path:
        node = node.get(step) if isinstance(node, Mapping) else None
    return node


# -- kinds with rules of their own -----------------------------------------------------------------


def _is_live(body: Body) -> bool:
    return bool((body.get("metadata") or {}).get("uid"))


def _check_immutable_data(old: Body, new: Body) -> Iterator[RecreateReason]:
    """A ConfigMap or Secret that says that it is immutable."""
    if old.get("immutable") is not True:
        return
    source = f"pkg/apis/core/validation Validate{new.get('kind')}Update"
    if new.get("immutable") is not True:
        yield RecreateReason("immutable", "it is true, and cannot be taken back", source)
    for one in fields.diff_bodies(old, new):
        if one.path[0] in ("data", "binaryData"):
            yield RecreateReason(one.field, "the object is immutable", source)


_CLUSTER_IPS: Final = "pkg/apis/core/validation ValidateServiceUpdate"


def _check_service(old: Body, new: Body) -> Iterator[RecreateReason]:
    """Its address: a headless Service and one with an address do not turn into each other."""
    if "ExternalName" in (_get_value(old, ("spec", "type")), _get_value(new, ("spec", "type"))):
        return
    was, becomes = (
        _get_value(old, ("spec", "clusterIP")) or "",
        _get_value(new, ("spec", "clusterIP")) or "",
    )
    if was == "None" and not becomes:
        why = "it stays headless: the API server keeps the address of a Service that names none"
        yield RecreateReason(
            "spec.clusterIP", why, "pkg/registry/core/service patchAllocatedValues"
        )
    elif becomes and becomes != was:
        yield RecreateReason("spec.clusterIP", "it cannot be changed", _CLUSTER_IPS)
    families = [_get_value(body, ("spec", "ipFamilies")) or [None] for body in (old, new)]
    if None not in (families[0][0], families[1][0]) and families[0][0] != families[1][0]:
        yield RecreateReason(
            "spec.ipFamilies[0]", "the first family cannot be changed", _CLUSTER_IPS
        )


_CLAIM: Final = "pkg/apis/core/validation ValidatePersistentVolumeClaimUpdate"
_CLAIM_MOVES: Final = ("resources", "volumeAttributesClassName")


def _check_claim(old: Body, new: Body) -> Iterator[RecreateReason]:
    """A claim: only its size grows (and its class of attributes changes)."""
    was, becomes = old.get("spec") or {}, new.get("spec") or {}
    for name in sorted(was.keys() | becomes.keys()):
        if name in _CLAIM_MOVES or (name not in becomes and _is_live(old)):
            continue  # what is absent now was given by the cluster, or stays
        default = "Filesystem" if name == "volumeMode" else None
        for one in _diff_field(("spec", name), was.get(name, default), becomes.get(name, default)):
            yield RecreateReason(one.field, "a claim cannot be changed once it is made", _CLAIM)
    path = ("spec", "resources", "requests", "storage")
    size = [parse_quantity(_get_value(body, path)) for body in (old, new)]
    if size[0] is not None and size[1] is not None and size[1] < size[0]:
        yield RecreateReason(".".join(path), "a volume does not shrink", _CLAIM)


_POD: Final = "pkg/apis/core/validation ValidatePodUpdate"
_POD_MOVES: Final = frozenset(("image", "activeDeadlineSeconds", "tolerations"))


def _check_pod(old: Body, new: Body) -> Iterator[RecreateReason]:
    was, becomes = old.get("spec") or {}, new.get("spec") or {}
    found = fields.diff_live(new, old) if _is_live(old) else _diff_field(("spec",), was, becomes)
    for one in found:
        if one.path[0] == "spec" and one.path[-1] not in _POD_MOVES:
            yield RecreateReason(one.field, "a pod's fields cannot be changed", _POD)


_SPECIAL: Final = {
    ("", "ConfigMap"): _check_immutable_data,
    ("", "Secret"): _check_immutable_data,
    ("", "Service"): _check_service,
    ("", "PersistentVolumeClaim"): _check_claim,
    ("", "Pod"): _check_pod,
}
