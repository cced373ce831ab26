"""Who must be ready before the objects that it judges, changes, converts or serves.

An admission webhook that is not up refuses all that it is asked about. Objects that Helm creates
before the webhook's configuration are not sent to it, so that a release can hold a validating
webhook and, say, the ConfigMaps that it judges. What a webhook changes must come after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfdeploy.releaseset.order.contents import SetContents, SetObject
from kfdeploy.releaseset.order.edges import EdgeReason, OrderEdge, creation_rank
from kfdeploy.releaseset.order.references import ca_injection_edges
from kfdeploy.releaseset.order.selectors import AdmissionRequest, matches_request

_REGISTRATION = "admissionregistration.k8s.io"
_MUTATING = "MutatingWebhookConfiguration"
_VALIDATING = "ValidatingWebhookConfiguration"
_NATIVE = ("MutatingAdmissionPolicy", "ValidatingAdmissionPolicy")
_KYVERNO = "policies.kyverno.io"


@dataclass(frozen=True, slots=True)
class _SentObject:
    """What is sent to the API server: an object, or the pods that it makes."""

    item: SetObject
    request: AdmissionRequest
    is_pod: bool


def admission_edges(contents: SetContents, before: Iterable[OrderEdge]) -> Iterator[OrderEdge]:
    """All edges of this module.

    Args:
        before: those that say what must be there. What a webhook itself needs comes before it is
            there, and so is not judged by it.
    """
    sent = list(_list_sent(contents))
    needs = _Prerequisites(before)
    for item in contents.of_kind(_MUTATING, _VALIDATING):
        for webhook in item.body.get("webhooks") or ():
            yield from _webhook_edges(contents, item, webhook, sent, needs)
    for item in contents.of_kind(*_NATIVE, "MutatingPolicy", "ValidatingPolicy"):
        yield from _policy_edges(contents, item, sent, needs)
    for item in contents.items:
        if item.object.is_crd:
            yield from _conversion_edges(contents, item)
        elif item.key.kind == "APIService":
            yield from _api_service_edges(contents, item)


def _list_sent(contents: SetContents) -> Iterator[_SentObject]:
    for item in contents.items:
        # Definitions go first; and of webhooks and policies no webhook is asked.
        if not item.object.is_crd and item.key.group != _REGISTRATION:
            yield _SentObject(item, contents.admission_request(item), is_pod=item.key.kind == "Pod")
    for pod in contents.pods:
        if pod.item.key.kind not in ("Pod", "PodTemplate"):
            yield _SentObject(pod.item, contents.pod_request(pod), is_pod=True)


class _Prerequisites:
    """What an object cannot do without, however far back."""

    def __init__(self, before: Iterable[OrderEdge]) -> None:
        self._before: defaultdict[int, list[int]] = defaultdict(list)
        for edge in before:
            self._before[edge.then.number].append(edge.first.number)

    def closure_of(self, items: Iterable[SetObject]) -> set[int]:
        """The objects themselves and all before them, by number."""
        found: set[int] = set()
        todo = [item.number for item in items]
        while todo:
            number = todo.pop()
            if number not in found:
                found.add(number)
                todo += self._before[number]
        return found


def _webhook_edges(
    contents: SetContents,
    configuration: SetObject,
    webhook: Mapping[str, Any],
    sent: Sequence[_SentObject],
    needs: _Prerequisites,
) -> Iterator[OrderEdge]:
    workloads = contents.find_backends((webhook.get("clientConfig") or {}).get("service") or {})
    if not workloads:
        return
    mutating = configuration.key.kind == _MUTATING
    name = f"webhooks[name={webhook.get('name')}]"
    spared = needs.closure_of((*workloads, configuration))
    for one in sent:
        if one.item.number in spared or not matches_request(webhook, "rules", one.request):
            continue
        injector = mutating and one.is_pod
        # Of an injector that is passed over the pods lack something, and nobody makes up for it.
        if webhook.get("failurePolicy", "Fail") == "Ignore" and not injector:
            continue
        why: EdgeReason = "injector" if injector else "webhook"
        # Workloads' pods come late, and are tried again until the webhook lets them pass.
        together = not mutating and (
            one.is_pod or creation_rank(one.item.key.kind) < creation_rank(configuration.key.kind)
        )
        where = f"{configuration} {name}.clientConfig.service"
        for found in workloads:
            yield OrderEdge(
                found, one.item, why, where, needs_ready=True, can_share_release=together
            )
        yield OrderEdge(
            configuration,
            one.item,
            why,
            f"{name}.rules",
            needs_ready=False,
            can_share_release=together,
        )


def _policy_edges(
    contents: SetContents, policy: SetObject, sent: Sequence[_SentObject], needs: _Prerequisites
) -> Iterator[OrderEdge]:
    """The API server's own policies do something by a binding; Kyverno's by themselves."""
    constraints = policy.spec.get("matchConstraints") or {}
    if policy.key.kind in _NATIVE:
        bindings = [
            item
            for item in contents.of_kind(f"{policy.key.kind}Binding")
            if item.spec.get("policyName") == policy.key.name
        ]
        for binding in bindings:
            limits = binding.spec.get("matchResources") or {}
            for one in sent:
                if matches_request(constraints, "resourceRules", one.request) and _is_within_limits(
                    limits, one.request
                ):
                    yield from _edge_from_policy(policy, one.item, "spec.matchConstraints")
                    yield from _edge_from_policy(binding, one.item, "spec.policyName")
    elif policy.key.group == _KYVERNO:
        definition = contents.crd_of(policy)
        own = definition.component if definition else None
        spared = needs.closure_of((policy,))
        for one in sent:
            # Kyverno itself cannot come after policies that are of its kinds.
            if one.item.component == own or one.item.number in spared:
                continue
            if one.item.number != policy.number and matches_request(
                constraints, "resourceRules", one.request
            ):
                yield from _edge_from_policy(policy, one.item, "spec.matchConstraints")


def _is_within_limits(limits: Mapping[str, Any], request: AdmissionRequest) -> bool:
    """A binding without rules leaves them to its policy."""
    if not limits.get("resourceRules"):
        everything = {"operations": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        limits = {**limits, "resourceRules": [everything]}
    return matches_request(limits, "resourceRules", request)


def _edge_from_policy(policy: SetObject, item: SetObject, where: str) -> Iterator[OrderEdge]:
    together = creation_rank(policy.key.kind) < creation_rank(item.key.kind)
    yield OrderEdge(policy, item, "policy", where, needs_ready=False, can_share_release=together)


def _conversion_edges(contents: SetContents, crd: SetObject) -> Iterator[OrderEdge]:
    """An object in the version that is stored is not converted when it is created."""
    conversion = crd.spec.get("conversion") or {}
    if conversion.get("strategy") != "Webhook":
        return
    service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service") or {}
    workloads = contents.find_backends(service)
    stored = {
        version.get("name") for version in crd.spec.get("versions") or () if version.get("storage")
    }
    kind = (crd.spec.get("names") or {}).get("kind", "")
    where = f"{crd} spec.conversion.webhook.clientConfig.service"
    for item in contents.of_kind(kind):
        if item.key.group != crd.spec.get("group") or item.key.version in stored:
            continue
        for found in workloads:
            yield OrderEdge(
                found, item, "conversion", where, needs_ready=True, can_share_release=False
            )
        if workloads:
            yield from ca_injection_edges(contents, crd, item)


def _api_service_edges(contents: SetContents, service: SetObject) -> Iterator[OrderEdge]:
    spec = service.spec
    workloads = contents.find_backends(spec.get("service") or {})
    for item in contents.items:
        if item.object.is_crd or item.key.group != spec.get("group"):
            continue
        if item.key.version != spec.get("version"):
            continue
        for found in workloads:
            where = f"{service} spec.service"
            yield OrderEdge(
                found, item, "api-service", where, needs_ready=True, can_share_release=False
            )
        together = creation_rank(service.key.kind) < creation_rank(item.key.kind)
        yield OrderEdge(
            service,
            item,
            "api-service",
            "spec.group",
            needs_ready=False,
            can_share_release=together,
        )
