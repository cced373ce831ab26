"""cert-manager's controllers as the stand-in for operators plays them."""

from __future__ import annotations

import base64
from typing import Any, Final

from tests.support.hookserver import Authority
from tests.support.kubeapi import MERGE, Api, Body, Seen, now

_API: Final = "/apis/cert-manager.io/v1"
WATCHED: Final = {
    "issuers": f"{_API}/issuers",
    "clusterissuers": f"{_API}/clusterissuers",
    "certificates": f"{_API}/certificates",
}
_CERTIFICATE: Final = "cert-manager.io/certificate-name"
_DIRECT: Final = "cert-manager.io/allow-direct-injection"
_FROM: Final = {
    "cert-manager.io/inject-ca-from": "certificate",
    "cert-manager.io/inject-ca-from-secret": "secret",
}


def source(item: Body) -> tuple[str, str, str] | None:
    """What cainjector takes an object's CA from: ``certificate`` or ``secret``, namespace, name.

    Upstream's JobSet has a kustomize variable there that nobody ever filled in; cainjector makes
    nothing of it, and JobSet writes its CA by itself.
    """
    for annotation, kind in _FROM.items():
        value = (item["metadata"].get("annotations") or {}).get(annotation, "")
        namespace, _, name = value.partition("/")
        if name and "$(" not in value:
            return kind, namespace, name
    return None


class CertManager:
    """Issuers, Certificates and the CA that each Secret holds."""

    def __init__(self, api: Api, seen: Seen, authority: Authority) -> None:
        self._api = api
        self._seen = seen
        self._authority = authority

    def reconcile(self) -> None:
        """What the controller does: issuers become ready, and then certificates of theirs."""
        for kind in ("issuers", "clusterissuers"):
            for (namespace, name), item in self._seen.of(kind).items():
                if not _is_ready(item):
                    self._mark(kind, namespace, name, item, "IsReady")
        for (namespace, name), item in self._seen.of("certificates").items():
            if item["metadata"].get("deletionTimestamp") or not self._has_issuer(item):
                continue
            spec = item["spec"]
            secret = spec["secretName"]
            if (namespace, secret) not in self._seen.of("secrets"):
                hosts = tuple(spec.get("dnsNames") or [spec.get("commonName", name)])
                self.make_secret(namespace, secret, {_CERTIFICATE: name}, hosts)
            if not _is_ready(item):
                self._mark("certificates", namespace, name, item, "Ready")

    def make_secret(
        self, namespace: str, name: str, annotations: dict[str, str], hosts: tuple[str, ...]
    ) -> None:
        certificate, key = self._authority.issue(f"secret-{namespace}-{name}", hosts)
        files = {
            "ca.crt": self._authority.certificate,
            "tls.crt": certificate,
            "tls.key": key,
        }
        content = {key: base64.b64encode(file.read_bytes()).decode() for key, file in files.items()}
        self._api.make(
            f"/api/v1/namespaces/{namespace}/secrets",
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/tls",
                "metadata": {"name": name, "annotations": annotations},
                "data": content,
            },
        )

    def authority_of(self, kind: str, namespace: str, name: str) -> str:
        """``ca.crt`` (base64) that cainjector finds; empty while there is none it may take."""
        needed = (_DIRECT, "true")
        secret = name
        if kind == "certificate":
            certificate = self._seen.of("certificates").get((namespace, name))
            if certificate is None:
                return ""
            needed = (_CERTIFICATE, name)
            secret = certificate["spec"]["secretName"]
        shown = self._seen.of("secrets").get((namespace, secret))
        annotations: dict[str, str] = (shown or {}).get("metadata", {}).get("annotations") or {}
        if annotations.get(needed[0]) != needed[1]:
            return ""
        found = self._api.find(f"/api/v1/namespaces/{namespace}/secrets/{secret}")
        return str((found or {}).get("data", {}).get("ca.crt", ""))

    def _has_issuer(self, certificate: Body) -> bool:
        ref = certificate["spec"]["issuerRef"]
        where = certificate["metadata"]["namespace"]
        kind = "clusterissuers" if ref.get("kind") == "ClusterIssuer" else "issuers"
        found = self._seen.of(kind).get(("" if kind == "clusterissuers" else where, ref["name"]))
        return found is not None and _is_ready(found)

    def _mark(self, kind: str, namespace: str, name: str, item: Body, reason: str) -> None:
        condition: dict[str, Any] = {
            "type": "Ready",
            "status": "True",
            "reason": reason,
            "lastTransitionTime": now(),
            "observedGeneration": item["metadata"]["generation"],
        }
        place = f"/namespaces/{namespace}" if namespace else ""
        path = f"{_API}{place}/{kind}/{name}/status?fieldManager=cert-manager"
        self._api.call("PATCH", path, {"status": {"conditions": [condition]}}, MERGE)


def _is_ready(item: Body) -> bool:
    generation = item["metadata"]["generation"]
    return any(
        each["type"] == "Ready"
        and each["status"] == "True"
        and each.get("observedGeneration") == generation
        for each in item.get("status", {}).get("conditions") or ()
    )
