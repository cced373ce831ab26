"""A tree of texts that are hard to patch, from `init` to `render`, and by plain Helmfile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import DATA, Runner, Served, Site, make_site
from tests.patch.test_generate import compare
from tests.releaseset.test_helmfile import of_set, same, template, without_crds

TEXTS = {
    "shell": 'IMAGE=${IMAGE:-ghcr.io/t/a:1}\nX="${X:=ghcr.io/t/b:1}"\nrun --image=t/c:1\n',
    "script.sh": "#!/bin/sh\necho ghcr.io/t/a:1, ghcr.io/t/a:1-gpu ghcr.io/t/a:1.\n",
    "names": "one:ghcr.io/t/a:1\ntwo: ghcr.io/t/a:1\n",
    "pod": "containers:\n- name: mysql\n  image: mysql\n- name: x\n  image: t/c\n# mysql t/c\n",
    "json": '{"image" : "t/c", "note": "t/c and t/c:1", "x": "one\\nghcr.io/t/a:1\\ntwo"}',
    "nested": '{"x": "{\\"image\\": \\"t/c:1\\"}"}\n{}\n',
    "cjk": "说明: 你好 ghcr.io/t/a:1 😀\nimage: t/c:1\n",
    "percent": "a: 100%\nimage: t/c\nb: '%s %d'\n",
    "odd": "image: t/c:1 `x` \"y\" 'z' \\ $1 ${2} <&> {{ .Image }} {{- /* */ -}}\n",
    "image": "t/c:1",
    "images": "t/c:1,ghcr.io/t/a:1",
    "hub": "hub: ghcr.io/t\ntag: v1\np: {image: a}\nq: {image: b}\n",
    "art": '{"art": {"image": "ghcr.io/t/d", "defaultImageVersion": "v2"}}',
}
POD = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "n"},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "image": "mysql",
                        "command": ["sh", "-c", "IMAGE=${IMAGE:-t/c:1} run --image t/c:1"],
                        "args": ["--flag=ghcr.io/t/a:1", "--image", "t/c", "a\nimage: t/c:1\n"],
                        "env": [
                            {"name": "JSON", "value": '{"image": "t/c:1", "x": "%"}'},
                            {"name": "SIDE", "value": "one:ghcr.io/t/a:1"},
                            {"name": "IMAGES", "value": "t/c:1,t/c:1-gpu"},
                        ],
                    }
                ]
            },
        },
    },
}


@pytest.fixture(scope="module")
def hard(kfdeploy: Runner, registries: Served, tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("hard")
    base = folder / "up" / "apps" / "one"
    base.mkdir(parents=True)
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "texts", "namespace": "n"},
        "data": TEXTS,
    }
    documents = [json.dumps(body, ensure_ascii=False) for body in (config, POD)]
    (base / "objects.yaml").write_text("\n---\n".join(documents) + "\n")
    (base / "kustomization.yaml").write_text("resources: [objects.yaml]\n")
    (folder / "up" / "example").mkdir()
    (folder / "up" / "example" / "kustomization.yaml").write_text("resources: [../apps/one]\n")
    return make_site(
        kfdeploy,
        registries,
        folder / "ws",
        upstream=folder / "up",
        remotes=DATA / "remotes",
        version="1.0",
        prefix="hard",
    )


def test_hard_texts_are_patched_at_their_mentions(hard: Site) -> None:
    assert compare(hard) > len(TEXTS)


def test_helmfile_patches_hard_texts_alike(hard: Site, tmp_path: Path) -> None:
    given = template(hard.root, tmp_path / "home", "--include-crds")
    same(without_crds(given), without_crds(of_set(hard.set)))


def test_verify_sees_the_note_that_was_left_alone(hard: Site, kfdeploy: Runner) -> None:
    """It can't tell a note from a use, and rather asks."""
    answer = kfdeploy("verify", "--output", "json", cwd=hard.root, check=3).json
    assert {found["reference"] for found in answer["foreign"]} == {"t/c", "t/c:1"}
