"""Edges from webhooks and policies to the objects that they judge, change, convert or serve.

An admission webhook that is not up refuses all that it is asked about. Objects that Helm creates
before the webhook's configuration are not sent to it, so that a release can hold a validating
webhook and, say, the ConfigMaps that it judges. What a webhook changes must come after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes.accessors import get_mapping, get_text, list_mappings
from kfdeploy.releaseset.order.contents import SetContents, SetObject
from kfdeploy.releaseset.order.edges import EdgeReason, OrderEdge, creation_rank
from kfdeploy.releaseset.order.references import ca_injection_edges
from kfdeploy.releaseset.order.selectors import AdmissionRequest, matches_request

_REGISTRATION: Final = "admissionregistration.k8s.io"
_MUTATING: Final = "MutatingWebhookConfiguration"
_VALIDATING: Final = "ValidatingWebhookConfiguration"
_NATIVE_POLICIES: Final = ("MutatingAdmissionPolicy", "ValidatingAdmissionPolicy")
_KYVERNO_POLICIES: Final = ("MutatingPolicy", "ValidatingPolicy")
_KYVERNO: Final = "policies.kyverno.io"
_MATCH_ALL: Final = {"operations": ["*"], "apiGroups": ["*"], "resources": ["*"]}


@dataclass(frozen=True, slots=True)
class _SentObject:
    """An object that is sent to the API server, or the pods that it makes."""

    item: SetObject
    request: AdmissionRequest
    is_pod: bool


def admission_edges(contents: SetContents, before: Iterable[OrderEdge]) -> Iterator[OrderEdge]:
    """Yield the edges from webhooks, policies, conversions and API services.

    Args:
        before: the edges that say what must be there. What a webhook itself needs is created
            before the webhook is up, so the webhook does not judge it.
    """
    sent = list(_list_sent(contents))
    needs = _Prerequisites(before)
    for item in contents.of_kind(_MUTATING, _VALIDATING):
        for webhook in list_mappings(item.body, "webhooks"):
            yield from _webhook_edges(contents, item, webhook, sent, needs)
    for item in contents.of_kind(*_NATIVE_POLICIES):
        yield from _native_policy_edges(contents, item, sent)
    for item in contents.of_kind(*_KYVERNO_POLICIES):
        if item.key.group == _KYVERNO:
            yield from _kyverno_policy_edges(contents, item, sent, needs)
    for item in contents.items:
        if item.object.is_crd:
            yield from _conversion_edges(contents, item)
        elif item.key.kind == "APIService":
            yield from _api_service_edges(contents, item)


def _list_sent(contents: SetContents) -> Iterator[_SentObject]:
    for item in contents.items:
        # CRDs go first, and no webhook is asked about webhooks and policies.
        if not item.object.is_crd and item.key.group != _REGISTRATION:
            yield _SentObject(item, contents.admission_request(item), is_pod=item.key.kind == "Pod")
    for pod in contents.pods:
        if pod.item.key.kind not in ("Pod", "PodTemplate"):
            yield _SentObject(pod.item, contents.pod_request(pod), is_pod=True)


class _Prerequisites:
    """Objects that others cannot do without, directly or by what they need."""

    def __init__(self, before: Iterable[OrderEdge]) -> None:
        self._before: defaultdict[int, list[int]] = defaultdict(list)
        for edge in before:
            self._before[edge.then.number].append(edge.first.number)

    def closure_of(self, items: Iterable[SetObject]) -> set[int]:
        """Return the numbers of these objects and of all that they need."""
        found: set[int] = set()
        todo = [item.number for item in items]
        while todo:
            number = todo.pop()
            if number not in found:
                found.add(number)
                todo += self._before[number]
        return found


# -- webhooks --------------------------------------------------------------------------------------


def _webhook_edges(
    contents: SetContents,
    configuration: SetObject,
    webhook: Mapping[str, Any],
    sent: Sequence[_SentObject],
    needs: _Prerequisites,
) -> Iterator[OrderEdge]:
    workloads = contents.find_backends(get_mapping(webhook, "clientConfig", "service"))
    if not workloads:
        return
    name = f"webhooks[name={webhook.get('name')}]"
    where = f"{configuration} {name}.clientConfig.service"
    is_mutating = configuration.key.kind == _MUTATING
    is_optional = webhook.get("failurePolicy", "Fail") == "Ignore"
    spared = needs.closure_of((*workloads, configuration))
    for judged in sent:
        if judged.item.number in spared or not matches_request(webhook, "rules", judged.request):
            continue
        is_injector = is_mutating and judged.is_pod
        # If an injector is passed over, the pods lack something and nobody makes up for it.
        if is_optional and not is_injector:
            continue
        why: EdgeReason = "injector" if is_injector else "webhook"
        # Workloads' pods come late, and are tried again until the webhook lets them pass.
        can_share = not is_mutating and (
            judged.is_pod or _is_created_before(judged.item, configuration)
        )
        for workload in workloads:
            yield OrderEdge(
                workload, judged.item, why, where, needs_ready=True, can_share_release=can_share
            )
        yield OrderEdge(
            configuration,
            judged.item,
            why,
            f"{name}.rules",
            needs_ready=False,
            can_share_release=can_share,
        )


def _is_created_before(item: SetObject, other: SetObject) -> bool:
    """Return whether Helm creates ``item`` first where both are in one release."""
    return creation_rank(item.key.kind) < creation_rank(other.key.kind)


# -- policies --------------------------------------------------------------------------------------


def _native_policy_edges(
    contents: SetContents, policy: SetObject, sent: Sequence[_SentObject]
) -> Iterator[OrderEdge]:
    """Yield the edges of a policy of the API server, which does something only by its bindings."""
    constraints = get_mapping(policy.spec, "matchConstraints")
    bindings = [
        item
        for item in contents.of_kind(f"{policy.key.kind}Binding")
        if item.spec.get("policyName") == policy.key.name
    ]
    for binding in bindings:
        limits = _read_limits(binding)
        for judged in sent:
            if matches_request(constraints, "resourceRules", judged.request) and matches_request(
                limits, "resourceRules", judged.request
            ):
                yield _policy_edge(policy, judged.item, "spec.matchConstraints")
                yield _policy_edge(binding, judged.item, "spec.policyName")


def _read_limits(binding: SetObject) -> Mapping[str, Any]:
    """Return what a binding limits its policy to; without rules it limits nothing."""
    limits = get_mapping(binding.spec, "matchResources")
    return limits if limits.get("resourceRules") else {**limits, "resourceRules": [_MATCH_ALL]}


def _kyverno_policy_edges(
    contents: SetContents, policy: SetObject, sent: Sequence[_SentObject], needs: _Prerequisites
) -> Iterator[OrderEdge]:
    definition = contents.crd_of(policy)
    # Kyverno itself cannot come after policies that are of its kinds.
    kyverno = definition.component if definition else None
    constraints = get_mapping(policy.spec, "matchConstraints")
    spared = needs.closure_of((policy,))
    for judged in sent:
        if judged.item.component == kyverno or judged.item.number in spared:
            continue
        if matches_request(constraints, "resourceRules", judged.request):
            yield _policy_edge(policy, judged.item, "spec.matchConstraints")


def _policy_edge(policy: SetObject, item: SetObject, where: str) -> OrderEdge:
    return OrderEdge(
        policy,
        item,
        "policy",
        where,
        needs_ready=False,
        can_share_release=_is_created_before(policy, item),
    )


# -- conversions and API services ------------------------------------------------------------------


def _conversion_edges(contents: SetContents, crd: SetObject) -> Iterator[OrderEdge]:
    """Yield the edges of a CRD's conversion webhook.

    An object in the version that is stored is not converted when it is created.
    """
    if get_text(crd.spec, "conversion", "strategy") != "Webhook":
        return
    workloads = contents.find_backends(
        get_mapping(crd.spec, "conversion", "webhook", "clientConfig", "service")
    )
    if not workloads:
        return
    stored = {
        version.get("name")
        for version in list_mappings(crd.spec, "versions")
        if version.get("storage")
    }
    where = f"{crd} spec.conversion.webhook.clientConfig.service"
    for item in contents.of_kind(get_text(crd.spec, "names", "kind")):
        if item.key.group != crd.spec.get("group") or item.key.version in stored:
            continue
        for workload in workloads:
            yield OrderEdge(
                workload, item, "conversion", where, needs_ready=True, can_share_release=False
            )
        yield from ca_injection_edges(contents, crd, item)


def _api_service_edges(contents: SetContents, service: SetObject) -> Iterator[OrderEdge]:
    workloads = contents.find_backends(get_mapping(service.spec, "service"))
    served = (service.spec.get("group"), service.spec.get("version"))
    for item in contents.items:
        if item.object.is_crd or (item.key.group, item.key.version) != served:
            continue
        for workload in workloads:
            yield OrderEdge(
                workload,
                item,
                "api-service",
                f"{service} spec.service",
                needs_ready=True,
                can_share_release=False,
            )
        yield OrderEdge(
            service,
            item,
            "api-service",
            "spec.group",
            needs_ready=False,
            can_share_release=_is_created_before(service, item),
        )
