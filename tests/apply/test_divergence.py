"""Drift of a set's releases, on a real API server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.apply import divergence
from kfdeploy.apply.divergence import ObjectDivergence
from kfdeploy.codec import to_json
from kfdeploy.kubernetes.cluster import client as api
from kfdeploy.kubernetes.cluster.errors import ApiError
from kfdeploy.releaseset import folder as setfolder
from kfdeploy.releaseset.folder import SetRelease
from tests.support.cluster import Cluster
from tests.support.sets import make_workspace, write_set

Body = dict[str, Any]
RECORDS = "divergence-records"
LABELS = {"app": "web"}


def body(api_version: str, kind: str, name: str, namespace: str = "", **more: Any) -> Body:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **more}


def objects(space: str) -> list[Body]:
    """One of each kind that an API server defaults, normalises or fills in."""
    container = {
        "name": "main",
        "image": "r.test/a:1",
        "ports": [{"containerPort": 80}],
        "env": [{"name": "A", "value": "1"}, {"name": "EMPTY", "value": ""}],
        "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
        "readinessProbe": {"httpGet": {"port": 80, "path": "/"}},
    }
    spec = {"containers": [container], "hostNetwork": False, "volumes": [], "nodeSelector": {}}
    template = {"metadata": {"labels": LABELS, "creationTimestamp": None}, "spec": spec}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}
    webhook = {
        "name": f"a.{space}.test",
        "clientConfig": {"url": "https://localhost:1/", "caBundle": "Cg=="},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "rules": [
            {
                "apiGroups": [f"{space}.none"],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["none"],
            }
        ],
    }
    return [
        body(
            "apps/v1",
            "Deployment",
            "web",
            space,
            spec={"replicas": 1, "selector": {"matchLabels": LABELS}, "template": template},
        ),
        body("v1", "Service", "web", space, spec={"selector": LABELS, "ports": [{"port": 80}]}),
        body("v1", "ConfigMap", "config", space, data={"a.yaml": "x: 1\ny: 2\n"}),
        body("v1", "Secret", "secret", space, stringData={"password": "one"}),
        body(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "policy",
            space,
            spec={"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]},
        ),
        body(
            "rbac.authorization.k8s.io/v1",
            "Role",
            "role",
            space,
            rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
        ),
        body(
            "v1",
            "PersistentVolumeClaim",
            "claim",
            space,
            spec={
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1024Mi"}},
            },
        ),
        body(
            "admissionregistration.k8s.io/v1",
            "ValidatingWebhookConfiguration",
            space,
            webhooks=[webhook],
        ),
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"things.{space}.test"},
            "spec": {
                "group": f"{space}.test",
                "names": {"kind": "Thing", "plural": "things"},
                "scope": "Namespaced",
                "preserveUnknownFields": False,
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
            },
        },
    ]


@contextmanager
def installed(
    cluster: Cluster, folder: Path, space: str
) -> Iterator[tuple[api.Cluster, tuple[SetRelease, ...]]]:
    """A set of one release, applied as Helm and the hooks do it."""
    cluster.namespace(space)
    workspace = make_workspace(folder / "site", namespace=RECORDS)
    releases = setfolder.open_set(write_set(workspace, {"one": objects(space)})).releases
    notes = {
        "meta.helm.sh/release-name": "one",
        "meta.helm.sh/release-namespace": RECORDS,
    }
    with api.connect(None) as live:
        for item in releases[0].crds:
            live.apply(item, manager="kubectl", force=True)
        for item in releases[0].objects:
            marked = json.loads(json.dumps(item.body))
            marked["metadata"]["annotations"] = notes
            marked["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
            live.apply(marked, manager="helm", force=True)
        yield live, releases


@pytest.fixture(autouse=True)
def kubeconfig(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))


def told(found: dict[str, list[ObjectDivergence]]) -> list[str]:
    return [str(one) for divergences in found.values() for one in divergences]


def test_what_was_just_applied_does_not_diverge(cluster: Cluster, tmp_path: Path) -> None:
    with installed(cluster, tmp_path, "divergence-none") as (live, releases):
        assert divergence.find_divergences(live, releases, namespace=RECORDS) == {}
        # A CA that is injected, and what a person added and the set does not name.
        ca = base64.b64encode(cluster.ca.read_bytes()).decode()
        change = [{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": ca}]
        kind = "validatingwebhookconfiguration"
        cluster.kubectl("patch", kind, "divergence-none", "--type=json", "-p", json.dumps(change))
        cluster.kubectl("label", "-n", "divergence-none", "deployment/web", "more=1")
        cluster.kubectl("set", "env", "-n", "divergence-none", "deployment/web", "B=2")
        assert told(divergence.find_divergences(live, releases, namespace=RECORDS)) == []


def test_each_change_is_told_with_who_made_it(cluster: Cluster, tmp_path: Path) -> None:
    space = "da"
    with installed(cluster, tmp_path, space) as (live, releases):

        def kubectl(*words: str) -> None:
            cluster.kubectl(*words, "-n", space)

        kubectl("set", "image", "deployment/web", "main=evil.test/a:2")
        kubectl("scale", "deployment/web", "--replicas=3")
        kubectl("delete", "service", "web")
        secret = {"stringData": {"password": "two"}}
        kubectl("patch", "secret", "secret", "--type=merge", "-p", json.dumps(secret))
        config = {"data": {"a.yaml": "x: 1\ny: 3\n"}}
        kubectl("patch", "configmap", "config", "--type=merge", "-p", json.dumps(config))
        rule = [{"op": "add", "path": "/rules/0/verbs/-", "value": "delete"}]
        kubectl("patch", "role", "role", "--type=json", "-p", json.dumps(rule))
        port = [{"op": "add", "path": "/spec/ingress/0/ports/-", "value": {"port": 22}}]
        kubectl("patch", "networkpolicy", "policy", "--type=json", "-p", json.dumps(port))
        kubectl("annotate", "--overwrite", "pvc/claim", "meta.helm.sh/release-name=other")
        found = divergence.find_divergences(live, releases, namespace=RECORDS)
        opened = "spec.ingress[0].ports[port=22]"
        assert told(found) == [
            "Deployment da/web: spec.replicas is 3, 1 in the set (by kubectl/scale) and 1 more",
            "Service da/web is missing",
            "ConfigMap da/config: data[a.yaml] differs (by kubectl-patch)",
            "Secret da/secret: data.password differs (by kubectl-patch)",
            f"NetworkPolicy da/policy: {opened} is not in the set (by kubectl-patch)",
            "Role da/role: rules[0].verbs differs (by kubectl-patch)",
            "PersistentVolumeClaim da/claim belongs to the Helm release divergence-records/other",
        ]
        assert to_json(found["one"][0]) == {
            "what": "changed",
            "object": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "namespace": space,
                "name": "web",
            },
            "release": "one",
            "fields": [
                {
                    "field": "spec.replicas",
                    "live": 3,
                    "wanted": 1,
                    "managers": ["kubectl/scale"],
                },
                {
                    "field": "spec.template.spec.containers[name=main].image",
                    "live": "evil.test/a:2",
                    "wanted": "r.test/a:1",
                    "managers": ["kubectl-set"],
                },
            ],
        }
        said = json.dumps(to_json(found["one"]))
        assert not any(base64.b64encode(word).decode() in said for word in (b"one", b"two"))


def test_replicas_of_an_autoscaler_are_its_own(cluster: Cluster, tmp_path: Path) -> None:
    space = "divergence-scaled"
    with installed(cluster, tmp_path, space) as (live, releases):
        # As the controller manager writes them: through the subresource.
        scale = f"/apis/apps/v1/namespaces/{space}/deployments/web/scale"
        live.request(
            "PATCH",
            scale,
            json.dumps({"spec": {"replicas": 5}}),
            query={"fieldManager": "kube-controller-manager"},
            content_type="application/merge-patch+json",
        )
        assert divergence.find_divergences(live, releases, namespace=RECORDS) == {}


def test_who_may_not_try_is_told_what_seems_to_differ(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = "divergence-view"
    with installed(cluster, tmp_path, space) as (live, releases):
        cluster.kubectl("set", "image", "-n", space, "deployment/web", "main=evil.test/a:2")

        def refused(*_: object, **__: object) -> Body:
            said = {"reason": "Forbidden", "message": "no patch for you"}
            raise ApiError("try it", 403, said)

        monkeypatch.setattr(api.Cluster, "apply", refused)
        (found,) = divergence.find_divergences(live, releases)["one"]
        assert found.unconfirmed == "403 Forbidden: no patch for you"
        assert str(found.fields[0]).endswith("(by kubectl-set)")
