"""Which fields differ, and which only look as if they did."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kfdeploy.kubernetes.diff import fields
from kfdeploy.kubernetes.diff.fields import diff_bodies, diff_live

Body = dict[str, Any]


def body(kind: str = "Deployment", api: str = "apps/v1", **more: Any) -> Body:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "x"}, **more}


def pods(**spec: Any) -> Body:
    return body(spec={"template": {"spec": spec}})


def shown(found: list[fields.FieldDifference]) -> list[tuple[str, Any, Any]]:
    return [(one.field, one.was, one.becomes) for one in found]


CONTAINER = "spec.template.spec.containers[name=main]"
DRIFT = {
    "a value": (
        pods(containers=[{"name": "main", "image": "a:1"}]),
        pods(containers=[{"name": "main", "image": "a:2"}]),
        [(f"{CONTAINER}.image", "a:2", "a:1")],
    ),
    "what is gone": (
        pods(containers=[{"name": "main", "image": "a:1", "args": ["--x"]}]),
        pods(containers=[{"name": "main", "image": "a:1"}]),
        [(f"{CONTAINER}.args", None, ["--x"])],
    ),
    "an item of a keyed list that is gone": (
        pods(containers=[{"name": "main", "env": [{"name": "A", "value": "1"}]}]),
        pods(containers=[{"name": "main", "env": [{"name": "B", "value": "1"}]}]),
        [(f"{CONTAINER}.env[name=A]", None, {"name": "A", "value": "1"})],
    ),
    "a list that is one value, such as arguments": (
        pods(containers=[{"name": "main", "args": ["a", "b"]}]),
        pods(containers=[{"name": "main", "args": ["a", "b", "c"]}]),
        [(f"{CONTAINER}.args", ["a", "b", "c"], ["a", "b"])],
    ),
    "a selector that grew": (
        pods(nodeSelector={"a": "1"}),
        pods(nodeSelector={"a": "1", "b": "2"}),
        [("spec.template.spec.nodeSelector.b", "2", None)],
    ),
    "a port of a policy that was added": (
        body("NetworkPolicy", "networking.k8s.io/v1", spec={"ingress": [{"ports": [{"port": 1}]}]}),
        body(
            "NetworkPolicy",
            "networking.k8s.io/v1",
            spec={"ingress": [{"ports": [{"port": 1, "protocol": "TCP"}, {"port": 2}]}]},
        ),
        [("spec.ingress[0].ports[port=2]", {"port": 2}, None)],
    ),
    "an item that was added to a custom resource": (
        body("Gateway", "networking.istio.io/v1", spec={"servers": [{"name": "a"}]}),
        body("Gateway", "networking.istio.io/v1", spec={"servers": [{"name": "a"}, {"name": "b"}]}),
        [("spec.servers", [{"name": "a"}, {"name": "b"}], [{"name": "a"}])],
    ),
    "a namespace selector for all, and none": (
        body("X", "x.test/v1", spec={"from": [{"namespaceSelector": {}}]}),
        body("X", "x.test/v1", spec={"from": [{}]}),
        [("spec.from[0].namespaceSelector", None, {})],
    ),
    "a pointer that was false": (
        pods(automountServiceAccountToken=False),
        pods(),
        [("spec.template.spec.automountServiceAccountToken", None, False)],
    ),
    "a label": (
        {**body(), "metadata": {"name": "x", "labels": {"a": "1"}}},
        {**body(), "metadata": {"name": "x", "labels": {"a": "2", "b": "3"}}},
        [("metadata.labels.a", "2", "1")],
    ),
    "rules of a role": (
        body("Role", "rbac.authorization.k8s.io/v1", rules=[{"verbs": ["get"]}]),
        body("Role", "rbac.authorization.k8s.io/v1", rules=[{"verbs": ["*"]}]),
        [("rules[0].verbs", ["*"], ["get"])],
    ),
    "a key of a ConfigMap with a name of its own": (
        body("ConfigMap", "v1", data={"a.yaml": "x"}),
        body("ConfigMap", "v1", data={"a.yaml": "y"}),
        [("data[a.yaml]", "y", "x")],
    ),
}


@pytest.mark.parametrize("name", DRIFT)
def test_what_the_cluster_has_otherwise_is_found(name: str) -> None:
    wanted, live, expected = DRIFT[name]
    assert shown(diff_live(wanted, live)) == expected


NO_DRIFT = {
    "what the API server added": (
        pods(containers=[{"name": "main", "ports": [{"containerPort": 80}]}]),
        pods(
            containers=[
                {
                    "name": "main",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "terminationMessagePath": "/dev/termination-log",
                }
            ],
            dnsPolicy="ClusterFirst",
        ),
    ),
    "a container and a variable that a webhook added": (
        pods(containers=[{"name": "main", "env": [{"name": "A", "value": "1"}]}]),
        pods(
            containers=[
                {"name": "side"},
                {"name": "main", "env": [{"name": "B"}, {"name": "A", "value": "1"}]},
            ]
        ),
    ),
    "quantities": (
        pods(containers=[{"name": "main", "resources": {"limits": {"cpu": 0.5, "memory": "1Gi"}}}]),
        pods(
            containers=[
                {"name": "main", "resources": {"limits": {"cpu": "500m", "memory": "1024Mi"}}}
            ]
        ),
    ),
    "a number where texts are stored": (
        {**body(), "metadata": {"name": "x", "annotations": {"a": 1, "b": True}}},
        {**body(), "metadata": {"name": "x", "annotations": {"a": "1", "b": "true"}}},
    ),
    "nothing and its absence": (
        pods(containers=[{"name": "main", "args": [], "resources": {}}], hostNetwork=False, x=None),
        pods(containers=[{"name": "main"}]),
    ),
    "a CA that is injected": (
        body(
            "MutatingWebhookConfiguration",
            "admissionregistration.k8s.io/v1",
            webhooks=[{"name": "a", "clientConfig": {"caBundle": "Cg=="}}],
        ),
        body(
            "MutatingWebhookConfiguration",
            "admissionregistration.k8s.io/v1",
            webhooks=[{"name": "a", "clientConfig": {"caBundle": "LS0t"}, "timeoutSeconds": 10}],
        ),
    ),
    "Helm's marks": (
        {**body(), "metadata": {"name": "x", "labels": {"app.kubernetes.io/managed-by": "y"}}},
        {
            **body(),
            "metadata": {
                "name": "x",
                "labels": {"app.kubernetes.io/managed-by": "Helm"},
                "annotations": {"meta.helm.sh/release-name": "z"},
                "managedFields": [],
                "uid": "1",
            },
        },
    ),
    "rules that the controller manager collected": (
        body(
            "ClusterRole",
            "rbac.authorization.k8s.io/v1",
            aggregationRule={"clusterRoleSelectors": []},
            rules=[],
        ),
        body(
            "ClusterRole",
            "rbac.authorization.k8s.io/v1",
            aggregationRule={"clusterRoleSelectors": []},
            rules=[{"verbs": ["get"]}],
        ),
    ),
    "a Secret's texts and its data": (
        body("Secret", "v1", stringData={"a": "1"}, data={"b": "Mg\n==\n"}),
        body("Secret", "v1", data={"a": "MQ==", "b": "Mg=="}, type="Opaque"),
    ),
    "status": (body(status={"a": 1}), body(status={"a": 2})),
}


@pytest.mark.parametrize("name", NO_DRIFT)
def test_what_the_set_did_not_ask_for_is_no_difference(name: str) -> None:
    wanted, live = NO_DRIFT[name]
    assert shown(diff_live(wanted, live)) == []


def test_a_ca_that_the_set_names_is_compared() -> None:
    def webhook(bundle: str) -> Body:
        return body(
            "MutatingWebhookConfiguration",
            "admissionregistration.k8s.io/v1",
            webhooks=[{"name": "a", "clientConfig": {"caBundle": bundle}}],
        )

    found = shown(diff_live(webhook("QQ=="), webhook("Qg==")))
    assert found == [("webhooks[name=a].clientConfig.caBundle", "Qg==", "QQ==")]


def test_the_value_of_a_secret_never_leaves() -> None:
    secrets = [base64.b64encode(value).decode() for value in (b"first", b"second")]
    old, new = (body("Secret", "v1", data={"a": value}) for value in secrets)
    for found in (diff_live(old, new), diff_bodies(old, new)):
        assert [(one.field, one.is_hidden) for one in found] == [("data.a", True)]
        assert not any(value in str(found) for value in (*secrets, "first", "second"))
    (added,) = diff_bodies(body("Secret", "v1"), body("Secret", "v1", stringData={"a": "third"}))
    assert (added.field, added.was) == ("data.a", None)
    assert "third" not in str(added)


CHANGES = {
    "which container comes first": (
        pods(initContainers=[{"name": "a"}, {"name": "b"}, {"name": "c"}]),
        pods(initContainers=[{"name": "b"}, {"name": "a"}]),
        [
            (
                "spec.template.spec.initContainers",
                ["name=a", "name=b"],
                ["name=b", "name=a"],
            ),
            ("spec.template.spec.initContainers[name=c]", {"name": "c"}, None),
        ],
    ),
    "which volume comes first": (
        pods(volumes=[{"name": "a"}, {"name": "b"}]),
        pods(volumes=[{"name": "b"}, {"name": "a"}]),
        [],
    ),
    "what is dropped": (
        pods(containers=[{"name": "main", "env": [{"name": "A"}]}, {"name": "side"}]),
        pods(containers=[{"name": "main"}]),
        [
            (f"{CONTAINER}.env", [{"name": "A"}], None),
            ("spec.template.spec.containers[name=side]", {"name": "side"}, None),
        ],
    ),
    "a list of a custom resource whose items have names": (
        body("Gateway", "x.test/v1", spec={"servers": [{"name": "a", "p": 1}]}),
        body("Gateway", "x.test/v1", spec={"servers": [{"name": "b"}, {"name": "a", "p": 2}]}),
        [
            ("spec.servers[name=b]", None, {"name": "b"}),
            ("spec.servers[name=a].p", 1, 2),
        ],
    ),
    "a number that becomes a text": (
        body(spec={"port": 80}),
        body(spec={"port": "80"}),
        [("spec.port", 80, "80")],
    ),
    "an amount that is written otherwise": (
        pods(containers=[{"name": "main", "resources": {"limits": {"cpu": "1"}}}]),
        pods(containers=[{"name": "main", "resources": {"limits": {"cpu": "1000m"}}}]),
        [],
    ),
    "a definition's versions, told by their names": (
        body("CustomResourceDefinition", "apiextensions.k8s.io/v1", spec={"versions": []}),
        body(
            "CustomResourceDefinition",
            "apiextensions.k8s.io/v1",
            spec={"versions": [{"name": "v1"}]},
        ),
        [("spec.versions[name=v1]", None, {"name": "v1"})],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_two_sets_differ_in_every_field(name: str) -> None:
    old, new, expected = CHANGES[name]
    assert shown(diff_bodies(old, new)) == expected
