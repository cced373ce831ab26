"""The rights that a set takes, granted on a real API server: enough, and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.apply import applied_set
from kfdeploy.apply.preflight import rights as preflight_rights
from kfdeploy.apply.preflight.api_versions import ResourceLocator
from kfdeploy.apply.preflight.needed_rights import (
    APPLIED,
    LOCK,
    RequiredRights,
    collect_required_rights,
)
from kfdeploy.export.formats import rbac
from kfdeploy.kubernetes.cluster import client as tool
from kfdeploy.kubernetes.cluster import lease
from kfdeploy.kubernetes.cluster.errors import ApiError
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset.folder import SetFolder, open_set
from kfdeploy.releaseset.order.contents import SetContents
from tests.conftest import Runner, need_programs
from tests.support.cluster import Cluster
from tests.support.sets import make_workspace, write_set

HELM = "rights-helm"
OWN = "rights-own"
RBAC = "rbac.authorization.k8s.io/v1"
Body = dict[str, Any]


def made(api: str, kind: str, name: str, namespace: str = "", **more: Any) -> Body:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api, "kind": kind, "metadata": meta, **more}


def ref(kind: str, name: str) -> Body:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}


ANY_SECRET = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}]
SUBJECT = [{"kind": "ServiceAccount", "name": "own", "namespace": OWN}]
CRD = made(
    "apiextensions.k8s.io/v1",
    "CustomResourceDefinition",
    "rightsthings.kfdeploy.test",
    spec={
        "group": "kfdeploy.test",
        "names": {
            "kind": "RightsThing",
            "plural": "rightsthings",
            "singular": "rightsthing",
            "listKind": "RightsThingList",
        },
        "scope": "Namespaced",
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
OBJECTS = [
    made("v1", "Namespace", OWN),
    made("v1", "ServiceAccount", "own", OWN),
    made("v1", "ConfigMap", "own", OWN, data={"a": "1"}),
    made("v1", "Secret", "own", OWN, stringData={"a": "1"}),
    made(RBAC, "Role", "own", OWN, rules=ANY_SECRET),
    made(RBAC, "RoleBinding", "own", OWN, roleRef=ref("Role", "own"), subjects=SUBJECT),
    made(RBAC, "ClusterRole", "rights-own", rules=ANY_SECRET),
    made(
        RBAC,
        "ClusterRole",
        "rights-sum",
        aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"none": "none"}}]},
        rules=[],
    ),
    made(
        RBAC,
        "ClusterRoleBinding",
        "rights-own",
        roleRef=ref("ClusterRole", "rights-own"),
        subjects=SUBJECT,
    ),
    CRD,
    made("kfdeploy.test/v1", "RightsThing", "own", OWN),
]


def needs(release_set: SetFolder) -> RequiredRights:
    contents = SetContents((r.name, (*r.crds, *r.objects)) for r in release_set.releases)
    return collect_required_rights(contents, ResourceLocator(contents, HELM), HELM)


@dataclass(frozen=True)
class Account:
    """The account of the exported rights, after an administrator has applied them."""

    workspace: Path
    kubeconfig: Path
    release_set: SetFolder
    cluster: tool.Cluster


def sign_in(cluster: Cluster, folder: Path, namespace: str, name: str) -> Path:
    """A kubeconfig of a service account; its context is ``test`` too."""
    token = cluster.kubectl("create", "token", name, "-n", namespace).stdout.strip()
    config = json.loads(cluster.kubeconfig.read_text())
    user = config["contexts"][0]["context"]["user"]
    config["users"] = [{"name": user, "user": {"token": token}}]
    file = folder / f"{name}.kubeconfig"
    file.write_text(json.dumps(config))
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def account(
    cluster: Cluster, kfdeploy: Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("rights")
    workspace = make_workspace(folder / "site", namespace=HELM)
    crd, thing = OBJECTS[-2:]
    releases = {"own": OBJECTS[:-2], "things": [crd, thing]}
    release_set = open_set(
        write_set(workspace, releases, waves=[["own"], ["things"]], waits=["own"])
    )
    said = kfdeploy("export", "rbac", cwd=workspace)
    cluster.kubectl("apply", "-f", "-", stdin=said.stdout)
    kubeconfig = sign_in(cluster, folder, HELM, "kfdeploy")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KUBECONFIG", str(kubeconfig))
        with tool.connect("test", patience=5) as opened:
            yield Account(workspace, kubeconfig, release_set, opened)


def refused(account: Account, body: Body) -> str:
    with pytest.raises(ApiError) as error:
        account.cluster.apply(body, manager="helm", force=True)
    assert error.value.status == 403
    return error.value.said


def test_names_of_the_lock_and_of_the_record_are_those_that_apply_uses() -> None:
    assert (LOCK, APPLIED) == (lease.NAME, applied_set.NAME)


def test_the_rights_are_few_and_named(account: Account) -> None:
    found = {
        (need.namespace, need.resource, need.verbs): need.names
        for need in needs(account.release_set).with_escalations
        if need.purpose == "apply"
    }
    assert found["", "clusterroles", ("escalate",)] == ("rights-own", "rights-sum")
    assert found["", "clusterroles", ("bind",)] == ("rights-own",)
    assert found[OWN, "roles", ("bind",)] == ("own",)
    assert found[OWN, "secrets", ("delete", "get", "patch")] == ("own",)
    assert found["", "namespaces", ("patch",)] == (OWN,)
    assert found["", "customresourcedefinitions", ("patch",)] == ("rightsthings.kfdeploy.test",)
    # Neither is ever deleted.
    assert ("", "namespaces", ("delete", "patch")) not in found


def test_the_preflight_finds_nothing_missing(account: Account) -> None:
    found = list(preflight_rights.check_rights(account.cluster, needs(account.release_set)))
    assert [finding.severity for finding in found] == ["ok"]
    assert found[0].what == (
        f"system:serviceaccount:{HELM}:kfdeploy has the rights that applying takes"
    )


def test_an_account_without_rights_is_told_each_and_what_next(
    cluster: Cluster, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.create(made("v1", "ServiceAccount", "nobody", HELM))
    monkeypatch.setenv("KUBECONFIG", str(sign_in(cluster, tmp_path, HELM, "nobody")))
    with tool.connect("test", patience=5) as nobody:
        error, warning = preflight_rights.check_rights(nobody, needs(account.release_set))
    assert error.severity == "error"
    who = f"system:serviceaccount:{HELM}:nobody"
    assert error.what == f"{who} lacks rights that applying the set takes"
    assert f"in {OWN}: create, get, list, watch configmaps" in error.where
    assert f"in {OWN}: delete, get, patch secrets (own)" in error.where
    assert (
        "delete, escalate, patch clusterroles.rbac.authorization.k8s.io (rights-own, rights-sum)"
        in error.where
    )
    assert error.hint.startswith("`kfdeploy export rbac` writes them")
    assert warning.severity == "warning"
    assert "get, list nodes" in warning.where


def test_who_holds_what_roles_grant_needs_no_leave_to_write_them(
    cluster: Cluster, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.create(
        made("v1", "ServiceAccount", "holder", HELM),
        made(RBAC, "ClusterRole", "rights-holder", rules=ANY_SECRET),
        made(
            RBAC,
            "ClusterRoleBinding",
            "rights-holder",
            roleRef=ref("ClusterRole", "rights-holder"),
            subjects=[{"kind": "ServiceAccount", "name": "holder", "namespace": HELM}],
        ),
    )
    monkeypatch.setenv("KUBECONFIG", str(sign_in(cluster, tmp_path, HELM, "holder")))
    with tool.connect("test", patience=5) as holder:
        error = next(iter(preflight_rights.check_rights(holder, needs(account.release_set))))
    lines = [line for line in error.where if "escalate" in line or "bind " in line]
    # What is aggregated may become anything, so that nobody holds it.
    assert lines == ["escalate clusterroles.rbac.authorization.k8s.io (rights-sum)"]


def test_an_administrator_lacks_nothing(
    cluster: Cluster, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    with tool.connect("test", patience=5) as admin:
        found = list(preflight_rights.check_rights(admin, needs(account.release_set)))
    assert [finding.what for finding in found] == ["admin has the rights that applying takes"]


def test_a_set_is_applied_twice_and_taken_away_with_these_rights(
    account: Account, kfdeploy: Runner
) -> None:
    need_programs("helm", "helmfile", "kubectl")
    env = {"KUBECONFIG": str(account.kubeconfig)}
    kfdeploy("apply", cwd=account.workspace, env=env)
    for item in OBJECTS:
        assert account.cluster.get(ObjectKey.from_body(item)) is not None
    kfdeploy("apply", "--dry-run", cwd=account.workspace, env=env)
    kfdeploy("apply", cwd=account.workspace, env=env)
    assert account.cluster.delete(ObjectKey("v1", "ConfigMap", OWN, "own"))


def test_what_is_not_of_the_set_is_out_of_reach(cluster: Cluster, account: Account) -> None:
    config = made("v1", "ConfigMap", "other", OWN, data={})
    cluster.create(config, made("v1", "Secret", "other", OWN))
    assert "cannot patch resource" in refused(account, config)
    with pytest.raises(ApiError, match="cannot get resource"):
        account.cluster.get(ObjectKey("v1", "Secret", OWN, "other"))
    with pytest.raises(ApiError, match="cannot delete resource"):
        account.cluster.delete(ObjectKey("v1", "Namespace", "", OWN))
    other = made(RBAC, "ClusterRole", "rights-other", rules=ANY_SECRET)
    assert "cannot patch resource" in refused(account, other)
    with pytest.raises(ApiError, match="attempting to grant RBAC permissions"):
        account.cluster.create(other)
    bound = made(
        RBAC,
        "ClusterRoleBinding",
        "rights-own",
        roleRef=ref("ClusterRole", "cluster-admin"),
        subjects=SUBJECT,
    )
    account.cluster.delete(ObjectKey.from_body(bound))
    assert "attempting to grant RBAC permissions" in refused(account, bound)


def test_leave_to_write_a_role_by_name_is_for_server_side_apply(account: Account) -> None:
    """The API server does not know the name of what is created by POST: docs/rights.md, Helm 3."""
    role = made(RBAC, "ClusterRole", "rights-own", rules=ANY_SECRET)
    account.cluster.delete(ObjectKey.from_body(role))
    with pytest.raises(ApiError, match="attempting to grant RBAC permissions"):
        account.cluster.create(role)
    assert account.cluster.apply(role, manager="helm")["metadata"]["name"] == "rights-own"


def test_going_from_one_set_to_the_next_takes_both(account: Account) -> None:
    old = write_set(
        account.workspace,
        {"gone": [made("v1", "ConfigMap", "gone", OWN)]},
        name="older",
    )
    text = rbac.export(rbac.RightsMaterial([account.release_set, open_set(old)], HELM)).files[
        "rbac.yaml"
    ]
    assert "of default, older:" in text
    assert "  resourceNames:\n  - gone\n  - own\n  verbs: [delete, patch]\n" in text
