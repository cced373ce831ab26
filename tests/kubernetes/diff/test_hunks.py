"""Values as lines of a unified diff."""

from __future__ import annotations

from typing import Any

import pytest

from kfdeploy.kubernetes.diff import hunks

HUNKS: list[tuple[Any, Any, list[str]]] = [
    ("a\nb\nc\n", "a\nx\nc\n", [" a", "-b", "+x", " c"]),
    (["--a", "--b"], ["--a"], [" - --a", "-- --b"]),
    (None, {"a": {"b": 1}, "c": "x\ny"}, ["+a:", "+  b: 1", "+c: |", "+  x", "+  y"]),
    ([{"a": 1, "b": [2]}], [], ["-- a: 1", "-  b:", "-    - 2"]),
    ({"a": {}}, {"a": ""}, ["-a: {}", '+a: ""']),
    # @@ and what looks like it are told apart by their first letter.
    ("@@\n", "@@\n@@\n", [" @@", "+@@"]),
    (
        "\n".join("abcdefghij"),
        "\n".join("Abcdefghi") + "\nJ",
        ["-a", "+A", " b", " c", "@@", " h", " i", "-j", "+J"],
    ),
]


@pytest.mark.parametrize(("was", "becomes", "expected"), HUNKS)
def test_a_value_becomes_another(was: Any, becomes: Any, expected: list[str]) -> None:
    assert list(hunks.diff_lines(was, becomes)) == expected


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "(none)"),
        ("a", "a"),
        ("", '""'),
        (" a", '" a"'),
        (1, "1"),
        ("1", '"1"'),
        (True, "true"),
        ("true", '"true"'),
    ],
)
def test_a_value_on_one_line(value: Any, shown: str) -> None:
    assert hunks.format_inline(value) == shown
    assert hunks.is_single_line(value)
