"""Edges from an object's kind, its namespace, what it names, and certificates to the object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.accessors import get_mapping, get_text, list_mappings
from kfdeploy.releaseset.order.contents import SetContents, SetObject
from kfdeploy.releaseset.order.edges import OrderEdge

CERT_MANAGER: Final = "cert-manager.io"
_INJECT: Final = f"{CERT_MANAGER}/inject-ca-from"
_INJECTED: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "APIService")
_CLUSTER_SCOPED: Final = ("PriorityClass", "StorageClass")


@dataclass(frozen=True, slots=True)
class _ObjectReference:
    """An object that another one names in a field, and cannot do without."""

    group: str
    kind: str
    name: str
    field: str


def reference_edges(contents: SetContents) -> Iterator[OrderEdge]:
    """Yield the edges that follow from what objects name, object by object."""
    for item in contents.items:
        if not item.object.is_crd:
            yield from _crd_edges(contents, item)
            yield from _namespace_edges(contents, item)
            yield from _name_edges(contents, item)
            yield from _issuer_edges(contents, item)
            if item.key.kind in _INJECTED:
                yield from ca_injection_edges(contents, item, item)


def _crd_edges(contents: SetContents, item: SetObject) -> Iterator[OrderEdge]:
    # Definitions are applied before a release's own objects.
    if crd := contents.crd_of(item):
        yield OrderEdge(crd, item, "kind", "kind", needs_ready=False, can_share_release=True)


def _namespace_edges(contents: SetContents, item: SetObject) -> Iterator[OrderEdge]:
    namespace = contents.namespace_of(item)
    if not namespace:
        return
    if found := contents.find_object("", "Namespace", "", namespace, item):
        yield OrderEdge(
            found,
            item,
            "namespace",
            "metadata.namespace",
            needs_ready=False,
            can_share_release=True,
        )


def _name_edges(contents: SetContents, item: SetObject) -> Iterator[OrderEdge]:
    """Yield what an object's pods name; they can share a release, because pods wait for it."""
    references: dict[tuple[str, str], _ObjectReference] = {}
    for reference in _list_references(item):
        references.setdefault((reference.kind, reference.name), reference)
    for reference in references.values():
        kind, name, field = reference.kind, reference.name, reference.field
        namespace = "" if kind in _CLUSTER_SCOPED else item.key.namespace
        if found := contents.find_object(reference.group, kind, namespace, name, item):
            yield OrderEdge(found, item, "name", field, needs_ready=False, can_share_release=True)
        if kind == "Secret":
            for made in _find_certificates(contents, namespace, name):
                yield OrderEdge(
                    made, item, "certificate", field, needs_ready=True, can_share_release=True
                )


def _list_references(item: SetObject) -> Iterator[_ObjectReference]:
    """Yield all that an object's pods, or its volumes, cannot do without."""
    if item.key.kind == "PersistentVolumeClaim":
        yield from _storage_class(item.spec, "spec")
    elif item.key.kind == "StatefulSet":
        for claim in list_mappings(item.spec, "volumeClaimTemplates"):
            yield from _storage_class(get_mapping(claim, "spec"), "spec.volumeClaimTemplates.spec")
    spec = workload.pod_spec(dict(item.body))
    if not spec:
        return
    yield from _pod_references(spec)
    for volume in list_mappings(spec, "volumes"):
        yield from _volume_references(volume)
    for _, container in workload.list_containers(dict(item.body)):
        yield from _container_references(container)


def _storage_class(claim_spec: Mapping[str, Any], field: str) -> Iterator[_ObjectReference]:
    if name := get_text(claim_spec, "storageClassName"):
        yield _ObjectReference("storage.k8s.io", "StorageClass", name, f"{field}.storageClassName")


def _pod_references(spec: Mapping[str, Any]) -> Iterator[_ObjectReference]:
    for group, kind, field in (
        ("", "ServiceAccount", "serviceAccountName"),
        ("scheduling.k8s.io", "PriorityClass", "priorityClassName"),
    ):
        if name := get_text(spec, field):
            yield _ObjectReference(group, kind, name, field)
    for secret in list_mappings(spec, "imagePullSecrets"):
        yield _ObjectReference("", "Secret", get_text(secret, "name"), "imagePullSecrets")


def _volume_references(volume: Mapping[str, Any]) -> Iterator[_ObjectReference]:
    field = f"volumes[name={volume.get('name')}]"
    if claim := get_mapping(volume, "persistentVolumeClaim"):
        name = get_text(claim, "claimName")
        yield _ObjectReference("", "PersistentVolumeClaim", name, field)
    yield from _required_source(volume, "configMap", field)
    yield from _required_source(volume, "secret", field, name_key="secretName")
    for source in list_mappings(volume, "projected", "sources"):
        yield from _required_source(source, "configMap", field)
        yield from _required_source(source, "secret", field)


def _container_references(container: Mapping[str, Any]) -> Iterator[_ObjectReference]:
    where = f"containers[name={container.get('name')}]"
    for source in list_mappings(container, "envFrom"):
        yield from _required_source(source, "configMapRef", f"{where}.envFrom")
        yield from _required_source(source, "secretRef", f"{where}.envFrom")
    for variable in list_mappings(container, "env"):
        field = f"{where}.env[name={variable.get('name')}]"
        value = get_mapping(variable, "valueFrom")
        yield from _required_source(value, "configMapKeyRef", field)
        yield from _required_source(value, "secretKeyRef", field)


def _required_source(
    holder: Mapping[str, Any], key: str, field: str, name_key: str = "name"
) -> Iterator[_ObjectReference]:
    """Yield the ConfigMap or Secret of a source, unless pods start without it."""
    source = get_mapping(holder, key)
    if source and not source.get("optional"):
        kind = "ConfigMap" if key.startswith("configMap") else "Secret"
        yield _ObjectReference("", kind, get_text(source, name_key), field)


# -- certificates ----------------------------------------------------------------------------------


def _find_certificates(contents: SetContents, namespace: str, secret: str) -> Iterator[SetObject]:
    """Yield the Certificates that fill a Secret."""
    for item in contents.of_kind("Certificate"):
        is_of_namespace = (item.key.group, item.key.namespace) == (CERT_MANAGER, namespace)
        if is_of_namespace and item.spec.get("secretName") == secret:
            yield item


def _issuer_edges(contents: SetContents, item: SetObject) -> Iterator[OrderEdge]:
    """Yield the issuer of a Certificate, which waits for it: they can share a release."""
    if (item.key.group, item.key.kind) != (CERT_MANAGER, "Certificate"):
        return
    group = get_text(item.spec, "issuerRef", "group") or CERT_MANAGER
    kind = get_text(item.spec, "issuerRef", "kind") or "Issuer"
    name = get_text(item.spec, "issuerRef", "name")
    namespace = "" if kind == "ClusterIssuer" else item.key.namespace
    if found := contents.find_object(group, kind, namespace, name, item):
        yield OrderEdge(
            found, item, "issuer", "spec.issuerRef", needs_ready=True, can_share_release=True
        )


def ca_injection_edges(
    contents: SetContents, holder: SetObject, then: SetObject
) -> Iterator[OrderEdge]:
    """Yield what fills in the CA by which the API server trusts a webhook.

    Args:
        holder: the object with cert-manager's annotation.
        then: what must come after: the holder, or what is sent to the webhook.
    """
    for key, value in holder.annotations.items():
        if not key.startswith(_INJECT):
            continue
        annotation = f"metadata.annotations[{key}]"
        where = annotation if holder is then else f"{holder} {annotation}"
        for source in _list_ca_sources(contents, holder, key, value):
            yield OrderEdge(source, then, "ca", where, needs_ready=True, can_share_release=True)


def _list_ca_sources(
    contents: SetContents, holder: SetObject, key: str, value: str
) -> Iterator[SetObject]:
    """Yield the Certificate that an annotation names, and cert-manager's cainjector."""
    if key == _INJECT:
        namespace, _, name = value.partition("/")
        if found := contents.find_object(CERT_MANAGER, "Certificate", namespace, name, holder):
            yield found
    yield from filter(_is_cainjector, contents.of_kind("Deployment"))


def _is_cainjector(item: SetObject) -> bool:
    # cert-manager's charts and manifests label it so, whatever its name.
    return "cainjector" in (
        item.labels.get("app.kubernetes.io/component"),
        item.labels.get("app"),
    )
