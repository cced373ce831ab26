"""Each way in which kustomize silently does the wrong thing is an error with a name.

The first tests show with kustomize itself that it stays silent; the others, that kfdeploy does not.
"""

# ruff: noqa: E501, ISC004 (tables of examples)

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from kfdeploy.kubernetes.name_hash import HASH_PATTERN
from kfdeploy.kubernetes.objects import Object, split_objects
from kfdeploy.patch import conflicts
from kfdeploy.patchfile import patch_file
from tests.conftest import need_programs

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: n
  annotations: {old: "1"}
  labels: {app: web}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      containers:
      - name: main
        image: a/b:1
        args: [--one, --two]
      - name: side
        image: c/d:2
"""
RUNTIME = """\
---
apiVersion: serving.kserve.io/v1alpha1
kind: ClusterServingRuntime
metadata: {name: runtime}
spec:
  containers:
  - name: kserve-container
    image: kserve/x:1
    args: [--port, "8080"]
  formats: [one, two]
"""
CONFIG = """\
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings-42h88m2mfk, namespace: n}
data: {key: value}
"""
OBJECTS: tuple[Object, ...] = tuple(split_objects(DEPLOYMENT + RUNTIME + CONFIG, "objects"))
TARGET = "target: {group: apps, version: v1, kind: Deployment, namespace: n, name: web}\n"
IMAGE = "/spec/template/spec/containers/0/image"


def errors(*texts: str) -> list[str]:
    patches = [patch_file.parse_patch(f"patches/x/{n}.yaml", text) for n, text in enumerate(texts)]
    return [error.message for error in conflicts.find_patch_errors(patches, OBJECTS)]


def merge(*containers: str, kind: str = "Deployment") -> str:
    return (
        f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: web, namespace: n}}\n"
        f"spec: {{template: {{spec: {{containers: [{', '.join(containers)}]}}}}}}\n"
    )


def json_patch(*operations: str) -> str:
    return TARGET + "patch:\n" + "".join(f"- {{{one}}}\n" for one in operations)


# -- that kustomize says nothing -------------------------------------------------------------------


def kustomized(folder: Path, patch: dict[str, Any]) -> dict[str, Any]:
    """What kustomize makes of the objects, by kind."""
    need_programs("kustomize")
    (folder / "objects.yaml").write_text(DEPLOYMENT + RUNTIME + CONFIG)
    YAML().dump({"resources": ["objects.yaml"], "patches": [patch]}, folder / "kustomization.yaml")
    done = subprocess.run(
        ["kustomize", "build", folder], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return {item.key.kind: item.body for item in split_objects(done.stdout)}


def test_kustomize_says_nothing_of_a_target_that_is_missing(tmp_path: Path) -> None:
    patch = "- {op: replace, path: /spec, value: x}"
    kustomized(tmp_path, {"target": {"kind": "Deployment", "name": "gone"}, "patch": patch})


def test_kustomize_adds_a_container_that_was_renamed(tmp_path: Path) -> None:
    built = kustomized(tmp_path, {"patch": merge("{name: old-name, env: []}")})
    containers = built["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert len(containers) == 3


def test_kustomize_replaces_a_list_in_a_custom_resource(tmp_path: Path) -> None:
    patch = (
        "apiVersion: serving.kserve.io/v1alpha1\nkind: ClusterServingRuntime\n"
        "metadata: {name: runtime}\nspec: {containers: [{name: kserve-container, image: x}]}\n"
    )
    built = kustomized(tmp_path, {"patch": patch})
    assert built["ClusterServingRuntime"]["spec"]["containers"] == [
        {"name": "kserve-container", "image": "x"}
    ]


def test_kustomize_adds_over_a_map_that_is_there(tmp_path: Path) -> None:
    patch = "- {op: add, path: /metadata/annotations, value: {new: '1'}}"
    built = kustomized(tmp_path, {"target": {"kind": "Deployment"}, "patch": patch})
    assert built["Deployment"]["metadata"]["annotations"] == {"new": "1"}


# -- that kfdeploy does ----------------------------------------------------------------------------

MISFITS: dict[str, tuple[str, str]] = {
    "a target that is missing": (
        json_patch("op: remove, path: /spec").replace("name: web", "name: gone"),
        "there is no Deployment n/gone for it to change",
    ),
    "a target in another namespace": (
        json_patch("op: remove, path: /spec").replace("namespace: n", "namespace: m"),
        "there is no Deployment m/web for it to change",
    ),
    "a target of another version": (
        json_patch("op: remove, path: /spec").replace("version: v1", "version: v2"),
        "there is no Deployment n/web for it to change",
    ),
    "a label that nothing has": (
        "target: {kind: Deployment, labelSelector: app=db}\npatch: [{op: remove, path: /spec}]\n",
        "there is no Deployment with labels app=db for it to change",
    ),
    "a label that all have": (
        "target: {labelSelector: app!=web, name: web}\npatch: [{op: remove, path: /spec}]\n",
        "there is no object web with labels app!=web for it to change",
    ),
    "what a selector finds": (
        "target: {labelSelector: app=web}\npatch: [{op: remove, path: /spec/gone}]\n",
        "Deployment n/web: there is nothing at /spec/gone (no gone)",
    ),
    "a merge without its object": (
        merge("{name: main}", kind="StatefulSet"),
        "there is no StatefulSet n/web for it to change",
    ),
    "a renamed container": (
        merge("{name: old, env: []}"),
        "Deployment n/web: spec.template.spec.containers: there is no container old;"
        " it would be added",
    ),
    "a container without a name": (
        merge("{env: []}"),
        "Deployment n/web: spec.template.spec.containers: there is no container None;"
        " it would be added",
    ),
    "a list in a custom resource": (
        "apiVersion: serving.kserve.io/v1alpha1\nkind: ClusterServingRuntime\n"
        "metadata: {name: runtime}\nspec: {containers: [{name: kserve-container, image: x}]}\n",
        "ClusterServingRuntime runtime: spec.containers: a strategic merge replaces the whole list"
        " in a custom resource; write a JSON patch",
    ),
    "a container that moved": (
        json_patch("op: test, path: /spec/template/spec/containers/0/name, value: side"),
        "Deployment n/web: /spec/template/spec/containers/0/name is 'main', not 'side'",
    ),
    "an old value that changed": (
        json_patch(f"op: test, path: {IMAGE}, value: 'a/b:0'"),
        f"Deployment n/web: {IMAGE} is 'a/b:1', not 'a/b:0'",
    ),
    "an index beyond the list": (
        json_patch("op: replace, path: /spec/template/spec/containers/2/image, value: x"),
        "Deployment n/web: there is nothing at /spec/template/spec/containers/2/image (no 2)",
    ),
    "an index beyond the list, to add at": (
        json_patch("op: add, path: /spec/template/spec/containers/3, value: x"),
        "Deployment n/web: there is nothing at /spec/template/spec/containers/3"
        " (the list has 2 items)",
    ),
    "a key that is gone": (
        json_patch("op: remove, path: /spec/gone"),
        "Deployment n/web: there is nothing at /spec/gone (no gone)",
    ),
    "a key of a list": (
        json_patch("op: replace, path: /spec/template/spec/containers/main/image, value: x"),
        "Deployment n/web: there is nothing at /spec/template/spec/containers/main/image (no main)",
    ),
    "a map that would be replaced": (
        json_patch("op: add, path: /metadata/annotations, value: {new: '1'}"),
        "Deployment n/web: /metadata/annotations is there already, and would be replaced as a whole",
    ),
    "a list that would be replaced": (
        json_patch("op: add, path: /spec/template/spec/containers/0/args, value: [--x]"),
        "Deployment n/web: /spec/template/spec/containers/0/args is there already,"
        " and would be replaced as a whole",
    ),
    "no operation": (
        json_patch("op: set, path: /spec, value: 1"),
        "Deployment n/web: patch[0].op: 'set' is no JSON patch operation",
    ),
    "the whole object": (
        json_patch("op: replace, path: '', value: {}"),
        "Deployment n/web: patch[0].path: the whole object can't be the target",
    ),
    "a copy from nowhere": (
        json_patch("op: copy, from: /spec/gone, path: /spec/here"),
        "Deployment n/web: there is nothing at /spec/gone (no gone)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_a_patch_that_does_not_fit_names_file_object_and_field(case: str) -> None:
    text, message = MISFITS[case]
    assert errors(text) == [f"patches/x/0.yaml: {message}"]


FITS: dict[str, str] = {
    "replace": json_patch(f"op: test, path: {IMAGE}, value: 'a/b:1'", f"op: replace, path: {IMAGE}, value: x"),
    "add a key": json_patch("op: add, path: /spec/replicas, value: 2"),
    "add to a list": json_patch("op: add, path: /spec/template/spec/containers/0/args/-, value: x"),
    "add an annotation": json_patch("op: add, path: /metadata/annotations/new, value: x"),
    "add what was added": json_patch(
        "op: add, path: /spec/template/spec/imagePullSecrets, value: []",
        "op: add, path: /spec/template/spec/imagePullSecrets/-, value: {name: x}",
    ),
    "remove": json_patch("op: remove, path: /spec/template/spec/containers/1"),
    "copy": json_patch("op: copy, from: /spec/selector, path: /spec/again"),
    "move": json_patch("op: move, from: /spec/selector, path: /spec/again"),
    "a container by name": merge("{name: side, env: [{name: A, value: b}]}"),
    "a container with an image is meant": merge("{name: new, image: e/f}"),
    "a container to be deleted": merge("{name: side, $patch: delete}"),
    "a custom resource without its list": (
        "apiVersion: serving.kserve.io/v1alpha1\nkind: ClusterServingRuntime\n"
        "metadata: {name: runtime}\nspec: {disabled: true}\n"
    ),
    "a custom resource's list of words": (
        "apiVersion: serving.kserve.io/v1alpha1\nkind: ClusterServingRuntime\n"
        "metadata: {name: runtime}\nspec: {formats: [three]}\n"
    ),
    "by label": "target: {labelSelector: app=web}\npatch: [{op: remove, path: /spec}]\n",
    "by two labels": "target: {labelSelector: 'app=web,tier!=db'}\npatch: [{op: remove, path: /spec}]\n",
    "by annotation": "target: {annotationSelector: old=1}\npatch: [{op: remove, path: /spec}]\n",
    "by a selector of another kind": (
        "target: {kind: Deployment, labelSelector: 'app in (web)'}\npatch: [{op: remove, path: /spec}]\n"
    ),
    "by pattern": "target: {kind: ConfigMap, name: 'settings-.*'}\npatch: [{op: remove, path: /data/key}]\n",
    "by unhashed name": (
        f"target: {{kind: ConfigMap, name: 'settings-{HASH_PATTERN}'}}\n"
        "patch: [{op: remove, path: /data/key}]\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FITS)
def test_a_patch_that_fits_is_no_error(case: str) -> None:
    assert errors(FITS[case]) == []


def test_patches_of_one_object_are_tried_one_after_the_other() -> None:
    first = json_patch(f"op: replace, path: {IMAGE}, value: 'new/image:1'")
    second = json_patch(f"op: test, path: {IMAGE}, value: 'new/image:1'")
    assert errors(first, second) == []
    assert errors(second, first) == [
        f"patches/x/0.yaml: Deployment n/web: {IMAGE} is 'a/b:1', not 'new/image:1'"
    ]


def test_a_move_takes_away_what_it_moved() -> None:
    moved = json_patch("op: move, from: /spec/selector, path: /spec/again")
    assert errors(moved, json_patch("op: test, path: /spec/again/matchLabels/a, value: b")) == []
    (message,) = errors(moved, json_patch("op: remove, path: /spec/selector"))
    assert message.endswith("there is nothing at /spec/selector (no selector)")


def test_all_misfits_are_reported_and_objects_stay_as_they_are() -> None:
    before = [item.text for item in OBJECTS]
    wrong = json_patch("op: remove, path: /spec/gone")
    assert len(errors(wrong, merge("{name: old}"), wrong)) == 3
    assert OBJECTS[0].body["spec"]["template"]["spec"]["containers"][0]["image"] == "a/b:1"
    assert [item.text for item in OBJECTS] == before


def test_a_long_value_is_shortened() -> None:
    (message,) = errors(json_patch(f"op: test, path: {IMAGE}, value: '{'x' * 300}'"))
    assert message.endswith("xxx...")
    assert len(message) < 300
