"""Two sets side by side: images, rights, connections, kinds, and what an upgrade must do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from kfdeploy.codec import to_json
from kfdeploy.kubernetes.objects import Object
from kfdeploy.oci.reference import ImageRef
from kfdeploy.releaseset.diff import diff, images, rights
from kfdeploy.releaseset.diff.diff import SetDiff
from kfdeploy.releaseset.diff.sides import ReleaseObject, SetSide
from kfdeploy.releaseset.summary import ImageSummary, ReleaseSummary
from tests.support.refs import written
from tests.support.sets import small_summary

Body = dict[str, Any]
RBAC = "rbac.authorization.k8s.io/v1"
NETWORKING = "networking.k8s.io/v1"


def body(api_version: str, kind: str, name: str = "x", namespace: str = "", **more: Any) -> Body:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": api_version,
        "kind": kind,
        **more,
        "metadata": {**meta, **more.get("metadata", {})},
    }


def side(
    objects: Sequence[Body] | Mapping[str, Sequence[Body]],
    releases: Sequence[ReleaseSummary] = (),
) -> SetSide:
    placed = objects if isinstance(objects, Mapping) else {"one": objects}
    return SetSide(
        "set",
        small_summary(
            releases=tuple(releases)
            or tuple(ReleaseSummary(name=name, component=name) for name in placed)
        ),
        tuple(
            ReleaseObject(name, Object(_text(one)))
            for name, bodies in placed.items()
            for one in bodies
        ),
    )


def _text(one: Body) -> str:
    if one["kind"] != "CustomResourceDefinition":
        return json.dumps(one)
    lines = [f"{key}: {json.dumps(value)}" for key, value in one.items() if key != "metadata"]
    return "\n".join([*lines, "metadata:", f"  name: {one['metadata']['name']}", ""])


def compared(old: Sequence[Body], new: Sequence[Body]) -> SetDiff:
    return diff.compare_sets(side(old), side(new))


# -- images ----------------------------------------------------------------------------------------


def image(ref: str, digest: str = "") -> ImageSummary:
    at = f"@sha256:{digest * 64}" if digest else ""
    return ImageSummary(
        ref=written(ref),
        mirror=ImageRef.parse(f"mirror.test/{ref}{at}"),
        source=ImageRef.parse(f"{ref.partition(':')[0]}{at}"),
        need="required",
    )


MOVES: list[tuple[list[ImageSummary], list[ImageSummary], list[tuple[str, str, str]]]] = [
    ([image("a/b:1")], [image("a/b:1")], []),
    ([image("a/b:1")], [image("a/b:2")], [("tag", "a/b:1", "a/b:2")]),
    ([image("a/b:1", "1")], [image("a/b:1", "2")], [("digest", "a/b:1", "a/b:1")]),
    ([image("a/b:1")], [image("c.test/d/b:2")], [("place", "a/b:1", "c.test/d/b:2")]),
    ([image("a/b:1")], [], [("dropped", "a/b:1", "")]),
    ([], [image("a/b:1")], [("added", "", "a/b:1")]),
    (
        [image("a/b:1"), image("a/b:1-gpu")],
        [image("a/b:2"), image("a/b:2-gpu")],
        [("tag", "a/b:1", "a/b:2"), ("tag", "a/b:1-gpu", "a/b:2-gpu")],
    ),
    (  # which of two it became is not guessed
        [image("a/b:1")],
        [image("a/b:2"), image("a/b:3")],
        [("dropped", "a/b:1", ""), ("added", "", "a/b:2"), ("added", "", "a/b:3")],
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), MOVES)
def test_an_image_moves(
    old: list[ImageSummary], new: list[ImageSummary], expected: list[tuple[str, str, str]]
) -> None:
    found = images.compare_images(old, new)
    moves = [
        (move.what, str(move.old.ref) if move.old else "", str(move.new.ref) if move.new else "")
        for move in found
    ]
    assert moves == expected


# -- rights ----------------------------------------------------------------------------------------


def role(*rules: Mapping[str, Any], name: str = "x", **more: Any) -> Body:
    return body(RBAC, "ClusterRole", name, rules=list(rules), **more)


def rule(group: str, resources: str, verbs: str, **more: Any) -> Body:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split(), **more}


DANGERS = [
    (rule("", "secrets", "get"), "get secrets  reads passwords and tokens"),
    (rule("", "configmaps", "get"), "get configmaps"),
    (rule("", "pods/exec", "create"), "create pods/exec  runs commands in others' pods"),
    (rule("", "users", "impersonate"), "impersonate users  acts as others"),
    (
        rule("rbac.authorization.k8s.io", "roles", "bind"),
        "bind roles.rbac.authorization.k8s.io  hands out roles that it lacks",
    ),
    (
        rule("rbac.authorization.k8s.io", "clusterroles", "escalate"),
        "escalate clusterroles.rbac.authorization.k8s.io  gives itself rights that it lacks",
    ),
    (rule("*", "*", "*"), "* *.*  everything there is"),
    (rule("x.test", "things", "*"), "* things.x.test  whatever verb there will be"),
    ({"nonResourceURLs": ["/metrics"], "verbs": ["get"]}, "get /metrics"),
    (
        rule("", "secrets", "get", resourceNames=["one"]),
        "get secrets one  reads passwords and tokens",
    ),
]


@pytest.mark.parametrize(("added", "expected"), DANGERS)
def test_what_a_role_gains_is_marked_where_it_lets_it_become_more(
    added: Body, expected: str
) -> None:
    first = role(rule("", "pods", "get"))
    (found,) = rights.compare_roles(side([first]), side([role(*first["rules"], added)]))
    (gain,) = found.gains
    assert f"{gain}  {gain.danger}".strip() == expected
    assert (found.what, found.loses) == ("changed", ())
    assert found.is_dangerous == bool(gain.danger)


def test_what_a_wider_right_gave_before_is_no_gain() -> None:
    wide = role(rule("*", "*", "get"), rule("apps", "*/scale", "update"))
    narrow = role(rule("apps", "deployments", "get"), rule("apps", "deployments/scale", "update"))
    (found,) = rights.compare_roles(side([wide]), side([narrow]))
    assert found.gains == ()
    assert [str(one) for one in found.loses] == ["get *.*", "update */scale.apps"]


def test_an_aggregated_role_gains_what_is_selected() -> None:
    label = {"metadata": {"labels": {"aggregate": "true"}}}
    whole = role(
        name="whole",
        aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"aggregate": "true"}}]},
    )
    parts = [role(rule("", "pods", "get"), name="a", **label)]
    more = [*parts, role(rule("", "secrets", "list"), name="b", **label)]
    found = {
        one.key.name: one
        for one in rights.compare_roles(side([whole, *parts]), side([whole, *more]))
    }
    assert [str(one) for one in found["whole"].gains] == ["list secrets"]
    assert (found["whole"].what, found["b"].what) == ("changed", "added")


def test_what_the_clusters_own_roles_collect_is_theirs() -> None:
    labels = {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}
    added = role(rule("x.test", "things", "create"), name="a", metadata={"labels": labels})
    found = {one.key.name: one for one in rights.compare_roles(side([]), side([added]))}
    assert found["edit"].what == "extended"
    assert [str(one) for one in found["edit"].gains] == ["create things.x.test"]


def test_bindings_tell_who_gains_a_role() -> None:
    def binding(name: str, *subjects: Body) -> Body:
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        return body(RBAC, "RoleBinding", namespace="n", roleRef=ref, subjects=list(subjects))

    account = {"kind": "ServiceAccount", "name": "a"}
    everybody = {"kind": "Group", "name": "system:authenticated"}
    (found,) = rights.compare_bindings(
        side([binding("r", account)]), side([binding("r", everybody)])
    )
    assert found.gains == ("Group system:authenticated",)
    assert found.loses == ("ServiceAccount n/a",)
    assert found.danger == "Group system:authenticated is nearly everybody"
    (other,) = rights.compare_bindings(
        side([binding("r", account)]), side([binding("cluster-admin", account)])
    )
    assert other.role == "ClusterRole r -> ClusterRole cluster-admin"
    assert (other.gains, other.danger) == (
        ("ServiceAccount n/a",),
        "it gives everything there is",
    )


# -- connections -----------------------------------------------------------------------------------


def service(*ports: int, **spec: Any) -> Body:
    content = {"ports": [{"port": port} for port in ports], "selector": {"app": "x"}, **spec}
    return body("v1", "Service", "db", "n", spec=content)


def program(**container: Any) -> Body:
    spec = {"template": {"spec": {"containers": [{"name": "main", **container}]}}}
    return body("apps/v1", "Deployment", "x", "n", spec=spec)


CONNECTIONS = {
    "a port": ([service(80)], [service(80, 81)], ["port 81/TCP -> 81"], []),
    "out of the cluster": (
        [service(80)],
        [service(80, type="LoadBalancer")],
        ["type LoadBalancer"],
        [],
    ),
    "a host in a variable": (
        [program(env=[{"name": "A", "value": "http://a.test:80/x"}])],
        [program(env=[{"name": "A", "value": "http://b.test/x"}])],
        ["b.test"],
        ["a.test:80"],
    ),
    "a Service in an argument": (
        [service(80), program(args=["--db=none"])],
        [service(80), program(args=["--db=db.n:3306", "--file=a.b"])],
        ["db.n:3306"],
        [],
    ),
    "a Service in a configuration": (
        [body("v1", "ConfigMap", data={"a": "x"})],
        [
            body(
                "v1",
                "ConfigMap",
                data={"a": "to: y.z.svc.cluster.local:1\n", "_example": "q.r.svc"},
            )
        ],
        ["y.z.svc.cluster.local:1"],
        [],
    ),
    "a webhook": (
        [],
        [
            body(
                "admissionregistration.k8s.io/v1",
                "MutatingWebhookConfiguration",
                webhooks=[
                    {
                        "name": "a",
                        "clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/p"}},
                        "rules": [{"apiGroups": ["apps"], "resources": ["deployments"]}],
                        "failurePolicy": "Ignore",
                    }
                ],
            )
        ],
        ["asks s.n:443/p about deployments.apps (failurePolicy Ignore)"],
        [],
    ),
}


@pytest.mark.parametrize("name", CONNECTIONS)
def test_connections_come_and_go(name: str) -> None:
    old, new, gains, loses = CONNECTIONS[name]
    (found,) = compared(old, new).connections
    assert (list(found.gains), list(found.loses)) == (gains, loses)


def test_a_policy_tells_its_fields() -> None:
    old, new = (
        body(NETWORKING, "NetworkPolicy", namespace="n", spec={"policyTypes": [kind]})
        for kind in ("Ingress", "Egress")
    )
    (found,) = compared([old], [new]).connections
    assert found.fields == ("spec.policyTypes",)
    labelled = {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}}
    assert compared([old], [labelled]).connections == ()


# -- kinds -----------------------------------------------------------------------------------------


def crd(*versions: tuple[str, bool, bool], strategy: str = "None") -> Body:
    return body(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "things.x.test",
        spec={
            "names": {"kind": "Thing"},
            "conversion": {"strategy": strategy},
            "versions": [
                {"name": name, "served": served, "storage": storage, "schema": {"a": name}}
                for name, served, storage in versions
            ],
        },
    )


KINDS = {
    "a version that goes": (
        [crd(("v1alpha1", True, False), ("v1", True, True))],
        [crd(("v1", True, True))],
        ["version v1alpha1 is gone: whoever asks for it gets an error"],
        0,
    ),
    "a stored version that goes": (
        [crd(("v1", True, True))],
        [crd(("v2", True, True))],
        [
            "version v2 is new",
            "version v1 is gone: whoever asks for it gets an error",
            "objects are stored as v2, and no longer as v1, from their next write on",
        ],
        1,
    ),
    "a version that is served no more": (
        [crd(("v1", True, True), ("v0", True, False), strategy="Webhook")],
        [crd(("v1", True, True), ("v0", False, False))],
        [
            "version v0 is no longer served: whoever asks for it gets an error",
            "versions are converted by None, and no longer by Webhook",
        ],
        0,
    ),
    "a kind that goes": (
        [crd(("v1", True, True))],
        [],
        ["the definition stays, and so do all objects of this kind; nothing acts on them"],
        0,
    ),
    "a kind that comes": ([], [crd(("v1", True, True))], ["served: v1"], 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_and_their_versions(name: str) -> None:
    old, new, notes, blocks = KINDS[name]
    (found,) = compared(old, new).kinds
    assert (list(found.notes), len(found.blocks)) == (notes, blocks)


def test_a_schema_is_counted_and_not_listed() -> None:
    old, new = crd(("v1", True, True)), crd(("v1", True, True))
    new["spec"]["versions"][0]["schema"] = {"a": "b", "c": {"d": "e"}}
    (found,) = compared([old], [new]).objects
    assert (found.fields, found.schema) == ((), 2)
    (added,) = compared([old], [crd(("v1", True, True), ("v2", True, False))]).objects
    assert [(one.field, one.becomes) for one in added.fields] == [
        ("spec.versions[name=v2]", {"name": "v2", "served": True, "storage": False})
    ]


# -- the plan --------------------------------------------------------------------------------------


def test_an_object_in_another_version_of_its_kind_stays_itself() -> None:
    (found,) = compared([body("x.test/v1beta1", "Thing")], [body("x.test/v1", "Thing")]).objects
    assert (found.what, str(found.key)) == ("changed", "Thing x")
    assert found.old_key is not None
    assert found.old_key.api_version == "x.test/v1beta1"


def test_a_name_with_another_sum_of_its_content_is_the_same_object() -> None:
    old = body("v1", "ConfigMap", "config-9h2h2b6hbk", data={"a": "1"})
    new = body("v1", "ConfigMap", "config-tmmd7mmb4d", data={"a": "2"})
    (found,) = compared([old], [new]).objects
    assert (found.what, found.key.name, found.recreate) == ("changed", "config-tmmd7mmb4d", ())
    assert [one.field for one in found.fields] == ["data.a"]


def test_what_holds_data_is_kept_and_the_rest_deleted() -> None:
    old = [
        body("v1", "PersistentVolumeClaim", "a"),
        body("v1", "Namespace", "b"),
        crd(("v1", True, True)),
        body("kubeflow.org/v1", "Profile", "c"),
        body("v1", "Service", "d"),
    ]
    found = compared(old, [])
    assert [str(one.key) for one in found.to_delete] == ["Service d"]
    assert {one.key.kind: one.kept for one in found.kept} == {
        "PersistentVolumeClaim": "its data would go with it",
        "Namespace": "all that is in it would go with it",
        "CustomResourceDefinition": "its objects would go with it",
        "Profile": "the user's namespace would go with it",
    }


def test_an_object_that_only_changes_its_release_is_moved() -> None:
    one, other = body("v1", "Service", "a"), body("v1", "Service", "b")
    found = diff.compare_sets(
        side({"first": [one, other], "second": []}), side({"first": [one], "second": [other]})
    )
    assert [(o.what, str(o.key), o.old_release, o.release) for o in found.objects] == [
        ("moved", "Service b", "first", "second")
    ]
    assert not found.is_empty


def test_what_must_be_made_anew_says_what_that_costs() -> None:
    def workload(name: str) -> Body:
        return body("apps/v1", "StatefulSet", spec={"serviceName": name})

    claims = [
        body("v1", "PersistentVolumeClaim", spec={"storageClassName": name}) for name in ("a", "b")
    ]
    found = compared([workload("a"), claims[0]], [workload("b"), claims[1]])
    stateful, claim = found.to_recreate
    assert (claim.loses_data, stateful.loses_data) == (True, False)
    assert stateful.cost == "its pods stop until the new ones are ready; its claims stay"
    plan = to_json(found)["plan"]["recreate"]
    assert [one["reasons"][0]["field"] for one in plan] == [
        "spec.serviceName",
        "spec.storageClassName",
    ]


def test_releases_and_their_order() -> None:
    def releases(**needs: list[str]) -> SetSide:
        return side(
            [],
            releases=[
                ReleaseSummary(name=name, component=name, needs=tuple(some), wait=bool(some))
                for name, some in needs.items()
            ],
        )

    found = diff.compare_sets(releases(a=[], b=["a"], c=[]), releases(a=[], b=[], d=[]))
    assert [(one.what, one.name, one.notes) for one in found.releases] == [
        ("changed", "b", ("no longer comes after a", "nothing waits for it any more")),
        ("removed", "c", ()),
        ("added", "d", ()),
    ]


def test_a_set_does_not_differ_from_itself() -> None:
    one = side([service(80), crd(("v1", True, True)), role(rule("", "pods", "get"))])
    found = diff.compare_sets(one, one)
    assert found.is_empty
    assert to_json(found)["different"] is False
