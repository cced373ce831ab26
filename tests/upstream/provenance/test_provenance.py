"""Where a rendered value came from, and what overrode it, in small trees that kustomize builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from kfdeploy.images.inventory import SourceLocation
from kfdeploy.kubernetes.objects import Path as FieldPath
from kfdeploy.kubernetes.objects import get_field, split_objects
from kfdeploy.upstream.kustomization import build
from kfdeploy.upstream.provenance.kustomize import ProvenanceIndex, ReachedFile
from tests.conftest import need_programs

BASE = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  template:
    spec:
      containers:
      - name: side
        image: c/d:2
      - name: main
        image: a/b:1
        args: ["--flag=e/f:1"]
        env:
        - name: X_IMAGE
          value: g/h:1
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: texts
data:
  block: |
    one
    image: i/j:1
    image: i/j:1
  quoted: "a\\nimage: k/l:1\\n"
  folded: >-
    image:
    m/n:1
"""
MAIN: FieldPath = ("spec", "template", "spec", "containers", 1, "image")
ENV: FieldPath = ("spec", "template", "spec", "containers", 1, "env", 0, "value")


def built(root: Path, top: str, files: dict[str, str]) -> tuple[str, ProvenanceIndex]:
    need_programs("kustomize")
    for name, text in {"base/objects.yaml": BASE, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    graph = build.build_graph(root, [top])
    assert not graph.errors
    nodes = [graph.nodes[at] for at in graph.list_reachable(top)]
    index = ProvenanceIndex(
        root,
        [ReachedFile(path, roles) for path, roles in graph.list_files(top).items()],
        [(node.folder, node.file, node.kustomization) for node in nodes],
    )
    return build.build_kustomization(root, top, graph=graph).decode(), index


def find(
    text: str, index: ProvenanceIndex, kind: str, path: FieldPath, piece: str, nth: int = 0
) -> tuple[SourceLocation | None, tuple[SourceLocation, ...]]:
    (item,) = [item for item in split_objects(text) if item.key.kind == kind]
    if path[:4] == MAIN[:4]:  # a merge puts its own containers first
        names = [one["name"] for one in get_field(item.body, path[:4])]
        path = (*path[:4], names.index(("side", "main")[int(path[4])]), *path[5:])
    value = get_field(item.body, path)
    at = -1
    for _ in range(nth + 1):
        at = value.index(piece, at + 1)
    return index.locate_value(item.key, item.body, path, piece, at=at)


KUSTOMIZATION = "resources: [objects.yaml]\n"


@pytest.mark.parametrize(
    ("kind", "path", "piece", "nth", "line"),
    [
        ("Deployment", MAIN, "a/b:1", 0, 12),
        ("Deployment", ("spec", "template", "spec", "containers", 0, "image"), "c/d:2", 0, 10),
        ("Deployment", ("spec", "template", "spec", "containers", 1, "args", 0), "e/f:1", 0, 13),
        ("Deployment", ENV, "g/h:1", 0, 16),
        ("ConfigMap", ("data", "block"), "i/j:1", 0, 25),
        ("ConfigMap", ("data", "block"), "i/j:1", 1, 26),
        ("ConfigMap", ("data", "quoted"), "k/l:1", 0, 27),
    ],
)
def test_a_value_stands_on_its_line(
    tmp_path: Path, kind: str, path: FieldPath, piece: str, nth: int, line: int
) -> None:
    text, index = built(tmp_path, "base", {"base/kustomization.yaml": KUSTOMIZATION})
    place = SourceLocation("base/objects.yaml", line)
    assert find(text, index, kind, path, piece, nth) == (place, ())


OVERRIDES: dict[str, tuple[dict[str, str], FieldPath, str, SourceLocation, SourceLocation]] = {
    "images": (
        {
            "base/kustomization.yaml": (
                f"{KUSTOMIZATION}images:\n- name: other\n  newTag: x\n- name: a/b\n  newTag: '9'\n"
            )
        },
        MAIN,
        "a/b:9",
        SourceLocation("base/objects.yaml", 12),
        SourceLocation("base/kustomization.yaml", 5),
    ),
    "a strategic merge": (
        {
            "base/kustomization.yaml": f"{KUSTOMIZATION}patches: [{{path: patch.yaml}}]\n",
            "base/patch.yaml": (
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n"
                "    spec:\n      containers:\n      - name: main\n        image: z/z:9\n"
            ),
        },
        MAIN,
        "z/z:9",
        SourceLocation("base/objects.yaml", 12),
        SourceLocation("base/patch.yaml", 9),
    ),
    "an inline JSON patch": (
        {
            "base/kustomization.yaml": (
                f"{KUSTOMIZATION}patches:\n- target: {{kind: Deployment}}\n  patch: |\n"
                "    - op: replace\n      path: /spec/template/spec/containers/1/image\n"
                "      value: z/z:9\n"
            ),
        },
        MAIN,
        "z/z:9",
        SourceLocation("base/objects.yaml", 12),
        SourceLocation("base/kustomization.yaml", 7),
    ),
    "a replacement": (
        {
            "base/kustomization.yaml": (
                f"{KUSTOMIZATION}configMapGenerator:\n- name: p\n  literals: [image=z/z:9]\n"
                "replacements:\n- source: {kind: ConfigMap, name: p, fieldPath: data.image}\n"
                "  targets:\n  - select: {kind: Deployment, name: web}\n    fieldPaths:\n"
                "    - spec.template.spec.containers.[name=main].env.[name=X_IMAGE].value\n"
            ),
        },
        ENV,
        "z/z:9",
        SourceLocation("base/objects.yaml", 16),
        SourceLocation("base/kustomization.yaml", 6),
    ),
    "a replacement in a file": (
        {
            "base/kustomization.yaml": (
                f"{KUSTOMIZATION}configMapGenerator:\n- name: p\n  literals: [image=z/z:9]\n"
                "replacements: [{path: replace.yaml}]\n"
            ),
            "base/replace.yaml": (
                "source: {kind: ConfigMap, name: p, fieldPath: data.image}\ntargets:\n"
                "- select: {kind: Deployment}\n  fieldPaths:\n"
                "  - spec.template.spec.containers.*.env.0.value\n"
            ),
        },
        ENV,
        "z/z:9",
        SourceLocation("base/objects.yaml", 16),
        SourceLocation("base/replace.yaml", 1),
    ),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_what_has_the_last_word_is_named(tmp_path: Path, case: str) -> None:
    files, path, piece, place, override = OVERRIDES[case]
    text, index = built(tmp_path, "base", files)
    assert find(text, index, "Deployment", path, piece) == (place, (override,))


GENERATED = {
    "a file": (
        "configMapGenerator:\n- name: made\n  files: [a.ini]\n",
        {"top/a.ini": "[x]\nimage = q/r:1\n"},
        "a.ini",
        SourceLocation("top/a.ini", 2),
    ),
    "a file under a key": (
        "configMapGenerator:\n- name: made\n  files: [key=a.ini]\n",
        {"top/a.ini": "image = q/r:1\n"},
        "key",
        SourceLocation("top/a.ini", 1),
    ),
    "a literal": (
        "configMapGenerator:\n- name: made\n  literals:\n  - A=1\n  - IMAGE=q/r:1\n",
        {},
        "IMAGE",
        SourceLocation("top/kustomization.yaml", 5),
    ),
    "a settings file": (
        "configMapGenerator:\n- name: made\n  envs: [a.env]\n",
        {"top/a.env": "A=1\n# image\nIMAGE=q/r:1\n"},
        "IMAGE",
        SourceLocation("top/a.env", 3),
    ),
}


@pytest.mark.parametrize("case", GENERATED)
def test_what_is_generated_stands_in_its_source(tmp_path: Path, case: str) -> None:
    kustomization, files, key, place = GENERATED[case]
    text, index = built(tmp_path, "top", {"top/kustomization.yaml": kustomization, **files})
    assert find(text, index, "ConfigMap", ("data", key), "q/r:1") == (place, ())


def test_a_name_with_prefix_and_suffix_is_found_in_its_base(tmp_path: Path) -> None:
    files = {
        "base/kustomization.yaml": KUSTOMIZATION,
        "top/kustomization.yaml": "resources: [../base]\nnamePrefix: p-\nnameSuffix: -s\n",
    }
    text, index = built(tmp_path, "top", files)
    place, _ = find(text, index, "Deployment", MAIN, "a/b:1")
    assert place == SourceLocation("base/objects.yaml", 12)
