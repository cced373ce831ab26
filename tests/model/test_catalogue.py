"""The catalogue's format: what it refuses, and how its rules are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from kfdeploy.model import catalogue
from kfdeploy.model.catalogue import BadCatalogue
from kfdeploy.model.objects import ObjectKey

GOOD = """\
component: one
objects: [{kind: Deployment, name: operator}]
sites:
- {kind: ConfigMap, name: settings, field: "data*", line: "^ *value:", need: optional, source: "a/b@v1:c.go:1"}
- {kind: ConfigMap, name: settings, need: user-choice, source: "a/b@v1:c.go:1"}
- {kind: "*", name: "*", ref: "*/solver*", need: required, source: "a/b@v1:c.go:1"}
images:
- ref: alpine:3.10
  need: required
  when: always
  source: "a/b@v1:c.go:1"
  upstream: ["1.10.*"]
  redirect: {kind: Deployment, name: operator, container: main, flag: --init-image}
"""  # noqa: E501
CONFIG = ObjectKey("v1", "ConfigMap", "n", "settings")


def load(folder: Path, text: str) -> catalogue.Catalogue:
    (folder / "one.yaml").write_text(text)
    return catalogue.load(folder)


@pytest.mark.parametrize(
    ("key", "field", "line", "ref", "need"),
    [
        (CONFIG, "data.x", "  value: a/b", "a/b", "optional"),
        (CONFIG, "data.x", "  - a/b", "a/b", "user-choice"),
        (CONFIG, "other", "  value: a/b", "a/b", "user-choice"),
        (ObjectKey("v1", "ConfigMap", "n", "settings-42h88m2mfk"), "x", "", "a/b", "user-choice"),
        (ObjectKey("v1", "ConfigMap", "n", "settings-more"), "x", "", "a/b", "standard"),
        (ObjectKey("v1", "Pod", "n", "x"), "x", "", "a.io/solver:1", "required"),
        (ObjectKey("v1", "Pod", "n", "x"), "x", "", "a.io/other:1", "standard"),
    ],
)
def test_the_first_rule_that_fits_decides(
    tmp_path: Path, key: ObjectKey, field: str, line: str, ref: str, need: str
) -> None:
    assert load(tmp_path, GOOD).need(key, field, line, ref, "standard") == need


def test_hidden_images_belong_to_an_operator_and_a_release(tmp_path: Path) -> None:
    facts = load(tmp_path, GOOD)
    operator = [ObjectKey("apps/v1", "Deployment", "n", "operator")]
    (image,) = facts.hidden(operator, "1.10.2")
    assert (image.ref, str(image.redirect)) == ("alpine:3.10", "flag --init-image")
    assert list(facts.hidden(operator, "26.03")) == []
    assert list(facts.hidden([CONFIG], "1.10.2")) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("component: one\n", "", "one.yaml: lacks component"),
        ("component: one\n", "component: one\nmore: 1\n", "one.yaml: unknown more"),
        ("need: user-choice, ", "", "one.yaml: sites[1]: lacks need"),
        (
            "need: user-choice",
            "need: maybe",
            "one.yaml: sites[1].need: 'maybe' is none of required, optional, user-choice",
        ),
        ("ref: alpine:3.10", "ref: Alpine", "one.yaml: images[0].ref: 'Alpine' is no image"),
        ("  when: always\n", "", "one.yaml: images[0]: lacks when"),
        ("container: main, ", "", "one.yaml: images[0].redirect: lacks container"),
        ("flag: --init", "word: --init", "one.yaml: images[0].redirect: unknown word"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(BadCatalogue) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert str(caught.value).startswith(message)
