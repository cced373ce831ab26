"""Find webhooks of others that refuse a set's objects because nothing answers for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kfdeploy.apply.preflight.finding import PreflightFinding
from kfdeploy.kubernetes.accessors import (
    Body,
    get_labels,
    get_mapping,
    get_name,
    get_namespace,
    get_text,
    get_value,
    list_mappings,
)
from kfdeploy.releaseset.order.contents import SetContents
from kfdeploy.releaseset.order.selectors import matches_request

Service = tuple[str, str]
"""Namespace and name."""
KINDS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


@dataclass(frozen=True, slots=True)
class BlockingWebhook:
    """A webhook that must answer, and the objects of the set that are sent to it.

    Attributes:
        configuration: kind and name of its configuration.
        affected: the objects, and "pods of" the workloads.
        is_sure: false if its ``matchConditions`` may exclude the objects.
    """

    configuration: str
    webhook: str
    service: Service
    affected: tuple[str, ...]
    is_sure: bool


def find_blocking_webhooks(
    contents: SetContents, configurations: Iterable[Body]
) -> Iterator[BlockingWebhook]:
    """Yield webhooks of others, with ``failurePolicy: Fail``, that a set's objects are sent to."""
    own = {(item.key.kind, item.key.name) for item in contents.of_kind(*KINDS)}
    requests = [
        (str(item), contents.admission_request(item))
        for item in contents.items
        # The API server sends webhook configurations to no webhook.
        if item.key.group != "admissionregistration.k8s.io"
    ]
    requests += [(f"pods of {pod.item}", contents.pod_request(pod)) for pod in contents.pods]
    for body in configurations:
        kind, name = get_text(body, "kind"), get_name(body)
        if (kind, name) in own:
            continue
        for webhook in _list_strict_webhooks(body):
            service = _get_service(webhook)
            if contents.find_object("", "Service", *service) is not None:
                continue  # the set brings what answers
            affected = tuple(
                what for what, request in requests if matches_request(webhook, "rules", request)
            )
            if affected:
                is_sure = not webhook.get("matchConditions")
                yield BlockingWebhook(
                    f"{kind} {name}", get_text(webhook, "name"), service, affected, is_sure
                )


def _list_strict_webhooks(configuration: Body) -> Iterator[Body]:
    """Yield the webhooks that are served by a Service, and refuse objects if it does not answer."""
    for webhook in list_mappings(configuration, "webhooks"):
        has_service = bool(get_mapping(webhook, "clientConfig", "service"))
        if has_service and webhook.get("failurePolicy", "Fail") == "Fail":
            yield webhook


def _get_service(webhook: Body) -> Service:
    service = get_mapping(webhook, "clientConfig", "service")
    return get_text(service, "namespace"), get_text(service, "name")


def check_webhooks(
    found: Sequence[BlockingWebhook], ready_services: Collection[Service]
) -> Iterator[PreflightFinding]:
    """Return findings about the webhooks whose Service has no ready endpoint.

    Args:
        ready_services: services with a ready endpoint.
    """
    silent = [webhook for webhook in found if webhook.service not in ready_services]
    for webhook in silent:
        namespace, name = webhook.service
        yield PreflightFinding(
            "webhook",
            "error" if webhook.is_sure else "warning",
            f"{webhook.configuration}: nothing answers for {webhook.webhook} (Service"
            f" {namespace}/{name} has no ready endpoint); it"
            f" {'refuses' if webhook.is_sure else 'may refuse'} {len(webhook.affected)} objects",
            webhook.affected,
            f"`kubectl get pods -n {namespace}` shows what should answer; delete the"
            " configuration if its program was removed",
        )
    if not silent:
        text = f"{len(found)} webhooks of others get the set's objects, and answer"
        yield PreflightFinding(
            "webhook", "ok", text if found else "no webhook of others gets the set's objects"
        )


def find_ready_services(slices: Iterable[Body]) -> set[Service]:
    """Return the services that have a ready endpoint in EndpointSlices."""
    out = set()
    for body in slices:
        name = get_text(get_labels(body), "kubernetes.io/service-name")
        endpoints = list_mappings(body, "endpoints")
        # By the API, an endpoint without the condition is ready.
        is_ready = any(
            get_value(endpoint, "conditions", "ready") is not False for endpoint in endpoints
        )
        if name and is_ready:
            out.add((get_namespace(body), name))
    return out
