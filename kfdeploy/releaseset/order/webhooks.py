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

from kfdeploy.releaseset.order.contents import Contents, Item
from kfdeploy.releaseset.order.edges import Edge, Why, created
from kfdeploy.releaseset.order.references import injected
from kfdeploy.releaseset.order.selectors import Request, judges

_REGISTRATION = "admissionregistration.k8s.io"
_MUTATING = "MutatingWebhookConfiguration"
_VALIDATING = "ValidatingWebhookConfiguration"
_NATIVE = ("MutatingAdmissionPolicy", "ValidatingAdmissionPolicy")
_KYVERNO = "policies.kyverno.io"


@dataclass(frozen=True, slots=True)
class _Sent:
    """What is sent to the API server: an object, or the pods that it makes."""

    item: Item
    request: Request
    is_pod: bool


def edges(contents: Contents, before: Iterable[Edge]) -> Iterator[Edge]:
    """All edges of this module.

    Args:
        before: those that say what must be there. What a webhook itself needs comes before it is
            there, and so is not judged by it.
    """
    sent = list(_sent(contents))
    needs = _Needs(before)
    for item in contents.of_kind(_MUTATING, _VALIDATING):
        for webhook in item.body.get("webhooks") or ():
            yield from _webhook(contents, item, webhook, sent, needs)
    for item in contents.of_kind(*_NATIVE, "MutatingPolicy", "ValidatingPolicy"):
        yield from _policy(contents, item, sent, needs)
    for item in contents.items:
        if item.object.is_crd:
            yield from _conversion(contents, item)
        elif item.key.kind == "APIService":
            yield from _api_service(contents, item)


def _sent(contents: Contents) -> Iterator[_Sent]:
    for item in contents.items:
        # Definitions go first; and of webhooks and policies no webhook is asked.
        if not item.object.is_crd and item.key.group != _REGISTRATION:
            yield _Sent(item, contents.request(item), is_pod=item.key.kind == "Pod")
    for pod in contents.pods:
        if pod.item.key.kind not in ("Pod", "PodTemplate"):
            yield _Sent(pod.item, contents.pod_request(pod), is_pod=True)


class _Needs:
    """What an object cannot do without, however far back."""

    def __init__(self, before: Iterable[Edge]) -> None:
        self._before: defaultdict[int, list[int]] = defaultdict(list)
        for edge in before:
            self._before[edge.then.number].append(edge.first.number)

    def of(self, items: Iterable[Item]) -> set[int]:
        """The objects themselves and all before them, by number."""
        found: set[int] = set()
        todo = [item.number for item in items]
        while todo:
            number = todo.pop()
            if number not in found:
                found.add(number)
                todo += self._before[number]
        return found


def _webhook(
    contents: Contents,
    configuration: Item,
    webhook: Mapping[str, Any],
    sent: Sequence[_Sent],
    needs: _Needs,
) -> Iterator[Edge]:
    workloads = contents.behind((webhook.get("clientConfig") or {}).get("service") or {})
    if not workloads:
        return
    mutating = configuration.key.kind == _MUTATING
    name = f"webhooks[name={webhook.get('name')}]"
    spared = needs.of((*workloads, configuration))
    for one in sent:
        if one.item.number in spared or not judges(webhook, "rules", one.request):
            continue
        injector = mutating and one.is_pod
        # Of an injector that is passed over the pods lack something, and nobody makes up for it.
        if webhook.get("failurePolicy", "Fail") == "Ignore" and not injector:
            continue
        why: Why = "injector" if injector else "webhook"
        # Workloads' pods come late, and are tried again until the webhook lets them pass.
        together = not mutating and (
            one.is_pod or created(one.item.key.kind) < created(configuration.key.kind)
        )
        where = f"{configuration} {name}.clientConfig.service"
        for found in workloads:
            yield Edge(found, one.item, why, where, ready=True, together=together)
        yield Edge(configuration, one.item, why, f"{name}.rules", ready=False, together=together)


def _policy(
    contents: Contents, policy: Item, sent: Sequence[_Sent], needs: _Needs
) -> Iterator[Edge]:
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
                if judges(constraints, "resourceRules", one.request) and _within(
                    limits, one.request
                ):
                    yield from _judged(policy, one.item, "spec.matchConstraints")
                    yield from _judged(binding, one.item, "spec.policyName")
    elif policy.key.group == _KYVERNO:
        definition = contents.crd_of(policy)
        own = definition.component if definition else None
        spared = needs.of((policy,))
        for one in sent:
            # Kyverno itself cannot come after policies that are of its kinds.
            if one.item.component == own or one.item.number in spared:
                continue
            if one.item.number != policy.number and judges(
                constraints, "resourceRules", one.request
            ):
                yield from _judged(policy, one.item, "spec.matchConstraints")


def _within(limits: Mapping[str, Any], request: Request) -> bool:
    """A binding without rules leaves them to its policy."""
    if not limits.get("resourceRules"):
        everything = {"operations": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        limits = {**limits, "resourceRules": [everything]}
    return judges(limits, "resourceRules", request)


def _judged(policy: Item, item: Item, where: str) -> Iterator[Edge]:
    together = created(policy.key.kind) < created(item.key.kind)
    yield Edge(policy, item, "policy", where, ready=False, together=together)


def _conversion(contents: Contents, crd: Item) -> Iterator[Edge]:
    """An object in the version that is stored is not converted when it is created."""
    conversion = crd.spec.get("conversion") or {}
    if conversion.get("strategy") != "Webhook":
        return
    service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service") or {}
    workloads = contents.behind(service)
    stored = {
        version.get("name") for version in crd.spec.get("versions") or () if version.get("storage")
    }
    kind = (crd.spec.get("names") or {}).get("kind", "")
    where = f"{crd} spec.conversion.webhook.clientConfig.service"
    for item in contents.of_kind(kind):
        if item.key.group != crd.spec.get("group") or item.key.version in stored:
            continue
        for found in workloads:
            yield Edge(found, item, "conversion", where, ready=True, together=False)
        if workloads:
            yield from injected(contents, crd, item)


def _api_service(contents: Contents, service: Item) -> Iterator[Edge]:
    spec = service.spec
    workloads = contents.behind(spec.get("service") or {})
    for item in contents.items:
        if item.object.is_crd or item.key.group != spec.get("group"):
            continue
        if item.key.version != spec.get("version"):
            continue
        for found in workloads:
            where = f"{service} spec.service"
            yield Edge(found, item, "api-service", where, ready=True, together=False)
        together = created(service.key.kind) < created(item.key.kind)
        yield Edge(service, item, "api-service", "spec.group", ready=False, together=together)
