"""What must be there before an object: its kind, its namespace, what it names; and certificates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kfdeploy.kubernetes import workload
from kfdeploy.releaseset.order.contents import SetContents, SetObject
from kfdeploy.releaseset.order.edges import OrderEdge

CERT_MANAGER = "cert-manager.io"
_INJECT = f"{CERT_MANAGER}/inject-ca-from"
_INJECTED = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "APIService")


def reference_edges(contents: SetContents) -> Iterator[OrderEdge]:
    """All edges of this module, object by object."""
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
    found = contents.find_object("", "Namespace", "", namespace, item) if namespace else None
    if found:
        yield OrderEdge(
            found,
            item,
            "namespace",
            "metadata.namespace",
            needs_ready=False,
            can_share_release=True,
        )


def _name_edges(contents: SetContents, item: SetObject) -> Iterator[OrderEdge]:
    """Pods wait by themselves for what is in their release; Helm creates it before them anyway."""
    seen: set[tuple[str, str]] = set()
    for group, kind, name, field in _list_references(item):
        if (kind, name) in seen:
            continue
        seen.add((kind, name))
        namespace = "" if kind in ("PriorityClass", "StorageClass") else item.key.namespace
        if found := contents.find_object(group, kind, namespace, name, item):
            yield OrderEdge(found, item, "name", field, needs_ready=False, can_share_release=True)
        if kind == "Secret":
            for made in _find_certificates(contents, namespace, name):
                yield OrderEdge(
                    made, item, "certificate", field, needs_ready=True, can_share_release=True
                )


def _list_references(item: SetObject) -> Iterator[tuple[str, str, str, str]]:
    """Group, kind, name and field of all that an object's pods, or its volumes, cannot lack."""
    if item.key.kind == "PersistentVolumeClaim":
        yield from _storage_class(item.spec, "spec")
    elif item.key.kind == "StatefulSet":
        for claim in item.spec.get("volumeClaimTemplates") or ():
            yield from _storage_class(claim.get("spec") or {}, "spec.volumeClaimTemplates.spec")
    body = dict(item.body)
    spec = workload.pod_spec(body)
    if not spec:
        return
    if name := spec.get("serviceAccountName"):
        yield "", "ServiceAccount", name, "serviceAccountName"
    if name := spec.get("priorityClassName"):
        yield "scheduling.k8s.io", "PriorityClass", name, "priorityClassName"
    for secret in spec.get("imagePullSecrets") or ():
        yield "", "Secret", secret.get("name", ""), "imagePullSecrets"
    for volume in spec.get("volumes") or ():
        field = f"volumes[name={volume.get('name')}]"
        if claim := volume.get("persistentVolumeClaim"):
            yield "", "PersistentVolumeClaim", claim.get("claimName", ""), field
        for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            yield from _required_source(source.get("configMap"), "ConfigMap", "name", field)
            secret_key = "secretName" if source is volume else "name"
            yield from _required_source(source.get("secret"), "Secret", secret_key, field)
    for _, container in workload.list_containers(body):
        at = f"containers[name={container.get('name')}]"
        for source in container.get("envFrom") or ():
            yield from _required_source(
                source.get("configMapRef"), "ConfigMap", "name", f"{at}.envFrom"
            )
            yield from _required_source(source.get("secretRef"), "Secret", "name", f"{at}.envFrom")
        for variable in container.get("env") or ():
            value = variable.get("valueFrom") or {}
            field = f"{at}.env[name={variable.get('name')}]"
            yield from _required_source(value.get("configMapKeyRef"), "ConfigMap", "name", field)
            yield from _required_source(value.get("secretKeyRef"), "Secret", "name", field)


def _required_source(
    source: Mapping[str, Any] | None, kind: str, key: str, field: str
) -> Iterator[tuple[str, str, str, str]]:
    """What may be missing makes no order: pods start without it."""
    if source and not source.get("optional"):
        yield "", kind, str(source.get(key) or ""), field


def _storage_class(spec: Mapping[str, Any], field: str) -> Iterator[tuple[str, str, str, str]]:
    if name := spec.get("storageClassName"):
        yield "storage.k8s.io", "StorageClass", name, f"{field}.storageClassName"


def _find_certificates(contents: SetContents, namespace: str, secret: str) -> Iterator[SetObject]:
    for item in contents.of_kind("Certificate"):
        if (item.key.group, item.key.namespace) == (CERT_MANAGER, namespace) and (
            item.spec.get("secretName") == secret
        ):
            yield item


def _issuer_edges(contents: SetContents, item: SetObject) -> Iterator[OrderEdge]:
    """A Certificate, after the issuer that it names; without one it waits, so they go together."""
    if (item.key.group, item.key.kind) != (CERT_MANAGER, "Certificate"):
        return
    ref = item.spec.get("issuerRef") or {}
    group, kind = ref.get("group") or CERT_MANAGER, ref.get("kind") or "Issuer"
    namespace = "" if kind == "ClusterIssuer" else item.key.namespace
    if found := contents.find_object(group, kind, namespace, ref.get("name", ""), item):
        yield OrderEdge(
            found, item, "issuer", "spec.issuerRef", needs_ready=True, can_share_release=True
        )


def ca_injection_edges(
    contents: SetContents, holder: SetObject, then: SetObject
) -> Iterator[OrderEdge]:
    """What fills in the CA by which the API server trusts a webhook.

    Args:
        holder: has cert-manager's annotation.
        then: must come after: the holder, or what is sent to the webhook.
    """
    for key, value in holder.annotations.items():
        if not key.startswith(_INJECT):
            continue
        where = f"metadata.annotations[{key}]"
        if holder is not then:
            where = f"{holder} {where}"
        if key == _INJECT:
            namespace, _, name = value.partition("/")
            found = contents.find_object(CERT_MANAGER, "Certificate", namespace, name, holder)
            if found:
                yield OrderEdge(found, then, "ca", where, needs_ready=True, can_share_release=True)
        for cainjector in contents.of_kind("Deployment"):
            if _is_cainjector(cainjector):
                yield OrderEdge(
                    cainjector, then, "ca", where, needs_ready=True, can_share_release=True
                )


def _is_cainjector(item: SetObject) -> bool:
    """cert-manager's charts and manifests label it so, whatever its name."""
    labels = item.labels
    return "cainjector" in (labels.get("app.kubernetes.io/component"), labels.get("app"))
