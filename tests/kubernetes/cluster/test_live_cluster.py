"""The stand-ins for nodes and operators: what they do as the real ones would, and only then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.apifaults import faulty_api
from tests.support.faults import Faults
from tests.support.live import LiveCluster
from tests.support.nodes import Fault

WAIT = "--timeout=60s"


def deployment(name: str, namespace: str, image: str = "app:1", **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    template = {"containers": [{"name": "main", "image": image}], **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template},
        },
    }


def wait(live: LiveCluster, namespace: str, *what: str) -> None:
    live.cluster.kubectl("wait", "-n", namespace, WAIT, *what)


T = TypeVar("T")


def until(look: Callable[[], T | None], what: str) -> T:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    pytest.fail(f"never: {what}")


def pod_of(live: LiveCluster, namespace: str, name: str) -> dict[str, Any]:
    (found,) = live.cluster.get("pods", "-n", namespace, "-l", f"app={name}")["items"]
    return dict(found)


def waits_with(live: LiveCluster, namespace: str, name: str, reason: str) -> str:
    """The message of its container, once it waits for that reason."""

    def look() -> str | None:
        for status in pod_of(live, namespace, name)["status"].get("containerStatuses", ()):
            waiting: dict[str, str] = status["state"].get("waiting", {})
            if waiting.get("reason") == reason:
                return waiting.get("message", "-")
        return None

    return until(look, f"{name} waits with {reason}")


def events_of(live: LiveCluster, namespace: str, name: str) -> set[tuple[str, str]]:
    pod = pod_of(live, namespace, name)["metadata"]["name"]
    found = live.cluster.get(
        "events", "-n", namespace, f"--field-selector=type=Warning,involvedObject.name={pod}"
    )
    return {(event["reason"], event["message"]) for event in found["items"]}


def test_pods_run_claims_are_bound_and_jobs_succeed(live: LiveCluster) -> None:
    namespace = live.cluster.namespace("nodes-run")
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    first = [{"name": "first", "image": "init:1"}]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once", "namespace": namespace},
        "spec": {
            "template": {
                "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}
            }
        },
    }
    web = deployment("web", namespace, volumes=[volume], initContainers=first)
    live.cluster.create(claim, web, job)
    wait(live, namespace, "--for=condition=Available", "deployment/web")
    wait(live, namespace, "--for=condition=Complete", "job/once")
    wait(live, namespace, "--for=jsonpath={.status.phase}=Bound", "pvc/data")
    status = pod_of(live, namespace, "web")["status"]
    assert status["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    assert status["podIP"]


def test_an_image_that_cannot_be_pulled_says_so_until_it_can(live: LiveCluster) -> None:
    namespace = live.cluster.namespace("nodes-pull")
    live.nodes.faults(Fault("pull", image="^registry.test/broken:"))
    live.cluster.create(deployment("web", namespace, "registry.test/broken:1"))
    waits_with(live, namespace, "web", "ImagePullBackOff")
    image = "registry.test/broken:1"
    said = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}"'
    pull = f'Failed to pull image "{image}": rpc error: code = NotFound desc = {said}'
    assert ("Failed", f"{pull}: {image}: not found") in events_of(live, namespace, "web")
    live.nodes.faults()
    wait(live, namespace, "--for=condition=Available", "deployment/web")


def test_a_container_crashes_and_a_probe_fails(live: LiveCluster) -> None:
    namespace = live.cluster.namespace("nodes-crash")
    live.cluster.create(deployment("web", namespace), deployment("slow", namespace))
    wait(live, namespace, "--for=condition=Available", "deployment/web", "deployment/slow")
    live.nodes.faults(
        Fault("crash", pod=f"{namespace}/web-"), Fault("unready", pod=f"{namespace}/slow-")
    )
    waits_with(live, namespace, "web", "CrashLoopBackOff")
    wait(live, namespace, "--for=condition=Available=False", "deployment/slow")
    until(
        lambda: [e for e in events_of(live, namespace, "slow") if e[0] == "Unhealthy"],
        "an event of the probe",
    )
    live.nodes.faults()


def test_a_pod_waits_for_what_it_mounts_and_reads(live: LiveCluster) -> None:
    namespace = live.cluster.namespace("nodes-mount")
    volume = {"name": "cert", "secret": {"secretName": "made-later"}}
    reads = deployment("reads", namespace)
    container = reads["spec"]["template"]["spec"]["containers"][0]
    container["envFrom"] = [{"configMapRef": {"name": "made-later"}}]
    live.cluster.create(deployment("mounts", namespace, volumes=[volume]), reads)
    waits_with(live, namespace, "mounts", "ContainerCreating")
    said = 'MountVolume.SetUp failed for volume "cert" : secret "made-later" not found'
    until(lambda: ("FailedMount", said) in events_of(live, namespace, "mounts"), said)
    message = waits_with(live, namespace, "reads", "CreateContainerConfigError")
    assert message == 'configmap "made-later" not found'
    live.cluster.kubectl("create", "secret", "generic", "made-later", "-n", namespace)
    live.cluster.kubectl("create", "configmap", "made-later", "-n", namespace)
    wait(live, namespace, "--for=condition=Available", "deployment/mounts", "deployment/reads")


def hook(name: str, namespace: str, annotations: Mapping[str, str]) -> list[dict[str, Any]]:
    """A Service, and a webhook behind it that judges ConfigMaps of its namespace."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "hook", "namespace": namespace},
        "spec": {"selector": {"app": "hook"}, "ports": [{"port": 443, "targetPort": 9443}]},
    }
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["configmaps"],
    }
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    webhook = {
        "name": "hook.example.com",
        "clientConfig": {"service": {"name": "hook", "namespace": namespace}},
        "rules": [rule],
        "namespaceSelector": here,
        "objectSelector": {"matchLabels": {"judged": "yes"}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name, "annotations": dict(annotations)},
        "webhooks": [webhook],
    }
    return [service, configuration]


def judged(live: LiveCluster, namespace: str, name: str) -> str:
    """What is said of creating a ConfigMap that the webhook judges; empty when it is created."""
    metadata = {"name": name, "namespace": namespace, "labels": {"judged": "yes"}}
    text = f'{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {metadata}}}'.replace("'", '"')
    done = live.cluster.kubectl("create", "-f", "-", stdin=text, check=False)
    return done.stderr if done.returncode else ""


def test_a_webhook_is_refused_but_while_its_pods_are_ready(live: LiveCluster) -> None:
    namespace = live.cluster.namespace("operators-hook")
    live.cluster.create(*hook("operators-hook", namespace, {}))
    assert "connect: connection refused" in until(
        lambda: judged(live, namespace, "early"), "refused without a pod"
    )
    live.cluster.create(deployment("hook", namespace))
    until(lambda: not judged(live, namespace, "in-time"), "admitted")
    live.cluster.kubectl("scale", "deployment/hook", "--replicas=0", "-n", namespace)
    said = until(lambda: judged(live, namespace, f"late-{time.time_ns()}"), "refused again")
    assert "connection refused" in said or "EOF" in said
    live.cluster.kubectl("delete", "validatingwebhookconfiguration", "operators-hook")


def crd(plural: str, kind: str, group: str, versions: list[str], scope: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    shown = [
        {
            "name": version,
            "served": True,
            "storage": version == versions[0],
            "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}},
        }
        for version in versions
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "labels": {"test": "certs"}},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": shown,
        },
    }


def test_a_conversion_changes_the_version_alone(live: LiveCluster) -> None:
    namespace = live.cluster.namespace("operators-convert")
    things = crd("things", "Thing", "test.example.com", ["v1", "v2"], "Namespaced")
    place = {"namespace": namespace, "name": "hook"}
    client = {"service": {**place, "path": "/convert"}}
    hook_of = {"clientConfig": client, "conversionReviewVersions": ["v1"]}
    things["spec"]["conversion"] = {"strategy": "Webhook", "webhook": hook_of}
    service, _ = hook("unused", namespace, {})
    live.cluster.create(things, service)
    name = "things.test.example.com"
    live.cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", WAIT)
    thing = {
        "apiVersion": "test.example.com/v1",
        "kind": "Thing",
        "metadata": {"namespace": namespace, "name": "a"},
        "spec": {"size": 3},
    }
    live.cluster.create(thing)
    asked = ("get", "things.v2.test.example.com/a", "-n", namespace)
    assert "connection refused" in live.cluster.kubectl(*asked, check=False).stderr
    live.cluster.create(deployment("hook", namespace))
    until(lambda: live.cluster.kubectl(*asked, check=False).returncode == 0, "converted")
    found = live.cluster.get(*asked[1:])
    assert (found["apiVersion"], found["spec"]) == ("test.example.com/v2", {"size": 3})
    live.cluster.kubectl("delete", "crd", name, WAIT)


def test_a_certificate_comes_from_cert_manager_and_its_ca_from_cainjector(
    live: LiveCluster,
) -> None:
    namespace = live.cluster.namespace("operators-certs")
    group = "cert-manager.io"
    live.cluster.create(
        crd("issuers", "Issuer", group, ["v1"], "Namespaced"),
        crd("clusterissuers", "ClusterIssuer", group, ["v1"], "Cluster"),
        crd("certificates", "Certificate", group, ["v1"], "Namespaced"),
    )
    live.cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", WAIT)
    from_certificate = {"cert-manager.io/inject-ca-from": f"{namespace}/hook"}
    meta = {"namespace": namespace}
    live.cluster.create(
        *hook("operators-certs", namespace, from_certificate),
        deployment(
            "hook", namespace, volumes=[{"name": "cert", "secret": {"secretName": "hook-cert"}}]
        ),
        {"apiVersion": f"{group}/v1", "kind": "Issuer", "metadata": {**meta, "name": "own"}}
        | {"spec": {"selfSigned": {}}},
        {"apiVersion": f"{group}/v1", "kind": "Certificate", "metadata": {**meta, "name": "hook"}}
        | {
            "spec": {
                "secretName": "hook-cert",
                "dnsNames": [f"hook.{namespace}.svc"],
                "issuerRef": {"kind": "Issuer", "name": "own"},
            }
        },
        deployment("cert-manager", namespace),
    )
    wait(live, namespace, "--for=condition=Ready", "certificate/hook", "issuer/own")
    wait(live, namespace, "--for=condition=Available", "deployment/hook")
    # It answers, and nobody has said yet whom to trust.
    assert "certificate signed by unknown authority" in judged(live, namespace, "early")
    live.cluster.create(deployment("cert-manager-cainjector", namespace))
    until(lambda: not judged(live, namespace, "in-time"), "admitted")
    live.cluster.kubectl("delete", "validatingwebhookconfiguration", "operators-certs")
    live.cluster.kubectl("delete", "crd", "-l", "test=certs", "--wait=false")


def test_a_profile_gets_its_namespace_and_goes_by_its_controller(live: LiveCluster) -> None:
    namespace = live.cluster.namespace("operators-profiles")
    live.cluster.create(crd("profiles", "Profile", "kubeflow.org", ["v1"], "Cluster"))
    live.cluster.kubectl("wait", "--for=condition=Established", "crd/profiles.kubeflow.org", WAIT)
    live.cluster.create(
        deployment("profiles-deployment", namespace),
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "Profile",
            "metadata": {"name": "team-a"},
            "spec": {"owner": {"kind": "User", "name": "ada@example.com"}},
        },
    )
    live.cluster.kubectl("wait", "--for=create", "ns/team-a", WAIT)
    wait(live, "team-a", "--for=create", "serviceaccount/default-editor")
    live.cluster.kubectl("wait", "--for=jsonpath={.status.conditions}", "profile/team-a", WAIT)
    bindings = live.cluster.get("rolebindings", "-n", "team-a")["items"]
    assert [each["metadata"]["name"] for each in bindings] == [
        *("default-editor", "default-viewer", "namespaceAdmin")
    ]
    # Its finalizer is taken off by the controller alone; the garbage collector, which looks for new
    # kinds each 30 seconds, then takes the namespace.
    live.cluster.kubectl("scale", "deployment/profiles-deployment", "--replicas=0", "-n", namespace)
    wait(live, namespace, "--for=delete", "pod", "-l", "app=profiles-deployment")
    done = live.cluster.kubectl("delete", "profile/team-a", "--timeout=1s", check=False)
    assert done.returncode
    live.cluster.kubectl("scale", "deployment/profiles-deployment", "--replicas=1", "-n", namespace)
    live.cluster.kubectl("wait", "--for=delete", "profile/team-a", WAIT)
    live.cluster.kubectl("delete", "crd", "profiles.kubeflow.org", "--wait=false")


def test_stand_ins_outlive_an_api_server_that_is_killed(
    live_cluster: Callable[..., LiveCluster], tmp_path: Path
) -> None:
    own = live_cluster()
    programs = own.cluster.programs
    assert programs is not None
    own.cluster.create(*hook("restart-hook", "default", {}), deployment("hook", "default"))
    until(lambda: not judged(own, "default", "before"), "admitted")
    programs.kill("kube-apiserver")
    programs.start("kube-apiserver")
    until(
        lambda: own.cluster.kubectl("get", "--raw", "/readyz", check=False).stdout == "ok", "ready"
    )
    own.cluster.create(deployment("web", "default"))
    wait(own, "default", "--for=condition=Available", "deployment/web")
    assert not judged(own, "default", "after")
    with faulty_api(own.cluster, tmp_path, Faults(too_many=1.0, at_most=1)) as (proxy, env):
        own.cluster.kubectl("get", "nodes", f"--kubeconfig={env['KUBECONFIG']}")
        assert proxy.counts.answers[429] == 1
