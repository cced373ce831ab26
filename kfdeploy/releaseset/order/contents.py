"""A set's objects, and what finds one from another."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.objects import Object, ObjectKey, lookup
from kfdeploy.releaseset.order.selectors import Request, selects

_SCHEMA = re.compile(r"^( *(?:- )?)schema: *$")
_NAMESPACE_NAME = "kubernetes.io/metadata.name"

Body = Mapping[str, Any]
Reading = Callable[[Sequence[Object]], Sequence[Body]]


@dataclass(frozen=True, eq=False)
class Item:
    """One object of the set.

    Attributes:
        number: its place in the set, in upstream's order.
        body: what `read` leaves of it.
    """

    number: int
    component: str
    object: Object
    body: Body

    @cached_property
    def key(self) -> ObjectKey:
        return ObjectKey.of(dict(self.body))

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.body.get("spec") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        return (self.body.get("metadata") or {}).get("annotations") or {}

    @property
    def labels(self) -> Mapping[str, str]:
        return (self.body.get("metadata") or {}).get("labels") or {}

    def __str__(self) -> str:
        return str(self.key)


def read(objects: Sequence[Object]) -> list[Body]:
    """The objects' bodies without what says nothing of order, most of a set's bytes: the schemas
    of CRDs, the contents of ConfigMaps and Secrets.

    Raises:
        UserError: broken YAML.
    """
    return [_read(item) for item in objects]


def _read(item: Object) -> Body:
    if item.is_crd:
        return Object(_without_schemas(item.text), item.origin).body
    return {key: value for key, value in item.body.items() if key not in ("data", "binaryData")}


def _without_schemas(text: str) -> str:
    """A CRD's text without what is below ``schema:``, in block style as kustomize prints it."""
    out: list[str] = []
    depth = -1
    for line in text.splitlines(keepends=True):
        indent = len(line) - len(line.lstrip(" "))
        if depth >= 0 and (indent > depth or not line.strip()):
            continue
        depth = -1
        if match := _SCHEMA.match(line.rstrip("\r\n")):
            depth = len(match[1])
            out.append(f"{match[1]}schema: {{}}\n")
        else:
            out.append(line)
    return "".join(out)


@dataclass(frozen=True, slots=True)
class Pod:
    """The pods that a workload makes, as a webhook sees them."""

    item: Item
    labels: Mapping[str, str]


class Contents:
    """All objects of a set."""

    def __init__(
        self, components: Iterable[tuple[str, Sequence[Object]]], reading: Reading = read
    ) -> None:
        flat = [
            (name, item, body)
            for name, objects in components
            for item, body in zip(objects, reading(objects), strict=True)
        ]
        self.items = tuple(Item(number, *one) for number, one in enumerate(flat))
        self._named: defaultdict[tuple[str, str, str, str], list[Item]] = defaultdict(list)
        self.crds: defaultdict[tuple[str, str], list[Item]] = defaultdict(list)
        for item in self.items:
            key = item.key
            self._named[key.group, key.kind, key.namespace, key.name].append(item)
            if item.object.is_crd:
                kind = (item.spec.get("names") or {}).get("kind", "")
                self.crds[item.spec.get("group", ""), kind].append(item)

    def named(
        self, group: str, kind: str, namespace: str, name: str, near: Item | None = None
    ) -> Item | None:
        """An object; of several the one in the component of ``near``, else the first."""
        return _nearest(self._named.get((group, kind, namespace, name), ()), near)

    def of_kind(self, *kinds: str) -> Iterator[Item]:
        return (item for item in self.items if item.key.kind in kinds)

    def crd_of(self, item: Item) -> Item | None:
        """The definition of an object's kind, where the set has it."""
        return _nearest(self.crds.get((item.key.group, item.key.kind), ()), item)

    def request(self, item: Item) -> Request:
        """The object as the API server sees it."""
        key, crd = item.key, self.crd_of(item)
        resource = (crd.spec.get("names") or {}).get("plural", "") if crd else plural(key.kind)
        namespace = self.namespace_of(item)
        labels: Mapping[str, str] | None = None
        if key.kind == "Namespace" and not key.group:
            labels = {_NAMESPACE_NAME: key.name, **item.labels}
        elif namespace:
            labels = self.namespace_labels(namespace)
        return Request(
            key.group, key.version, resource, key.name, bool(namespace), item.labels, labels
        )

    def namespace_of(self, item: Item) -> str:
        """The namespace that an object is in.

        Kustomize writes one into each custom resource of a component; where the kind has none, the
        API server drops it.
        """
        crd = self.crd_of(item)
        return "" if crd and crd.spec.get("scope") == "Cluster" else item.key.namespace

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        """A namespace's labels; that which every namespace has, where the set does not make it."""
        made = self.named("", "Namespace", "", name)
        return {_NAMESPACE_NAME: name, **(made.labels if made else {})}

    @cached_property
    def pods(self) -> Sequence[Pod]:
        """The pods of all workloads."""
        return tuple(self._pods())

    def _pods(self) -> Iterator[Pod]:
        for item in self.items:
            path = workload.template_path(item.key.kind)
            if path is None or item.object.is_crd:
                continue
            try:
                template = lookup(item.body, path)
            except KeyError:
                continue
            yield Pod(item, ((template or {}).get("metadata") or {}).get("labels") or {})

    def pod_request(self, pod: Pod) -> Request:
        """One of the pods as the API server sees it; its name is not known beforehand."""
        namespace = pod.item.key.namespace
        return Request("", "v1", "pods", "", True, pod.labels, self.namespace_labels(namespace))

    def behind(self, service: Mapping[str, Any]) -> Sequence[Item]:
        """The workloads behind a Service that a ``clientConfig`` or an APIService names."""
        namespace, name = str(service.get("namespace", "")), str(service.get("name", ""))
        found = self.named("", "Service", namespace, name)
        selector = found.spec.get("selector") if found else None
        if not selector:
            return ()
        return [
            pod.item
            for pod in self.pods
            if pod.item.key.namespace == namespace
            and pod.item.key.kind in _SERVING
            and selects({"matchLabels": selector}, pod.labels)
        ]


_SERVING = frozenset(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod"))


def _nearest(found: Sequence[Item], near: Item | None) -> Item | None:
    if near is not None:
        for item in found:
            if item.component == near.component:
                return item
    return found[0] if found else None


def plural(kind: str) -> str:
    """The resource of a kind that Kubernetes itself has."""
    name = kind.lower()
    if name == "endpoints":
        return name
    if name.endswith("y"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "x")) else f"{name}s"
