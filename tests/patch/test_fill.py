"""Patches filled without Helmfile: mentions are replaced, and one that is gone is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.errors import UserError
from kfdeploy.kubernetes.objects import split_objects
from kfdeploy.patch.fill import TemplateFiller
from kfdeploy.upstream.build import RenderedComponent
from kfdeploy.workspace.settings import Component

NEW = "reg.test/kf/x:1@sha256:0"


def rendered(root: Path, text: str) -> RenderedComponent:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "n"},
        "data": {"k": text},
    }
    lines = [f"{name}: {json.dumps(value)}" for name, value in body.items() if name != "kind"]
    document = "\n".join([*lines[:1], "kind: ConfigMap", *lines[1:]]) + "\n"
    component = Component(name="one", path="one")
    made = RenderedComponent(component, "manifests", root / "upstream", "one", "key", lambda: b"")
    object.__setattr__(made, "objects", tuple(split_objects(document)))
    return made


def replaced(root: Path, text: str, *mentions: tuple[str, str], field: Any = ("data", "k")) -> str:
    folder = root / "patches" / "one"
    folder.mkdir(parents=True, exist_ok=True)
    shared = root / "patches" / "_kfdeploy"
    shared.mkdir(exist_ok=True)
    (shared / "mentions.gotmpl").write_text("{{ fail `never read` }}")
    pairs = " ".join(f"(list {json.dumps(old)} {json.dumps(new)})" for old, new in mentions)
    keys = " ".join(json.dumps(step) for step in field)
    (folder / "c.yaml.gotmpl").write_text(
        "target: {kind: ConfigMap}\npatch:\n- op: replace\n  path: /data/k\n"
        '  value: {{ tpl (readFile "../_kfdeploy/mentions.gotmpl") (dict "patch" "p" "build" (list)'
        f' "kind" "ConfigMap" "namespace" "n" "name" "c" "field" (list {keys})'
        f' "mentions" (list {pairs})) }}}}\n'
    )
    (patch,) = TemplateFiller(root, {"Values": {}, "Environment": {}}).fill_patches(
        rendered(root, text)
    )
    value: str = patch.operations[0]["value"]
    return value


@pytest.mark.parametrize(
    ("text", "old", "result"),
    [
        ("image: a/b:1", "a/b:1", f"image: {NEW}"),
        ("a/b:1,a/b:1 a/b:1\n", "a/b:1", f"{NEW},{NEW} {NEW}\n"),
        ("a/b:1-gpu a/b:1", "a/b:1", f"a/b:1-gpu {NEW}"),
        ("a/b:1.2 a/b:1. a/b:1: a/b:1", "a/b:1", f"a/b:1.2 {NEW}. {NEW}: {NEW}"),
        ("x/a/b:1 a/b:1/y a/b:1@z 'a/b:1'", "a/b:1", f"x/a/b:1 a/b:1/y a/b:1@z '{NEW}'"),
        ("a.b:1 axb:1", "a.b:1", f"{NEW} axb:1"),
        ('{"image" : "a/b"}', '"image" : "a/b"', f"{{{NEW}}}"),
        ("数 a/b:1 {{ .X }} \\1 $1 <&>\r\n\t", "a/b:1", f"数 {NEW} {{{{ .X }}}} \\1 $1 <&>\r\n\t"),
    ],
)
def test_exactly_the_mention_is_replaced(tmp_path: Path, text: str, old: str, result: str) -> None:
    assert replaced(tmp_path, text, (old, NEW)) == result


def test_a_new_reference_is_taken_literally(tmp_path: Path) -> None:
    assert replaced(tmp_path, "x a/b:1 y", ("a/b:1", r"\g<1>\1$1")) == r"x \g<1>\1$1 y"


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("x", ("data", "k"), "ConfigMap n/c data.k no longer mentions a/b:1"),
        ("a/b:12", ("data", "k"), "ConfigMap n/c data.k no longer mentions a/b:1"),
        ("a/b:1", ("data", "gone"), "ConfigMap n/c has no field data.gone"),
    ],
)
def test_a_mention_that_is_gone_names_patch_object_and_field(
    tmp_path: Path, text: str, field: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        replaced(tmp_path, text, ("a/b:1", NEW), field=field)
    assert caught.value.message.startswith("patches/one/c.yaml.gotmpl: ")
    assert caught.value.message.endswith(message)


def test_all_patches_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "patches" / "one"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("a: [\n")
    (folder / "b.yaml").write_text("no: patch\n")
    (folder / "notes.txt").write_text("not read")
    with pytest.raises(UserError) as caught:
        TemplateFiller(tmp_path, {}).fill_patches(rendered(tmp_path, ""))
    files = [error.message.split(":")[0] for error in caught.value.list_errors()]
    assert files == ["patches/one/a.yaml", "patches/one/b.yaml"]


def test_patches_come_by_form_then_generated_ones_then_peoples(tmp_path: Path) -> None:
    from kfdeploy.patchfile import patch_file

    folder = tmp_path / "patches" / "one"
    folder.mkdir(parents=True)
    json_patch = "target: {kind: X}\npatch: []\n"
    merge = "kind: X\nmetadata: {name: x}\n"
    (folder / "a.yaml").write_text(merge)
    (folder / "b.yaml").write_text(json_patch)
    (folder / "c.yaml").write_text(patch_file.mark_generated(json_patch))
    (folder / "d.yaml").write_text(patch_file.mark_generated(merge))
    (folder / "e.yaml").write_text("apiVersion: builtin\nkind: X\n")
    patches = TemplateFiller(tmp_path, {}).fill_patches(rendered(tmp_path, ""))
    assert [Path(patch.file).stem for patch in patches] == ["c", "b", "d", "a", "e"]
