"""YAML as values: what Go's YAML takes is taken."""

from __future__ import annotations

import pytest
from ruamel.yaml.error import YAMLError

from kfdeploy.upstream import replacements
from kfdeploy.yamltext import nodes

LONG = "a: " + "x" * (128 * 1024) + "\n"
"""Too long for ruamel's own parser, which is slow."""


@pytest.mark.parametrize("more", ["", LONG])
def test_an_equals_sign_alone_is_a_text(more: str) -> None:
    text = more + "delimiter: =\nenum:\n- '!='\n- =\n- =~\n"
    value = nodes.load_document(text)
    assert (value["delimiter"], value["enum"]) == ("=", ["!=", "=", "=~"])
    assert nodes.load_documents(f"{text}---\nb: =\n")[1] == {"b": "="}
    assert nodes.compose_documents(text)


def test_an_image_in_a_flow_mapping_is_read() -> None:
    assert nodes.load_documents("{image: a/b:1}\n---\n- x\n") == [{"image": "a/b:1"}, ["x"]]


def test_broken_yaml_is_an_error() -> None:
    with pytest.raises(YAMLError):
        nodes.load_documents("a: [\n")


REPLACEMENTS = """\
replacements:
- source: {kind: ConfigMap, name: one, fieldPath: data.a}
  targets:
  - select: {kind: Profile, name: $(profile-name)}
    fieldPaths: [metadata.name]
    options:
      delimiter: =
"""


def test_replacements_with_a_lone_equals_sign_are_read() -> None:
    assert '"delimiter": "="' in replacements.escape_replacements(REPLACEMENTS)


def test_replacements_that_kustomize_will_refuse_are_left_to_it() -> None:
    assert replacements.escape_replacements(f"{REPLACEMENTS}replacements: []\n") == ""
