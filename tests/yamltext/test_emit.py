"""YAML of our own: read back as it was, by either version of YAML."""

from __future__ import annotations

import io
from typing import Any

import pytest
from ruamel.yaml import YAML

from kfdeploy.yamltext import emit

VALUES: dict[str, Any] = {
    "plain": "a-b.c/d",
    "tricky": [
        "on",
        "0644",
        "1e3",
        "~",
        "null",
        "",
        "a: b",
        "# c",
        "- d",
        "2026-01-01",
        "12:30:45",
    ],
    "numbers": {"one": 1, "yes": True, "no": False},
    "empty": {"map": {}, "list": []},
    "text": "one\n\n  two\nthree\n",
    "list": [{"name": "x", "patch": "a:\n- b\n", "inner": [{"y": "1"}]}, {}],
    "a/b.c": {"deep": {"deeper": "$x && \"y\" 'z'"}},
}


@pytest.mark.parametrize("version", [(1, 1), (1, 2)])
def test_both_versions_of_yaml_read_what_was_written(version: tuple[int, int]) -> None:
    reader = YAML(typ="safe", pure=True)
    reader.version = version
    assert reader.load(io.StringIO(emit.dump_document(VALUES))) == VALUES


def test_a_stream_has_its_documents_in_order() -> None:
    text = emit.dump_documents([{"a": 1}, {"b": 2}])
    assert text == "a: 1\n---\nb: 2\n"
