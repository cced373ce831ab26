"""What the check before applying makes of what a cluster has: no cluster is asked here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from kfdeploy.apply.preflight import apis, owners, pods, webhooks
from kfdeploy.apply.preflight.api_versions import (
    ResourceLocation,
    ResourceLocator,
    find_api_removal,
    is_builtin,
    parse_minor_version,
)
from kfdeploy.apply.preflight.finding import PreflightFinding
from kfdeploy.codec import to_json
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.releaseset.order.contents import SetContents
from kfdeploy.releaseset.summary import ReleaseSummary
from tests.support.sets import small_summary, text_of

Body = dict[str, Any]


def made(api: str, kind: str, name: str, namespace: str = "", **more: Any) -> Body:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    meta |= more.pop("metadata", {})
    return {"apiVersion": api, "kind": kind, "metadata": meta, **more}


def contents(*bodies: Body) -> SetContents:
    return SetContents([("main", [Object(text_of(body)) for body in bodies])])


def crd(kind: str, scope: str = "Namespaced", **versions: bool) -> Body:
    return made(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        f"{kind.lower()}s.kfdeploy.test",
        spec={
            "group": "kfdeploy.test",
            "scope": scope,
            "names": {"kind": kind, "plural": f"{kind.lower()}s"},
            "versions": [{"name": n, "served": served} for n, served in versions.items()],
        },
    )


@dataclass(frozen=True)
class Served:
    plural: str
    namespaced: bool


@dataclass(frozen=True)
class Kinds:
    known: dict[tuple[str, str], Served] = field(default_factory=dict)

    def of(self, api_version: str, kind: str) -> Served | None:
        return self.known.get((api_version, kind))


def texts(findings: Any) -> list[tuple[str, str]]:
    return [(finding.severity, finding.what) for finding in findings]


# -- versions and APIs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has", "severity", "what"),
    [
        ("1.34.2", "ok", "Kubernetes 1.34.2"),
        ("1.34.1+k3s1", "ok", "Kubernetes 1.34.1+k3s1"),
        (
            "1.33.9",
            "error",
            "the cluster is Kubernetes 1.33.9, and the set was rendered for 1.34",
        ),
        (
            "1.36.3",
            "warning",
            "the cluster is Kubernetes 1.36.3, newer than 1.34, which the set was rendered for",
        ),
        ("none", "ok", "Kubernetes none"),
    ],
)
def test_versions(has: str, severity: str, what: str) -> None:
    found = apis.check_version(has, "1.34.0")
    assert (found.severity, found.what) == (severity, what)


def test_apis_that_nobody_serves() -> None:
    kinds = Kinds({("policy/v1beta1", "PodDisruptionBudget"): Served("poddisruptionbudgets", True)})
    found = apis.check_apis(
        contents(
            crd("Thing", v1=True, v1beta1=False),
            made("kfdeploy.test/v1", "Thing", "a", "x"),
            made("kfdeploy.test/v1beta1", "Thing", "b", "x"),
            made("monitoring.test/v1", "Probe", "c", "x"),
            made("policy/v1beta1", "PodDisruptionBudget", "d", "x"),
            made("batch/v1beta1", "CronJob", "e", "x"),
            made("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", "f"),
            made("resource.k8s.io/v1", "DeviceClass", "g"),
        ),
        kinds,
        "1.24.0",
    )
    errors = {finding.what: finding for finding in found if finding.severity == "error"}
    crds = "apiextensions.k8s.io/v1 CustomResourceDefinition is not served, and the set does not"
    assert list(errors) == [
        (
            "admissionregistration.k8s.io/v1 MutatingAdmissionPolicy is served from Kubernetes"
            " 1.36 on; the cluster is 1.24.0"
        ),
        f"{crds} bring it",
        ("batch/v1beta1 CronJob is not served: Kubernetes 1.25 removed it; use batch/v1 instead"),
        (
            "kfdeploy.test/v1beta1 Thing: CustomResourceDefinition things.kfdeploy.test of the set"
            " serves v1"
        ),
        "monitoring.test/v1 Probe is not served, and the set does not bring it",
        "resource.k8s.io/v1 DeviceClass is not served, and the set does not bring it",
    ]
    probe = errors["monitoring.test/v1 Probe is not served, and the set does not bring it"]
    assert probe.where == ("main: Probe x/c",)
    assert probe.hint.startswith("install what brings it")


def test_an_api_that_goes_soon_is_a_warning() -> None:
    key = ("policy/v1beta1", "PodDisruptionBudget")
    kinds = Kinds({key: Served("poddisruptionbudgets", True)})
    one = contents(made(*key, "d", "x"))
    assert texts(apis.check_apis(one, kinds, "1.24.0")) == [
        (
            "warning",
            (
                "policy/v1beta1 PodDisruptionBudget is not served from Kubernetes 1.25 on;"
                " use policy/v1 instead"
            ),
        )
    ]


def test_facts_of_apis() -> None:
    assert parse_minor_version("v1.36.0-rc.1") == (1, 36)
    assert parse_minor_version("1.30+") == (1, 30)
    assert is_builtin("v1")
    assert is_builtin("rbac.authorization.k8s.io/v1")
    assert not is_builtin("metacontroller.k8s.io/v1alpha1")
    gone = find_api_removal("extensions/v1beta1", "Ingress")
    assert gone is not None
    assert (gone.at, gone.instead) == ((1, 22), "networking.k8s.io/v1")
    assert find_api_removal("storage.k8s.io/v1beta1", "VolumeAttributesClass") is None


def test_places_of_objects() -> None:
    some = contents(
        crd("Wide", "Cluster", v1=True),
        made("kfdeploy.test/v1", "Wide", "a", "put-there-by-kustomize"),
        made("rbac.authorization.k8s.io/v1", "ClusterRole", "b", "put-there-by-kustomize"),
        made("v1", "ConfigMap", "c"),
        made("other.test/v1", "Odd", "d"),
        made("other.test/v1", "Odd", "e", "x"),
        made("other.test/v1", "Policy", "f", "x"),
    )
    kinds = Kinds({("other.test/v1", "Policy"): Served("policies", False)})
    places = ResourceLocator(some, "helm", kinds)
    assert [places.locate(item) for item in some.items][1:] == [
        ResourceLocation("kfdeploy.test", "wides", ""),
        ResourceLocation("rbac.authorization.k8s.io", "clusterroles", ""),
        ResourceLocation("", "configmaps", "helm"),
        ResourceLocation("other.test", "odds", ""),
        ResourceLocation("other.test", "odds", "x"),
        ResourceLocation("other.test", "policies", ""),
    ]


def test_sizes() -> None:
    summary = small_summary(
        releases=tuple(
            ReleaseSummary(name=name, component=name, stored_bytes=kibibytes * 1024)
            for name, kibibytes in (("a", 24), ("b", 950), ("c", 1200))
        )
    )
    assert texts(apis.check_record_sizes(summary, 1024 * 1024, 900 * 1024)) == [
        ("warning", "b: Helm's record takes 950 KiB, and a Secret holds 1024 KiB"),
        ("error", "c: Helm's record takes 1200 KiB, and a Secret holds 1024 KiB"),
    ]


# -- owners ---------------------------------------------------------------------------------------


def helm(name: str, namespace: str = "helm") -> Body:
    return {
        "annotations": {
            "meta.helm.sh/release-name": name,
            "meta.helm.sh/release-namespace": namespace,
        }
    }


MADE = {"managedFields": [{"manager": "kubectl-client-side-apply", "operation": "Update"}]}
CONTROLLED = {"ownerReferences": [{"kind": "Thing", "name": "t", "controller": True}]}
_GOES = "an object of the set is being deleted"
ADOPTED = {"ownerReferences": [{"kind": "Namespace", "name": "x"}]}


@pytest.mark.parametrize(
    ("kind", "meta", "severity", "what"),
    [
        ("ConfigMap", helm("main"), "ok", "1 of the set's objects exist, as its own"),
        (
            "ConfigMap",
            {**helm("main"), **ADOPTED},
            "ok",
            "1 of the set's objects exist, as its own",
        ),
        (
            "ConfigMap",
            helm("earlier"),
            "warning",
            (
                "an object of the set is of the release earlier, which the set does not have: they"
                " move to releases of the set"
            ),
        ),
        (
            "ConfigMap",
            helm("main", "elsewhere"),
            "error",
            "an object of the set is of another Helm release, main in elsewhere",
        ),
        (
            "CustomResourceDefinition",
            helm("cert-manager", "elsewhere"),
            "error",
            "an object of the set is of another Helm release, cert-manager in elsewhere",
        ),
        (
            "CustomResourceDefinition",
            MADE,
            "ok",
            "1 of the set's objects exist, as its own",
        ),
        (
            "ConfigMap",
            MADE,
            "error",
            "an object of the set is there already, made without Helm",
        ),
        (
            "ConfigMap",
            {"annotations": {"argocd.argoproj.io/tracking-id": "kf:apps/Deployment:x/a"}},
            "error",
            (
                "an object of the set is managed by the Argo CD application kf, which would"
                " undo what apply changes"
            ),
        ),
        (
            "ConfigMap",
            {**helm("main"), "labels": {"argocd.argoproj.io/instance": "kf"}},
            "error",
            (
                "an object of the set is managed by the Argo CD application kf, which would"
                " undo what apply changes"
            ),
        ),
        (
            "ConfigMap",
            {
                "labels": {
                    "kustomize.toolkit.fluxcd.io/name": "kf",
                    "kustomize.toolkit.fluxcd.io/namespace": "flux",
                }
            },
            "error",
            (
                "an object of the set is managed by the Flux Kustomization flux/kf, which would"
                " undo what apply changes"
            ),
        ),
        (
            "ConfigMap",
            CONTROLLED,
            "error",
            "an object of the set is controlled by Thing t, which would undo what apply changes",
        ),
        # A stopped apply was about to make it anew: the next one waits for it.
        (
            "ConfigMap",
            {**helm("main"), "deletionTimestamp": "now"},
            "ok",
            "1 of the set's objects exist, as its own",
        ),
        *(
            (kind, {**marks, "deletionTimestamp": "now"}, "error", _GOES)
            for kind, marks in (("ConfigMap", MADE), ("Namespace", helm("main")))
        ),
        (
            "Namespace",
            MADE,
            "ok",
            (
                "an object of the set is a namespace that exists already: it becomes Helm's, and is"
                " never deleted"
            ),
        ),
    ],
)
def test_owners(kind: str, meta: Body, severity: str, what: str) -> None:
    key = ObjectKey("v1", kind, "x", "a")
    found = list(
        owners.check_ownership({key: {"metadata": meta}}, ["main"], "helm", take_over=False)
    )
    assert texts(found) == [(severity, what)]


def test_objects_without_marks_are_taken_over_when_asked() -> None:
    there = {ObjectKey("v1", "ConfigMap", "x", name): {"metadata": MADE} for name in ("a", "b")}
    (error,) = owners.check_ownership(there, ["main"], "helm", take_over=False)
    assert list(error.format_lines()) == [
        "error: 2 objects of the set are there already, made without Helm:",
        "    ConfigMap x/a (by kubectl-client-side-apply)",
        "    ConfigMap x/b (by kubectl-client-side-apply)",
        "  hint: `kfdeploy apply --take-over` makes them the releases' own",
    ]
    (taken,) = owners.check_ownership(there, ["main"], "helm", take_over=True)
    assert taken.severity == "ok"


def test_a_finding_shows_some_places_to_people_and_all_to_programs() -> None:
    finding = PreflightFinding("api", "warning", "much", tuple("abcdefg"), "do it")
    lines = list(finding.format_lines())
    assert lines[0] == "warning: much:"
    assert lines[-2:] == ["    and 2 more", "  hint: do it"]
    assert to_json(finding)["where"] == list("abcdefg")


# -- nodes, storage, pull secrets -----------------------------------------------------------------


def node(name: str, ready: str = "True", arch: str = "amd64", *, cordoned: bool = False) -> Body:
    conditions = [{"type": "Ready", "status": ready, "message": "kubelet stopped"}]
    info = {"operatingSystem": "linux", "architecture": arch}
    status = {"conditions": conditions, "nodeInfo": info}
    return made("v1", "Node", name, spec={"unschedulable": cordoned}, status=status)


def test_nodes() -> None:
    web = contents(workload("web", "x"))
    assert pods.check_nodes([], contents(made("v1", "ConfigMap", "a", "x"))).severity == "ok"
    assert pods.check_nodes([], web).what == "the cluster has no nodes"
    some = [node("a"), node("b", arch="arm64"), node("c", "False", "s390x")]
    assert pods.check_nodes(some, web).what == (
        "nodes that take pods: 1 of linux/amd64, 1 of linux/arm64"
    )
    assert list(pods.count_platforms(some)) == ["linux/amd64", "linux/arm64"]
    none = pods.check_nodes([node("a", "Unknown"), node("b", cordoned=True)], web)
    assert (none.severity, none.what) == ("error", "no node takes pods")
    assert none.where == ("a: kubelet stopped", "b: is cordoned")


def claim(name: str, storage: str | None = None) -> Body:
    spec = {} if storage is None else {"storageClassName": storage}
    return made("v1", "PersistentVolumeClaim", name, "x", spec=spec)


def storage_class(name: str, *, default: bool = False) -> Body:
    notes = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return made("storage.k8s.io/v1", "StorageClass", name, metadata={"annotations": notes})


def test_storage() -> None:
    template = {"metadata": {"name": "data"}, "spec": {"storageClassName": "fast"}}
    some = contents(
        claim("a"),
        claim("b", ""),
        claim("c", "slow"),
        made("apps/v1", "StatefulSet", "db", "x", spec={"volumeClaimTemplates": [template]}),
    )
    assert texts(pods.check_storage_classes(some, [storage_class("slow")], ())) == [
        (
            "error",
            "claims name no storage class, and no class is the default (the cluster has slow)",
        ),
        ("error", "the storage class fast does not exist"),
    ]
    good = [storage_class("slow", default=True), storage_class("fast")]
    assert texts(pods.check_storage_classes(some, good, ())) == [
        ("ok", "4 new claims have a storage class")
    ]
    # A claim that is there has had what it needs.
    there = {ObjectKey("v1", "PersistentVolumeClaim", "x", name) for name in ("a", "c")}
    assert [f.what for f in pods.check_storage_classes(some, [storage_class("fast")], there)] == [
        "2 new claims have a storage class"
    ]
    own = contents(claim("a"), storage_class("own", default=True))
    assert texts(pods.check_storage_classes(own, [], ())) == [
        ("ok", "1 new claims have a storage class")
    ]


def workload(name: str, namespace: str, **spec: Any) -> Body:
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    return made("apps/v1", "Deployment", name, namespace, spec={"template": template})


def test_pull_secrets() -> None:
    some = contents(
        workload("a", "x", imagePullSecrets=[{"name": "own"}]),
        workload("b", "y", serviceAccountName="robot"),
        made("v1", "ServiceAccount", "robot", "y", imagePullSecrets=[{"name": "robots"}]),
        made("v1", "Secret", "own", "x"),
    )
    wanted = pods.find_pull_secrets(some, ResourceLocator(some, "helm"), ["reg"])
    assert sorted(f"{key.namespace}/{key.name}" for key in wanted) == [
        *("x/own", "x/reg", "y/reg", "y/robots")
    ]
    types = {ObjectKey("v1", "Secret", "y", "robots"): "Opaque"}
    found = list(pods.check_pull_secrets(wanted, {("x", "own")}, {"y"}, types))
    assert [(one.severity, one.what, one.where) for one in found] == [
        (
            "warning",
            "the pull secret reg cannot exist yet: its namespaces come with the set",
            ("x",),
        ),
        ("error", "the pull secret reg does not exist, and pods need it", ("y",)),
        (
            "error",
            "the Secret robots is of type Opaque, which is not for pulling images",
            ("y",),
        ),
    ]


# -- webhooks of others ---------------------------------------------------------------------------


def configuration(name: str, **webhook: Any) -> Body:
    rules = [
        {
            "operations": ["CREATE"],
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "resources": ["pods", "configmaps"],
        }
    ]
    service = {"namespace": "guard", "name": "guard"}
    entry = {"name": "all.guard.test", "clientConfig": {"service": service}, "rules": rules}
    return made(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        name,
        webhooks=[{**entry, **webhook}],
    )


def test_a_webhook_that_nobody_answers_for_stops() -> None:
    some = contents(made("v1", "ConfigMap", "a", "x"), workload("web", "x"))
    judges = list(webhooks.find_blocking_webhooks(some, [configuration("guard")]))
    (error,) = webhooks.check_webhooks(judges, set())
    assert list(error.format_lines())[:3] == [
        (
            "error: ValidatingWebhookConfiguration guard: nothing answers for all.guard.test"
            " (Service guard/guard has no ready endpoint); it refuses 2 objects:"
        ),
        "    ConfigMap x/a",
        "    pods of Deployment x/web",
    ]
    assert texts(webhooks.check_webhooks(judges, {("guard", "guard")})) == [
        ("ok", "1 webhooks of others get the set's objects, and answer")
    ]


@pytest.mark.parametrize(
    "webhook",
    [
        {"failurePolicy": "Ignore"},
        {"clientConfig": {"url": "https://guard.test"}},
        {"clientConfig": {"service": {"namespace": "x", "name": "own"}}},
        {"namespaceSelector": {"matchLabels": {"guarded": "yes"}}},
        {"rules": []},
    ],
)
def test_webhooks_that_are_not_in_the_way(webhook: Body) -> None:
    some = contents(made("v1", "ConfigMap", "a", "x"), made("v1", "Service", "own", "x"))
    assert not list(webhooks.find_blocking_webhooks(some, [configuration("guard", **webhook)]))


def test_a_webhook_of_the_set_is_its_own_matter_and_conditions_may_spare() -> None:
    some = contents(made("v1", "ConfigMap", "a", "x"), configuration("own"))
    assert not list(webhooks.find_blocking_webhooks(some, [configuration("own")]))
    (judge,) = webhooks.find_blocking_webhooks(
        some, [configuration("guard", matchConditions=[{"name": "a"}])]
    )
    assert next(iter(webhooks.check_webhooks([judge], ()))).severity == "warning"


def test_services_with_a_ready_endpoint() -> None:
    def endpoints(name: str, *ready: bool | None) -> Body:
        labels = {"kubernetes.io/service-name": name}
        return {
            "metadata": {"namespace": "x", "labels": labels},
            "endpoints": [{"conditions": {"ready": one}} for one in ready],
        }

    slices = [endpoints("a", False, True), endpoints("b", False), endpoints("c", None)]
    assert webhooks.find_ready_services(slices) == {("x", "a"), ("x", "c")}
