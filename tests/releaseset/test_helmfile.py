"""Plain Helmfile gives what kfdeploy renders: on the workspace, and on the release set.

Helmfile, chartify, kustomize and Helm are the real ones, and nothing of kfdeploy runs in them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.images import lockfile
from kfdeploy.kubernetes.objects import split_objects
from kfdeploy.oci.reference import ImageRef
from tests.conftest import CURRENT, PREVIOUS, RELEASES, Runner, Site, edit_workspace, need_programs

RealSite = Callable[[str], Site]
Objects = dict[tuple[str, ...], Any]


def helmfile(
    folder: Path, *arguments: str, home: Path, check: bool = True, unpinned: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run Helmfile with a home of its own and no network."""
    need_programs("helmfile", "helm", "kustomize")
    programs = ("helmfile", "helm", "kustomize")
    folders = {str(Path(found).parent) for name in programs if (found := shutil.which(name))}
    env = {
        "PATH": os.pathsep.join([*sorted(folders), os.defpath]),
        "HOME": str(home),
        "TMPDIR": str(home),
        "HELMFILE_UPGRADE_NOTICE_DISABLED": "true",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        **({"KFDEPLOY_UNPINNED": "1"} if unpinned else {}),
    }
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        ["helmfile", *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    assert not check or done.returncode == 0, done.stderr[-4000:]
    return done


def objects(text: str) -> Objects:
    """Each object by its key; the same key twice is an error."""
    found: Objects = {}
    for item in split_objects(text):
        key = (item.key.api_version, item.key.kind, item.key.namespace, item.key.name)
        assert key not in found, key
        found[key] = item.text if item.is_crd else item.body
    return found


def without_crds(found: Objects) -> Objects:
    return {key: body for key, body in found.items() if key[1] != "CustomResourceDefinition"}


def crds(found: Objects) -> set[str]:
    return {key[3] for key in found if key[1] == "CustomResourceDefinition"}


def of_set(folder: Path) -> Objects:
    """All objects of a release set, its charts' and its CRDs."""
    found: Objects = {}
    for path in sorted([*folder.glob("charts/*/charts/objects/*.yaml"), *folder.glob("crds/*")]):
        if path.name != "Chart.yaml":
            found |= objects(path.read_text())
    return found


def template(folder: Path, home: Path, *arguments: str, environment: str = "default") -> Objects:
    done = helmfile(
        folder, "-e", environment, "template", "--skip-deps", *arguments, home=home
    )  # fmt: skip
    return objects(done.stdout)


def same(one: Objects, other: Objects) -> None:
    assert one.keys() == other.keys()
    different = [key for key in one if one[key] != other[key]]
    assert not different, (different[0], one[different[0]], other[different[0]])


# -- the whole of a site ---------------------------------------------------------------------------


@pytest.fixture(params=["small", *RELEASES])
def site(request: pytest.FixtureRequest) -> Site:
    if request.param == "small":
        small: Site = request.getfixturevalue("small_site")
        return small
    real: RealSite = request.getfixturevalue("real_site")
    return real(request.param)


@pytest.mark.parametrize(
    "site",
    ["small", *(pytest.param(name, marks=pytest.mark.slow) for name in (CURRENT, PREVIOUS))],
    indirect=True,
)
def test_helmfile_on_the_workspace_gives_what_render_gives(site: Site, tmp_path: Path) -> None:
    given = template(site.root, tmp_path / "home", "--include-crds")
    rendered = of_set(site.set)
    same(without_crds(given), without_crds(rendered))
    assert crds(given) == crds(rendered)


def test_helmfile_on_the_set_gives_the_objects_of_its_charts(site: Site, tmp_path: Path) -> None:
    given = template(site.set, tmp_path / "home")
    same(given, without_crds(of_set(site.set)))


def test_upstreams_own_templates_survive_helm(site: Site, tmp_path: Path) -> None:
    """ConfigMaps with Go templates of their own, such as Istio's injector."""
    templated = {
        (item.key.kind, item.key.name): item.body
        for path in sorted(site.set.glob("charts/*/charts/objects/objects.yaml"))
        for item in split_objects(path.read_text())
        if "{{" in item.text and item.key.kind == "ConfigMap"
    }
    assert ("ConfigMap", "istio-sidecar-injector") in templated
    given = template(site.set, tmp_path / "home", "--selector", "name=istio-install")
    for key, body in given.items():
        if key[1::2] in templated:
            assert body == templated[key[1], key[3]]


def test_helm_forces_no_namespace_on_an_object(site: Site, tmp_path: Path) -> None:
    given = template(site.set, tmp_path / "home")
    assert {key[2] for key in given} >= {"kubeflow", "istio-system", ""}
    assert "kfdeploy" not in {key[2] for key in given}


# -- other environments, people's patches ----------------------------------------------------------


@pytest.fixture(scope="module")
def strict(small_site: Site, kfdeploy: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with a second environment that differs in all that a patch looks up."""
    root = small_site.copy(tmp_path_factory.mktemp("strict") / "ws")
    edit_workspace(
        root,
        {
            "environments.strict": {
                "registry": {"prefix": "a/b", "naming": {"keepHost": False, "maxDepth": 3}},
                "imagePullPolicy": "Always",
                "imagePullSecrets": ["one", "two"],
                "kubeVersion": "1.36.0",
            },
            # Of the naming below, one key is changed, one taken back, one left.
            "registries.private.naming": {"keepHost": True, "maxDepth": 9, "maxLength": 200},
            "environments.small": {
                "registry": {"prefix": None, "naming": {"maxDepth": None, "maxLength": 44}},
                "platforms": ["linux/arm64", "linux/amd64", "linux/arm64"],
            },
            "features.admission": {"enabled": True, "allow": ["r.test/tools/"]},
        },
    )
    (root / "patches" / "kfdeploy-admission").mkdir()
    (root / "patches" / "kfdeploy-admission" / "ours.yaml.gotmpl").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ours, namespace: kubeflow}\n"
        'data: {registry: "{{ .Values.registry }}", env: "{{ .Environment.Name }}"}\n'
    )
    own = root / "patches" / "katib"
    (own / "replicas.yaml").write_text(
        "target: {group: apps, version: v1, kind: Deployment, name: katib-controller}\n"
        "patch:\n- op: add\n  path: /spec/replicas\n  value: 2\n"
    )
    (own / "resources.yaml").write_text(
        "apiVersion: apps/v1\nkind: Deployment\n"
        "metadata: {name: katib-controller, namespace: kubeflow}\n"
        "spec: {template: {spec: {containers: [{name: katib-controller,"
        " resources: {limits: {memory: 1Gi}}}]}}}\n"
    )
    (own / "label.yaml.gotmpl").write_text(
        "apiVersion: apps/v1\nkind: Deployment\n"
        "metadata:\n  name: katib-ui\n  namespace: kubeflow\n  labels:\n"
        "    site: {{ .Environment.Name | quote }}\n"
    )
    kfdeploy("lock", cwd=root)
    kfdeploy("patch", cwd=root)
    kfdeploy("render", "--env", "strict", cwd=root)
    kfdeploy("render", "--env", "small", cwd=root)
    kfdeploy("render", cwd=root)
    return root


def test_another_environment_gives_the_same_in_both(strict: Path, tmp_path: Path) -> None:
    given = template(strict, tmp_path / "home", "--include-crds", environment="strict")
    same(without_crds(given), without_crds(of_set(strict / "releases" / "strict")))


def test_platforms_and_short_paths_are_the_same_in_both(strict: Path, tmp_path: Path) -> None:
    given = template(strict, tmp_path / "home", "--include-crds", environment="small")
    same(without_crds(given), without_crds(of_set(strict / "releases" / "small")))
    summary = json.loads((strict / "releases" / "small" / "summary.json").read_text())
    by_id = lockfile.read_lock(strict / "images.lock").by_id
    lock = {str(ref): image for ref, image in by_id.items()}
    digests = {"reduced": 0, "whole": 0}
    for ref, image in summary["images"].items():
        mirror = ImageRef.parse(image["mirror"])
        assert len(mirror.path) <= 44
        if ref in lock:
            assert mirror.digest == lock[ref].digest_for(("linux/amd64", "linux/arm64"))
            digests["whole" if mirror.digest == lock[ref].digest else "reduced"] += 1
    assert min(digests.values()) > 5, digests
    assert any(len(ImageRef.parse(i["mirror"]).path) == 44 for i in summary["images"].values())


@pytest.mark.parametrize("unpinned", [False, True])
def test_plain_helmfile_refuses_an_image_that_is_not_locked_for_the_platforms(
    strict: Path, tmp_path: Path, unpinned: bool
) -> None:
    root = tmp_path / "ws"
    shutil.copytree(strict, root, symlinks=True)
    edit_workspace(root, {"environments.small.platforms": ["linux/arm64"]})
    arguments = ("-e", "small", "template", "--skip-deps", "--selector", "name=katib")
    done = helmfile(root, *arguments, home=tmp_path / "home", check=False, unpinned=unpinned)
    if unpinned:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode != 0
        assert "is not locked for linux/arm64: run `kfdeploy lock`" in done.stderr


def test_the_environment_decides_names_pull_policy_and_secrets(strict: Path) -> None:
    found = of_set(strict / "releases" / "strict")
    pod = found["apps/v1", "Deployment", "kubeflow", "katib-controller"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["imagePullPolicy"] == "Always"
    assert pod["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
    path = container["image"].partition("@")[0].partition("/")[2].partition(":")[0]
    assert path == "a/b/katib-katib-controller"
    other = of_set(strict / "releases" / "default")
    pod = other["apps/v1", "Deployment", "kubeflow", "katib-controller"]["spec"]["template"]["spec"]
    assert "imagePullSecrets" not in pod


def test_peoples_patches_of_each_form_are_used(strict: Path, tmp_path: Path) -> None:
    found = of_set(strict / "releases" / "default")
    controller = found["apps/v1", "Deployment", "kubeflow", "katib-controller"]["spec"]
    assert controller["replicas"] == 2
    (container,) = controller["template"]["spec"]["containers"]
    assert container["resources"] == {"limits": {"memory": "1Gi"}}
    labels = found["apps/v1", "Deployment", "kubeflow", "katib-ui"]["metadata"]["labels"]
    assert labels["site"] == "default"
    given = template(strict, tmp_path / "home", "--selector", "name=katib", "--include-crds")
    same(without_crds(given), {key: found[key] for key in without_crds(given)})


# -- upstream moved --------------------------------------------------------------------------------

MOVED = {
    "a mention is gone": (
        "applications/katib/upstream/installs/katib-cert-manager/katib-config.yaml",
        "registry.example.com/katib/suggestion-skopt:v0.18.0",
        "registry.example.com/katib/suggestion-skopt:v0.19.0",
        ("katib", "configmap-katib-config.images.yaml.gotmpl"),
    ),
    "an old value is another": (
        "applications/pipeline/upstream/base/cache-server.yaml",
        "registry.example.com/pipeline/cache-server:2.4.0",
        "registry.example.com/pipeline/cache-server:2.5.0",
        ("pipeline", "/spec/template/spec/containers/0/image"),
    ),
}


@pytest.mark.parametrize("case", MOVED)
def test_plain_helmfile_stops_when_upstream_moved(
    case: str, small_site: Site, tmp_path: Path
) -> None:
    file, old, new, (component, named) = MOVED[case]
    root = small_site.copy(tmp_path / "ws")
    path = root / "upstream" / file
    path.chmod(0o644)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    done = helmfile(
        *(root, "template", "--skip-deps", "--selector", f"name={component}"),
        home=tmp_path / "home",
        check=False,
    )
    assert done.returncode != 0
    assert named in done.stderr, done.stderr[-2000:]


def test_plain_helmfile_refuses_an_image_that_is_not_locked(
    small_site: Site, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "ws")
    (root / "images.lock").write_text(
        "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages: []\n"
    )
    arguments = ("template", "--skip-deps", "--selector", "name=katib")
    done = helmfile(root, *arguments, home=tmp_path / "home", check=False)
    assert done.returncode != 0
    assert "is not locked: run `kfdeploy lock`" in done.stderr


def test_helm_takes_a_set_that_lies_elsewhere(small_site: Site, tmp_path: Path) -> None:
    """The set needs nothing from outside its folder."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(small_site.set, moved)
    summary = json.loads((moved / "summary.json").read_text())
    given = template(moved, tmp_path / "home")
    assert len(given) == sum(release["objects"] for release in summary["releases"])
