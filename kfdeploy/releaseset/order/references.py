"""What must be there before an object: its kind, its namespace, what it names; and certificates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kfdeploy.kubernetes import workload
from kfdeploy.releaseset.order.contents import Contents, Item
from kfdeploy.releaseset.order.edges import Edge

CERT_MANAGER = "cert-manager.io"
_INJECT = f"{CERT_MANAGER}/inject-ca-from"
_INJECTED = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "APIService")


def edges(contents: Contents) -> Iterator[Edge]:
    """All edges of this module, object by object."""
    for item in contents.items:
        if not item.object.is_crd:
            yield from _kind(contents, item)
            yield from _namespace(contents, item)
            yield from _named(contents, item)
            yield from _signed(contents, item)
            if item.key.kind in _INJECTED:
                yield from injected(contents, item, item)


def _kind(contents: Contents, item: Item) -> Iterator[Edge]:
    # Definitions are applied before a release's own objects.
    if crd := contents.crd_of(item):
        yield Edge(crd, item, "kind", "kind", ready=False, together=True)


def _namespace(contents: Contents, item: Item) -> Iterator[Edge]:
    namespace = contents.namespace_of(item)
    found = contents.named("", "Namespace", "", namespace, item) if namespace else None
    if found:
        yield Edge(found, item, "namespace", "metadata.namespace", ready=False, together=True)


def _named(contents: Contents, item: Item) -> Iterator[Edge]:
    """Pods wait by themselves for what is in their release; Helm creates it before them anyway."""
    seen: set[tuple[str, str]] = set()
    for group, kind, name, field in _references(item):
        if (kind, name) in seen:
            continue
        seen.add((kind, name))
        namespace = "" if kind in ("PriorityClass", "StorageClass") else item.key.namespace
        if found := contents.named(group, kind, namespace, name, item):
            yield Edge(found, item, "name", field, ready=False, together=True)
        if kind == "Secret":
            for made in _certificates(contents, namespace, name):
                yield Edge(made, item, "certificate", field, ready=True, together=True)


def _references(item: Item) -> Iterator[tuple[str, str, str, str]]:
    """Group, kind, name and field of all that an object's pods, or its volumes, cannot lack."""
    if item.key.kind == "PersistentVolumeClaim":
        yield from _class(item.spec, "spec")
    elif item.key.kind == "StatefulSet":
        for claim in item.spec.get("volumeClaimTemplates") or ():
            yield from _class(claim.get("spec") or {}, "spec.volumeClaimTemplates.spec")
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
            yield from _source(source.get("configMap"), "ConfigMap", "name", field)
            secret_key = "secretName" if source is volume else "name"
            yield from _source(source.get("secret"), "Secret", secret_key, field)
    for _, container in workload.containers(body):
        at = f"containers[name={container.get('name')}]"
        for source in container.get("envFrom") or ():
            yield from _source(source.get("configMapRef"), "ConfigMap", "name", f"{at}.envFrom")
            yield from _source(source.get("secretRef"), "Secret", "name", f"{at}.envFrom")
        for variable in container.get("env") or ():
            value = variable.get("valueFrom") or {}
            field = f"{at}.env[name={variable.get('name')}]"
            yield from _source(value.get("configMapKeyRef"), "ConfigMap", "name", field)
            yield from _source(value.get("secretKeyRef"), "Secret", "name", field)


def _source(
    source: Mapping[str, Any] | None, kind: str, key: str, field: str
) -> Iterator[tuple[str, str, str, str]]:
    """What may be missing makes no order: pods start without it."""
    if source and not source.get("optional"):
        yield "", kind, str(source.get(key) or ""), field


def _class(spec: Mapping[str, Any], field: str) -> Iterator[tuple[str, str, str, str]]:
    if name := spec.get("storageClassName"):
        yield "storage.k8s.io", "StorageClass", name, f"{field}.storageClassName"


def _certificates(contents: Contents, namespace: str, secret: str) -> Iterator[Item]:
    for item in contents.of_kind("Certificate"):
        if (item.key.group, item.key.namespace) == (CERT_MANAGER, namespace) and (
            item.spec.get("secretName") == secret
        ):
            yield item


def _signed(contents: Contents, item: Item) -> Iterator[Edge]:
    """A Certificate, after the issuer that it names; without one it waits, so they go together."""
    if (item.key.group, item.key.kind) != (CERT_MANAGER, "Certificate"):
        return
    ref = item.spec.get("issuerRef") or {}
    group, kind = ref.get("group") or CERT_MANAGER, ref.get("kind") or "Issuer"
    namespace = "" if kind == "ClusterIssuer" else item.key.namespace
    if found := contents.named(group, kind, namespace, ref.get("name", ""), item):
        yield Edge(found, item, "issuer", "spec.issuerRef", ready=True, together=True)


def injected(contents: Contents, holder: Item, then: Item) -> Iterator[Edge]:
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
            found = contents.named(CERT_MANAGER, "Certificate", namespace, name, holder)
            if found:
                yield Edge(found, then, "ca", where, ready=True, together=True)
        for cainjector in contents.of_kind("Deployment"):
            if _is_cainjector(cainjector):
                yield Edge(cainjector, then, "ca", where, ready=True, together=True)


def _is_cainjector(item: Item) -> bool:
    """cert-manager's charts and manifests label it so, whatever its name."""
    labels = item.labels
    return "cainjector" in (labels.get("app.kubernetes.io/component"), labels.get("app"))
