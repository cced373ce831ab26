"""What can be told of who talks to whom from what a set says.

Objects that open, close or lead connections, and names of hosts in what programs are given. Whether
a program really talks to a host, no manifest says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.diff.fields import FieldDifference
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset.diff.sides import Pair, SetSide

Body = Mapping[str, Any]

_LEAD: Final = {
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
    "MutatingWebhookConfiguration": "what the API server asks",
    "ValidatingWebhookConfiguration": "what the API server asks",
    "APIService": "what the API server asks",
}
_WEBHOOKS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_DOCUMENTATION: Final = ("_example",)
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_NAME: Final = re.compile(rf"(?<![\w.-])({_LABEL}(?:\.{_LABEL})+)(?::\d+)?(?![\w.-]*\w)")
_URL: Final = re.compile(r"\b[a-z][a-z0-9+]*://([A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?)")


@dataclass(frozen=True, slots=True)
class ConnectionChange:
    """One object whose part in connections is another than before.

    Attributes:
        what: ``added``, ``removed``, ``changed``.
        about: what such an object decides.
        gains: lines that say what is new: a port, a webhook, a host.
        fields: that changed, where they say more than such lines.
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
    """``NAME.NAMESPACE`` of all Services."""
    return frozenset(
        f"{one.key.name}.{one.key.namespace}" for side in sides for one in side.of_kind("Service")
    )


def compare_connections(
    pair: Pair, differences: Sequence[FieldDifference], known: frozenset[str]
) -> ConnectionChange | None:
    """What an object's change means for connections; None where it means nothing.

    Args:
        pair: the object as it was and as it is.
        differences: its fields that differ.
        known: the Services that a name can mean.
    """
    old, new = pair
    some = new or old
    if some is None:
        return None
    what = "changed" if old and new else "added" if new else "removed"
    key, kind = some.key, some.key.kind
    about = _LEAD.get(kind, "")
    describe_body: Callable[[Body], frozenset[str]]
    if kind == "Service":
        about, describe_body = "where a Service leads", _describe_service
    elif kind in _WEBHOOKS:
        describe_body = _describe_webhooks
    elif kind in workload.WORKLOADS or kind == "ConfigMap":
        about = "names of hosts that programs are given"

        def describe_body(body: Body) -> frozenset[str]:
            return _find_hosts(body, known)

    elif about:
        shown = tuple(one.field for one in differences if one.path[0] != "metadata")
        return (
            ConnectionChange(what, key, about, fields=shown) if shown or what != "changed" else None
        )
    else:
        return None
    before = describe_body(old.body) if old else frozenset()
    after = describe_body(new.body) if new else frozenset()
    if before == after:
        return None
    return ConnectionChange(
        what, key, about, tuple(sorted(after - before)), tuple(sorted(before - after))
    )


def _describe_service(body: Body) -> frozenset[str]:
    spec = body.get("spec") or {}
    kind = spec.get("type") or "ClusterIP"
    out = set() if kind == "ClusterIP" else {f"type {kind}"}
    if spec.get("externalName"):
        out.add(f"leads to {spec['externalName']}")
    for port in spec.get("ports") or ():
        number = port.get("port")
        node = f", node port {port['nodePort']}" if port.get("nodePort") else ""
        target = port.get("targetPort") or number
        out.add(f"port {number}/{port.get('protocol') or 'TCP'} -> {target}{node}")
    chosen = spec.get("selector") or {}
    if chosen:
        out.add("to " + ",".join(f"{name}={value}" for name, value in sorted(chosen.items())))
    return frozenset(out)


def _describe_webhooks(body: Body) -> frozenset[str]:
    out = set()
    for hook in body.get("webhooks") or ():
        client = hook.get("clientConfig") or {}
        service = client.get("service") or {}
        port = service.get("port") or 443
        leads = f"{service.get('name')}.{service.get('namespace')}:{port}{service.get('path', '')}"
        asked = sorted(
            {
                f"{resource}.{group}" if group else str(resource)
                for rule in hook.get("rules") or ()
                for group in rule.get("apiGroups") or ()
                for resource in rule.get("resources") or ()
            }
        )
        policy = hook.get("failurePolicy") or "Fail"
        about = f" about {', '.join(asked)}" if asked else ""
        out.add(f"asks {client.get('url') or leads}{about} (failurePolicy {policy})")
    return frozenset(out)


def _find_hosts(body: Body, known: frozenset[str]) -> frozenset[str]:
    """Names of Services, and hosts of URLs, in a ConfigMap or in what containers are given."""
    out = set()
    for text in _program_texts(body):
        for found in _NAME.finditer(text):
            labels = found[1].split(".")
            if ".".join(labels[:2]) in known or labels[2:3] == ["svc"]:
                out.add(found[0])
        out.update(found for found in _URL.findall(text))
    return frozenset(out)


def _program_texts(body: Body) -> Iterator[str]:
    if body.get("kind") == "ConfigMap":
        for name, text in (body.get("data") or {}).items():
            if isinstance(text, str) and name not in _DOCUMENTATION:
                yield text
    for _, container in workload.list_containers(dict(body)):
        for name in ("command", "args"):
            yield from map(str, _get_list(container, name))
        for variable in _get_list(container, "env"):
            if variable.get("value"):
                yield str(variable["value"])


def _get_list(container: Mapping[str, Any], name: str) -> list[Any]:
    found = container.get(name)
    return found if isinstance(found, list) else []
