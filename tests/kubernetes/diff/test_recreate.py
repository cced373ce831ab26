"""What cannot be changed in place: by our rules, and by the API server's own answer."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

import pytest

from kfdeploy.errors import UserError
from kfdeploy.kubernetes.cluster import client as api
from kfdeploy.kubernetes.diff.recreate import find_recreate_reasons
from kfdeploy.kubernetes.objects import ObjectKey
from tests.support.cluster import Cluster

Body = dict[str, Any]
NAMESPACE = "recreate"
LABELS = {"app": "x"}
TEMPLATE = {
    "metadata": {"labels": LABELS},
    "spec": {
        "containers": [
            {"name": "main", "image": "a:1", "env": [{"name": "A", "value": "1"}], "args": ["-x"]}
        ]
    },
}
SIZE = {"resources": {"requests": {"storage": "2Gi"}}, "accessModes": ["ReadWriteOnce"]}


def body(api_version: str, kind: str, **more: Any) -> Body:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, **more}


def workload(kind: str, **spec: Any) -> Body:
    content = {"selector": {"matchLabels": LABELS}, "template": TEMPLATE, **spec}
    return body("apps/v1", kind, spec=content)


JOB = body("batch/v1", "Job")
JOB["spec"] = {"template": copy.deepcopy(TEMPLATE)}
JOB["spec"]["template"]["spec"]["restartPolicy"] = "Never"
RBAC = "rbac.authorization.k8s.io"
BINDING = body(
    f"{RBAC}/v1", "RoleBinding", roleRef={"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"}
)
CLASS = body("storage.k8s.io/v1", "StorageClass", provisioner="a.test")
CRD = body(
    "apiextensions.k8s.io/v1",
    "CustomResourceDefinition",
    spec={
        "group": "recreate.test",
        "names": {"kind": "Thing", "plural": "things"},
        "scope": "Cluster",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }
        ],
    },
)
CRD["metadata"]["name"] = "things.recreate.test"
CLAIMING = workload(
    "StatefulSet",
    serviceName="a",
    replicas=1,
    volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": SIZE}],
)
POD = body("v1", "Pod", spec=TEMPLATE["spec"])
CRON = body("batch/v1", "CronJob")
CRON["spec"] = {"schedule": "0 * * * *", "jobTemplate": {"spec": JOB["spec"]}}
PORTS = [{"port": 80}]


def but(original: Body, path: str, value: Any) -> Body:
    """The same with another value at a path; None takes it out."""
    out = copy.deepcopy(original)
    node: Any = out
    *parents, last = path.split("/")
    for step in parents:
        node = node[int(step)] if isinstance(node, list) else node.setdefault(step, {})
    if value is None:
        del node[last]
    else:
        node[last] = value
    return out


OTHER = {"app": "x", "more": "y"}
FIXED: Mapping[str, tuple[Body, Body, list[str]]] = {
    "a Deployment's selector": (
        workload("Deployment"),
        but(
            but(workload("Deployment"), "spec/selector/matchLabels", OTHER),
            "spec/template/metadata/labels",
            OTHER,
        ),
        ["spec.selector.matchLabels.more"],
    ),
    "a DaemonSet's selector that loses a label": (
        but(
            but(workload("DaemonSet"), "spec/selector/matchLabels", OTHER),
            "spec/template/metadata/labels",
            OTHER,
        ),
        workload("DaemonSet"),
        ["spec.selector.matchLabels.more"],
    ),
    "a StatefulSet's service": (
        workload("StatefulSet", serviceName="a"),
        workload("StatefulSet", serviceName="b"),
        ["spec.serviceName"],
    ),
    "a StatefulSet's way of starting pods": (
        workload("StatefulSet", serviceName="a"),
        workload("StatefulSet", serviceName="a", podManagementPolicy="Parallel"),
        ["spec.podManagementPolicy"],
    ),
    "a StatefulSet's claims": (
        workload(
            "StatefulSet",
            serviceName="a",
            volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": SIZE}],
        ),
        workload(
            "StatefulSet",
            serviceName="a",
            volumeClaimTemplates=[
                {
                    "metadata": {"name": "data"},
                    "spec": but(SIZE, "resources/requests/storage", "3Gi"),
                }
            ],
        ),
        ["spec.volumeClaimTemplates[metadata.name=data].spec.resources.requests.storage"],
    ),
    "a Job's image": (
        JOB,
        but(JOB, "spec/template/spec/containers/0/image", "a:2"),
        ["spec.template.spec.containers[name=main].image"],
    ),
    "a Job's argument that goes": (
        JOB,
        but(JOB, "spec/template/spec/containers/0/args", None),
        ["spec.template.spec.containers[name=main].args"],
    ),
    "a Job's mode": (
        but(JOB, "spec/completions", 1),
        but(but(JOB, "spec/completions", 1), "spec/completionMode", "Indexed"),
        ["spec.completionMode"],
    ),
    "a role that is bound": (
        BINDING,
        but(BINDING, "roleRef/name", "edit"),
        ["roleRef.name"],
    ),
    "a role of the cluster that is bound": (
        {**BINDING, "kind": "ClusterRoleBinding"},
        {**but(BINDING, "roleRef/name", "edit"), "kind": "ClusterRoleBinding"},
        ["roleRef.name"],
    ),
    "a storage class's parameters": (
        CLASS,
        {**CLASS, "parameters": {"a": "b"}},
        ["parameters"],
    ),
    "a storage class's provisioner": (CLASS, {**CLASS, "provisioner": "b.test"}, ["provisioner"]),
    "a storage class's binding": (
        CLASS,
        {**CLASS, "volumeBindingMode": "WaitForFirstConsumer"},
        ["volumeBindingMode"],
    ),
    "a Secret's type": (
        body("v1", "Secret"),
        body("v1", "Secret", type="example.test/a"),
        ["type"],
    ),
    "a ConfigMap that says it stays": (
        body("v1", "ConfigMap", immutable=True, data={"a": "1"}),
        body("v1", "ConfigMap", data={"a": "2"}),
        ["immutable", "data.a"],
    ),
    "a claim's modes": (
        body("v1", "PersistentVolumeClaim", spec=SIZE),
        body("v1", "PersistentVolumeClaim", spec={**SIZE, "accessModes": ["ReadWriteMany"]}),
        ["spec.accessModes"],
    ),
    "a claim's storage class": (
        body("v1", "PersistentVolumeClaim", spec={**SIZE, "storageClassName": "a"}),
        body("v1", "PersistentVolumeClaim", spec={**SIZE, "storageClassName": "b"}),
        ["spec.storageClassName"],
    ),
    "a Service that becomes headless": (
        body("v1", "Service", spec={"ports": PORTS, "selector": LABELS}),
        body("v1", "Service", spec={"ports": PORTS, "selector": LABELS, "clusterIP": "None"}),
        ["spec.clusterIP"],
    ),
    "a priority": (
        body("scheduling.k8s.io/v1", "PriorityClass", value=1),
        body("scheduling.k8s.io/v1", "PriorityClass", value=2),
        ["value"],
    ),
    "a definition's scope": (CRD, but(CRD, "spec/scope", "Namespaced"), ["spec.scope"]),
    "a pod's variable": (
        POD,
        but(POD, "spec/containers/0/env", [{"name": "A", "value": "2"}]),
        ["spec.containers[name=main].env[name=A].value"],
    ),
    "an ingress class's controller": (
        body("networking.k8s.io/v1", "IngressClass", spec={"controller": "a.test/a"}),
        body("networking.k8s.io/v1", "IngressClass", spec={"controller": "a.test/b"}),
        ["spec.controller"],
    ),
    "a runtime class's handler": (
        body("node.k8s.io/v1", "RuntimeClass", handler="a"),
        body("node.k8s.io/v1", "RuntimeClass", handler="b"),
        ["handler"],
    ),
}
FREE: Mapping[str, tuple[Body, Body]] = {
    "a Deployment's image": (
        workload("Deployment"),
        but(workload("Deployment"), "spec/template/spec/containers/0/image", "a:2"),
    ),
    "a StatefulSet with its defaults": (
        workload("StatefulSet", serviceName="a"),
        workload(
            "StatefulSet", serviceName="a", podManagementPolicy="OrderedReady", minReadySeconds=1
        ),
    ),
    "a Job's limit": (JOB, but(JOB, "spec/backoffLimit", 1)),
    "a Job with its defaults": (
        JOB,
        but(JOB, "spec/template/spec/terminationGracePeriodSeconds", 30),
    ),
    "a Service's port": (
        body("v1", "Service", spec={"ports": PORTS}),
        body("v1", "Service", spec={"ports": [{"port": 81}]}),
    ),
    "who is bound": (
        BINDING,
        {**BINDING, "subjects": [{"kind": "Group", "name": "a", "apiGroup": RBAC}]},
    ),
    "a storage class with its defaults": (
        CLASS,
        {**CLASS, "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"},
    ),
    "a StatefulSet that keeps its claims": (
        CLAIMING,
        but(CLAIMING, "spec/replicas", 2),
    ),
    "a claim that grows a label": (
        body("v1", "PersistentVolumeClaim", spec=SIZE),
        {
            **body("v1", "PersistentVolumeClaim", spec=SIZE),
            "metadata": {"name": "x", "labels": {"a": "b"}},
        },
    ),
    "a pod's image": (POD, but(POD, "spec/containers/0/image", "a:2")),
    "a CronJob's template": (CRON, but(CRON, "spec/schedule", "1 * * * *")),
    "a ClusterRole's rules": (
        body(f"{RBAC}/v1", "ClusterRole", rules=[]),
        body(f"{RBAC}/v1", "ClusterRole", rules=[{"nonResourceURLs": ["/x"], "verbs": ["get"]}]),
    ),
    "a Secret with its type": (body("v1", "Secret"), body("v1", "Secret", type="Opaque")),
    "a ConfigMap that will stay": (
        body("v1", "ConfigMap", data={"a": "1"}),
        body("v1", "ConfigMap", immutable=True, data={"a": "2"}),
    ),
}


@pytest.mark.parametrize("name", FIXED)
def test_a_field_that_cannot_change_is_named(name: str) -> None:
    old, new, expected = FIXED[name]
    found = find_recreate_reasons(old, new)
    assert [reason.field for reason in found] == expected
    assert all(reason.why and reason.source for reason in found)


@pytest.mark.parametrize("name", FREE)
def test_what_can_change_gives_no_reason(name: str) -> None:
    assert find_recreate_reasons(*FREE[name]) == ()


def test_a_headless_service_would_stay_so() -> None:
    old = body("v1", "Service", spec={"clusterIP": "None"})
    assert [reason.why for reason in find_recreate_reasons(old, body("v1", "Service"))] == [
        "it stays headless: the API server keeps the address of a Service that names none"
    ]


@pytest.mark.parametrize(
    ("size", "expected"), [("3Gi", []), ("2048Mi", []), ("1Gi", ["a volume does not shrink"])]
)
def test_a_claim_only_grows(size: str, expected: list[str]) -> None:
    old = body("v1", "PersistentVolumeClaim", spec=SIZE)
    new = but(old, "spec/resources/requests/storage", size)
    assert [reason.why for reason in find_recreate_reasons(old, new)] == expected


def test_the_api_server_agrees_with_every_rule(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As rendered and as it lives: the same answer as the API server's own to an apply."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    cluster.namespace(NAMESPACE)
    wrong = []
    cases = [*((*case[:2], True) for case in FIXED.values()), *((*c, False) for c in FREE.values())]
    with api.connect(None) as live:
        for number, (old, new, refused) in enumerate(cases):
            first, second = _placed(old, number), _placed(new, number)
            stored = live.apply(first, manager="helm", force=True)
            if stored["kind"] == CRD["kind"]:  # until then its names are not settled
                until_served(live, stored)
            try:
                live.apply(second, manager="helm", force=True, dry_run=True)
                answer = ""
            except UserError as error:
                answer = error.message
            found = find_recreate_reasons(stored, second)
            live.delete(ObjectKey.from_body(stored))
            if bool(answer) != refused or bool(found) != refused:
                wrong.append((str(ObjectKey.from_body(first)), answer, found))
    assert wrong == []


_OF_THE_CLUSTER = frozenset(
    (
        *("ClusterRole", "ClusterRoleBinding", "StorageClass", "PriorityClass", "RuntimeClass"),
        *("IngressClass",),
    )
)


def until_served(live: api.Cluster, crd: Body) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = live.get(ObjectKey.from_body(crd)) or {}
        conditions = found.get("status", {}).get("conditions") or ()
        if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
            return
        time.sleep(0.1)


def _placed(original: Body, number: int) -> Body:
    out = copy.deepcopy(original)
    if out["kind"] == "CustomResourceDefinition":
        return out
    out["metadata"]["name"] = f"recreate-{number}"
    if out["kind"] not in _OF_THE_CLUSTER:
        out["metadata"]["namespace"] = NAMESPACE
    return out
