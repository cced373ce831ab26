"""Generated patches that were edited, people's own patches, and upstream moving under either."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import DATA, Runner, Site, edit_workspace, tree

EDITED = "patches/katib/deployment-katib-controller.images.yaml.gotmpl"


@pytest.fixture
def root(small_site: Site, tmp_path: Path) -> Path:
    return small_site.copy(tmp_path / "site")


def rendered(root: Path, component: str, kind: str, name: str) -> Any:
    """An object of the release set."""
    path = root / f"releases/default/charts/{component}/charts/objects/objects.yaml"
    for item in YAML(typ="safe").load_all(path.read_text()):
        if item and item["kind"] == kind and item["metadata"]["name"].startswith(name):
            return item
    raise AssertionError(f"{component} has no {kind} {name}")


def test_an_edited_generated_patch_is_left_and_the_way_out_is_said(
    root: Path, kfdeploy: Runner
) -> None:
    path = root / EDITED
    text = path.read_text() + "# mine\n"
    path.write_text(text)
    before = tree(root)
    for command in (("patch",), ("patch", "--check")):
        said = kfdeploy(*command, "--quiet", cwd=root, check=3).stderr
        assert said == (
            f"error: {EDITED}: edited by hand; it is left as it is\n"
            "  hint: to keep it, remove its first line and rename it; to have it generated again,"
            " delete it\n"
        )
        assert tree(root) == before
    path.unlink()
    kfdeploy("patch", cwd=root)
    kfdeploy("patch", "--check", cwd=root)


def test_a_generated_patch_that_is_no_longer_generated_goes(root: Path, kfdeploy: Runner) -> None:
    settings = YAML(typ="safe").load(root / "kfdeploy.yaml")
    kept = [c for c in settings["components"] if c["name"] != "kserve"]
    assert any((root / "patches/kserve").iterdir())
    edit_workspace(root, {"components": kept})
    said = kfdeploy("patch", "--check", cwd=root, check=3).stdout
    assert "stale: patches/kserve/" in said
    kfdeploy("patch", cwd=root)
    assert not (root / "patches/kserve").exists()
    kfdeploy("patch", "--check", cwd=root)


NO_CONTAINER = (
    "Deployment kubeflow/katib-controller: spec.template.spec.containers: there is no container"
    " old; it would be added"
)
OWN = {
    "json.yaml": """\
target:
  group: apps
  version: v1
  kind: Deployment
  namespace: kubeflow
  name: katib-controller
patch:
- op: add
  path: /spec/template/spec/priorityClassName
  value: high
""",
    "merge.yaml": """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: katib-controller
  namespace: kubeflow
spec:
  template:
    spec:
      nodeSelector: {pool: system}
""",
    "template.yaml.gotmpl": """\
target:
  group: apps
  version: v1
  kind: Deployment
  namespace: kubeflow
  name: katib-controller
patch:
- op: add
  path: /spec/template/spec/hostname
  value: {{ .Environment.Name }}-host
""",
}


def test_own_patches_of_each_form_are_kept_and_used(root: Path, kfdeploy: Runner) -> None:
    for name, text in OWN.items():
        (root / "patches/katib" / name).write_text(text)
    kfdeploy("patch", cwd=root)
    kfdeploy("render", cwd=root)
    kfdeploy("verify", "--offline", cwd=root)
    spec = rendered(root, "katib", "Deployment", "katib-controller")["spec"]["template"]["spec"]
    assert spec["priorityClassName"] == "high"
    assert spec["nodeSelector"] == {"pool": "system"}
    assert spec["hostname"] == "default-host"
    for name, text in OWN.items():
        assert (root / "patches/katib" / name).read_text() == text
        assert f"patches/katib/{name}" in (root / "helmfile.yaml.gotmpl").read_text()
    kfdeploy("patch", "--check", cwd=root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            OWN["json.yaml"].replace("katib-controller", "katib-manager"),
            "there is no Deployment kubeflow/katib-manager for it to change",
        ),
        (
            OWN["json.yaml"].replace("/spec/template/spec/priorityClassName", "/spec/pods/x"),
            "Deployment kubeflow/katib-controller: there is nothing at /spec/pods/x (no pods)",
        ),
        (
            OWN["merge.yaml"].replace(
                "nodeSelector: {pool: system}", "containers: [{name: old, env: []}]"
            ),
            NO_CONTAINER,
        ),
    ],
    ids=["object", "field", "container"],
)
def test_an_own_patch_that_does_not_fit_names_file_object_and_field(
    text: str, message: str, root: Path, kfdeploy: Runner
) -> None:
    (root / "patches/katib/own.yaml").write_text(text)
    before = tree(root / "releases")
    kfdeploy("patch", cwd=root)
    said = kfdeploy("render", "--quiet", cwd=root, check=1).stderr
    assert said == (
        f"error: patches/katib/own.yaml: {message}\n"
        "  hint: `kfdeploy patch` writes generated patches anew; a patch of your own has to be"
        " adapted\n"
    )
    assert tree(root / "releases") == before


def test_a_broken_own_patch_names_file_and_line(root: Path, kfdeploy: Runner) -> None:
    (root / "patches/katib/own.yaml").write_text("target:\n  kind: Deployment\n patch: [\n")
    kfdeploy("patch", cwd=root, check=None)
    said = kfdeploy("render", "--quiet", cwd=root, check=1).stderr
    assert said.startswith("error: patches/katib/own.yaml:3: broken YAML: "), said


def test_upstream_moving_under_a_generated_patch_names_file_object_and_field(
    root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(DATA / "upstream", moved)
    file = moved / "applications/katib/upstream/components/controller/controller.yaml"
    assert "name: katib-controller" in file.read_text()
    yaml = YAML()
    items = list(yaml.load_all(file.read_text()))
    for item in items:
        if item["kind"] == "Deployment":
            item["spec"]["template"]["spec"]["containers"][0]["name"] = "renamed"
    with file.open("w") as opened:
        yaml.dump_all(items, opened)
    edit_workspace(root, {"upstream.source": str(moved)})
    kfdeploy("vendor", cwd=root)
    kfdeploy("lock", cwd=root)
    before = tree(root / "releases")
    said = kfdeploy("render", "--quiet", cwd=root, check=1).stderr
    assert f"error: {EDITED}: Deployment kubeflow/katib-controller: " in said, said
    assert "/spec/template/spec/containers/0/name is 'renamed', not " in said, said
    assert tree(root / "releases") == before
    kfdeploy("patch", cwd=root)
    kfdeploy("render", cwd=root)
    kfdeploy("verify", "--offline", cwd=root)


# -- what is not locked -------------------------------------------------------------------------


def test_render_refuses_what_is_not_locked_and_unpinned_renders_it_by_tag(
    root: Path, kfdeploy: Runner
) -> None:
    lock = (root / "images.lock").read_text()
    yaml = YAML()
    data = yaml.load(lock)
    gone = "mysql:8.4"
    ids = [image["annotations"]["kbld.carvel.dev/id"] for image in data["images"]]
    assert gone in ids
    data["images"] = [i for i in data["images"] if i["annotations"]["kbld.carvel.dev/id"] != gone]
    with (root / "images.lock").open("w") as opened:
        yaml.dump(data, opened)
    before = tree(root / "releases")
    said = kfdeploy("render", "--quiet", cwd=root, check=1).stderr
    assert said.startswith(f"error: {gone}"), said
    assert "--unpinned" in said, said
    assert tree(root / "releases") == before
    done = kfdeploy("render", "--unpinned", cwd=root)
    assert "by tag only: 1 image" in done.stdout
    summary = kfdeploy("render", "--unpinned", "--output", "json", cwd=root).json
    assert summary["unpinned"] == [gone]
    assert "@" not in summary["images"][gone]["mirror"]
    said = kfdeploy("verify", "--offline", cwd=root).stderr
    assert f"note: {gone} is rendered by its tag: it was not locked" in said
