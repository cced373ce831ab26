"""The process of `tests.support.operators`.

python -m tests.support.reconciler CLUSTER_FOLDER FOLDER

All objects of interest are watched; after each change everything is compared with how it should be.
"""

from __future__ import annotations

import base64
import http.client
import queue
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.support import certmanager, profiles
from tests.support.hookserver import Address, Authority, HookServers
from tests.support.kubeapi import (
    MERGE,
    STRATEGIC,
    Api,
    ApiError,
    Body,
    Event,
    Seen,
    end_with_input,
    log,
    say_ready,
)

_REG: Final = "/apis/admissionregistration.k8s.io/v1"
_CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_WATCHED: Final = {
    "services": "/api/v1/services",
    "slices": "/apis/discovery.k8s.io/v1/endpointslices",
    "deployments": "/apis/apps/v1/deployments",
    "mutating": f"{_REG}/mutatingwebhookconfigurations",
    "validating": f"{_REG}/validatingwebhookconfigurations",
    **certmanager.WATCHED,
    **profiles.WATCHED,
}
_NAMES_WATCHED: Final = {
    "crds": _CRDS,
    "namespaces": "/api/v1/namespaces",
    "secrets": "/api/v1/secrets",
    "configmaps": "/api/v1/configmaps",
}
_SETTLE_SECONDS: Final = 0.02
_AGAIN_SECONDS: Final = 0.5
_IDLE_SECONDS: Final = 5.0
_OWN_CA: Final = "istio-ca-root-cert"


class Reconciler:
    """All stand-ins together: they share what was seen, and one CA."""

    def __init__(self, api: Api, folder: Path) -> None:
        self._api = api
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._seen = Seen()
        self._authority = Authority(folder)
        self._servers = HookServers(self._authority)
        self._crds: dict[str, tuple[int, Body | None]] = {}  # name: generation, its conversion
        self._failed = False
        ca = self._authority.certificate.read_bytes()
        self._bundle = base64.b64encode(ca).decode()
        self._certs = certmanager.CertManager(api, self._seen, self._authority)
        self._profiles = profiles.Profiles(api, self._seen)

    def run(self) -> None:
        for kind, path in _WATCHED.items():
            self._api.watch(kind, path, self._events, names=False)
        for kind, path in _NAMES_WATCHED.items():
            self._api.watch(kind, path, self._events, names=True)
        ready = False
        while True:
            self._take_events()
            if not self._seen.synced(*_WATCHED, *_NAMES_WATCHED):
                continue
            self._failed = False
            self._reconcile()
            if not ready:
                ready = True
                say_ready()

    def _take_events(self) -> None:
        """Wait for a change, and for those that come along with it."""
        try:
            wait = _AGAIN_SECONDS if self._failed else _IDLE_SECONDS
            self._seen.take(self._events.get(timeout=wait))
            while True:
                self._seen.take(self._events.get(timeout=_SETTLE_SECONDS))
        except queue.Empty:
            return

    def _reconcile(self) -> None:
        steps: list[Callable[[], None]] = [
            self._read_crds,
            self._listen,
            self._make_own_ca,
            self._inject,
            self._spread_root,
        ]
        if self._is_ready("cert-manager"):
            steps.append(self._certs.reconcile)
        if self._is_ready("profiles-deployment"):
            steps.append(self._profiles.reconcile)
        for step in steps:
            try:
                step()
            except (ApiError, OSError, http.client.HTTPException) as error:
                # A conflict comes with an event of its own; for the rest, soon again.
                self._failed = True
                log(f"{step.__qualname__}: {error}")

    def _is_ready(self, deployment: str) -> bool:
        """Whether a pod of the operator is ready, in whichever namespace it is."""
        return any(
            name == deployment and item.get("status", {}).get("readyReplicas", 0) > 0
            for (_, name), item in self._seen.of("deployments").items()
        )

    # -- webhooks ---------------------------------------------------------------------------------

    def _read_crds(self) -> None:
        """CRDs are large and change often; what matters here changes with their generation."""
        there = self._seen.of("crds")
        for name in set(self._crds) - {name for _, name in there}:
            del self._crds[name]
        for (_, name), item in there.items():
            generation = item["metadata"]["generation"]
            if self._crds.get(name, (0, None))[0] != generation:
                found = self._api.find(f"{_CRDS}/{name}")
                conversion = (found or {}).get("spec", {}).get("conversion") or {}
                hook = conversion.get("webhook", {}).get("clientConfig")
                self._crds[name] = (generation, hook)

    def _ready_services(self) -> set[tuple[str, str]]:
        return {
            (namespace, item["metadata"].get("labels", {}).get("kubernetes.io/service-name", ""))
            for (namespace, _), item in self._seen.of("slices").items()
            if any(
                endpoint.get("conditions", {}).get("ready", True)
                for endpoint in item.get("endpoints") or ()
            )
        }

    def _clients(self) -> Iterator[Mapping[str, Any]]:
        """The ``clientConfig`` of each webhook and conversion."""
        for kind in ("mutating", "validating"):
            for item in self._seen.of(kind).values():
                for webhook in item.get("webhooks") or ():
                    yield webhook["clientConfig"]
        for _, hook in self._crds.values():
            if hook:
                yield hook

    def _listen(self) -> None:
        ready = self._ready_services()
        wanted: dict[Address, str] = {}
        for client in self._clients():
            service = client.get("service")
            if not service or _named(service) not in ready:
                continue
            found = self._seen.of("services").get(_named(service))
            address = (found or {}).get("spec", {}).get("clusterIP", "None")
            if address not in ("None", ""):
                wanted[address, service.get("port", 443)] = service["namespace"]
        before = self._servers.running
        try:
            self._servers.serve(wanted)
        finally:
            if before != self._servers.running:
                log(f"listening at {sorted(self._servers.running)}")

    # -- CAs --------------------------------------------------------------------------------------

    def _make_own_ca(self) -> None:
        """cert-manager's webhook makes itself a CA, by which cainjector lets others trust it."""
        for namespace, name in self._ready_services():
            wanted = (namespace, "cert-manager-webhook-ca")
            if name == "cert-manager-webhook" and wanted not in self._seen.of("secrets"):
                self._certs.make_secret(
                    *wanted,
                    {"cert-manager.io/allow-direct-injection": "true"},
                    (f"{name}.{namespace}.svc",),
                )

    def _inject(self) -> None:
        ready = self._ready_services()
        injector = self._is_ready("cert-manager-cainjector")
        for kind in ("mutating", "validating"):
            for item in self._seen.of(kind).values():
                self._inject_webhooks(kind, item, ready, injector)
        for name, (_, hook) in self._crds.items():
            if not hook:
                continue
            item = self._seen.of("crds")["", name]
            bundle = self._bundle_for(item, [hook], ready, injector)
            if bundle and hook.get("caBundle") != bundle:
                path = f"{_CRDS}/{name}?fieldManager={_manager(item)}"
                client = {"clientConfig": {"caBundle": bundle}}
                patch = {"spec": {"conversion": {"webhook": client}}}
                self._api.call("PATCH", path, patch, MERGE)
                log(f"CA for {name}")

    def _inject_webhooks(
        self, kind: str, item: Body, ready: set[tuple[str, str]], injector: bool
    ) -> None:
        webhooks = item.get("webhooks") or []
        bundle = self._bundle_for(item, [w["clientConfig"] for w in webhooks], ready, injector)
        if not bundle:
            return
        changes = []
        for webhook in webhooks:
            change: Body = {}
            if webhook["clientConfig"].get("caBundle") != bundle:
                change["clientConfig"] = {"caBundle": bundle}
            if not webhook.get("rules"):
                change["rules"] = _CONFIG_MAPS
            if webhook["name"].endswith("validation.istio.io") and (
                webhook["failurePolicy"] == "Ignore"
            ):
                change["failurePolicy"] = "Fail"
            if change:
                changes.append({"name": webhook["name"], **change})
        if changes:
            name = item["metadata"]["name"]
            path = f"{_WATCHED[kind]}/{name}?fieldManager={_manager(item)}"
            self._api.call("PATCH", path, {"webhooks": changes}, STRATEGIC)
            log(f"CA for {kind} {name}")

    def _bundle_for(
        self,
        item: Body,
        clients: list[Mapping[str, Any]],
        ready: set[tuple[str, str]],
        injector: bool,
    ) -> str:
        """The ``caBundle`` that someone would write now; empty while nobody would."""
        if source := certmanager.source(item):
            return self._certs.authority_of(*source) if injector else ""
        services = [client["service"] for client in clients if client.get("service")]
        if services and all(_named(service) in ready for service in services):
            return self._bundle
        return ""

    def _spread_root(self) -> None:
        """Istiod puts its root into each namespace, where its proxies mount it."""
        if not self._is_ready("istiod"):
            return
        for (_, namespace), item in self._seen.of("namespaces").items():
            if item["metadata"].get("deletionTimestamp"):
                continue
            if (namespace, _OWN_CA) not in self._seen.of("configmaps"):
                self._api.make(
                    f"/api/v1/namespaces/{namespace}/configmaps",
                    {
                        "apiVersion": "v1",
                        "kind": "ConfigMap",
                        "metadata": {"name": _OWN_CA, "labels": {"istio.io/config": "true"}},
                        "data": {"root-cert.pem": self._authority.certificate.read_text()},
                    },
                )


# What Knative's webhook for its settings asks for once it runs.
_CONFIG_MAPS: Final = [
    {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["configmaps/*"],
        "scope": "Namespaced",
    }
]


def _named(service: Mapping[str, Any]) -> tuple[str, str]:
    return service["namespace"], service["name"]


def _manager(item: Body) -> str:
    return "cainjector" if certmanager.source(item) else "webhook"


def main(cluster: Path, folder: Path) -> None:
    end_with_input()
    Reconciler(Api(cluster), folder).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
