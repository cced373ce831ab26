"""References in a release set that lead elsewhere, looked for in its bytes.

Nothing here shares a line with the traversal that patches: it reads text, not objects, so that a
place the traversal does not know is still seen.
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
_COMMENT = re.compile(r"\s*(?:#|//|;)")
_DOCSTRING = re.compile(r"\s*(\"{3}|'{3})")
_KEY = re.compile(r"(?P<indent> *)(?:- )?[\"']?(?P<key>[^\s:\"']+)[\"']?:")
_DOCUMENTATION = frozenset(("_example", "description"))
_FREE_TEXT = frozenset(("annotations",))
"""Notes for people and other tools, unless a key among them says that it holds an image."""
_BARE = re.compile(r"[a-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class ForeignReference:
    """A reference that leads elsewhere: file, line and the reference."""

    file: str
    line: int
    reference: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reference}"


def find_foreign_references(
    file: str, text: str, *, known: Iterable[str], registry: str, is_crd: bool = False
) -> Iterator[ForeignReference]:
    """References that don't lead to ``registry``, each once a line.

    Args:
        known: upstream references, also without their tag.
        registry: HOST[/PREFIX] that all must begin with.
        is_crd: in schemas only a default can be pulled.
    """
    wanted = frozenset(known)
    home = registry.rstrip("/") + "/"
    for number, line in _effective_lines(text):
        if is_crd and not re.match(r"\s*(?:- )?default:", line):
            continue
        seen: set[str] = set()
        for reference in _find_in_line(line, wanted, home):
            if reference not in seen:
                seen.add(reference)
                yield ForeignReference(file, number, reference)


def _find_in_line(line: str, known: frozenset[str], home: str) -> Iterator[str]:
    for match in _TOKEN.finditer(line):
        token = match[0].rstrip(".:")
        if line[: match.start()].endswith("\\") and token[:1] in "bfnrt":
            token = token[1:]  # a line end in a quoted string
        if _is_below_registry(token, home) or _URL_BEFORE.search(line, 0, match.start()):
            continue
        if token in known and not _BARE.fullmatch(token):  # `name: mysql` is no image
            yield token
        elif (full := _FULL.match(token)) and "{" not in token and "$" not in token:
            yield full[0]
        else:
            for part in _split_token(token):
                if part in known or _FULL.fullmatch(part):
                    yield part
    for match in _IMAGE_KEY.finditer(line):
        value = match["value"].rstrip(",")
        is_half = bool(_BARE.fullmatch(value)) and value not in known
        is_reference = re.fullmatch(r"[a-z0-9][A-Za-z0-9._/:@-]*", value)
        if is_reference and not is_half and not value.startswith(home):
            yield value


def _is_below_registry(token: str, home: str) -> bool:
    """Whether the token is below ``home``, by itself or behind ``name:``, ``(`` and the like."""
    before, found, _ = f"{token}/".partition(home)
    return bool(found) and (not before or before[-1] in ":({" or before.endswith(":-"))


def _split_token(token: str) -> Iterator[str]:
    """References behind something else in one token: ``${X:-REF}``, ``$(REF)``, ``name:REF``."""
    for part in re.split(r"[(){}$]|:-", token):
        if part != token:
            yield part
        name, _, rest = part.partition(":")
        if re.fullmatch(r"[A-Za-z_][\w-]*", name):
            yield rest


def _effective_lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that something reads: neither comments nor documentation."""
    skip: int | None = None
    quotes: str | None = None
    free = False
    for number, line in enumerate(text.splitlines(), 1):
        indent = len(line) - len(line.lstrip(" "))
        if quotes is not None:
            if quotes in line:
                quotes = None
            continue
        if skip is not None and (not line.strip() or indent > skip):
            if not free or not _IMAGE_KEY.search(line):
                continue
        else:
            skip = None
        key = _KEY.match(line)
        if key and key["key"] in _DOCUMENTATION | _FREE_TEXT:
            skip, free = indent, key["key"] in _FREE_TEXT
            continue
        opened = _DOCSTRING.match(line)
        if opened:
            quotes = opened[1] if line.count(opened[1]) == 1 else None
            continue
        if not _COMMENT.match(line):
            yield number, line
