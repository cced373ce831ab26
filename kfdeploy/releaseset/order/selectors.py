"""What an admission webhook or policy judges, as the API server decides it.

Facts: Kubernetes' reference of ``admissionregistration.k8s.io/v1`` (rules, selectors, matchPolicy).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Labels = Mapping[str, str]


def selector_matches(selector: Mapping[str, Any] | None, labels: Labels) -> bool:
    """Whether a label selector takes labels; an empty one, or none, takes all."""
    if not selector:
        return True
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    return all(_expression_holds(item, labels) for item in selector.get("matchExpressions") or ())


def _expression_holds(expression: Mapping[str, Any], labels: Labels) -> bool:
    key, values = expression.get("key", ""), expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """An object as it is sent to the API server.

    Attributes:
        resource: the plural, as in URLs.
        namespace_labels: its namespace's; a Namespace's own; None for what is in none.
    """

    group: str
    version: str
    resource: str
    name: str
    namespaced: bool
    labels: Labels
    namespace_labels: Labels | None


def matches_request(judge: Mapping[str, Any], rules: str, request: AdmissionRequest) -> bool:
    """Whether a webhook or a policy's constraints are for the creation of an object.

    ``matchConditions`` are not looked at: they are programs, and can only take objects away.

    Args:
        judge: a webhook, ``matchConstraints`` or ``matchResources``.
        rules: the key of its rules: ``rules`` or ``resourceRules``.
    """
    # By default a rule for one version is also for what is sent in another one.
    any_version = judge.get("matchPolicy", "Equivalent") == "Equivalent"
    if not any(_rule_matches(rule, request, any_version) for rule in judge.get(rules) or ()):
        return False
    if any(
        _rule_matches(rule, request, any_version)
        for rule in judge.get("excludeResourceRules") or ()
    ):
        return False
    if not selector_matches(judge.get("objectSelector"), request.labels):
        return False
    # What is in no namespace is never spared by a namespaceSelector.
    labels = request.namespace_labels
    return labels is None or selector_matches(judge.get("namespaceSelector"), labels)


def _rule_matches(rule: Mapping[str, Any], request: AdmissionRequest, any_version: bool) -> bool:
    names = rule.get("resourceNames")
    return (
        _includes_any(rule.get("operations"), "CREATE")
        and _includes_any(rule.get("apiGroups"), request.group)
        and (any_version or _includes_any(rule.get("apiVersions"), request.version))
        and _includes_any(rule.get("resources"), request.resource, "*/*")
        and rule.get("scope", "*") in ("*", "Namespaced" if request.namespaced else "Cluster")
        and (not names or request.name in names)
    )


def _includes_any(values: Iterable[str] | None, *wanted: str) -> bool:
    return any(value == "*" or value in wanted for value in values or ())
