"""Each rule by which objects say whom they come after."""

from __future__ import annotations

from typing import Any

import pytest

from kfdeploy.releaseset.order.edges import creation_rank
from tests.releaseset.order.made import (
    Body,
    crd,
    deployment,
    edges,
    made,
    rule,
    said,
    service,
    webhooks,
)

KUBE = "admissionregistration.k8s.io/v1"
CERTIFICATES = "cert-manager.io/v1"
PODS = rule("pods", group="")


def server(name: str = "hook") -> list[Body]:
    return [deployment(name), service(name)]


# -- kinds, namespaces, names ----------------------------------------------------------------------


def test_a_kind_comes_before_its_objects() -> None:
    content = {"a": [crd("Thing")], "b": [made("Thing", "x", "n", "t.test/v1")]}
    assert said(content) == {"kind: things.t.test -> x"}


def test_a_kind_of_another_group_is_another_kind() -> None:
    content = {"a": [crd("Thing")], "b": [made("Thing", "x", "n", "other.test/v1")]}
    assert said(content) == set()


def test_of_two_definitions_the_components_own_counts() -> None:
    thing = made("Thing", "x", "n", "t.test/v1")
    found = edges({"a": [crd("Thing")], "b": [crd("Thing"), thing]})
    assert [(edge.first.component, edge.can_share_release) for edge in found] == [("b", True)]


def test_a_definitions_schemas_are_not_read() -> None:
    """They are most of a set's bytes, and may themselves have a field ``schema``."""
    text = (
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
        "metadata:\n  name: things.t.test\nspec:\n  group: t.test\n  names:\n"
        "    kind: Thing\n    plural: things\n  scope: Cluster\n  versions:\n"
        "  - name: v1\n    schema:\n      openAPIV3Schema:\n        properties:\n"
        "          schema:\n            description: |\n              a: [\n\n"
        "              b: {\n    served: true\n    storage: true\n"
        "  - schema:\n      openAPIV3Schema: {type: object}\n    name: v2\n"
    )
    from kfdeploy.kubernetes.objects import Object
    from kfdeploy.releaseset.order.contents import SetContents

    (item,) = SetContents([("a", [Object(text)])]).items
    assert item.spec["versions"] == [
        {"name": "v1", "schema": {}, "served": True, "storage": True},
        {"schema": {}, "name": "v2"},
    ]


def test_a_namespace_comes_before_what_is_in_it() -> None:
    content = {"a": [made("Namespace", "n")], "b": [made("ConfigMap", "x", "n")]}
    assert said(content) == {"namespace: n -> x"}


def test_a_namespace_that_the_kind_does_not_have_is_none() -> None:
    content = {
        "a": [made("Namespace", "n"), crd("Thing", scope="Cluster")],
        "b": [made("Thing", "x", "n", "t.test/v1")],
    }
    assert said(content) == {"kind: things.t.test -> x"}


def env(kind: str, name: str, **more: Any) -> Body:
    source = {f"{kind}KeyRef": {"name": name, "key": "k", **more}}
    return {"containers": [{"name": "c", "env": [{"name": "E", "valueFrom": source}]}]}


NAMED: dict[str, tuple[Body, Body]] = {
    "account": (made("ServiceAccount", "x", "n"), {"serviceAccountName": "x"}),
    "class": (
        made("PriorityClass", "x", api="scheduling.k8s.io/v1"),
        {"priorityClassName": "x"},
    ),
    "pull secret": (made("Secret", "x", "n"), {"imagePullSecrets": [{"name": "x"}]}),
    "claim": (
        made("PersistentVolumeClaim", "x", "n"),
        {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]},
    ),
    "configmap volume": (
        made("ConfigMap", "x", "n"),
        {"volumes": [{"name": "v", "configMap": {"name": "x"}}]},
    ),
    "secret volume": (
        made("Secret", "x", "n"),
        {"volumes": [{"name": "v", "secret": {"secretName": "x"}}]},
    ),
    "projected": (
        made("Secret", "x", "n"),
        {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "x"}}]}}]},
    ),
    "variable": (made("ConfigMap", "x", "n"), env("configMap", "x")),
    "secret variable": (made("Secret", "x", "n"), env("secret", "x")),
    "all variables": (
        made("Secret", "x", "n"),
        {"initContainers": [{"name": "c", "envFrom": [{"secretRef": {"name": "x"}}]}]},
    ),
}


@pytest.mark.parametrize("case", NAMED)
def test_what_pods_name_comes_before_them(case: str) -> None:
    named, spec = NAMED[case]
    assert said({"a": [named], "b": [deployment("w", **spec)]}) == {"name: x -> w"}
    elsewhere = deployment("w", "other", **spec)
    assert bool(said({"a": [named], "b": [elsewhere]})) == (case == "class")


def test_what_pods_can_do_without_makes_no_order() -> None:
    pods = deployment("w", **env("configMap", "x", optional=True))
    assert said({"a": [made("ConfigMap", "x", "n")], "b": [pods]}) == set()


def test_a_storage_class_comes_before_claims() -> None:
    storage = made("StorageClass", "fast", api="storage.k8s.io/v1")
    claim = made("PersistentVolumeClaim", "c", "n", spec={"storageClassName": "fast"})
    template = {"spec": {"storageClassName": "fast"}}
    many = made("StatefulSet", "s", "n", "apps/v1", spec={"volumeClaimTemplates": [template]})
    assert said({"a": [storage], "b": [claim, many]}) == {"name: fast -> c", "name: fast -> s"}


# -- certificates ----------------------------------------------------------------------------------


def certificate(name: str = "cert", issuer: str = "Issuer") -> Body:
    spec = {"secretName": "tls", "issuerRef": {"kind": issuer, "name": "signer"}}
    return made("Certificate", name, "n", CERTIFICATES, spec=spec)


@pytest.mark.parametrize("kind", ["Issuer", "ClusterIssuer"])
def test_issuers_come_before_certificates_and_those_before_their_secrets_users(kind: str) -> None:
    signer = made(kind, "signer", "n" if kind == "Issuer" else "", CERTIFICATES)
    user = deployment("w", volumes=[{"name": "v", "secret": {"secretName": "tls"}}])
    assert said({"a": [signer, certificate(issuer=kind)], "b": [user]}) == {
        "issuer!: signer -> cert",
        "certificate!: cert -> w",
    }


def test_another_groups_certificate_gives_no_secret() -> None:
    spec = {"secretName": "tls"}
    other = made("Certificate", "cert", "n", "networking.internal.knative.dev/v1alpha1", spec=spec)
    user = deployment("w", volumes=[{"name": "v", "secret": {"secretName": "tls"}}])
    assert said({"a": [other], "b": [user]}) == set()


def cainjector() -> Body:
    return {
        **(body := deployment("injector", "cm")),
        "metadata": {**body["metadata"], "labels": {"app.kubernetes.io/component": "cainjector"}},
    }


def test_the_cas_that_webhooks_are_trusted_by_come_before_them() -> None:
    inject = {"cert-manager.io/inject-ca-from": "n/cert"}
    hook = webhooks("Validating", "hook", annotations=inject)
    assert said({"a": [cainjector()], "b": [certificate(), hook]}) == {
        "ca!: injector -> hook",
        "ca!: cert -> hook",
    }
    by_secret = webhooks(
        "Validating", "hook", annotations={"cert-manager.io/inject-ca-from-secret": "n/tls"}
    )
    assert said({"a": [cainjector()], "b": [certificate(), by_secret]}) == {"ca!: injector -> hook"}


# -- webhooks --------------------------------------------------------------------------------------


THING = made("Thing", "x", "n", "t.test/v1", labels={"a": "b"})
SEEN: dict[str, tuple[Body, Body, bool]] = {
    # webhook's fields, rule's fields, whether it judges THING, in a namespace labelled team=one
    "all": ({}, {}, True),
    "another resource": ({}, {"resources": ["others"]}, False),
    "a subresource": ({}, {"resources": ["things/status"]}, False),
    "any resource": ({}, {"resources": ["*"]}, True),
    "anything": ({}, {"resources": ["*/*"]}, True),
    "another group": ({}, {"apiGroups": ["u.test"]}, False),
    "any group": ({}, {"apiGroups": ["*"]}, True),
    "updates": ({}, {"operations": ["UPDATE"]}, False),
    "any operation": ({}, {"operations": ["*"]}, True),
    "another version": ({}, {"apiVersions": ["v2"]}, True),
    "another version, exactly": ({"matchPolicy": "Exact"}, {"apiVersions": ["v2"]}, False),
    "in namespaces": ({}, {"scope": "Namespaced"}, True),
    "in none": ({}, {"scope": "Cluster"}, False),
    "another name": ({}, {"resourceNames": ["y"]}, False),
    "ignored": ({"failurePolicy": "Ignore"}, {}, False),
    "conditions": ({"matchConditions": [{"name": "no", "expression": "false"}]}, {}, True),
    "object": ({"objectSelector": {"matchLabels": {"a": "b"}}}, {}, True),
    "another object": ({"objectSelector": {"matchLabels": {"a": "c"}}}, {}, False),
    "namespace": ({"namespaceSelector": {"matchLabels": {"team": "one"}}}, {}, True),
    "another namespace": ({"namespaceSelector": {"matchLabels": {"team": "two"}}}, {}, False),
    "namespace by name": (
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "n"}}},
        {},
        True,
    ),
    **{
        f"{operator} {key} {values}": (
            {
                "namespaceSelector": {
                    "matchExpressions": [{"key": key, "operator": operator, "values": values}]
                }
            },
            {},
            wanted,
        )
        for operator, key, values, wanted in (
            ("In", "team", ["one", "two"], True),
            ("In", "team", ["two"], False),
            ("In", "none", ["one"], False),
            ("NotIn", "team", ["one"], False),
            ("NotIn", "none", ["one"], True),
            ("Exists", "team", [], True),
            ("Exists", "none", [], False),
            ("DoesNotExist", "team", [], False),
            ("DoesNotExist", "none", [], True),
        )
    },
}


@pytest.mark.parametrize("case", SEEN)
def test_a_webhooks_workload_is_ready_before_what_it_judges(case: str) -> None:
    webhook, of_rule, wanted = SEEN[case]
    hook = webhooks("Validating", "hook", {**rule("things"), **of_rule}, name="c", **webhook)
    content = {
        "a": [made("Namespace", "n", labels={"team": "one"}), *server(), hook],
        "b": [crd("Thing"), THING],
    }
    found = said(content, "webhook")
    assert found == ({"webhook!: hook -> x", "webhook: c -> x"} if wanted else set())


def test_a_namespace_selector_spares_nothing_that_is_in_no_namespace() -> None:
    none = {"namespaceSelector": {"matchLabels": {"team": "two"}}}
    hook = webhooks("Validating", "hook", rule("things"), name="c", **none)
    content = {
        "a": [*server(), hook],
        "b": [crd("Thing", scope="Cluster"), made("Thing", "x", api="t.test/v1")],
    }
    assert "webhook!: hook -> x" in said(content)


def test_a_namespace_is_selected_by_its_own_labels() -> None:
    select = {"namespaceSelector": {"matchLabels": {"team": "one"}}}
    hook = webhooks("Validating", "hook", rule("namespaces", group=""), name="c", **select)
    spaces = [made("Namespace", team, labels={"team": team}) for team in ("one", "two")]
    assert said({"a": [*server(), hook], "b": spaces}, "webhook") == {
        "webhook!: hook -> one",
        "webhook: c -> one",
    }


def test_a_webhook_outside_the_set_makes_no_order() -> None:
    hook = webhooks("Validating", "hook", rule("things"), name="c")
    elsewhere = webhooks("Validating", "hook", rule("things"), name="d")
    elsewhere["webhooks"][0]["clientConfig"] = {"url": "https://hook.test/"}
    assert said({"a": [hook, elsewhere], "b": [THING]}) == set()


def test_what_a_webhook_needs_is_not_judged_by_it() -> None:
    """It was there before the webhook; else neither could ever be."""
    hook = webhooks("Mutating", "hook", rule("*", group="*"), name="c")
    content = {
        "a": [
            made("Namespace", "n"),
            made("ServiceAccount", "account", "n"),
            deployment("hook", serviceAccountName="account"),
            service("hook"),
            hook,
        ],
    }
    judged = {line for line in said(content, "webhook", "injector") if "!" in line}
    assert judged == {"webhook!: hook -> hook"}  # its Service
    assert all(edge.then.key.kind == "Service" for edge in edges(content) if edge.why == "webhook")


TOGETHER = {
    # kind that is judged, how, whether one release can hold both
    "a custom resource": (THING, "Validating", False),
    "what Helm creates before": (made("ConfigMap", "x", "n"), "Validating", True),
    "what is changed": (made("ConfigMap", "x", "n"), "Mutating", False),
    "pods that are judged": (deployment("x"), "Validating", True),
    "pods that are changed": (deployment("x"), "Mutating", False),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_what_can_be_in_the_webhooks_own_release(case: str) -> None:
    judged, how, wanted = TOGETHER[case]
    rules = [rule("things"), rule("configmaps", "pods", group="")]
    hook = webhooks(how, "hook", *rules, name="c")
    found = [
        edge
        for edge in edges({"a": [*server(), hook, crd("Thing"), judged]})
        if edge.is_admission and edge.then.key.name == "x"
    ]
    assert found
    assert {edge.can_share_release for edge in found} == {wanted}


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
def test_an_injector_comes_before_the_pods_that_it_changes(policy: str) -> None:
    """One that is passed over leaves pods as they are, so that it counts all the same."""
    hook = webhooks(
        "Mutating", "hook", PODS, name="c",
        failurePolicy=policy, objectSelector={"matchLabels": {"inject": "yes"}},
    )  # fmt: skip
    pods = [deployment("in", labels={"inject": "yes"}), deployment("out")]
    assert said({"a": [*server(), hook], "b": pods}) == {
        "injector!: hook -> in",
        "injector: c -> in",
    }


# -- conversion, aggregation, policies -------------------------------------------------------------


def test_a_conversion_webhook_is_ready_before_what_it_converts() -> None:
    conversion = {
        "strategy": "Webhook",
        "webhook": {"clientConfig": {"service": {"name": "hook", "namespace": "n"}}},
    }
    versions = [{"name": "v1", "storage": True}, {"name": "v2"}]
    definition = crd("Thing", conversion=conversion, versions=versions)
    things = [made("Thing", version, "n", f"t.test/{version}") for version in ("v1", "v2")]
    found = {"a": [*server(), definition], "b": things}
    assert said(found, "conversion") == {"conversion!: hook -> v2"}
    assert not any(edge.can_share_release for edge in edges(found) if edge.why == "conversion")


def test_an_aggregated_apis_workload_is_ready_before_its_objects() -> None:
    spec = {"group": "t.test", "version": "v1", "service": {"name": "hook", "namespace": "n"}}
    api = made("APIService", "v1.t.test", api="apiregistration.k8s.io/v1", spec=spec)
    assert said({"a": [*server(), api], "b": [THING, made("Thing", "y", "n", "t.test/v2")]}) == {
        "api-service!: hook -> x",
        "api-service: v1.t.test -> x",
    }


CONSTRAINTS = {
    "resourceRules": [PODS],
    "excludeResourceRules": [],
    "namespaceSelector": {"matchLabels": {"team": "one"}},
}


@pytest.mark.parametrize("how", ["Mutating", "Validating"])
def test_policies_and_their_bindings_come_before_what_they_judge(how: str) -> None:
    kind = f"{how}AdmissionPolicy"
    policy = made(kind, "p", api=KUBE, spec={"matchConstraints": CONSTRAINTS})
    binding = made(f"{kind}Binding", "b", api=KUBE, spec={"policyName": "p"})
    one = made("Namespace", "n", labels={"team": "one"})
    content = {"a": [policy, binding], "b": [one, deployment("in"), deployment("out", "other")]}
    assert said(content, "policy") == {"policy: p -> in", "policy: b -> in"}
    assert said({**content, "a": [policy]}, "policy") == set()
    limited = {"policyName": "p", "matchResources": {"objectSelector": {"matchLabels": {"a": "b"}}}}
    narrow = made(f"{kind}Binding", "b", api=KUBE, spec=limited)
    assert said({**content, "a": [policy, narrow]}, "policy") == set()


def test_kyvernos_policies_need_no_binding_and_do_not_come_before_kyverno() -> None:
    spec = {"matchConstraints": {"resourceRules": [PODS]}}
    policy = made("MutatingPolicy", "p", api="policies.kyverno.io/v1", spec=spec)
    definition = crd("MutatingPolicy", "policies.kyverno.io", scope="Cluster")
    content = {"k": [definition, deployment("kyverno")], "a": [policy], "b": [deployment("in")]}
    assert said(content, "policy") == {"policy: p -> in"}


# -- Helm ------------------------------------------------------------------------------------------


def test_helm_creates_kinds_that_it_does_not_know_last_and_by_name() -> None:
    kinds = ["Issuer", "Abc", "ValidatingWebhookConfiguration", "Deployment", "Secret", "Namespace"]
    assert sorted(kinds, key=creation_rank) == kinds[::-1]


def test_an_edge_says_why() -> None:
    hook = webhooks("Validating", "hook", rule("things"), name="c")
    one, other = (edge.to_sentence() for edge in edges({"a": [*server(), hook], "b": [THING]}))
    assert one == (
        "Deployment n/hook must be ready: it judges Thing n/x (ValidatingWebhookConfiguration c"
        " webhooks[name=hook.test].clientConfig.service)"
    )
    assert other == (
        "ValidatingWebhookConfiguration c judges Thing n/x (webhooks[name=hook.test].rules)"
    )
