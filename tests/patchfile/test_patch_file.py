"""Patch files: what is generated is told from what people wrote, and each form is read."""

from __future__ import annotations

import pytest
from ruamel.yaml import YAML

from kfdeploy.errors import UserError
from kfdeploy.kubernetes import name_hash
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.patchfile import patch_file
from kfdeploy.yamltext.emit import quote_scalar

JSON = "target: {kind: Deployment, name: web}\npatch:\n- op: remove\n  path: /spec\n"
MERGE = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: n}\nspec: {}\n"
TRANSFORMER = "apiVersion: builtin\nkind: LabelTransformer\nmetadata: {name: x}\nlabels: {a: b}\n"
WEB = ObjectKey("apps/v1", "Deployment", "n", "web")


@pytest.mark.parametrize(
    ("text", "form"), [(JSON, "json"), (MERGE, "merge"), (TRANSFORMER, "transformer")]
)
def test_each_form_is_told_by_its_content(text: str, form: str) -> None:
    assert patch_file.parse_patch("p.yaml", text).form == form
    assert patch_file.detect_form(text) == form


@pytest.mark.parametrize("is_template", [False, True])
def test_a_generated_file_knows_whether_it_was_edited(is_template: bool) -> None:
    text = patch_file.mark_generated(JSON, is_template=is_template)
    assert patch_file.is_generated(text)
    assert not patch_file.is_edited(text)
    for changed in (f"{text}# mine\n", text.replace("web", "other"), text[:-1]):
        assert patch_file.is_generated(changed)
        assert patch_file.is_edited(changed)
    assert not patch_file.is_generated(JSON)
    assert not patch_file.is_edited(JSON)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [b\nc: d\n", "p.yaml:2: broken YAML: "),
        ("- a\n", "p.yaml: no patch"),
        ("", "p.yaml: no patch"),
        ("a: 1\n", "p.yaml: no patch"),
        ("target: {}\npatch: {}\n", "p.yaml: target must be a mapping, patch a list"),
        ("target: x\npatch: []\n", "p.yaml: target must be a mapping, patch a list"),
    ],
)
def test_what_is_no_patch_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        patch_file.parse_patch("p.yaml", text)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("target", "selects"),
    [
        ("{kind: Deployment, name: web}", True),
        ("{kind: Deployment, name: we.}", True),
        ("{kind: Deployment, name: we}", False),
        ("{kind: Deploy, name: web}", False),
        ("{group: apps, version: v1, kind: Deployment, namespace: n, name: web}", True),
        ("{group: apps, kind: Deployment, namespace: m, name: web}", False),
        ("{kind: Deployment}", True),
        ("{name: web}", True),
    ],
)
def test_a_target_selects_as_kustomize_does(target: str, selects: bool) -> None:
    patch = patch_file.parse_patch("p.yaml", f"target: {target}\npatch: []\n")
    assert patch.selects_object(WEB) is selects


def test_a_merge_takes_its_names_literally() -> None:
    patch = patch_file.parse_patch("p.yaml", MERGE.replace("name: web", "name: w.b"))
    assert not patch.selects_object(WEB)


@pytest.mark.parametrize(
    ("kind", "name", "unhashed"),
    [
        ("ConfigMap", "a-42h88m2mfk", "a"),
        ("Secret", "a-b-42h88m2mfk", "a-b"),
        ("Deployment", "a-42h88m2mfk", "a-42h88m2mfk"),
        ("ConfigMap", "a-abcdefghij", "a-abcdefghij"),
        ("ConfigMap", "pipeline-42h88m2mf", "pipeline-42h88m2mf"),
    ],
)
def test_a_content_hash_is_no_part_of_the_name(kind: str, name: str, unhashed: str) -> None:
    key = ObjectKey("v1", kind, "n", name)
    assert name_hash.strip_name_hash(key) == unhashed
    target = patch_file.parse_patch("p.yaml", patch_file.target_yaml(key) + "patch: []\n")
    assert target.selects_object(key)


@pytest.mark.parametrize(
    "value",
    [
        *("plain", "a/b:1", "yes", "on", "y", "null", "~", ""),
        *("0644", "1.0", "1e3", "12:30", "a: b", "# x", "é", '"', "- a", "&a", "*a", "!a"),
    ],
)
def test_a_scalar_is_the_same_string_in_both_yamls(value: str) -> None:
    text = quote_scalar(value)
    assert YAML(typ="safe").load(f"x: {text}\n")["x"] == value
    old = YAML(typ="safe", pure=True)
    old.version = (1, 1)
    assert old.load(f"x: {text}\n")["x"] == value


def test_operations_are_passed_on_as_they_are_written() -> None:
    text = "target: {kind: X}\npatch:\n- op: add\n  path: /mode\n  value: 0644\n"
    assert "value: 0644" in patch_file.parse_patch("p.yaml", text).operations_text
    flow = patch_file.parse_patch("p.yaml", "target: {kind: X}\npatch: [{op: remove, path: /a}]\n")
    assert flow.operations_text == '[{"op": "remove", "path": "/a"}]'
