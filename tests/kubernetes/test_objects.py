"""Objects: a stream of documents is cut apart, and each keeps its bytes."""

from __future__ import annotations

import json

import pytest

from kfdeploy.errors import UserError
from kfdeploy.kubernetes.objects import (
    ObjectKey,
    format_pointer,
    get_field,
    join_objects,
    parse_pointer,
    show_path,
    split_objects,
)

TWO = "kind: A\nmetadata:\n  name: a\n---\nkind: B\nmetadata:\n  name: b\n"


@pytest.mark.parametrize(
    "text",
    [
        TWO,
        f"---\n{TWO}",
        f"# comment\n---\n{TWO}---\n# only a comment\n---\n\n",
        TWO.replace("---\n", "--- # second\n"),
        TWO.replace("---\n", "---   \n"),
        TWO.replace("\n", "\r\n"),
        TWO.rstrip("\n"),
    ],
)
def test_documents_are_cut_at_their_separators(text: str) -> None:
    assert [item.key.name for item in split_objects(text)] == ["a", "b"]


def test_three_dashes_inside_a_text_do_not_cut_it() -> None:
    text = "kind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: |\n    one\n    ---\n    two\n"
    (item,) = split_objects(text)
    assert item.text == text
    assert item.body["data"]["a"] == "one\n---\ntwo\n"


def test_documents_keep_their_bytes() -> None:
    odd = "kind: A\nmetadata:\n  name: a\nmode: 0644\nyes: on\ndate: 2020-01-01\n"
    assert join_objects(list(split_objects(f"{odd}---\n{TWO}"))) == f"{odd}---\n{TWO}"


def test_a_list_gives_its_items_with_their_bytes() -> None:
    text = (
        "apiVersion: v1\nkind: List\nitems:\n"
        "- kind: ConfigMap\n  metadata:\n    name: a\n  data:\n    x: |\n      one\n\n        two\n"
        "    mode: 0644\n"
        "# between\n"
        '- {kind: Pod, metadata: {name: "数"}}\n'
        "metadata: {}\n"
    )
    first, second = split_objects(text)
    assert first.text.startswith("kind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: |\n    one\n")
    assert first.body["data"]["x"] == "one\n\n  two\n"
    assert "  mode: 0644\n" in first.text
    assert second.key == ObjectKey("", "Pod", "", "数")


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_in_json_gives_its_items(indent: int | None) -> None:
    pods = [{"kind": "Pod", "metadata": {"name": name}} for name in "ab"]
    text = json.dumps({"apiVersion": "v1", "kind": "PodList", "items": pods}, indent=indent)
    assert [item.key.name for item in split_objects(text)] == ["a", "b"]


def test_a_kind_that_only_ends_like_a_list_is_one_object() -> None:
    text = "kind: AllowList\nmetadata: {name: x}\nitems: [a, b]\n"
    assert [item.text for item in split_objects(text)] == [text]


def test_a_flow_mapping_with_an_image_is_read_as_go_reads_it() -> None:
    (item,) = split_objects(
        "kind: Pod\nmetadata: {name: x}\nspec: {containers: [{image: a/b:1}]}\n"
    )
    assert item.body["spec"] == {"containers": [{"image": "a/b:1"}]}


def test_a_crd_has_its_key_without_being_parsed() -> None:
    text = (
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
        "metadata:\n  name: things.x.io\nspec: {unclosed\n"
    )
    (item,) = split_objects(text)
    assert item.is_crd
    assert item.key == ObjectKey(
        "apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "things.x.io"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: A\na: [b\nc: d\n", "built:3: "),
        ("- a\n- b\n", "built: a document is not a Kubernetes object: it has no kind"),
        ("metadata: {name: x}\n", "built: a document is not a Kubernetes object: it has no kind"),
    ],
)
def test_what_is_no_object_is_named_with_its_line(text: str, message: str) -> None:
    (item,) = split_objects(text, "built")
    with pytest.raises(UserError) as caught:
        _ = item.key
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (("spec", "containers", 0, "image"), "spec.containers[name=x].image"),
        (("spec", "containers", 0, "args", 1), "spec.containers[name=x].args[1]"),
        (("data", "a.yaml"), "data[a.yaml]"),
        (("data", "a_b-c"), "data.a_b-c"),
    ],
)
def test_a_field_is_shown_as_people_write_it(path: tuple[str | int, ...], shown: str) -> None:
    body = {
        "spec": {"containers": [{"name": "x", "image": "i", "args": ["a", "b"]}]},
        "data": {"a.yaml": "", "a_b-c": ""},
    }
    assert show_path(body, path) == shown
    assert get_field(body, path) in ("i", "b", "")


@pytest.mark.parametrize("key", ["a/b", "a~b", "~1", "a.b", "", "0"])
def test_a_pointer_reads_as_it_was_written(key: str) -> None:
    assert parse_pointer(format_pointer(("data", key, "x"))) == ("data", key, "x")


def test_a_pointer_leads_into_lists() -> None:
    assert get_field({"a": [{"b": 1}]}, parse_pointer("/a/0/b")) == 1
    for missing in ("/a/1", "/a/x", "/c", "/a/0/b/c"):
        with pytest.raises(KeyError):
            get_field({"a": [{"b": 1}]}, parse_pointer(missing))


def test_a_definition_is_known_by_its_kind_quoted_or_not() -> None:
    text = 'apiVersion: "apiextensions.k8s.io/v1"\nkind: "CustomResourceDefinition"\n'
    (found,) = split_objects(text + "metadata:\n  name: 'things.a.test'\n")
    assert found.is_crd
    assert found.key == ObjectKey(
        "apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "things.a.test"
    )
