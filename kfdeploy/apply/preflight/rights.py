"""Check that the caller has the rights that applying a set takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from kfdeploy import parallel
from kfdeploy.apply.preflight import rbac
from kfdeploy.apply.preflight.finding import PreflightFinding
from kfdeploy.apply.preflight.needed_rights import RBAC, Purpose, RequiredRights, RoleEscalation
from kfdeploy.kubernetes.accessors import get_status, get_text, list_mappings
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.errors import ApiError

CHECK: Final = "rights"
_JOBS: Final = 8
_API: Final = "/apis/authorization.k8s.io/v1"
_NOWHERE: Final = "kfdeploy-no-such-namespace"
"""A namespace that does not exist: the rules that hold in it hold everywhere."""
_ALL_RIGHTS: Final = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)
_NAMES_SHOWN: Final = 3

Rules = Mapping[str, Sequence[rbac.Rule]]
"""The caller's rules by namespace."""


class MissingRight(NamedTuple):
    """A verb that the caller lacks, on objects of some names, or of any."""

    namespace: str
    group: str
    resource: str
    verb: str
    names: tuple[str, ...]


def check_rights(cluster: Cluster, needed: RequiredRights) -> Iterator[PreflightFinding]:
    """Find the rights that the caller lacks, each once.

    The caller's rules are read by one request a namespace. Rights that these do not have are asked
    for one by one, as a cluster may decide by other means than RBAC.
    """
    namespaces = sorted({right.namespace for right in needed.with_escalations})
    rules = dict(
        parallel.run_in_threads(
            lambda name: _read_caller_rules(cluster, name), namespaces, _JOBS, lambda: None
        )
    )
    caller = _get_caller_name(cluster)
    to_apply = _find_missing_rights(needed, "apply", rules)
    to_apply += _find_forbidden_roles(needed.escalations, rules)
    if missing := _confirm_missing(cluster, to_apply):
        yield PreflightFinding(
            CHECK,
            "error",
            f"{caller} lacks rights that applying the set takes",
            tuple(_format_rights(missing)),
            "`kfdeploy export rbac` writes them, with an account that has them, for the"
            " cluster's administrator",
        )
    else:
        yield PreflightFinding(CHECK, "ok", f"{caller} has the rights that applying takes")
    if missing := _confirm_missing(cluster, _find_missing_rights(needed, "preflight", rules)):
        yield PreflightFinding(
            CHECK,
            "warning",
            f"{caller} may not read what some checks need",
            tuple(_format_rights(missing)),
            "`kfdeploy export rbac` has these rights as the ClusterRole kfdeploy-preflight",
        )


def _find_missing_rights(
    needed: RequiredRights, purpose: Purpose, rules: Rules
) -> list[MissingRight]:
    """Return the rights of one purpose that the caller's rules do not have."""
    return [
        MissingRight(right.namespace, right.group, right.resource, verb, names)
        for right in needed.rights
        if right.purpose == purpose
        for verb, names in rbac.find_missing_verbs(rules[right.namespace], right)
    ]


def _read_caller_rules(cluster: Cluster, namespace: str) -> list[rbac.Rule]:
    """Return the caller's rules in a namespace; for "" those that hold everywhere."""
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace or _NOWHERE},
    }
    status = get_status(
        cluster.request("POST", f"{_API}/selfsubjectrulesreviews", json.dumps(body))
    )
    return [
        *list_mappings(status, "resourceRules"),
        *list_mappings(status, "nonResourceRules"),
    ]


def _find_forbidden_roles(
    escalations: Sequence[RoleEscalation], rules: Rules
) -> Iterator[MissingRight]:
    """Yield ``escalate`` and ``bind`` on roles that grant more than the caller holds."""
    names: dict[tuple[str, str, str], set[str]] = {}
    for role in escalations:
        own = rules[role.namespace]
        may_write = rbac.is_allowed(own, role.verb, RBAC, role.resource, role.name)
        if not may_write and not _holds_granted_rules(own, role):
            names.setdefault((role.namespace, role.resource, role.verb), set()).add(role.name)
    for (namespace, resource, verb), denied in names.items():
        yield MissingRight(namespace, RBAC, resource, verb, tuple(sorted(denied)))


def _holds_granted_rules(rules: Sequence[rbac.Rule], role: RoleEscalation) -> bool:
    """Return whether the caller itself holds what a role of the set grants."""
    if role.item is None:
        return False
    body = role.item.body
    # The rules of an aggregated role are not known before the cluster has collected them.
    granted = _ALL_RIGHTS if body.get("aggregationRule") else list_mappings(body, "rules")
    return rbac.covers_rules(rules, granted)


def _confirm_missing(cluster: Cluster, rights: Sequence[MissingRight]) -> list[MissingRight]:
    """Return the rights that the cluster denies when asked for each.

    Of a right with names, only the first name is asked for: the others are alike.
    """
    found = dict(
        parallel.run_in_threads(
            lambda right: _is_allowed(cluster, right), rights, _JOBS, lambda: None
        )
    )
    return [right for right in rights if not found[right]]


def _is_allowed(cluster: Cluster, right: MissingRight) -> bool:
    attributes = {
        "namespace": right.namespace,
        "group": right.group,
        "resource": right.resource,
        "verb": right.verb,
        "name": right.names[0] if right.names else "",
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {name: value for name, value in attributes.items() if value}
        },
    }
    answer = cluster.request("POST", f"{_API}/selfsubjectaccessreviews", json.dumps(body))
    return bool(get_status(answer).get("allowed"))


def _format_rights(rights: Sequence[MissingRight]) -> Iterator[str]:
    """Yield lines such as ``in kubeflow: create, patch deployments.apps``."""
    verbs: dict[tuple[str, str, str, tuple[str, ...]], set[str]] = {}
    for namespace, group, resource, verb, names in rights:
        verbs.setdefault((namespace, group, resource, names), set()).add(verb)
    for (namespace, group, resource, names), own in sorted(verbs.items()):
        where = f"in {namespace}: " if namespace else ""
        what = f"{resource}.{group}" if group else resource
        yield f"{where}{', '.join(sorted(own))} {what}{_format_names(names)}"


def _format_names(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f" ({', '.join(names[:_NAMES_SHOWN])}{more})"


def _get_caller_name(cluster: Cluster) -> str:
    body: dict[str, Any] = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    try:
        found = cluster.request("POST", path, json.dumps(body))
    except ApiError:  # Kubernetes before 1.28 does not have this API
        return "the caller"
    return get_text(found, "status", "userInfo", "username") or "the caller"
