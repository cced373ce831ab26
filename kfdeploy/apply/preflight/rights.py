"""Whether whoever is signed in may do what applying a set takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kfdeploy import parallel
from kfdeploy.apply.preflight import rbac
from kfdeploy.apply.preflight.finding import PreflightFinding
from kfdeploy.apply.preflight.needed_rights import RBAC, Purpose, RequiredRights, RoleEscalation
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.errors import ApiError

CHECK: Final = "rights"
_JOBS: Final = 8
_API: Final = "/apis/authorization.k8s.io/v1"
_NOWHERE: Final = "kfdeploy-no-such-namespace"
"""Rules that hold in a namespace that nobody has made hold everywhere."""
_ALL: Final = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)
_NAMES_SHOWN: Final = 3

Rules = Mapping[str, Sequence[rbac.Rule]]
MissingRight = tuple[str, str, str, str, tuple[str, ...]]
"""Namespace, group, resource, verb, names."""


def check_rights(cluster: Cluster, needed: RequiredRights) -> Iterator[PreflightFinding]:
    """What is missing, each once.

    The caller's rules are asked for, one question a namespace. What they do not say (clusters may
    decide by other means than RBAC) is asked for one by one.
    """
    namespaces = sorted({need.namespace for need in needed.with_escalations})
    rules = dict(
        parallel.run_in_threads(
            lambda n: _read_caller_rules(cluster, n), namespaces, _JOBS, lambda: None
        )
    )
    who = _get_caller_name(cluster)
    purposes: tuple[Purpose, ...] = ("apply", "preflight")
    for purpose in purposes:
        lacks = [
            (need.namespace, need.group, need.resource, verb, names)
            for need in needed.rights
            if need.purpose == purpose
            for verb, names in rbac.find_missing_verbs(rules[need.namespace], need)
        ]
        if purpose == "apply":
            lacks += _find_forbidden_roles(needed.escalations, rules)
        left = _confirm_missing(cluster, lacks)
        if left and purpose == "apply":
            yield PreflightFinding(
                CHECK,
                "error",
                f"{who} lacks rights that applying the set takes",
                tuple(_format_lines(left)),
                "`kfdeploy export rbac` writes them, with an account that has them, for the"
                " cluster's administrator",
            )
        elif left:
            yield PreflightFinding(
                CHECK,
                "warning",
                f"{who} may not look at what some checks are about",
                tuple(_format_lines(left)),
                "`kfdeploy export rbac` has these rights as the ClusterRole kfdeploy-preflight",
            )
        elif purpose == "apply":
            yield PreflightFinding(CHECK, "ok", f"{who} has the rights that applying takes")


def _read_caller_rules(cluster: Cluster, namespace: str) -> list[rbac.Rule]:
    """The caller's rules in a namespace, with those that hold everywhere; "" for those alone."""
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace or _NOWHERE},
    }
    path = f"{_API}/selfsubjectrulesreviews"
    status = cluster.request("POST", path, json.dumps(body)).get("status") or {}
    return [*(status.get("resourceRules") or ()), *(status.get("nonResourceRules") or ())]


def _find_forbidden_roles(
    escalations: Sequence[RoleEscalation], rules: Rules
) -> Iterator[MissingRight]:
    """Roles that grant more than the caller holds, and that it has no leave to write."""
    names: dict[tuple[str, str, str], list[str]] = {}
    for one in escalations:
        own = rules[one.namespace]
        if rbac.is_allowed(own, one.verb, RBAC, one.resource, one.name) or _holds_granted_rules(
            own, one
        ):
            continue
        names.setdefault((one.namespace, one.resource, one.verb), []).append(one.name)
    for (namespace, resource, verb), lacking in names.items():
        yield namespace, RBAC, resource, verb, tuple(sorted(set(lacking)))


def _holds_granted_rules(rules: Sequence[rbac.Rule], one: RoleEscalation) -> bool:
    """Whether the caller has itself what a role of the set grants."""
    if one.item is None:
        return False
    body = one.item.body
    # What is aggregated is not known beforehand.
    wanted = _ALL if body.get("aggregationRule") else body.get("rules") or ()
    return rbac.covers_rules(rules, wanted)


def _confirm_missing(cluster: Cluster, lacks: Sequence[MissingRight]) -> list[MissingRight]:
    """Those that the cluster does not allow when asked for each: of any name, then of the first."""

    def is_allowed(lack: MissingRight, name: str) -> bool:
        namespace, group, resource, verb, _ = lack
        attributes = {
            "namespace": namespace,
            "group": group,
            "resource": resource,
            "verb": verb,
            "name": name,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {k: v for k, v in attributes.items() if v}},
        }
        path = f"{_API}/selfsubjectaccessreviews"
        return bool(cluster.request("POST", path, json.dumps(body))["status"].get("allowed"))

    def is_denied(lack: MissingRight) -> bool:
        return not is_allowed(lack, lack[4][0] if lack[4] else "")

    found = dict(parallel.run_in_threads(is_denied, lacks, _JOBS, lambda: None))
    return [lack for lack in lacks if found[lack]]


def _format_lines(lacks: Sequence[MissingRight]) -> Iterator[str]:
    """``in kubeflow: create, patch deployments.apps``; verbs of the same names together."""
    verbs: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for namespace, group, resource, verb, names in lacks:
        verbs.setdefault((namespace, group, resource, names), []).append(verb)
    for (namespace, group, resource, names), own in sorted(verbs.items()):
        where = f"in {namespace}: " if namespace else ""
        what = f"{resource}.{group}" if group else resource
        shown = ", ".join(names[:_NAMES_SHOWN])
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        yield f"{where}{', '.join(sorted(set(own)))} {what}{f' ({shown}{more})' if names else ''}"


def _get_caller_name(cluster: Cluster) -> str:
    body: dict[str, Any] = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    try:
        found = cluster.request("POST", path, json.dumps(body))
    except ApiError:  # Kubernetes before 1.28 does not say
        return "the caller"
    return str(found["status"]["userInfo"].get("username") or "the caller")
