"""The check before applying: a real API server, and a real registry."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.apply.preflight import images as preflight_images
from kfdeploy.apply.preflight.finding import PreflightFinding
from kfdeploy.apply.preflight.preflight import PreflightOptions, PreflightReport, run_preflight
from kfdeploy.codec import to_json
from kfdeploy.images import lockfile
from kfdeploy.kubernetes.cluster import client as tool
from kfdeploy.oci.registry.access import AccessResolver
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.settings import MirrorSettings, PrivateRegistry
from kfdeploy.releaseset.folder import SetFolder, open_set
from tests.conftest import Site
from tests.support.cluster import Cluster, serve_cluster
from tests.support.nodes import serve_nodes
from tests.support.sets import make_workspace, write_set

HELM = "preflight-helm"
Body = dict[str, Any]


def made(api: str, kind: str, name: str, namespace: str = "", **more: Any) -> Body:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    meta |= more.pop("metadata", {})
    return {"apiVersion": api, "kind": kind, "metadata": meta, **more}


def deployment(name: str, namespace: str, **spec: Any) -> Body:
    labels = {"app": name}
    containers = [{"name": "main", "image": "registry.test:5000/web:1"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers, **spec}}
    body = {"selector": {"matchLabels": labels}, "template": template}
    return made("apps/v1", "Deployment", name, namespace, spec=body)


@pytest.fixture(scope="module")
def asked(cluster: Cluster) -> Iterator[tool.Cluster]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KUBECONFIG", str(cluster.kubeconfig))
        with tool.connect("test", patience=5) as opened:
            yield opened


def a_set(folder: Path, releases: Mapping[str, Sequence[Body]]) -> SetFolder:
    return open_set(write_set(make_workspace(folder / "site", namespace=HELM), releases))


def check(asked: tool.Cluster, release_set: SetFolder, **more: Any) -> PreflightReport:
    options: dict[str, Any] = {"take_over": False, "pull_secrets": [], **more}
    return run_preflight(
        asked, release_set, PreflightOptions(namespace=HELM, registry_client=None, **options)
    )


def of(found: PreflightReport, check: str) -> list[PreflightFinding]:
    return [finding for finding in found.findings if finding.check == check]


def says(found: PreflightReport, check: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(one.severity, one.what, one.where) for one in of(found, check)]


def test_all_that_is_wrong_comes_in_one_report(
    cluster: Cluster, asked: tool.Cluster, tmp_path: Path
) -> None:
    there = cluster.namespace("preflight-there")
    cluster.create(made("v1", "Secret", "odd", there, type="Opaque"))
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "preflight-lost"}
    release_set = a_set(
        tmp_path,
        {
            "main": [
                made("v1", "Namespace", "preflight-new"),
                deployment("web", there, imagePullSecrets=[{"name": "odd"}]),
                deployment("web", "preflight-new"),
                deployment("web", "preflight-nowhere"),
                made("v1", "PersistentVolumeClaim", "data", there, spec=claim),
                made("monitoring.test/v1", "Probe", "web", there),
            ]
        },
    )
    found = check(asked, release_set, pull_secrets=["reg"])
    assert says(found, "api") == [
        (
            "error",
            "monitoring.test/v1 Probe is not served, and the set does not bring it",
            ("main: Probe preflight-there/web",),
        )
    ]
    assert says(found, "conflict") == [
        (
            "error",
            "namespaces do not exist, and the set does not bring them",
            ("preflight-nowhere",),
        ),
        ("ok", "no object of the set exists yet", ()),
    ]
    assert says(found, "storage") == [
        (
            "error",
            "the storage class preflight-lost does not exist",
            ("PersistentVolumeClaim preflight-there/data",),
        )
    ]
    secrets = [(severity, where) for severity, _, where in says(found, "pull-secret")]
    assert secrets == [
        ("warning", ("preflight-new", "preflight-nowhere")),
        ("error", ("preflight-there",)),
        ("error", ("preflight-there",)),
    ]
    assert says(found, "image") == [
        ("warning", "the set's images were not looked for in the private registry", ())
    ]
    assert says(found, "rights") == [("ok", "admin has the rights that applying takes", ())]
    assert found.errors
    assert found.to_json()["ready"] is False
    assert json.loads(json.dumps(to_json(found)))["findings"][0]["check"] == "version"
    lines = list(found.format_lines())
    assert lines[0].startswith("error: ")
    assert lines[-1].startswith(f"preflight: {len(found.errors)} errors, ")


def test_conflicts_are_told_by_who_has_the_objects(
    cluster: Cluster, asked: tool.Cluster, tmp_path: Path
) -> None:
    namespace = cluster.namespace("preflight-owners")

    def helm(name: str, where: str) -> Body:
        notes = {"meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": where}
        return {"annotations": notes}

    maps = {
        "ours": helm("main", HELM),
        "moved": helm("second", HELM),
        "older": helm("older", HELM),
        "theirs": helm("main", "other"),
        "argo": {"labels": {"argocd.argoproj.io/instance": "kf"}},
        "hand": {},
        "going": {"finalizers": ["kfdeploy.test/hold"]},
    }
    data = {"a": "1"}
    cluster.create(
        *(made("v1", "ConfigMap", n, namespace, metadata=m, data=data) for n, m in maps.items())
    )
    cluster.kubectl("delete", "configmap", "going", "-n", namespace, "--wait=false")
    plain = [made("v1", "ConfigMap", name, namespace) for name in (*maps, "new")]
    release_set = a_set(tmp_path, {"main": plain, "second": []})
    there = "ConfigMap preflight-owners/"
    assert says(check(asked, release_set), "conflict") == [
        (
            "warning",
            (
                "an object of the set is of the release older, which the set does not have: they"
                " move to releases of the set"
            ),
            (f"{there}older",),
        ),
        (
            "error",
            (
                "an object of the set is managed by the Argo CD application kf, which would"
                " undo what apply changes"
            ),
            (f"{there}argo",),
        ),
        ("error", "an object of the set is being deleted", (f"{there}going",)),
        (
            "error",
            "an object of the set is of another Helm release, main in other",
            (f"{there}theirs",),
        ),
        (
            "error",
            "an object of the set is there already, made without Helm",
            (f"{there}hand (by kubectl-create)",),
        ),
        ("ok", "2 of the set's objects exist, as its own", ()),
    ]
    taken = check(asked, release_set, take_over=True)
    assert any(
        one.what.endswith("made without Helm: taken over") for one in taken.with_severity("ok")
    )
    patch = '{"metadata":{"finalizers":null}}'
    cluster.kubectl("patch", "configmap", "going", "-n", namespace, "--type=merge", "-p", patch)


def test_a_dead_webhook_of_somebody_is_named(
    cluster: Cluster, asked: tool.Cluster, tmp_path: Path
) -> None:
    namespace = cluster.namespace("preflight-guard")
    service = {"namespace": namespace, "name": "guard", "path": "/"}
    rule = {
        "operations": ["CREATE"],
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "resources": ["configmaps"],
    }
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "preflight-guarded"}}
    entry = {
        "name": "all.guard.test",
        "clientConfig": {"service": service},
        "rules": [rule],
        "namespaceSelector": selector,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    }
    api = "admissionregistration.k8s.io/v1"
    hook = made(api, "ValidatingWebhookConfiguration", "preflight-guard", webhooks=[entry])
    cluster.create(hook)
    try:
        release_set = a_set(
            tmp_path,
            {
                "main": [
                    made("v1", "Namespace", "preflight-guarded"),
                    made("v1", "ConfigMap", "a", "preflight-guarded"),
                ]
            },
        )
        (error,) = of(check(asked, release_set), "webhook")
        assert error.severity == "error"
        assert error.what == (
            "ValidatingWebhookConfiguration preflight-guard: nothing answers for all.guard.test"
            " (Service preflight-guard/guard has no ready endpoint); it refuses 1 objects"
        )
        slice_ = made(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "guard",
            namespace,
            metadata={"labels": {"kubernetes.io/service-name": "guard"}},
            addressType="IPv4",
            endpoints=[{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
        )
        cluster.create(slice_)
        assert says(check(asked, release_set), "webhook") == [
            ("ok", "1 webhooks of others get the set's objects, and answer", ())
        ]
    finally:
        cluster.kubectl("delete", "validatingwebhookconfiguration", "preflight-guard")


def test_who_may_not_look_is_told_so_and_the_rest_is_checked(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.namespace("preflight-nobody")
    token = cluster.kubectl("create", "token", "default", "-n", "preflight-nobody").stdout.strip()
    config = json.loads(cluster.kubeconfig.read_text())
    config["users"] = [{**config["users"][0], "user": {"token": token}}]
    (tmp_path / "config").write_text(json.dumps(config))
    (tmp_path / "config").chmod(0o600)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    release_set = a_set(tmp_path, {"main": [deployment("web", "preflight-nobody")]})
    with tool.connect("test", patience=5) as nobody:
        found = check(nobody, release_set)
    assert [one.check for one in found.errors] == ["rights"]
    warned = {one.check for one in found.with_severity("warning")}
    assert warned == {"rights", "conflict", "node", "image", "storage", "webhook"}
    (nodes,) = of(found, "node")
    assert nodes.what.startswith("nodes could not be checked: GET /api/v1/nodes: the API server")


def test_a_cluster_that_has_all_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    release_set = a_set(
        tmp_path,
        {
            "main": [
                made("v1", "Namespace", "web"),
                deployment("web", "web"),
                made("v1", "PersistentVolumeClaim", "data", "web", spec=claim),
            ]
        },
    )
    with serve_cluster(tmp_path / "cluster") as own, serve_nodes(own, tmp_path / "nodes"):
        monkeypatch.setenv("KUBECONFIG", str(own.kubeconfig))
        until = time.monotonic() + 30
        with tool.connect("test", patience=5) as opened:
            while (found := check(opened, release_set)).errors and time.monotonic() < until:
                time.sleep(0.2)
    assert [one.what for one in found.errors] == []
    assert [one.check for one in found.with_severity("warning")] == ["image"]


# -- images ---------------------------------------------------------------------------------------


@pytest.fixture
def client(small_site: Site, tmp_path: Path) -> Iterator[RegistryClient]:
    private = PrivateRegistry(host=small_site.private)
    reaches = AccessResolver(MirrorSettings(private), tmp_path)
    with RegistryClient(reaches) as opened:
        yield opened


def test_images_are_looked_for_by_digest_and_by_what_nodes_pull(
    small_site: Site, client: RegistryClient
) -> None:
    summary = open_set(small_site.set).summary
    lock = lockfile.read_lock(small_site.set / "images.lock")
    count = len(summary.images) - len(summary.not_mirrored)
    (good,) = preflight_images.check_images(summary, lock, client, ["linux/amd64"])
    assert good.what == f"{count} images are in the private registry for linux/amd64"
    # The same without the lock: the registry itself says what platforms there are.
    (again,) = preflight_images.check_images(summary, lockfile.Lock(()), client, ["linux/amd64"])
    assert again == good
    found = list(preflight_images.check_images(summary, lock, client, ["linux/s390x"]))
    assert [one.severity for one in found] == ["error"]
    assert found[0].what.endswith("not for any platform of the nodes")
    mixed = list(
        preflight_images.check_images(summary, lock, client, ["linux/amd64", "linux/s390x"])
    )
    assert [one.severity for one in mixed] == ["warning", "ok"]


def test_images_that_are_missing_are_named(small_site: Site, client: RegistryClient) -> None:
    summary = open_set(small_site.set).summary
    ref, image = next(iter(sorted(summary.images.items())))
    lost = replace(image.mirror, digest=f"sha256:{'0' * 64}")
    changed = replace(summary, images={ref: replace(image, mirror=lost)})
    (missing,) = preflight_images.check_images(changed, lockfile.Lock(()), client, ["linux/amd64"])
    assert missing.severity == "error"
    assert missing.what == "an image is not in the private registry"
    assert missing.where[0].endswith("@sha256:" + "0" * 64)
    assert missing.hint == "run `kfdeploy mirror`"


def test_a_registry_that_does_not_answer_is_one_error(small_site: Site, tmp_path: Path) -> None:
    summary = open_set(small_site.set).summary
    images = {
        ref: replace(image, mirror=replace(image.mirror, host="127.0.0.1:1"))
        for ref, image in summary.images.items()
    }
    private = PrivateRegistry(host="127.0.0.1:1")
    reaches = AccessResolver(MirrorSettings(private), tmp_path)
    from kfdeploy.oci.registry.transport import RetryPolicy

    with RegistryClient(reaches, retry_policy=RetryPolicy(0.0, 0.0, 1)) as opened:
        found = list(
            preflight_images.check_images(
                replace(summary, images=images), lockfile.Lock(()), opened, []
            )
        )
    assert [one.severity for one in found] == ["error"]
    assert "127.0.0.1:1" in found[0].what
