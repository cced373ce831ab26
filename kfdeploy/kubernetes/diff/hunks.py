"""A value that became another, as lines of a unified diff."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any, Final

_AROUND: Final = 2
_SHORT: Final = 100
_WORDS: Final = frozenset(("true", "false", "null", "(none)"))
_NUMBER: Final = re.compile(r"[+-]?[0-9.]+")


def is_single_line(value: Any) -> bool:
    """Whether a value is shown on one line."""
    return (
        not isinstance(value, (dict, list))
        and len(format_inline(value)) <= _SHORT
        and not (isinstance(value, str) and "\n" in value.rstrip("\n"))
    )


def format_inline(value: Any) -> str:
    """A value as JSON writes it, texts without quotes where nothing is lost."""
    if value is None:
        return "(none)"
    if isinstance(value, str) and _is_unambiguous(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_unambiguous(text: str) -> bool:
    """Whether a text cannot be taken for something else: a number, true, nothing."""
    if not text or text != text.strip() or not text.isprintable():
        return False
    return text.lower() not in _WORDS and _NUMBER.fullmatch(text) is None


def diff_lines(was: Any, becomes: Any) -> Iterator[str]:
    """Lines that go (``-``), come (``+``) and stand around; what lies between them is ``@@``."""
    first, second = list(_format_lines(was)), list(_format_lines(becomes))
    # Two lines name the files, and the third the first hunk's place.
    for line in list(difflib.unified_diff(first, second, n=_AROUND, lineterm=""))[3:]:
        yield "@@" if line.startswith("@@") else line


def _format_lines(value: Any) -> Iterator[str]:
    if value is None:
        return
    if isinstance(value, str):
        yield from value.splitlines()
    elif isinstance(value, list):
        for item in value:
            first, *rest = list(_format_lines(item)) or ['""']
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, (dict, list)) and inner:
                yield f"{name}:"
                yield from (f"  {line}" for line in _format_lines(inner))
            elif isinstance(inner, str) and "\n" in inner:
                yield f"{name}: |"
                yield from (f"  {line}" for line in inner.splitlines())
            else:
                yield f"{name}: {format_inline(inner)}"
        if not value:
            yield "{}"
    else:
        yield format_inline(value)
