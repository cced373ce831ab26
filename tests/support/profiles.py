"""The profile controller as the stand-in for operators plays it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.support.kubeapi import MERGE, Api, Body, Seen

_API: Final = "/apis/kubeflow.org/v1/profiles"
_RBAC: Final = "rbac.authorization.k8s.io"
WATCHED: Final = {"profiles": _API}
_FINALIZER: Final = "profile-finalizer"
_LABELS: Final = {
    "app.kubernetes.io/part-of": "kubeflow-profile",
    "istio-injection": "enabled",
    "katib.kubeflow.org/metrics-collector-injection": "enabled",
    "pipelines.kubeflow.org/enabled": "true",
    "serving.kubeflow.org/inferenceservice": "enabled",
}
_ROLES: Final = {"default-editor": "kubeflow-edit", "default-viewer": "kubeflow-view"}


class Profiles:
    """A Profile's namespace, and what its users can do there."""

    def __init__(self, api: Api, seen: Seen) -> None:
        self._api = api
        self._seen = seen
        self._made: dict[str, int] = {}  # uid: generation

    def reconcile(self) -> None:
        for (_, name), profile in self._seen.of("profiles").items():
            metadata = profile["metadata"]
            finalizers = metadata.get("finalizers") or []
            path = f"{_API}/{name}"
            if metadata.get("deletionTimestamp"):
                # The namespace goes with its owner, by the garbage collector.
                if _FINALIZER in finalizers:
                    left = [each for each in finalizers if each != _FINALIZER]
                    self._api.call("PATCH", path, {"metadata": {"finalizers": left}}, MERGE)
                continue
            if self._made.get(metadata["uid"]) == metadata["generation"]:
                continue
            for where, item in _objects(profile):
                self._api.make(where, item)
            if _FINALIZER not in finalizers:
                fresh = {"metadata": {"finalizers": [*finalizers, _FINALIZER]}}
                self._api.call("PATCH", path, fresh, MERGE)
            done = {"status": {"conditions": [{"type": "Successful"}]}}
            self._api.call("PATCH", f"{path}/status", done, MERGE)
            self._made[metadata["uid"]] = metadata["generation"]


def _objects(profile: Body) -> Iterator[tuple[str, Body]]:
    """Where to create, and what, in order."""
    name: str = profile["metadata"]["name"]
    owner = profile["spec"]["owner"]
    reference = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "Profile",
        "name": name,
        "uid": profile["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }

    def owned(name: str, **extra: object) -> Body:
        return {"name": name, "ownerReferences": [reference], **extra}

    def binding(name: str, role: str, subject: Body, **extra: object) -> Body:
        return {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": owned(name, **extra),
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [subject],
        }

    annotations = {"owner": owner["name"]}
    yield (
        "/api/v1/namespaces",
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": owned(name, labels=_LABELS, annotations=annotations),
        },
    )
    bindings = f"/apis/{_RBAC}/v1/namespaces/{name}/rolebindings"
    for account, role in _ROLES.items():
        metadata = owned(account)
        item = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
        yield f"/api/v1/namespaces/{name}/serviceaccounts", item
        subject = {"kind": "ServiceAccount", "name": account, "namespace": name}
        yield bindings, binding(account, role, subject)
    admin = {"user": owner["name"], "role": "admin"}
    subject = {"apiGroup": _RBAC, "kind": owner["kind"], "name": owner["name"]}
    yield bindings, binding("namespaceAdmin", "kubeflow-admin", subject, annotations=admin)
    if quota := (profile["spec"].get("resourceQuotaSpec") or {}):
        item = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": owned("kf-resource-quota"),
            "spec": quota,
        }
        yield f"/api/v1/namespaces/{name}/resourcequotas", item
