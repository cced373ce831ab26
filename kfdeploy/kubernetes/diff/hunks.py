"""The change of a value, as lines of a unified diff."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any, Final

_CONTEXT_LINES: Final = 2
_INLINE_MAX: Final = 100
"""Characters of a value that is shown on one line."""
_WORDS: Final = frozenset(("true", "false", "null", "(none)"))
_NUMBER: Final = re.compile(r"[+-]?[0-9.]+")


def is_single_line(value: Any) -> bool:
    """Return whether a value is shown on one line."""
    return (
        not isinstance(value, (dict, list))
        and len(format_inline(value)) <= _INLINE_MAX
        and not (isinstance(value, str) and "\n" in value.rstrip("\n"))
    )


def format_inline(value: Any) -> str:
    """Return a value as JSON, and a text without quotes where it stays unambiguous."""
    if value is None:
        return "(none)"
    if isinstance(value, str) and _is_unambiguous(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_unambiguous(text: str) -> bool:
    """Return whether a text cannot be taken for a number, ``true``, ``null`` or nothing."""
    if not text or text != text.strip() or not text.isprintable():
        return False
    return text.lower() not in _WORDS and _NUMBER.fullmatch(text) is None


def diff_lines(was: Any, becomes: Any) -> Iterator[str]:
    """Yield the lines that go (``-``), come (``+``) and surround them; ``@@`` for a gap."""
    first, second = list(_format_lines(was)), list(_format_lines(becomes))
    # The first two lines name the files; the third is the first hunk's header.
    for line in list(difflib.unified_diff(first, second, n=_CONTEXT_LINES, lineterm=""))[3:]:
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
