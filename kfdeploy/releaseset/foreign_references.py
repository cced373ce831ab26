"""Find references that lead elsewhere than to the private registry, in any text.

Nothing here shares code with the traversal that patches. It reads text, not objects, so that it
also finds a reference in a place that the traversal does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r"[A-Za-z0-9$({][A-Za-z0-9._/:@$(){}-]*")
_URL_BEFORE = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//\Z")
_HOST = r"(?:(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}|localhost|\d+\.\d+\.\d+\.\d+)(?::\d+)?"
_FULL = re.compile(
    rf"(?P<host>{_HOST})/[a-z0-9][a-z0-9._/-]*(?::[A-Za-z0-9_][\w.-]*(?:@sha256:[0-9a-f]{{64}})?"
    r"|@sha256:[0-9a-f]{64})"
)
_IMAGE_KEY = re.compile(
    r"(?<![\w-])[\"']?[\w-]*[iI]mage[\"']?\s*:\s*[\"']?(?P<value>[a-z0-9][^\s\"',}\]]*)"
)
_REFERENCE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]*")
_DEFAULT = re.compile(r"\s*(?:- )?default:")
_COMMENT = re.compile(r"\s*(?:#|//|;)")
_DOCSTRING = re.compile(r"\s*(\"{3}|'{3})")
_KEY = re.compile(r"(?P<indent> *)(?:- )?[\"']?(?P<key>[^\s:\"']+)[\"']?:")
_DOCUMENTATION = frozenset(("_example", "description"))
_FREE_TEXT = frozenset(("annotations",))
"""Keys of notes for people and other tools, unless a key among them holds an image."""
_WORD = re.compile(r"[a-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class ForeignReference:
    """A reference that leads elsewhere, with its file and line."""

    file: str
    line: int
    reference: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reference}"


def find_foreign_references(
    file: str, text: str, *, known: Iterable[str], registry: str, is_crd: bool = False
) -> Iterator[ForeignReference]:
    """Yield references that don't lead to ``registry``, each once a line.

    Args:
        known: upstream references, also without their tag.
        registry: HOST[/PREFIX] that all must begin with.
        is_crd: the text is a schema, where only a default can be pulled.
    """
    upstream = frozenset(known)
    home = registry.rstrip("/") + "/"
    lines = _LineFilter()
    for number, line in enumerate(text.splitlines(), 1):
        if not lines.accepts(line) or (is_crd and not _DEFAULT.match(line)):
            continue
        for reference in dict.fromkeys(_find_in_line(line, upstream, home)):
            yield ForeignReference(file, number, reference)


# -- references in a line --------------------------------------------------------------------------


def _find_in_line(line: str, known: frozenset[str], home: str) -> Iterator[str]:
    for match in _TOKEN.finditer(line):
        token = match[0].rstrip(".:")
        if line[: match.start()].endswith("\\") and token[:1] in "bfnrt":
            token = token[1:]  # an escaped line end in a quoted string
        is_url = _URL_BEFORE.search(line, 0, match.start())
        if not is_url and not _is_below_registry(token, home):
            yield from _find_in_token(token, known)
    for match in _IMAGE_KEY.finditer(line):
        value = match["value"].rstrip(",")
        is_half = value not in known and bool(_WORD.fullmatch(value))
        if _REFERENCE.fullmatch(value) and not is_half and not value.startswith(home):
            yield value


def _find_in_token(token: str, known: frozenset[str]) -> Iterator[str]:
    if token in known and not _WORD.fullmatch(token):  # `name: mysql` is no image
        yield token
    elif (full := _FULL.match(token)) and "{" not in token and "$" not in token:
        yield full[0]
    else:
        for part in _split_token(token):
            if part in known or _FULL.fullmatch(part):
                yield part


def _is_below_registry(token: str, home: str) -> bool:
    """Return whether a token is below ``home``, by itself or behind ``name:``, ``(`` or such."""
    before, found, _ = f"{token}/".partition(home)
    return bool(found) and (not before or before[-1] in ":({" or before.endswith(":-"))


def _split_token(token: str) -> Iterator[str]:
    """Yield references behind something else: ``${X:-REF}``, ``$(REF)``, ``name:REF``."""
    for part in re.split(r"[(){}$]|:-", token):
        if part != token:
            yield part
        name, _, rest = part.partition(":")
        if re.fullmatch(r"[A-Za-z_][\w-]*", name):
            yield rest


# -- lines that something reads --------------------------------------------------------------------


class _LineFilter:
    """Accept the lines of a text that something reads: neither comments nor documentation."""

    def __init__(self) -> None:
        self._quotes: str | None = None
        """The quotes that end a docstring; None outside of one."""
        self._indent: int | None = None
        """The indentation of the key whose value is skipped; None outside of one."""
        self._is_free_text = False
        """True if that value is free text, where a key may still hold an image."""

    def accepts(self, line: str) -> bool:
        """Return whether something reads the next line."""
        if self._quotes is not None:
            if self._quotes in line:
                self._quotes = None
            return False
        return not (
            self._is_skipped(line)
            or self._starts_documentation(line)
            or self._starts_docstring(line)
            or _COMMENT.match(line)
        )

    def _is_skipped(self, line: str) -> bool:
        if self._indent is None:
            return False
        if line.strip() and _indent_of(line) <= self._indent:
            self._indent = None
            return False
        return not (self._is_free_text and _IMAGE_KEY.search(line))

    def _starts_documentation(self, line: str) -> bool:
        match = _KEY.match(line)
        if match is None or match["key"] not in _DOCUMENTATION | _FREE_TEXT:
            return False
        self._indent, self._is_free_text = _indent_of(line), match["key"] in _FREE_TEXT
        return True

    def _starts_docstring(self, line: str) -> bool:
        match = _DOCSTRING.match(line)
        if match is None:
            return False
        self._quotes = match[1] if line.count(match[1]) == 1 else None
        return True


def _indent_of(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
