"""The private registry's CA and pull secrets, where programs of the cluster need them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from kfdeploy.catalogue import load
from kfdeploy.errors import UserError
from kfdeploy.kubernetes.objects import split_objects
from kfdeploy.patch import registry_access
from kfdeploy.workspace.settings import Workspace
from tests.conftest import RELEASES, Runner, Site, edit_workspace
from tests.releaseset.test_helmfile import Objects, of_set, same, template, without_crds
from tests.support.registries import make_certificate

CONTROLLER = "apps/v1", "Deployment", "kubeflow"
ROOTS = "/etc/ssl/certs:/etc/pki/tls/certs"


OWN_FACTS = """\
component: ours
programs: ["registry.example.com/katib/*", "quay.example.com/workflow/*"]
read: [{versions: any, source: our/notes@1}]
asks:
- &asks
  kind: Deployment
  name: katib-controller
  container: katib-controller
  what: the small upstream's programs are at registries of their own
  ca: env SSL_CERT_DIR
  source: our/notes@1:asks.md:1
- {<<: *asks, name: workflow-controller, container: workflow-controller}
"""
"""A site's own entries in its `catalogue/`."""


@pytest.fixture(scope="module")
def root(small_site: Site, kfdeploy: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with an environment that has a CA and pull secrets, and one that has neither."""
    folder = small_site.copy(tmp_path_factory.mktemp("reach") / "ws")
    authority = make_certificate(tmp_path_factory.mktemp("ca"))[0]
    (folder / "ca.pem").write_text("# <the site's> CA & co\n" + authority.read_text())
    edit_workspace(
        folder,
        {
            "environments": {
                "default": {},
                "site": {
                    "registry": {"ca": "ca.pem"},
                    "imagePullSecrets": ["regcred", "other.example"],
                },
                "elsewhere": {"registry": {"ca": str(authority)}},
            },
        },
    )
    (folder / "catalogue").mkdir()
    (folder / "catalogue" / "ours.yaml").write_text(OWN_FACTS)
    kfdeploy("lock", cwd=folder)
    kfdeploy("patch", cwd=folder)
    for name in ("default", "site", "elsewhere"):
        kfdeploy("render", "--env", name, cwd=folder)
    return folder


def of(root: Path, env: str, name: str) -> Any:
    return of_set(root / "releases" / env)[(*CONTROLLER, name)]


def pod(root: Path, env: str, name: str) -> tuple[Any, Any]:
    """A Deployment's pod template and its only container."""
    template = of(root, env, name)["spec"]["template"]
    (container,) = template["spec"]["containers"]
    return template, container


@pytest.mark.parametrize("name", ["workflow-controller", "katib-controller"])
def test_controllers_that_ask_registries_trust_the_ca(name: str, root: Path) -> None:
    pem = (root / "ca.pem").read_text()
    template, container = pod(root, "site", name)
    plain, before = pod(root, "default", name)
    assert template["metadata"]["annotations"]["kfdeploy.io/registry-ca"] == pem
    (volume,) = [v for v in template["spec"]["volumes"] if v["name"] == "kfdeploy-registry-ca"]
    (item,) = volume["downwardAPI"]["items"]
    assert item["fieldRef"]["fieldPath"] == "metadata.annotations['kfdeploy.io/registry-ca']"
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == volume["name"]]
    # Not by subPath: Go reads the folder.
    assert "subPath" not in mount
    env = {v["name"]: v.get("value") for v in container["env"]}
    assert env["SSL_CERT_DIR"] == f"{ROOTS}:{mount['mountPath']}"
    # What was there stays, and the other environment is upstream's.
    for key in ("args", "image"):
        assert container[key] == before[key]
    kept = [m for m in container["volumeMounts"] if not m["name"].startswith("kfdeploy-")]
    assert kept == before.get("volumeMounts", [])
    assert plain["spec"].get("volumes", []) == [
        v for v in template["spec"]["volumes"] if not v["name"].startswith("kfdeploy-")
    ]
    assert "SSL_CERT_DIR" not in str(plain)


def test_no_other_workload_gets_the_ca(root: Path) -> None:
    found = [
        key for key, body in of_set(root / "releases/site").items() if "registry-ca" in str(body)
    ]
    assert {key[3] for key in found} == {"workflow-controller", "katib-controller"}


def test_a_path_outside_the_workspace_is_read_too(root: Path) -> None:
    template, _ = pod(root, "elsewhere", "katib-controller")
    pem = (root / "ca.pem").read_text()
    assert pem.endswith(template["metadata"]["annotations"]["kfdeploy.io/registry-ca"])


def test_the_profile_controller_starts_with_the_pull_secrets(root: Path) -> None:
    template, container = pod(root, "site", "kubeflow-pipelines-profile-controller")
    _, before = pod(root, "default", "kubeflow-pipelines-profile-controller")
    assert before["command"] == ["python", "/hooks/sync.py"]
    program, code, script = container["command"]
    assert (program, script) == ("python", "/hooks/sync.py")
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    volumes = {v["name"]: v for v in template["spec"]["volumes"]}
    folder, _, file = code.rpartition("/")
    (item,) = volumes[mounts[folder]]["downwardAPI"]["items"]
    assert item["path"] == file
    source = template["metadata"]["annotations"]["kfdeploy.io/pull-secrets.py"]
    assert source == registry_access.CODE.read_text()
    sources = volumes[mounts["/etc/kfdeploy/pull-secrets"]]["projected"]["sources"]
    assert [s["secret"] for s in sources] == [
        {
            "name": name,
            "optional": True,
            "items": [{"key": ".dockerconfigjson", "path": name}],
        }
        for name in ("regcred", "other.example")
    ]
    (names,) = [v["value"] for v in container["env"] if v["name"] == "KFDEPLOY_PULL_SECRETS"]
    assert names == '["regcred","other.example"]'
    assert template["spec"]["imagePullSecrets"] == [{"name": "regcred"}, {"name": "other.example"}]


@pytest.mark.parametrize("env", ["site", "elsewhere", "default"])
def test_plain_helmfile_gives_the_same(env: str, root: Path, tmp_path: Path) -> None:
    wanted: Objects = {}
    given: Objects = {}
    for name in ("katib", "pipeline"):
        given |= template(root, tmp_path / "home", "--selector", f"name={name}", environment=env)
        chart = root / "releases" / env / "charts" / name
        wanted |= without_crds(of_set_chart(chart))
    same(without_crds(given), wanted)


def of_set_chart(chart: Path) -> Objects:
    found: Objects = {}
    for item in split_objects((chart / "charts/objects/objects.yaml").read_text()):
        key = item.key
        found[key.api_version, key.kind, key.namespace, key.name] = item.body
    return found


def test_nothing_in_the_set_leads_elsewhere(root: Path, kfdeploy: Runner) -> None:
    kfdeploy("verify", "site", "--offline", cwd=root)


def test_a_ca_that_is_gone_is_said_by_name(root: Path, kfdeploy: Runner, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "ws"
    shutil.copytree(root, folder, symlinks=True)
    (folder / "ca.pem").unlink()
    said = kfdeploy("render", "--env", "site", cwd=folder, check=1).stderr
    assert "ca.pem: no such file or directory" in said
    kfdeploy("render", "--env", "default", cwd=folder)


@pytest.mark.parametrize("version", RELEASES)
def test_real_releases_have_all_of_it_in_plain_helmfile_too(
    version: str, real_site: Callable[[str], Site], kfdeploy: Runner, tmp_path: Path
) -> None:
    folder = real_site(version).copy(tmp_path / "ws")
    (tmp_path / "ca.pem").write_bytes(make_certificate(tmp_path)[0].read_bytes())
    edit_workspace(
        folder,
        {
            "registries.private.ca": "../ca.pem",
            "environments.default.imagePullSecrets": ["regcred"],
        },
    )
    kfdeploy("patch", cwd=folder)
    kfdeploy("render", cwd=folder)
    names = ("knative-serving", "katib", "pipeline")
    selectors = [word for name in names for word in ("--selector", f"name={name}")]
    given = without_crds(template(folder, tmp_path / "home", *selectors))
    # With what comes after what judges it: `knative-serving-after`.
    rendered = folder / "releases" / "default" / "charts"
    charts = [chart for name in names for chart in rendered.glob(f"{name}*")]
    same(given, {key: body for chart in charts for key, body in of_set_chart(chart).items()})
    assert {key[2:] for key, body in given.items() if "SSL_CERT_DIR" in str(body)} == {
        ("knative-serving", "controller"),
        ("kubeflow", "katib-controller"),
        ("kubeflow", "workflow-controller"),
    }
    # go-containerregistry's k8schain fails where it is forbidden to read a pull secret. Katib's and
    # Knative's controllers may read all.
    rules = given[("rbac.authorization.k8s.io/v1", "ClusterRole", "", "argo-cluster-role")]["rules"]
    assert [r for r in rules if r.get("resourceNames") == ["regcred"]] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["regcred"],
            "verbs": ["get"],
        }
    ]
    for name in ("katib-controller", "knative-serving-core"):
        role = given[("rbac.authorization.k8s.io/v1", "ClusterRole", "", name)]["rules"]
        assert any(
            "secrets" in r["resources"] and "get" in r["verbs"] and "resourceNames" not in r
            for r in role
            if "resources" in r
        )
    profile = given[(*CONTROLLER, "kubeflow-pipelines-profile-controller")]
    assert "KFDEPLOY_PULL_SECRETS" in str(profile)
    for key, body in given.items():
        if key[1] in ("Deployment", "StatefulSet", "Job"):
            assert body["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "regcred"}]


# -- shapes that a manifest can have ---------------------------------------------------------------

WITH_CA = """
upstream: {source: x}
components: [{name: a, path: a}]
registries: {private: {host: registry.example.com, ca: ca.pem}}
"""


KNATIVE = "gcr.io/knative-releases/knative.dev/serving/cmd/controller:v1.21.1"


def knative(env: str) -> Any:
    (item,) = split_objects(
        "apiVersion: apps/v1\nkind: Deployment\n"
        "metadata: {name: controller, namespace: knative-serving}\n"
        "spec:\n  template:\n    spec:\n      containers:\n"
        "      - {name: other, image: x}\n"
        f"      - {{name: controller, image: '{KNATIVE}', env: {env}}}\n"
    )
    return item


def body_of(item: Any) -> str:
    workspace = Workspace.model_validate(YAML(typ="safe").load(WITH_CA))
    facts = load.load_catalogue()
    asks = list(facts.find_registry_readers(facts.find_programs([item])))
    (patch,) = registry_access.build_access_patches(workspace, item, asks)
    assert patch.purpose == "ca"
    return patch.body


ROLE = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: argo-cluster-role}
rules: []
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: workflow-controller, namespace: kubeflow}
spec:
  template:
    spec:
      containers:
      - {name: workflow-controller, image: "quay.io/argoproj/workflow-controller:v3.7.3"}
"""


def test_the_right_to_read_pull_secrets_is_a_patch_also_where_there_are_none() -> None:
    """One environment has pull secrets, another has none: its patch must hold something too."""
    text = WITH_CA + "environments: {default: {}, site: {imagePullSecrets: [regcred]}}\n"
    workspace = Workspace.model_validate(YAML(typ="safe").load(text))
    facts = load.load_catalogue()
    items = list(split_objects(ROLE))
    asks = list(facts.find_registry_readers(facts.find_programs(items)))
    (patch,) = registry_access.build_access_patches(workspace, items[0], asks)
    assert patch.purpose == "secrets"
    always, condition, rest = patch.body.partition("{{- if .Values.imagePullSecrets }}\n")
    assert always.endswith("- op: test\n  path: /metadata/name\n  value: argo-cluster-role\n")
    assert condition
    assert rest.startswith("- op: add\n  path: /rules/-\n")


def test_a_workload_without_annotations_volumes_and_mounts_gets_them() -> None:
    body = body_of(knative("[]"))
    assert "path: /spec/template/metadata\n  value: {}" in body
    assert "/spec/template/spec/containers/1/volumeMounts\n  value: [" in body
    assert "containers/0" not in body
    assert body.index("{{- if .Values.registryCa }}") < body.index("op: add")


def test_a_folder_list_that_is_set_already_is_kept() -> None:
    body = body_of(knative("[{name: A, value: b}, {name: SSL_CERT_DIR, value: /certs}]"))
    assert (
        "- op: test\n  path: /spec/template/spec/containers/1/env/1/value\n  value: /certs" in body
    )
    assert "value: /certs:/etc/kfdeploy/registry-ca" in body


def test_a_folder_list_from_elsewhere_is_an_error() -> None:
    item = knative("[{name: SSL_CERT_DIR, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]")
    with pytest.raises(UserError, match="Deployment knative-serving/controller: container control"):
        body_of(item)
