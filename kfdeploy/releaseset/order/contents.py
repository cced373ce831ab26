"""The objects of a set, and how to find one from another."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.accessors import get_annotations, get_labels, get_mapping, get_text
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.releaseset.order.selectors import AdmissionRequest, selector_matches

_SCHEMA = re.compile(r"^( *(?:- )?)schema: *$")
_NAMESPACE_NAME = "kubernetes.io/metadata.name"

Body = Mapping[str, Any]
BodyReader = Callable[[Sequence[Object]], Sequence[Body]]


@dataclass(frozen=True, eq=False)
class SetObject:
    """One object of the set.

    Attributes:
        number: its place in the set, in upstream's order.
        body: what `read_bodies` leaves of it.
    """

    number: int
    component: str
    object: Object
    body: Body

    @cached_property
    def key(self) -> ObjectKey:
        return ObjectKey.from_body(dict(self.body))

    @property
    def spec(self) -> Mapping[str, Any]:
        return get_mapping(self.body, "spec")

    @property
    def annotations(self) -> Mapping[str, str]:
        return get_annotations(self.body)

    @property
    def labels(self) -> Mapping[str, str]:
        return get_labels(self.body)

    def __str__(self) -> str:
        return str(self.key)


def read_bodies(objects: Sequence[Object]) -> list[Body]:
    """Return the objects' bodies without what says nothing of their order.

    That is most of a set's bytes: the schemas of CRDs, the contents of ConfigMaps and Secrets.

    Raises:
        UserError: broken YAML.
    """
    return [_read_body(item) for item in objects]


def _read_body(item: Object) -> Body:
    if item.is_crd:
        return Object(_strip_schemas(item.text), item.origin).body
    return {key: value for key, value in item.body.items() if key not in ("data", "binaryData")}


def _strip_schemas(text: str) -> str:
    """Return a CRD's text without what is below ``schema:``, in block style as kustomize prints."""
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
class WorkloadPod:
    """The pods that a workload makes, as a webhook sees them."""

    item: SetObject
    labels: Mapping[str, str]


class SetContents:
    """All objects of a set."""

    def __init__(
        self,
        components: Iterable[tuple[str, Sequence[Object]]],
        body_reader: BodyReader = read_bodies,
    ) -> None:
        flat = [
            (name, item, body)
            for name, objects in components
            for item, body in zip(objects, body_reader(objects), strict=True)
        ]
        self.items = tuple(SetObject(number, *one) for number, one in enumerate(flat))
        self._named: defaultdict[tuple[str, str, str, str], list[SetObject]] = defaultdict(list)
        self.crds: defaultdict[tuple[str, str], list[SetObject]] = defaultdict(list)
        for item in self.items:
            key = item.key
            self._named[key.group, key.kind, key.namespace, key.name].append(item)
            if item.object.is_crd:
                kind = get_text(item.spec, "names", "kind")
                self.crds[get_text(item.spec, "group"), kind].append(item)

    def find_object(
        self, group: str, kind: str, namespace: str, name: str, near: SetObject | None = None
    ) -> SetObject | None:
        """Return an object; of several the one in the component of ``near``, else the first."""
        return _pick_nearest(self._named.get((group, kind, namespace, name), ()), near)

    def of_kind(self, *kinds: str) -> Iterator[SetObject]:
        return (item for item in self.items if item.key.kind in kinds)

    def crd_of(self, item: SetObject) -> SetObject | None:
        """Return the definition of an object's kind, where the set has it."""
        return _pick_nearest(self.crds.get((item.key.group, item.key.kind), ()), item)

    def admission_request(self, item: SetObject) -> AdmissionRequest:
        """Return the object as a webhook sees it when it is created."""
        key, crd = item.key, self.crd_of(item)
        return AdmissionRequest(
            group=key.group,
            version=key.version,
            resource=get_text(crd.spec, "names", "plural") if crd else builtin_resource(key.kind),
            name=key.name,
            namespaced=bool(self.namespace_of(item)),
            labels=item.labels,
            namespace_labels=self._namespace_labels_of(item),
        )

    def _namespace_labels_of(self, item: SetObject) -> Mapping[str, str] | None:
        key, namespace = item.key, self.namespace_of(item)
        if key.kind == "Namespace" and not key.group:
            return {_NAMESPACE_NAME: key.name, **item.labels}
        return self.namespace_labels(namespace) if namespace else None

    def namespace_of(self, item: SetObject) -> str:
        """Return the namespace that an object is in; empty for none.

        Kustomize writes one into each custom resource of a component; where the kind has none, the
        API server drops it.
        """
        crd = self.crd_of(item)
        return "" if crd and crd.spec.get("scope") == "Cluster" else item.key.namespace

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        """Return a namespace's labels, with the one that every namespace has."""
        made = self.find_object("", "Namespace", "", name)
        return {_NAMESPACE_NAME: name, **(made.labels if made else {})}

    @cached_property
    def pods(self) -> Sequence[WorkloadPod]:
        """The pods of all workloads."""
        return tuple(self._list_pods())

    def _list_pods(self) -> Iterator[WorkloadPod]:
        for item in self.items:
            path = workload.template_path(item.key.kind)
            if path is None or item.object.is_crd:
                continue
            template = get_mapping(item.body, *path)
            if template:
                yield WorkloadPod(item, get_labels(template))

    def pod_request(self, pod: WorkloadPod) -> AdmissionRequest:
        """Return one of the pods as a webhook sees it; its name is not known beforehand."""
        return AdmissionRequest(
            group="",
            version="v1",
            resource="pods",
            name="",
            namespaced=True,
            labels=pod.labels,
            namespace_labels=self.namespace_labels(pod.item.key.namespace),
        )

    def find_backends(self, service: Mapping[str, Any]) -> Sequence[SetObject]:
        """Return the workloads behind a Service that a ``clientConfig`` or an APIService names."""
        namespace, name = get_text(service, "namespace"), get_text(service, "name")
        found = self.find_object("", "Service", namespace, name)
        selector = get_mapping(found.spec, "selector") if found else None
        if not selector:
            return ()
        return [
            pod.item
            for pod in self.pods
            if pod.item.key.namespace == namespace
            and pod.item.key.kind in _SERVING
            and selector_matches({"matchLabels": selector}, pod.labels)
        ]


_SERVING = frozenset(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod"))


def _pick_nearest(found: Sequence[SetObject], near: SetObject | None) -> SetObject | None:
    if near is not None:
        for item in found:
            if item.component == near.component:
                return item
    return found[0] if found else None


def builtin_resource(kind: str) -> str:
    """Return the resource (plural) of a kind that Kubernetes itself has."""
    name = kind.lower()
    if name == "endpoints":
        return name
    if name.endswith("y"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "x")) else f"{name}s"
