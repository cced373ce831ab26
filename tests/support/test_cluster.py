"""The tests' cluster: what of Kubernetes is real in it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, NoCluster, serve_cluster


def deployment(name: str, namespace: str) -> dict[str, object]:
    labels = {"app": name}
    container = {"name": "main", "image": "registry.example/app:1"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def test_a_deployment_gets_its_pods_and_the_scheduler_looks_at_them(cluster: Cluster) -> None:
    namespace = cluster.namespace("smoke", {"purpose": "test"})
    stored = cluster.create(deployment("web", namespace))
    assert [item["metadata"]["name"] for item in stored] == ["web"]
    until = time.monotonic() + 30
    pods: list[dict[str, dict[str, object]]] = []
    while time.monotonic() < until:
        pods = cluster.get("pods", "-n", namespace, "-l", "app=web")["items"]
        if len(pods) == 2 and all("conditions" in pod["status"] for pod in pods):
            break
        time.sleep(0.1)
    assert len(pods) == 2
    # There is no node, and the scheduler has said so.
    assert [pod["status"]["conditions"][0]["reason"] for pod in pods] == ["Unschedulable"] * 2  # type: ignore[index]


def test_what_is_wrong_is_refused_with_the_api_servers_words(cluster: Cluster) -> None:
    done = cluster.kubectl("create", "-f", "-", stdin="apiVersion: v9\nkind: Pod\n", check=False)
    assert done.returncode == 1
    assert 'no matches for kind "Pod" in version "v9"' in done.stderr


def test_it_calls_itself_by_the_version_that_was_built(cluster: Cluster) -> None:
    version = json.loads(cluster.kubectl("get", "--raw", "/version").stdout)
    assert version["gitVersion"].startswith("v1.")
    assert version["gitVersion"].split(".")[1] == version["minor"]


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    flags = ["--no-such-flag"]
    with (
        pytest.raises(NoCluster, match=r"kube-apiserver\n.*unknown flag: --no-such-flag"),
        serve_cluster(tmp_path / "cluster", apiserver=flags),
    ):
        pass
