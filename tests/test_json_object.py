"""JSON that others wrote: every mistake is named with its place, and none is a traceback."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from kfdeploy.json_object import InvalidJson, JsonObject, parse_json_object


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the file: not an object"),
        ("", "line 1: not JSON: Expecting value"),
        ('{"a": 1,\n"b"}', "line 2: not JSON: Expecting ':' delimiter"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff", "not JSON: 'utf-8' codec can't decode byte 0xff in position 0:"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON: Exceeds the limit (4300 digits)"),
    ],
)
def test_a_text_that_is_no_object_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidJson, match=re.escape(message)):
        parse_json_object(text)


MISTAKES: list[tuple[object, Callable[[JsonObject], object], str]] = [
    ({}, lambda top: top.get_text("a"), "a: missing"),
    ({"a": None}, lambda top: top.get_text("a", default="x"), "a: not a text"),
    ({"a": "\udc00"}, lambda top: top.get_text("a"), "a: not a text"),
    ({"a": "B"}, lambda top: top.get_text("a", re.compile("[a-z]")), "a: 'B' is not allowed here"),
    ({"a": ["x", 1]}, lambda top: top.get_texts("a"), "a: not a list of texts"),
    ({"a": "x"}, lambda top: top.get_texts("a"), "a: not a list of texts"),
    ({"a": True}, lambda top: top.get_number("a"), "a: not a whole number from 0 on"),
    ({"a": -1}, lambda top: top.get_number("a"), "a: not a whole number from 0 on"),
    ({"a": 1}, lambda top: top.get_flag("a"), "a: neither true nor false"),
    ({"a": {"b": 1}}, lambda top: top.get_object("a").get_text("b"), "a.b: not a text"),
    ({"a": [1]}, lambda top: top.get_objects("a"), "a[0]: not an object"),
    ({"a": {}}, lambda top: top.get_objects("a"), "a: not a list"),
    ({"a": [{}]}, lambda top: top.get_objects("a")[0].get_text("b"), "a[0].b: missing"),
    ({"x:1": 1}, lambda top: dict(top.iter_objects()), '["x:1"]: not an object'),
]


@pytest.mark.parametrize(("content", "read", "message"), MISTAKES)
def test_a_mistake_is_named_with_its_place(
    content: dict[str, Any], read: Callable[[JsonObject], object], message: str
) -> None:
    with pytest.raises(InvalidJson) as error:
        read(parse_json_object(json.dumps(content)))
    assert str(error.value) == message


def test_a_default_stands_for_an_absent_key_alone() -> None:
    top = parse_json_object('{"flag": false}')
    assert top.get_text("a", default="") == ""
    assert top.get_texts("a", default=()) == ()
    assert top.get_number("a", default=0) == 0
    assert top.get_flag("a", default=False) is False
    assert top.get_objects("a", default=()) == []
    assert "flag" in top
    assert "a" not in top
