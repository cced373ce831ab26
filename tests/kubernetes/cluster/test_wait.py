"""What is waited for on a real API server; the kubelet's part is written by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kfdeploy.kubernetes.cluster import client as tool
from kfdeploy.kubernetes.cluster.wait import WaitProgress, wait_until_ready
from kfdeploy.kubernetes.objects import ObjectKey
from tests.support.cluster import Cluster

Body = dict[str, Any]


@pytest.fixture(scope="module")
def asked(cluster: Cluster) -> Iterator[tool.Cluster]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KUBECONFIG", str(cluster.kubeconfig))
        with tool.connect(None, patience=5) as opened:
            yield opened


def deployment(namespace: str, name: str = "web", **spec: Any) -> Body:
    labels = {"app": name}
    container = {"name": "main", "image": "registry.test/web:1"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], **spec},
            },
        },
    }


def until(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


def pods(cluster: Cluster, namespace: str, count: int = 1) -> list[Body]:
    def look() -> list[Body]:
        found: list[Body] = cluster.get("pods", "-n", namespace)["items"]
        found.sort(key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        looked_at = all("conditions" in pod["status"] for pod in found)
        return found if len(found) == count and looked_at else []

    result: list[Body] = until(look)
    return result


def say(cluster: Cluster, pod: Body, status: Body) -> None:
    """Write a pod's status, as its kubelet would."""
    meta = pod["metadata"]
    cluster.kubectl(
        *("patch", "pod", meta["name"], "-n", meta["namespace"], "--subresource=status"),
        *("--type=merge", "-p", json.dumps({"status": status})),
    )


def waits(reason: str, message: str) -> Body:
    return {
        "conditions": [{"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [
            {
                "name": "main",
                "image": "registry.test/web:1",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": message}},
            }
        ],
    }


def key(namespace: str, name: str = "web", kind: str = "Deployment") -> ObjectKey:
    return ObjectKey("apps/v1", kind, namespace, name)


def test_a_deployment_is_waited_for_and_its_newest_pods_say_what_is_wrong(
    cluster: Cluster, asked: tool.Cluster
) -> None:
    namespace = cluster.namespace("waiting-pods")
    cluster.create(deployment(namespace))
    first = pods(cluster, namespace)[0]
    web = key(namespace)
    head = f"Deployment waiting-pods/web: 0/1 ready: pod {first['metadata']['name']}:"
    (found,) = wait_until_ready(asked, [web], seconds=0)
    assert str(found) == f"{head} unschedulable: no nodes available to schedule pods"
    say(cluster, first, waits("ErrImagePull", "registry.test/web:1: not found"))
    (found,) = wait_until_ready(asked, [web, web], seconds=0)
    assert str(found) == f"{head} ErrImagePull: registry.test/web:1: not found"
    # A new form of it: what is wrong with the pods of the old one is past.
    cluster.kubectl("set", "image", "deployment/web", "main=registry.test/web:2", "-n", namespace)

    def judged() -> list[Body]:
        """The new pod, once the scheduler has had its say, which would replace the test's."""
        return [
            pod
            for pod in pods(cluster, namespace, 2)
            if pod["metadata"]["name"] != first["metadata"]["name"]
            and pod["status"].get("conditions")
        ]

    (second,) = until(judged)
    say(cluster, second, waits("CreateContainerConfigError", 'secret "db" not found'))
    until(lambda: "0/1 ready" in str(wait_until_ready(asked, [web], seconds=0)))
    (found,) = wait_until_ready(asked, [web], seconds=0)
    assert found.why == (
        f"pod {second['metadata']['name']}: CreateContainerConfigError: container main:"
        ' secret "db" not found'
    )
    assert not found.is_final


def test_a_wait_ends_when_all_is_ready_and_tells_how_far_it_is(
    cluster: Cluster, asked: tool.Cluster
) -> None:
    namespace = cluster.namespace("waiting-ends")
    cluster.create(deployment(namespace), deployment(namespace, "other"))
    both = pods(cluster, namespace, 2)
    told: list[WaitProgress] = []

    def hear(waiting: WaitProgress) -> None:
        told.append(waiting)
        if len(told) == 1:
            for pod in both:
                ready = [{"type": "Ready", "status": "True"}]
                say(cluster, pod, {"phase": "Running", "conditions": ready})

    keys = [key(namespace), key(namespace, "other"), ObjectKey("v1", "Namespace", "", namespace)]
    assert wait_until_ready(asked, keys, seconds=60, on_progress=hear, pause=0.1) == ()
    assert (told[0].ready, told[0].total) == (1, 3)
    assert [str(item) for item in told[0].pending] == [
        "Deployment waiting-ends/web: 0/1 ready",
        "Deployment waiting-ends/other: 0/1 ready",
    ]
    assert (told[-1].ready, told[-1].pending) == (3, ())


def test_what_no_pod_could_be_made_of_says_who_refused_it(
    cluster: Cluster, asked: tool.Cluster
) -> None:
    namespace = cluster.namespace("waiting-refused")
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": namespace},
        "spec": {"hard": {"pods": "0"}},
    }
    stateful = {**deployment(namespace, "db"), "kind": "StatefulSet"}
    stateful["spec"] = {**stateful["spec"], "serviceName": "db"}
    cluster.create(quota)
    until(lambda: cluster.get("resourcequota", "none", "-n", namespace)["status"].get("hard"))
    cluster.create(deployment(namespace, serviceAccountName="lost"), stateful)
    keys = [key(namespace), key(namespace, "db", "StatefulSet")]

    def looked() -> Any:
        found = wait_until_ready(asked, keys, seconds=0)
        return found if all(item.why for item in found) else ()

    web, db = until(looked)
    assert web.why.startswith("FailedCreate: pods ")
    assert 'serviceaccount "lost" not found' in web.why
    assert db.why.startswith("FailedCreate: Create Pod db-0 in StatefulSet db failed")
    assert "exceeded quota: none" in db.why


def test_a_claim_says_what_it_lacks_unless_it_waits_for_its_pod(
    cluster: Cluster, asked: tool.Cluster
) -> None:
    namespace = cluster.namespace("waiting-claims")

    def claim(name: str, storage: str) -> Body:
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": storage,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }

    late = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "waiting-late"},
        "provisioner": "example.test/none",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "lost"}}
    cluster.create(late, claim("lost", "waiting-lost"), claim("late", "waiting-late"))
    cluster.create(deployment(namespace, volumes=[volume]))
    pod = pods(cluster, namespace)[0]
    keys = [
        *(ObjectKey("v1", "PersistentVolumeClaim", namespace, name) for name in ("lost", "late")),
        key(namespace),
    ]

    def looked() -> Any:
        found = wait_until_ready(asked, keys, seconds=0)
        return found if "ProvisioningFailed" in found[0].why else ()

    lost, web = until(looked)
    cause = 'ProvisioningFailed: storageclass.storage.k8s.io "waiting-lost" not found'
    assert str(lost) == f"PersistentVolumeClaim waiting-claims/lost: pending: {cause}"
    assert web.why.startswith(f"pod {pod['metadata']['name']}: unschedulable: ")
    assert web.why.endswith(f"; claim lost: {cause}")


def test_what_is_not_there_and_what_will_not_be(cluster: Cluster, asked: tool.Cluster) -> None:
    namespace = cluster.namespace("waiting-not")
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once", "namespace": namespace},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "main", "image": "registry.test/web:1"}],
                }
            },
        },
    }
    cluster.create(job)
    ended = {"exitCode": 3, "reason": "Error", "message": "no database"}
    say(
        cluster,
        pods(cluster, namespace)[0],
        {
            **waits("", ""),
            "phase": "Failed",
            "containerStatuses": [
                {**waits("", "")["containerStatuses"][0], "state": {"terminated": ended}}
            ],
        },
    )
    once = ObjectKey("batch/v1", "Job", namespace, "once")
    # It ends long before its time is over: nothing would change.
    (failed,) = wait_until_ready(asked, [once], seconds=60, pause=0.1)
    assert failed.is_final
    assert failed.state.startswith("BackoffLimitExceeded")
    assert failed.why.endswith("container main exited 3: no database")
    (lost,) = wait_until_ready(asked, [key(namespace, "lost")], seconds=0)
    assert str(lost) == "Deployment waiting-not/lost: does not exist"
    assert lost.to_json()["state"] == "does not exist"
