"""Write plain values as YAML that YAML 1.1 and 1.2 read alike. Keys stay in their order."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z/][\w./@~+-]*(?::[\w./@+-]+)*", re.ASCII)
_NOT_TEXT = re.compile(r"(?i)y|n|yes|no|on|off|true|false|null|~")


def quote_scalar(value: str) -> str:
    """Return a string as YAML, plain where YAML 1.1 and 1.2 both read that as the string."""
    if _PLAIN.fullmatch(value) and not _NOT_TEXT.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def dump_document(value: Mapping[str, Any]) -> str:
    """Return one document, with a line break at its end."""
    return "".join(f"{line}\n" for line in _mapping_lines(value))


def dump_documents(values: Sequence[Mapping[str, Any]]) -> str:
    """Return several documents."""
    return "---\n".join(dump_document(value) for value in values)


def _mapping_lines(value: Mapping[str, Any]) -> Iterator[str]:
    for key, item in value.items():
        name = quote_scalar(key)
        if isinstance(item, Mapping) and item:
            yield f"{name}:"
            yield from (f"  {line}" for line in _mapping_lines(item))
        elif isinstance(item, list | tuple) and item:
            yield f"{name}:"
            yield from _list_lines(item)
        elif isinstance(item, str) and "\n" in item:
            yield f"{name}: |"
            yield from (f"  {line}" if line else "" for line in item.removesuffix("\n").split("\n"))
        else:
            yield f"{name}: {_format_scalar(item)}"


def _list_lines(items: Sequence[Any]) -> Iterator[str]:
    for item in items:
        if isinstance(item, Mapping) and item:
            first, *rest = _mapping_lines(item)
            yield f"- {first}"
            yield from (f"  {line}" if line else "" for line in rest)
        else:
            yield f"- {_format_scalar(item)}"


def _format_scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    return quote_scalar(str(value))
