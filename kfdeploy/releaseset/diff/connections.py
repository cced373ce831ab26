"""What two sets say of who talks to whom, compared.

Objects that open, close or lead connections, and names of hosts in what programs are given. Whether
a program really talks to a host, no manifest says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.accessors import (
    Body,
    as_list,
    get_mapping,
    get_text,
    get_value,
    list_mappings,
)
from kfdeploy.kubernetes.diff.fields import FieldDifference
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset.diff.sides import Pair, SetSide, describe_change

_DECIDES: Final = {
    "NetworkPolicy": "which pods may talk",
    "AuthorizationPolicy": "which requests the mesh allows",
    "PeerAuthentication": "whether the mesh asks for mutual TLS",
    "RequestAuthentication": "whose tokens the mesh takes",
    "VirtualService": "where requests go",
    "DestinationRule": "how requests go on",
    "Gateway": "what comes in from outside the mesh",
    "Sidecar": "what a mesh's pods may reach",
    "ServiceEntry": "what the mesh knows outside",
    "EnvoyFilter": "what the mesh does to requests",
    "Ingress": "what comes in from outside",
    "HTTPRoute": "where requests go",
    "APIService": "what the API server asks",
}
"""Kinds that are compared field by field, and what their objects decide."""
_DOCUMENTATION: Final = ("_example",)
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_NAME: Final = re.compile(rf"(?<![\w.-])({_LABEL}(?:\.{_LABEL})+)(?::\d+)?(?![\w.-]*\w)")
_URL: Final = re.compile(r"\b[a-z][a-z0-9+]*://([A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?)")


@dataclass(frozen=True, slots=True)
class ConnectionChange:
    """One object that decides something else about connections than before.

    Attributes:
        what: ``added``, ``removed``, ``changed``.
        about: what such an object decides.
        gains: lines that say what is new: a port, a webhook, a host.
        loses: lines that say what is gone.
        fields: the fields that changed, for kinds that have no such lines.
    """

    what: str
    key: ObjectKey
    about: str
    gains: tuple[str, ...] = ()
    loses: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "object": self.key,
            "about": self.about,
            "gains": self.gains,
            "loses": self.loses,
            "fields": self.fields,
        }


def service_names(*sides: SetSide) -> frozenset[str]:
    """Return ``NAME.NAMESPACE`` of all Services."""
    return frozenset(
        f"{service.key.name}.{service.key.namespace}"
        for side in sides
        for service in side.of_kind("Service")
    )


def compare_connections(
    pair: Pair, differences: Sequence[FieldDifference], known: frozenset[str]
) -> ConnectionChange | None:
    """Return what an object's change means for connections; None where it means nothing.

    Args:
        pair: the object as it was and as it is.
        differences: its fields that differ.
        known: the Services that a name can mean.
    """
    old, new = pair
    some = new or old
    if some is None:
        return None
    what, key = describe_change(pair), some.key
    if about := _DECIDES.get(key.kind):
        fields = tuple(each.field for each in differences if each.path[0] != "metadata")
        if what == "changed" and not fields:
            return None
        return ConnectionChange(what, key, about, fields=fields)
    if key.kind not in _DESCRIBED:
        return None
    about, describe = _DESCRIBED[key.kind]
    before = describe(old.body, known) if old else frozenset()
    after = describe(new.body, known) if new else frozenset()
    if before == after:
        return None
    return ConnectionChange(
        what, key, about, tuple(sorted(after - before)), tuple(sorted(before - after))
    )


def _describe_service(body: Body, _: frozenset[str]) -> frozenset[str]:
    spec = get_mapping(body, "spec")
    lines = {_describe_port(port) for port in list_mappings(spec, "ports")}
    kind = get_text(spec, "type") or "ClusterIP"
    if kind != "ClusterIP":
        lines.add(f"type {kind}")
    if name := get_text(spec, "externalName"):
        lines.add(f"leads to {name}")
    if selector := get_mapping(spec, "selector"):
        lines.add("to " + ",".join(f"{label}={value}" for label, value in sorted(selector.items())))
    return frozenset(lines)


def _describe_port(port: Body) -> str:
    number = port.get("port")
    node = f", node port {port['nodePort']}" if port.get("nodePort") else ""
    protocol = get_text(port, "protocol") or "TCP"
    return f"port {number}/{protocol} -> {port.get('targetPort') or number}{node}"


def _describe_webhooks(body: Body, _: frozenset[str]) -> frozenset[str]:
    return frozenset(_describe_webhook(webhook) for webhook in list_mappings(body, "webhooks"))


def _describe_webhook(webhook: Body) -> str:
    asked = {
        f"{resource}.{group}" if group else str(resource)
        for rule in list_mappings(webhook, "rules")
        for group in as_list(rule.get("apiGroups"))
        for resource in as_list(rule.get("resources"))
    }
    about = f" about {', '.join(sorted(asked))}" if asked else ""
    policy = get_text(webhook, "failurePolicy") or "Fail"
    return f"asks {_webhook_address(webhook)}{about} (failurePolicy {policy})"


def _webhook_address(webhook: Body) -> str:
    if url := get_text(webhook, "clientConfig", "url"):
        return url
    service = get_mapping(webhook, "clientConfig", "service")
    host = f"{service.get('name')}.{service.get('namespace')}"
    return f"{host}:{service.get('port') or 443}{get_text(service, 'path')}"


def _find_hosts(body: Body, known: frozenset[str]) -> frozenset[str]:
    """Return names of Services, and hosts of URLs, in what programs are given."""
    texts = list(_program_texts(body))
    services = {
        match[0]
        for text in texts
        for match in _NAME.finditer(text)
        if _is_service(match[1].split("."), known)
    }
    return frozenset(services.union(*map(_URL.findall, texts)))


def _is_service(labels: Sequence[str], known: frozenset[str]) -> bool:
    return ".".join(labels[:2]) in known or labels[2:3] == ["svc"]


def _program_texts(body: Body) -> Iterator[str]:
    """Yield the texts that programs are given: files, arguments and variables."""
    if body.get("kind") == "ConfigMap":
        for name, text in get_mapping(body, "data").items():
            if isinstance(text, str) and name not in _DOCUMENTATION:
                yield text
    for _, container in workload.list_containers(dict(body)):
        yield from map(str, as_list(get_value(container, "command")))
        yield from map(str, as_list(get_value(container, "args")))
        yield from filter(None, (get_text(e, "value") for e in list_mappings(container, "env")))


_Describer = Callable[[Body, frozenset[str]], frozenset[str]]
_HOSTS: Final[tuple[str, _Describer]] = ("names of hosts that programs are given", _find_hosts)
_WEBHOOKS: Final[tuple[str, _Describer]] = ("what the API server asks", _describe_webhooks)
_DESCRIBED: Final[Mapping[str, tuple[str, _Describer]]] = {
    "Service": ("where a Service leads", _describe_service),
    "MutatingWebhookConfiguration": _WEBHOOKS,
    "ValidatingWebhookConfiguration": _WEBHOOKS,
    **dict.fromkeys((*workload.WORKLOADS, "ConfigMap"), _HOSTS),
}
"""Kinds that are described in lines, and what those lines are about."""
