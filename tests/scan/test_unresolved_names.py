"""Names that kustomizations fill in: since kustomize 5.8 a selector is a regular expression."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Runner, Site, need_programs
from tests.support.workspaces import workspace

PROFILE = """\
apiVersion: kubeflow.org/v1beta1
kind: Profile
metadata:
  name: $(profile-name)
spec:
  owner: {kind: User, name: $(user)}
"""
REPLACEMENTS = """\
# What stays: a comment.
configMapGenerator:
- name: params
  literals: [user=u@example.com, profile-name=users]
replacements:
- source: {kind: ConfigMap, name: params, fieldPath: data.user}
  targets:
  - select: {kind: Profile, name: $(profile-name)}
    fieldPaths: [spec.owner.name]
- source: {kind: ConfigMap, name: params, fieldPath: data.profile-name}
  targets:
  - select: {kind: Profile, name: $(profile-name)}
    fieldPaths: [metadata.name]
  - select: {kind: ConfigMap, name: plain.name}
    fieldPaths: [data.profile]
"""


@pytest.fixture
def site(tmp_path: Path, kfdeploy: Runner) -> Path:
    """A workspace whose profile nothing names."""
    need_programs("kustomize")
    return workspace(tmp_path, kfdeploy, PROFILE)


def upstream_has(site: Path, kfdeploy: Runner, more: str) -> None:
    file = site.parent / "up/apps/one/kustomization.yaml"
    file.write_text(file.read_text() + more)
    kfdeploy("vendor", cwd=site)


def test_a_name_that_nothing_replaced_is_a_problem_with_its_place(
    site: Path, kfdeploy: Runner
) -> None:
    what = (
        "Profile $(profile-name): metadata.name: nothing has replaced $(profile-name), and an API"
        " server refuses the name"
    )
    problems = kfdeploy("scan", "--format", "json", cwd=site).json["problems"]
    assert problems == [{"what": what, "where": "apps/one/objects.yaml:4", "about": "name"}]
    note = f"note: apps/one/objects.yaml:4: {what}\n"
    assert kfdeploy("scan", "-q", cwd=site).stderr == note
    assert kfdeploy("patch", "-q", cwd=site).stderr == note


def test_a_replacement_whose_selector_is_no_regular_expression_of_itself_is_made(
    site: Path, kfdeploy: Runner
) -> None:
    upstream_has(site, kfdeploy, REPLACEMENTS)
    assert kfdeploy("scan", "--format", "json", cwd=site).json["problems"] == []
    kfdeploy("lock", "--offline", cwd=site)
    kfdeploy("patch", cwd=site)
    kfdeploy("render", cwd=site)
    chart = site / "releases/default/charts/one"
    text = "".join(p.read_text() for p in chart.rglob("objects.yaml"))
    assert "  name: users\n" in text
    assert "name: u@example.com\n" in text
    assert "$(" not in text


def test_the_local_copy_keeps_its_lines_and_adds_a_transformer(
    site: Path, kfdeploy: Runner
) -> None:
    upstream_has(site, kfdeploy, REPLACEMENTS)
    original = (site / "upstream/apps/one/kustomization.yaml").read_text()
    local = site / "upstream/_local/apps/one"
    text = (local / "kustomization.yaml").read_text()
    assert (
        text.splitlines()[1:-2]
        == original.replace("[objects.yaml]", "[../../../apps/one/objects.yaml]").splitlines()
    )
    assert text.endswith("\ntransformers:\n- kfdeploy-replacements.yaml\n")
    # Only what is read in another way is there twice.
    more = (local / "kfdeploy-replacements.yaml").read_text()
    assert more.count(r'"name": "\\$\\(profile-name\\)"') == 2
    assert "plain.name" not in more


def test_transformers_of_upstream_s_own_are_not_added_to(site: Path, kfdeploy: Runner) -> None:
    file = site.parent / "up/apps/one/kustomization.yaml"
    (file.parent / "t.yaml").write_text(
        "apiVersion: builtin\nkind: LabelTransformer\nmetadata: {name: l}\n"
        "labels: {a: b}\nfieldSpecs: [{path: metadata/labels, create: true}]\n"
    )
    file.write_text(file.read_text() + REPLACEMENTS + "transformers: [t.yaml]\n")
    assert kfdeploy("vendor", "-q", cwd=site, check=1).stderr == (
        "error: apps/one/kustomization.yaml: its replacements select names that kustomize 5.8 and"
        " later reads as regular expressions; kfdeploy can't repair that because the file has"
        " transformers\n"
        "  hint: upstream, escape the names for kustomize 5.8 and later\n"
    )


@pytest.mark.slow
def test_1_10_2_s_profile_has_its_name(real_site: Callable[[str], Site]) -> None:
    set_ = real_site("1.10.2").set
    text = (set_ / "charts/user-namespace/charts/objects/objects.yaml").read_text()
    assert "name: kubeflow-user-example-com\n" in text
    assert "name: user@example.com\n" in text


SCRIPT = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: code}
data:
  sync.py: |
    image = os.environ.get("X_IMAGE", "ghcr.io/x/a")
    tag = os.environ.get("X_TAG", "v1")
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: sync}
spec:
  template:
    spec:
      containers:
      - name: sync
        image: python:3.11
        env: [{name: X_IMAGE, value: "Not/An Image"}]
        volumeMounts: [{name: code, mountPath: /code}]
      volumes: [{name: code, configMap: {name: code}}]
"""


def test_what_a_script_pulls_and_is_no_image_is_a_problem_and_not_among_the_images(
    tmp_path: Path, kfdeploy: Runner
) -> None:
    need_programs("kustomize")
    root = workspace(tmp_path, kfdeploy, SCRIPT)
    found = kfdeploy("scan", "--format", "json", cwd=root).json
    assert [image["ref"] for image in found["images"]] == ["python:3.11"]
    assert [problem["what"] for problem in found["problems"]] == [
        "'Not/An Image:v1', which a script pulls, is not an image reference"
    ]
