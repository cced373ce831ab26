"""Small objects that say something of order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kfdeploy.kubernetes.objects import Object
from kfdeploy.releaseset.order import plan
from kfdeploy.releaseset.order.contents import SetContents
from kfdeploy.releaseset.order.edges import OrderEdge

Body = dict[str, Any]


def made(kind: str, name: str, namespace: str = "", api: str = "v1", **more: Any) -> Body:
    """An object; ``labels`` and ``annotations`` go into its metadata."""
    meta: Body = {"name": name, **({"namespace": namespace} if namespace else {})}
    for field in ("labels", "annotations"):
        if field in more:
            meta[field] = more.pop(field)
    return {"apiVersion": api, "kind": kind, "metadata": meta, **more}


def deployment(name: str, namespace: str = "n", labels: Body | None = None, **spec: Any) -> Body:
    """A Deployment whose pods have the label ``app``; ``spec`` is the pods'."""
    template = {"metadata": {"labels": {"app": name, **(labels or {})}}, "spec": spec}
    return made("Deployment", name, namespace, "apps/v1", spec={"template": template})


def service(name: str, namespace: str = "n") -> Body:
    return made("Service", name, namespace, spec={"selector": {"app": name}})


def crd(kind: str, group: str = "t.test", **spec: Any) -> Body:
    plural = f"{kind.lower()}s"
    names = {"kind": kind, "plural": plural}
    return made(
        "CustomResourceDefinition",
        f"{plural}.{group}",
        api="apiextensions.k8s.io/v1",
        spec={"group": group, "names": names, "scope": "Namespaced", **spec},
    )


def rule(*resources: str, group: str = "t.test", **more: Any) -> Body:
    return {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": ["CREATE"],
        "resources": list(resources),
        **more,
    }


def webhooks(how: str, server: str, *rules: Body, name: str = "", **more: Any) -> Body:
    """A configuration of one webhook; ``more`` are the webhook's fields."""
    client = {"service": {"name": server, "namespace": "n"}}
    annotations = more.pop("annotations", {})
    return made(
        f"{how}WebhookConfiguration",
        name or server,
        api="admissionregistration.k8s.io/v1",
        annotations=annotations,
        webhooks=[{"name": f"{server}.test", "clientConfig": client, "rules": rules, **more}],
    )


def objects(bodies: Sequence[Body]) -> list[Object]:
    return [Object(_text(body)) for body in bodies]


def _text(body: Body) -> str:
    """As kustomize prints a CRD, whose kind and name are told without parsing."""
    if body["kind"] != "CustomResourceDefinition":
        return json.dumps(body) + "\n"
    name, rest = body["metadata"]["name"], json.dumps(body["spec"])
    head = f"apiVersion: {body['apiVersion']}\nkind: CustomResourceDefinition\n"
    return f"{head}metadata:\n  name: {name}\nspec: {rest}\n"


Set = Mapping[str, Sequence[Body]]


def components(content: Set) -> list[tuple[str, list[Object]]]:
    return [(name, objects(bodies)) for name, bodies in content.items()]


def edges(content: Set) -> list[OrderEdge]:
    return plan.collect_edges(SetContents(components(content)))


def said(content: Set, *whys: str) -> set[str]:
    """``WHY: FIRST -> THEN``, with ``!`` where the first must be ready."""
    return {
        f"{edge.why}{'!' if edge.needs_ready else ''}: {edge.first.key.name} ->"
        f" {edge.then.key.name}"
        for edge in edges(content)
        if not whys or edge.why in whys
    }


def derive(content: Set) -> plan.ReleasePlan:
    return plan.plan_releases(components(content))


def names(found: plan.ReleasePlan) -> Iterator[tuple[str, list[str]]]:
    """Each release and the names of its objects."""
    for part in found.releases:
        yield part.name, [item.key.name for item in part.objects]
