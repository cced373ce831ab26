"""JSON that others may have written, read key by key: each mistake is named with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SIMPLE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


class InvalidJson(ValueError):
    """Text that does not hold what its reader asks for; the message says where and what."""


class JsonObject:
    """A JSON object whose keys are read one by one, by the type that the reader wants.

    A reader that passes ``default`` takes it where the key is absent. A key that is there must
    have the type that is asked for: null does not stand for an absent key. Keys that nobody asks
    for are ignored.

    Attributes:
        content: the object as `json.loads` returns it.
        where: its path in the document, such as ``images["redis:6"].mirror``; empty for the whole.
    """

    def __init__(self, content: object, where: str = "") -> None:
        if not isinstance(content, dict):
            raise InvalidJson(f"{where or 'the file'}: not an object")
        self.content: Mapping[str, Any] = content
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def get_text(
        self, key: str, like: re.Pattern[str] | None = None, *, default: str | None = None
    ) -> str:
        """Return a text, which must match ``like`` as a whole."""
        value = self._get_value(key, default)
        if not _is_text(value):
            raise self.error(key, "not a text")
        text = str(value)
        if like is not None and not like.fullmatch(text):
            raise self.error(key, f"{text[:80]!r} is not allowed here")
        return text

    def get_texts(self, key: str, *, default: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self._get_value(key, default)
        if not isinstance(value, list | tuple) or not _is_list_of_texts(value):
            raise self.error(key, "not a list of texts")
        return tuple(value)

    def get_text_lists(
        self, key: str, *, default: Sequence[Sequence[str]] | None = None
    ) -> list[tuple[str, ...]]:
        """Return a list of lists of texts."""
        value = self._get_value(key, default)
        if not isinstance(value, list | tuple) or not all(map(_is_list_of_texts, value)):
            raise self.error(key, "not a list of lists of texts")
        return [tuple(texts) for texts in value]

    def get_text_map(
        self, key: str, *, default: Mapping[str, str] | None = None
    ) -> Mapping[str, str]:
        """Return an object whose values are texts."""
        inner = JsonObject(self._get_value(key, default), self.path_of(key))
        return {name: inner.get_text(name) for name in inner.content}

    def get_number(self, key: str, *, default: int | None = None) -> int:
        """Return a whole number that is not negative."""
        value = self._get_value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(key, "not a whole number from 0 on")
        return value

    def get_flag(self, key: str, *, default: bool | None = None) -> bool:
        """Return true or false."""
        value = self._get_value(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "neither true nor false")
        return value

    def get_object(self, key: str) -> JsonObject:
        """Return an object."""
        return JsonObject(self._get_value(key), self.path_of(key))

    def get_objects(self, key: str, *, default: Sequence[Any] | None = None) -> list[JsonObject]:
        """Return a list of objects."""
        value = self._get_value(key, default)
        if not isinstance(value, list | tuple):
            raise self.error(key, "not a list")
        return [JsonObject(one, f"{self.path_of(key)}[{n}]") for n, one in enumerate(value)]

    def iter_objects(self) -> Iterator[tuple[str, JsonObject]]:
        """Yield each key with its value, all of which are objects."""
        for key, value in self.content.items():
            yield key, JsonObject(value, self.path_of(key))

    def path_of(self, key: str) -> str:
        """Return the path of a key in the document."""
        if not _SIMPLE_KEY.fullmatch(key):
            return f"{self.where}[{json.dumps(key)}]"
        return f"{self.where}.{key}" if self.where else key

    def error(self, key: str, reason: str) -> InvalidJson:
        """Return an error about the value of a key."""
        return InvalidJson(f"{self.path_of(key)}: {reason}")

    def _get_value(self, key: str, default: object = None) -> object:
        if key in self.content:
            return self.content[key]
        if default is None:
            raise self.error(key, "missing")
        return default


def parse_json_object(text: str | bytes) -> JsonObject:
    """Read a document that is one object.

    Raises:
        InvalidJson: the text is not JSON, is nested too deeply, or is not an object.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise InvalidJson("nested too deeply") from error
    except json.JSONDecodeError as error:
        raise InvalidJson(f"line {error.lineno}: not JSON: {error.msg}") from error
    except ValueError as error:  # no UTF-8, or a number of too many digits
        raise InvalidJson(f"not JSON: {error}") from error
    return JsonObject(content)


def _is_text(value: object) -> bool:
    """Whether a value is a text that can be printed: JSON can escape half a surrogate pair."""
    return isinstance(value, str) and (value.isascii() or not _SURROGATE.search(value))


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))
