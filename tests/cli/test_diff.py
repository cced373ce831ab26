"""`kfdeploy diff` and `kfdeploy audit images`, as an operator runs them."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DATA, Done, Runner, Site, need_programs
from tests.support.cluster import Cluster
from tests.support.sets import REGISTRY, make_workspace, write_set

Body = dict[str, Any]
EXPECTED = DATA / "diff"


def body(api_version: str, kind: str, name: str, namespace: str = "", **more: Any) -> Body:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **more}


def workload(kind: str, name: str, space: str, image: str, **spec: Any) -> Body:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": image}]},
    }
    content = {"selector": {"matchLabels": labels}, "template": template, **spec}
    return body("apps/v1", kind, name, space, spec=content)


def role(name: str, *resources: str) -> Body:
    rule = {"apiGroups": [""], "resources": list(resources), "verbs": ["get"]}
    return body("rbac.authorization.k8s.io/v1", "ClusterRole", name, rules=[rule])


def crd(*versions: str) -> Body:
    schema = {"openAPIV3Schema": {"type": "object"}}
    served = [
        {"name": name, "served": True, "storage": name == versions[-1], "schema": schema}
        for name in versions
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.diff.test"},
        "spec": {
            "group": "diff.test",
            "names": {"kind": "Thing", "plural": "things"},
            "scope": "Namespaced",
            "versions": served,
        },
    }


def with_images(folder: Path, images: Mapping[str, str]) -> None:
    """Give a set's summary its images: upstream's reference to the mirror's."""
    file = folder / "summary.json"
    summary = json.loads(file.read_text())
    summary["images"] = {
        ref: {"mirror": mirror, "source": "", "need": "required", "redirects": ["patch"]}
        for ref, mirror in images.items()
    }
    file.write_text(json.dumps(summary))
    (folder / "images.lock").write_text(
        "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages: []\n"
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets with something of each kind of difference."""
    folder = make_workspace(tmp_path_factory.mktemp("diff"), namespace="kfdeploy")
    space, app = "app", f"{REGISTRY}/quay.io/org/app"
    config = "first: 1\nsecond: 2\nthird: `x` 3\nfourth: 4\n"
    old: dict[str, list[Body]] = {
        "core": [
            crd("v1alpha1", "v1"),
            body("v1", "Namespace", space),
            workload("Deployment", "web", space, f"{app}:1"),
            workload("StatefulSet", "db", space, f"{app}:1", serviceName="db"),
            body("v1", "ConfigMap", "config", space, data={"app.yaml": config}),
            body("v1", "Secret", "password", space, stringData={"password": "one"}),
            body("v1", "PersistentVolumeClaim", "data", space, spec={}),
            role("reader", "pods"),
        ],
        "old": [body("v1", "Service", "moved", space, spec={"ports": [{"port": 80}]})],
    }
    new = copy.deepcopy(old)
    core = new["core"]
    core[0] = crd("v1")
    core[2]["spec"]["template"]["spec"]["containers"][0]["image"] = f"{app}:2"
    core[2]["metadata"]["labels"] = {"version": "2"}
    core[3]["spec"]["serviceName"] = "database"
    core[4]["data"]["app.yaml"] = config.replace("`x` 3", "``` @all 4")
    core[5]["stringData"]["password"] = "two"
    del core[6]
    core[6] = role("reader", "pods", "secrets")
    new["new"] = [*new.pop("old"), body("v1", "Service", "added", space, spec={"ports": []})]
    with_images(write_set(folder, old, name="old"), {"quay.io/org/app:1": f"{app}:1"})
    with_images(
        write_set(folder, new, name="new", upstream="1.1.0"),
        {"quay.io/org/app:2": f"{app}:2", "busybox": f"{REGISTRY}/docker.io/library/busybox"},
    )
    return folder


def difference(kfdeploy: Runner, workspace: Path, *arguments: str) -> Done:
    return kfdeploy("diff", "old", "new", *arguments, cwd=workspace, check=3)


@pytest.mark.parametrize(("output", "name"), [("text", "plan.txt"), ("markdown", "plan.md")])
def test_a_change_board_reads_it(workspace: Path, kfdeploy: Runner, output: str, name: str) -> None:
    said = difference(kfdeploy, workspace, "--output", output).stdout
    assert said == (EXPECTED / name).read_text()


def test_a_secret_is_never_shown(workspace: Path, kfdeploy: Runner) -> None:
    for output in ("text", "markdown", "json"):
        said = difference(kfdeploy, workspace, "--output", output).stdout
        assert "data.password" in said
        assert not any(word in said for word in ("b25l", "dHdv", '"one"', '"two"'))


def test_the_plan_as_json(workspace: Path, kfdeploy: Runner) -> None:
    found = difference(kfdeploy, workspace, "--output", "json").json
    assert set(found) == {
        *("old", "new", "different", "images", "releases", "objects", "rights", "connections"),
        *("kinds", "plan"),
    }
    plan = {
        what: [one["object"]["name"] for one in entries] for what, entries in found["plan"].items()
    }
    assert plan == {"recreate": ["db"], "delete": [], "keep": ["data"], "move": ["moved"]}
    (kind,) = found["kinds"]
    assert kind["notes"] == ["version v1alpha1 is gone: whoever asks for it gets an error"]


def test_one_part_is_shown_alone(workspace: Path, kfdeploy: Runner) -> None:
    said = difference(kfdeploy, workspace, "--only", "images").stdout
    assert said == (
        "old -> new\n"
        "  upstream 1.0.0 -> 1.1.0\n"
        "\n"
        "images: 1 added, 1 with another tag\n"
        "  + busybox (required)\n"
        "      mirror registry.test:5000/docker.io/library/busybox\n"
        "  ~ quay.io/org/app:1 -> quay.io/org/app:2\n"
        "      mirror registry.test:5000/quay.io/org/app:1"
        " -> registry.test:5000/quay.io/org/app:2\n"
    )


def test_a_set_does_not_differ_from_itself(workspace: Path, kfdeploy: Runner) -> None:
    folder = workspace / "releases" / "old"
    done = kfdeploy("diff", "old", folder, cwd=workspace)
    assert done.stdout == "old -> old\nno difference\n"


WRONG = {
    ("old",): "error: diff takes two release sets, OLD and NEW, or one with --cluster\n",
    ("old", "none"): "error: none: there is no such release set\n  hint: there are new, old\n",
    ("old", "new", "--cluster"): "error: --cluster compares one release set: OLD\n",
    ("old", "--cluster", "--only", "plan"): (
        "error: --only is for two release sets: leave --cluster out\n"
    ),
    ("old", "new", "--only", "all"): (
        "error: --only all: there is no such part\n  hint: there are plan, kinds, rights,"
        " connections, images, releases, objects, fields\n"
    ),
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_use(workspace: Path, kfdeploy: Runner, arguments: tuple[str, ...]) -> None:
    done = kfdeploy("diff", *arguments, cwd=workspace, check=2)
    assert (done.stdout, done.stderr) == ("", WRONG[arguments])


def test_audit_asks_the_cluster(workspace: Path, kfdeploy: Runner) -> None:
    done = kfdeploy("audit", "images", "old", cwd=workspace, check=2)
    assert done.stderr == (
        "error: audit images asks the cluster: add --cluster\n"
        "  hint: `kfdeploy verify` checks the images of a set without a cluster\n"
    )


# -- the real releases -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_upgrade(
    real_site: Callable[[str], Site], kfdeploy: Runner, tmp_path: Path
) -> None:
    old, new = real_site("1.10.2"), real_site("26.03")
    root = make_workspace(tmp_path / "site", namespace="kfdeploy")
    found = kfdeploy("diff", old.set, new.set, "--output", "json", cwd=root, check=3).json
    assert {one["name"] for one in found["kinds"] if one["what"] == "dropped"} == {
        *("jaxjobs.kubeflow.org", "mpijobs.kubeflow.org", "paddlejobs.kubeflow.org"),
        *("pytorchjobs.kubeflow.org", "tfjobs.kubeflow.org", "xgboostjobs.kubeflow.org"),
    }
    releases = {(one["what"], one["name"]) for one in found["releases"]}
    assert {("removed", "training-operator"), ("added", "trainer")} <= releases
    deleted = {(one["object"]["kind"], one["object"]["name"]) for one in found["plan"]["delete"]}
    assert {("Deployment", "training-operator"), ("Deployment", "minio")} <= deleted
    kept = {(one["object"]["kind"], one["object"]["name"]) for one in found["plan"]["keep"]}
    assert ("PersistentVolumeClaim", "minio-pvc") in kept
    # The API server takes every object of the one over those of the other.
    assert found["plan"]["recreate"] == []
    moved = {one["object"]["name"]: (one["from"], one["to"]) for one in found["plan"]["move"]}
    assert moved["katib-ui"] == ("networkpolicies", "kubeflow-namespace")
    tags = {one["old"]["ref"]: one["new"]["ref"] for one in found["images"] if one["what"] == "tag"}
    katib = "ghcr.io/kubeflow/katib/katib-controller"
    assert tags[f"{katib}:v0.18.0"] == f"{katib}:v0.19.0"
    roles = {one["role"]["name"]: one for one in found["rights"]["roles"]}
    gains = {
        (one["resource"], bool(one["escalation"])) for one in roles["llmisvc-manager-role"]["gains"]
    }
    assert {("secrets", True), ("clusterrolebindings", True), ("services", False)} <= gains
    hosts = {one["object"]["name"]: one for one in found["connections"]}
    assert hosts["workflow-controller-configmap"]["gains"] == ["seaweedfs.kubeflow:9000"]
    assert hosts["workflow-controller-configmap"]["loses"] == ["minio-service.kubeflow:9000"]


# -- a cluster -------------------------------------------------------------------------------------

SPACE = "diff-cli"


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Path:
    """A workspace whose set nobody has installed."""
    root = make_workspace(tmp_path / "site", namespace="diff-records")
    app = f"{REGISTRY}/quay.io/org/app:1"
    objects = [
        body("v1", "Namespace", SPACE),
        workload("Deployment", "web", SPACE, app),
        body("v1", "ConfigMap", "config", SPACE, data={"a": "1"}),
    ]
    with_images(write_set(root, {"one": objects}), {"quay.io/org/app:1": app})
    return root


def test_a_cluster_is_compared_and_its_pods_are_audited(
    cluster: Cluster, site: Path, kfdeploy: Runner
) -> None:
    env = {"KUBECONFIG": str(cluster.kubeconfig)}
    done = kfdeploy("diff", "--cluster", cwd=site, env=env, check=3)
    assert done.stdout.splitlines()[2:] == [
        "",
        "releases: 1 not as in the set",
        "  - one: not installed",
        "",
        "missing: 3 objects",
        f"  - Namespace {SPACE} (one)",
        f"  - Deployment {SPACE}/web (one)",
        f"  - ConfigMap {SPACE}/config (one)",
    ]
    cluster.namespace(SPACE)
    app = f"{REGISTRY}/quay.io/org/app:1"
    cluster.create(workload("Deployment", "web", SPACE, app))
    cluster.create(body("v1", "ConfigMap", "config", SPACE, data={"a": "2"}))
    pod = {"containers": [{"name": "main", "image": "evil.test/a:1"}]}
    cluster.create(body("v1", "Pod", "alone", SPACE, spec=pod))
    done = kfdeploy("diff", "--cluster", "--output", "json", cwd=site, env=env, check=3)
    assert [(one["what"], one["object"]["kind"]) for one in done.json["drift"]] == [
        ("owner", "Namespace"),
        ("owner", "Deployment"),
        ("owner", "ConfigMap"),
        ("changed", "ConfigMap"),
    ]
    (field,) = done.json["drift"][3]["fields"]
    assert field == {
        "field": "data.a",
        "live": "2",
        "wanted": "1",
        "managers": ["kubectl-create"],
    }
    until = time.monotonic() + 30
    while len(cluster.get("pods", "-n", SPACE)["items"]) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    audit = ("audit", "images", "--cluster")
    found = kfdeploy(*audit, "--output", "json", cwd=site, env=env, check=3).json
    told = [
        (one["state"], one["image"], [w["kind"] for w in one["workloads"]])
        for one in found["images"]
    ]
    assert told == [
        ("foreign", "evil.test/a:1", ["Pod"]),
        ("locked", app, ["Deployment"]),
    ]
    cluster.kubectl("delete", "pod", "alone", "-n", SPACE, "--now")
    done = kfdeploy(*audit, cwd=site, env=env)
    assert done.stdout.splitlines()[0] == "default: 1 pod of the set and its users"
    assert done.stdout.endswith("all running images are in the lock\n")


def test_a_cluster_that_is_not_there(site: Path, kfdeploy: Runner) -> None:
    env = {"KUBECONFIG": str(site / "none")}
    done = kfdeploy("diff", "--cluster", cwd=site, env=env, check=1)
    assert "the context test: " in done.stderr


def test_after_an_apply_nothing_differs_and_another_set_does(
    cluster: Cluster, tmp_path: Path, kfdeploy: Runner
) -> None:
    need_programs("helm", "helmfile", "kubectl")
    space = "diff-applied"
    env = {"KUBECONFIG": str(cluster.kubeconfig)}
    root = make_workspace(tmp_path / "site", namespace="diff-helm")
    one = [
        body("v1", "Namespace", space),
        body("v1", "ConfigMap", "stays", space, data={"a": "1"}),
        body("v1", "ConfigMap", "goes", space, data={"a": "1"}),
    ]
    write_set(
        root,
        {"one": one, "two": [body("v1", "Secret", "s", space, stringData={"a": "b"})]},
        waves=[["one"], ["two"]],
    )
    kfdeploy("apply", cwd=root, env=env)
    done = kfdeploy("diff", "--cluster", cwd=root, env=env)
    assert done.stdout.splitlines()[-1] == "no difference"
    write_set(root, {"one": one[:2], "three": []}, waves=[["one"], ["three"]])
    done = kfdeploy("diff", "--cluster", cwd=root, env=env, check=3)
    assert done.stdout.splitlines()[2:] == [
        "",
        "releases: 3 not as in the set",
        "  ~ one: installed from another set (revision 1)",
        "  - three: not installed",
        "  ~ two: no longer in the set (revision 1)",
        "",
        "left over: 2 objects in Helm's records that the set does not have",
        "  + ConfigMap diff-applied/goes (one)",
        "  + Secret diff-applied/s (two)",
    ]
