"""Webhooks of others that judge a set's objects, and refuse all of them when nobody answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.apply.preflight.finding import PreflightFinding
from kfdeploy.releaseset.order.contents import SetContents
from kfdeploy.releaseset.order.selectors import matches_request

Body = Mapping[str, Any]
Service = tuple[str, str]
"""Namespace and name."""
KINDS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


@dataclass(frozen=True, slots=True)
class BlockingWebhook:
    """A webhook that must answer, and what of the set it judges.

    Attributes:
        is_sure: false where its ``matchConditions`` may spare the objects.
    """

    configuration: str
    webhook: str
    service: Service
    affected: tuple[str, ...]
    is_sure: bool


def find_blocking_webhooks(
    contents: SetContents, configurations: Iterable[Body]
) -> Iterator[BlockingWebhook]:
    """Webhooks of others, with ``failurePolicy: Fail``, that a set's objects are sent to."""
    own = {(item.key.kind, item.key.name) for item in contents.of_kind(*KINDS)}
    requests = [(str(item), contents.admission_request(item)) for item in contents.items]
    # No webhook is asked about webhooks' own configurations.
    requests = [(n, r) for n, r in requests if r.group != "admissionregistration.k8s.io"]
    requests += [(f"pods of {pod.item}", contents.pod_request(pod)) for pod in contents.pods]
    for body in configurations:
        kind, name = str(body.get("kind")), str((body.get("metadata") or {}).get("name"))
        if (kind, name) in own:
            continue
        for webhook in body.get("webhooks") or ():
            service = (webhook.get("clientConfig") or {}).get("service")
            if not service or webhook.get("failurePolicy", "Fail") != "Fail":
                continue
            where = (str(service.get("namespace", "")), str(service.get("name", "")))
            if contents.find_object("", "Service", *where) is not None:
                continue  # what answers comes with the set
            judged = tuple(n for n, r in requests if matches_request(webhook, "rules", r))
            if judged:
                sure = not webhook.get("matchConditions")
                yield BlockingWebhook(
                    f"{kind} {name}", str(webhook.get("name")), where, judged, sure
                )


def check_webhooks(
    found: Sequence[BlockingWebhook], ready_services: Collection[Service]
) -> Iterator[PreflightFinding]:
    """Those that nobody answers for.

    Args:
        answering: services with an endpoint that is ready.
    """
    silent = [judge for judge in found if judge.service not in ready_services]
    for judge in silent:
        namespace, name = judge.service
        yield PreflightFinding(
            "webhook",
            "error" if judge.is_sure else "warning",
            f"{judge.configuration}: nobody answers for {judge.webhook} (Service"
            f" {namespace}/{name} has no ready endpoint), which"
            f" {'refuses' if judge.is_sure else 'may refuse'} {len(judge.affected)} objects",
            judge.affected,
            f"`kubectl get pods -n {namespace}` shows what should answer; delete the"
            " configuration if what it was for is gone",
        )
    if not silent:
        text = f"{len(found)} webhooks of others judge the set's objects, and answer"
        yield PreflightFinding(
            "webhook", "ok", text if found else "no webhook of others is in the way"
        )


def find_ready_services(slices: Iterable[Body]) -> set[Service]:
    """The services that EndpointSlices have a ready endpoint of."""
    out = set()
    for body in slices:
        meta = body.get("metadata") or {}
        name = (meta.get("labels") or {}).get("kubernetes.io/service-name")
        # Where it does not say, it is ready.
        if name and any(
            (endpoint.get("conditions") or {}).get("ready") is not False
            for endpoint in body.get("endpoints") or ()
        ):
            out.add((str(meta.get("namespace", "")), str(name)))
    return out
