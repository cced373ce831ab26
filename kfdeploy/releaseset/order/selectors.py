"""Decide which objects an admission webhook or policy judges, as the API server does.

Facts: Kubernetes' reference of ``admissionregistration.k8s.io/v1`` (rules, selectors, matchPolicy).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes.accessors import as_list, get_mapping, get_text, list_mappings

Labels = Mapping[str, str]
_OPERATORS: Final[Mapping[str, Callable[[str | None, Collection[str]], bool]]] = {
    "In": lambda label, values: label is not None and label in values,
    "NotIn": lambda label, values: label not in values,
    "Exists": lambda label, _: label is not None,
    "DoesNotExist": lambda label, _: label is None,
}
"""Operator of an expression to its test of a label's value; None where the label is not set."""


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """An object as it is sent to the API server.

    Attributes:
        resource: the plural, as in URLs.
        namespace_labels: the labels of its namespace; of a Namespace its own; None for an object
            that is in no namespace.
    """

    group: str
    version: str
    resource: str
    name: str
    namespaced: bool
    labels: Labels
    namespace_labels: Labels | None

    @property
    def scope(self) -> str:
        return "Namespaced" if self.namespaced else "Cluster"


def selector_matches(selector: Mapping[str, Any] | None, labels: Labels) -> bool:
    """Return whether a label selector takes labels; an empty selector takes all."""
    return get_mapping(selector, "matchLabels").items() <= labels.items() and all(
        _expression_holds(expression, labels)
        for expression in list_mappings(selector, "matchExpressions")
    )


def _expression_holds(expression: Mapping[str, Any], labels: Labels) -> bool:
    holds = _OPERATORS.get(get_text(expression, "operator"))
    if holds is None:
        return False
    return holds(labels.get(get_text(expression, "key")), as_list(expression.get("values")))


def matches_request(judge: Mapping[str, Any], rules: str, request: AdmissionRequest) -> bool:
    """Return whether a webhook or a policy's constraints are for the creation of an object.

    ``matchConditions`` are ignored: they are programs, and can only take objects away.

    Args:
        judge: a webhook, ``matchConstraints`` or ``matchResources``.
        rules: the key of its rules: ``rules`` or ``resourceRules``.
    """
    # By default a rule for one version is also for what is sent in another one.
    any_version = judge.get("matchPolicy", "Equivalent") == "Equivalent"

    def is_in(key: str) -> bool:
        return any(_rule_matches(rule, request, any_version) for rule in list_mappings(judge, key))

    return (
        is_in(rules)
        and not is_in("excludeResourceRules")
        and selector_matches(judge.get("objectSelector"), request.labels)
        and _takes_namespace(judge.get("namespaceSelector"), request.namespace_labels)
    )


def _takes_namespace(selector: Mapping[str, Any] | None, labels: Labels | None) -> bool:
    """Return whether a namespaceSelector takes an object; it never spares one in no namespace."""
    return labels is None or selector_matches(selector, labels)


def _rule_matches(rule: Mapping[str, Any], request: AdmissionRequest, any_version: bool) -> bool:
    names = as_list(rule.get("resourceNames"))
    return (
        _includes_any(rule.get("operations"), "CREATE")
        and _includes_any(rule.get("apiGroups"), request.group)
        and (any_version or _includes_any(rule.get("apiVersions"), request.version))
        and _includes_any(rule.get("resources"), request.resource, "*/*")
        and rule.get("scope", "*") in ("*", request.scope)
        and (not names or request.name in names)
    )


def _includes_any(values: Iterable[str] | None, *wanted: str) -> bool:
    return any(value == "*" or value in wanted for value in as_list(values))
