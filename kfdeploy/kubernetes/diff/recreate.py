"""What an apply cannot change in place: the object must go and come again.

Each rule names the field and the API server's own check. The checks lie in k8s.io/kubernetes below
pkg/apis/*/validation and pkg/registry/*, as of 1.36, and in k8s.io/apiextensions-apiserver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes.diff import fields
from kfdeploy.kubernetes.diff.defaults import is_default
from kfdeploy.kubernetes.diff.fields import Difference
from kfdeploy.kubernetes.diff.values import quantity, says_nothing

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an object must be made anew.

    Attributes:
        field: the field that cannot change, for people.
        why: what the API server holds against it.
        source: the check in Kubernetes' sources.
    """

    field: str
    why: str
    source: str = ""

    def to_json(self) -> dict[str, str]:
        return {"field": self.field, "why": self.why, "source": self.source}


def must_recreate(old: Body, new: Body) -> tuple[Reason, ...]:
    """Why ``new`` cannot be applied over ``old``; empty where it can.

    Args:
        old: the object as it lives, or as an earlier set has it.
        new: the object as the set has it. Both are the same group, kind, namespace and name.
    """
    kind = (_group(new), str(new.get("kind", "")))
    found: list[Reason] = []
    for rule in _FIXED.get(kind, ()):
        found += _fixed(rule, old, new)
    if special := _SPECIAL.get(kind):
        found += special(old, new)
    return tuple(found)


def _group(body: Body) -> str:
    return str(body.get("apiVersion", "")).rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class _Rule:
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

_FIXED: Final[dict[tuple[str, str], tuple[_Rule, ...]]] = {
    ("apps", "Deployment"): (_Rule(("spec", "selector"), _APPS.format("deployment")),),
    ("apps", "DaemonSet"): (_Rule(("spec", "selector"), _APPS.format("daemonset")),),
    ("apps", "ReplicaSet"): (_Rule(("spec", "selector"), _APPS.format("replicaset")),),
    ("apps", "StatefulSet"): (
        _Rule(("spec", "selector"), _STATEFUL),
        _Rule(("spec", "serviceName"), _STATEFUL),
        _Rule(("spec", "podManagementPolicy"), _STATEFUL, default="OrderedReady"),
        _Rule(("spec", "volumeClaimTemplates"), _STATEFUL),
    ),
    ("batch", "Job"): (
        _Rule(("spec", "selector"), _JOB, keeps=True),
        _Rule(("spec", "template"), _JOB),
        _Rule(("spec", "completionMode"), _JOB, default="NonIndexed"),
        _Rule(("spec", "podFailurePolicy"), _JOB),
        _Rule(("spec", "successPolicy"), _JOB),
        _Rule(("spec", "backoffLimitPerIndex"), _JOB),
        _Rule(("spec", "managedBy"), _JOB),
    ),
    ("rbac.authorization.k8s.io", "RoleBinding"): (
        _Rule(("roleRef",), _RBAC.format("RoleBinding")),
    ),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): (
        _Rule(("roleRef",), _RBAC.format("ClusterRoleBinding")),
    ),
    ("storage.k8s.io", "StorageClass"): (
        _Rule(("provisioner",), _STORAGE),
        _Rule(("parameters",), _STORAGE),
        _Rule(("reclaimPolicy",), _STORAGE, default="Delete"),
        _Rule(("volumeBindingMode",), _STORAGE, default="Immediate"),
    ),
    ("scheduling.k8s.io", "PriorityClass"): (
        _Rule(("value",), _PRIORITY, default=0),
        _Rule(("preemptionPolicy",), _PRIORITY, default="PreemptLowerPriority"),
    ),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): (
        _Rule(("spec", "group"), _CRD),
        _Rule(("spec", "scope"), _CRD),
        _Rule(("spec", "names", "plural"), _CRD),
        _Rule(("spec", "names", "kind"), _CRD),
    ),
    ("node.k8s.io", "RuntimeClass"): (
        _Rule(("handler",), "pkg/apis/node/validation ValidateRuntimeClassUpdate"),
    ),
    ("networking.k8s.io", "IngressClass"): (
        _Rule(("spec", "controller"), "pkg/apis/networking/validation ValidateIngressClassUpdate"),
    ),
    ("", "Secret"): (
        _Rule(("type",), "pkg/apis/core/validation ValidateSecretUpdate", default="Opaque"),
    ),
    ("", "PersistentVolume"): (
        _Rule(("spec", "volumeMode"), _VOLUME, default="Filesystem"),
        *(
            _Rule(("spec", kind), _VOLUME)
            for kind in ("csi", "hostPath", "iscsi", "local", "nfs", "fc", "cephfs", "rbd")
        ),
    ),
}


def _fixed(rule: _Rule, old: Body, new: Body) -> Iterator[Reason]:
    was, becomes = _at(old, rule.path), _at(new, rule.path)
    was = rule.default if was is None else was
    becomes = rule.default if becomes is None else becomes
    if becomes is None and rule.keeps:
        return
    for one in _changed(rule.path, was, becomes):
        yield Reason(one.field, "it cannot be changed", rule.source)


def _changed(path: tuple[str, ...], was: Any, becomes: Any) -> Iterator[Difference]:
    """How two values of a field differ, but for what the API server itself adds."""
    for one in fields.between(was, becomes, path):
        if says_nothing(one.was, _name(one)) and says_nothing(one.becomes, _name(one)):
            continue
        if one.becomes is None and is_default(one.path, one.was):
            continue
        if one.was is None and is_default(one.path, one.becomes):
            continue
        yield one


def _name(one: Difference) -> str:
    return str(one.path[-1])


def _at(body: Body, path: tuple[str, ...]) -> Any:
    node: Any = body
    for step in path:
        node = node.get(step) if isinstance(node, Mapping) else None
    return node


# -- kinds with rules of their own -----------------------------------------------------------------


def _is_live(body: Body) -> bool:
    return bool((body.get("metadata") or {}).get("uid"))


def _data(old: Body, new: Body) -> Iterator[Reason]:
    """A ConfigMap or Secret that says that it is immutable."""
    if old.get("immutable") is not True:
        return
    source = f"pkg/apis/core/validation Validate{new.get('kind')}Update"
    if new.get("immutable") is not True:
        yield Reason("immutable", "it is true, and cannot be taken back", source)
    for one in fields.changes(old, new):
        if one.path[0] in ("data", "binaryData"):
            yield Reason(one.field, "the object is immutable", source)


_CLUSTER_IPS: Final = "pkg/apis/core/validation ValidateServiceUpdate"


def _service(old: Body, new: Body) -> Iterator[Reason]:
    """Its address: a headless Service and one with an address do not turn into each other."""
    if "ExternalName" in (_at(old, ("spec", "type")), _at(new, ("spec", "type"))):
        return
    was, becomes = _at(old, ("spec", "clusterIP")) or "", _at(new, ("spec", "clusterIP")) or ""
    if was == "None" and not becomes:
        why = "it stays headless: the API server keeps the address of a Service that names none"
        yield Reason("spec.clusterIP", why, "pkg/registry/core/service patchAllocatedValues")
    elif becomes and becomes != was:
        yield Reason("spec.clusterIP", "it cannot be changed", _CLUSTER_IPS)
    families = [_at(body, ("spec", "ipFamilies")) or [None] for body in (old, new)]
    if None not in (families[0][0], families[1][0]) and families[0][0] != families[1][0]:
        yield Reason("spec.ipFamilies[0]", "the first family cannot be changed", _CLUSTER_IPS)


_CLAIM: Final = "pkg/apis/core/validation ValidatePersistentVolumeClaimUpdate"
_CLAIM_MOVES: Final = ("resources", "volumeAttributesClassName")


def _claim(old: Body, new: Body) -> Iterator[Reason]:
    """A claim: only its size grows (and its class of attributes changes)."""
    was, becomes = old.get("spec") or {}, new.get("spec") or {}
    for name in sorted(was.keys() | becomes.keys()):
        if name in _CLAIM_MOVES or (name not in becomes and _is_live(old)):
            continue  # what is absent now was given by the cluster, or stays
        default = "Filesystem" if name == "volumeMode" else None
        for one in _changed(("spec", name), was.get(name, default), becomes.get(name, default)):
            yield Reason(one.field, "a claim cannot be changed once it is made", _CLAIM)
    path = ("spec", "resources", "requests", "storage")
    size = [quantity(_at(body, path)) for body in (old, new)]
    if size[0] is not None and size[1] is not None and size[1] < size[0]:
        yield Reason(".".join(path), "a volume does not shrink", _CLAIM)


_POD: Final = "pkg/apis/core/validation ValidatePodUpdate"
_POD_MOVES: Final = frozenset(("image", "activeDeadlineSeconds", "tolerations"))


def _pod(old: Body, new: Body) -> Iterator[Reason]:
    was, becomes = old.get("spec") or {}, new.get("spec") or {}
    found = fields.differences(new, old) if _is_live(old) else _changed(("spec",), was, becomes)
    for one in found:
        if one.path[0] == "spec" and one.path[-1] not in _POD_MOVES:
            yield Reason(one.field, "a pod's fields cannot be changed", _POD)


_SPECIAL: Final = {
    ("", "ConfigMap"): _data,
    ("", "Secret"): _data,
    ("", "Service"): _service,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): _pod,
}
