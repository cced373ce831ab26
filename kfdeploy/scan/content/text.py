"""Find references in text files: source code, scripts, bundles of web pages, configuration.

A few cheap searches find places. Only there is the text around examined: is it a literal, a value
or a word, what is its key, is it in a comment or in documentation?
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from kfdeploy.scan.content import candidate
from kfdeploy.scan.content.binary import find_anchors, key_before
from kfdeploy.scan.content.candidate import Bounds, Candidate

_REACH: Final = 300
SPOTS_MAX: Final = 200_000
"""The number of places to examine in one piece of a text. Bundles have many like `a:1`."""
_LANGUAGES: Final = {
    **dict.fromkeys(("py", "pyw", "pyi"), "python"),
    "go": "go",
    **dict.fromkeys(("js", "mjs", "cjs", "jsx", "ts", "tsx", "vue"), "script"),
    **dict.fromkeys(("yaml", "yml"), "yaml"),
    **dict.fromkeys(("json", "jsonnet", "libsonnet"), "json"),
    **dict.fromkeys(("sh", "bash", "ksh"), "shell"),
    **dict.fromkeys(
        (
            "toml",
            "ini",
            "cfg",
            "conf",
            "env",
            "properties",
            "config",
            "tmpl",
            "tpl",
            "gotmpl",
            "j2",
        ),
        "settings",
    ),
    **dict.fromkeys(
        ("java", "kt", "scala", "rs", "c", "cc", "cpp", "h", "rb", "php"), "other code"
    ),
}
_QUOTING: Final = frozenset(("go", "python", "script"))
_BACKTICKS: Final = frozenset(("go", "script"))
"""Languages with literals in backticks."""
_SHEBANG: Final = re.compile(rb"#![^\n]*\b(python|bash|dash|ash|zsh|sh|node)[\d.]*\b")
# `IMAGE = "name/of-it"`, `image: name/of-it`: without a tag only the key tells that it is one.
_NAME: Final = rb"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_KEYED: Final = tuple(
    re.compile(
        # The literal comes first, as in binary.ANCHOR: that makes the search fast.
        start + rb"[\w-]{0,40}[\"'\])]{0,3}[ \t]{0,4}"
        rb"(?:(?:=|:|:=|\|\||\?\?)[ \t]{0,4}|,[ \t]{0,4}(?=[\"'`]))"
        rb"(?=[\"'`]?(" + _NAME + rb"(?:/" + _NAME + rb")*)(?:[\"'`\s,;}]|\Z))"
    )
    for start in (rb"mage(?<=[iI]mage)", rb"MAGE(?<=IMAGE)")
)
_PYTHON: Final = re.compile(
    rb"#[^\n]*+|(?P<doc>\"{3}|'{3})(?s:.*?)(?:(?P=doc)|\Z)"
    rb"|\"(?:[^\"\\\n]|\\.)*+\"?|'(?:[^'\\\n]|\\.)*+'?"
)
_HASH_COMMENT: Final = re.compile(rb"(?:^|\s)#(?!!)")
_SLASH_COMMENT: Final = re.compile(rb"^\s*(?://|/?\*)|\s//\s")
_NEAR_NAMES: Final = re.compile(
    rb"(?:(?<=[\"'`])|(?<=env\.)|(?<=\$)|(?<=\$\{)|(?<=environ\[.))"
    rb"(?P<env>[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_?IMAGE[A-Z0-9_]*\b)"
    rb"|(?P<flag>--[a-z][a-z0-9-]*image[a-z0-9-]*|(?<=\")[a-z][a-z0-9]*-(?:[a-z0-9-]*-)?image[a-z0-9-]*"
    rb"(?=\"))"
)
_UPPER: Final = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_IMAGE[A-Z0-9_]*")
_DECLARED: Final = re.compile(
    rb"\b(?:const|let|var|static|readonly)\s+\w+\s*[:=]?[^,{]*$|\.\w+\s*=\s*.?$"
)
_DEFAULT: Final = re.compile(rb"\$\{([A-Za-z_]\w*):?[-=]([^{}$]+)\}?$")
_COMMANDS: Final = re.compile(
    rb"(?:docker|podman|nerdctl|ctr|crictl|crane)\b[^\n]*\b(?:run|pull|create)\b[^\n]*$"
)
_BUILD: Final = re.compile(rb"^\s*(?:FROM|COPY\s+--from=\S*)", re.IGNORECASE)


class TooManyCandidates(Exception):
    """A text has more places that look like a reference than SPOTS_MAX."""


@dataclass(frozen=True, slots=True)
class TextCandidate:
    """A candidate in a text.

    Attributes:
        at: the offset of its first byte.
        line: its line; the first is 1.
        names: flags and variables near it, for a redirect.
        key: the variable, flag or field whose value it is.
    """

    candidate: Candidate
    at: int
    line: int
    key: str = ""
    names: tuple[str, ...] = ()


def detect_language(name: str, start: bytes) -> str:
    """Return the language of a file, from its name or its first line; empty if neither tells."""
    base = name.rsplit("/", 1)[-1]
    if "dockerfile" in base.lower() or base == "Containerfile":
        return "build"
    if base in (".env", "env") or base.startswith(".env."):
        return "settings"
    stem, dot, ending = base.rpartition(".")
    if dot and stem and (known := _LANGUAGES.get(ending.lower())):
        return known
    match = _SHEBANG.match(start)
    if match is None:
        return ""
    return {b"python": "python", b"node": "script"}.get(match[1], "shell")


def find_candidates(data: bytes, language: str, *, first_line: int = 1) -> Iterator[TextCandidate]:
    """Yield the candidates in a text, in order, each place once.

    Args:
        language: the text's language, from `detect_language`.
        first_line: the number of the first line in ``data``.

    Raises:
        TooManyCandidates: after the last one, if there are more places than SPOTS_MAX.
    """
    places = set(islice(find_anchors(data, 0, len(data)), SPOTS_MAX))
    keyed: dict[int, int] = {}
    for pattern in _KEYED:
        found = (match.span(1) for match in pattern.finditer(data))
        keyed.update(islice((s for s in found if _may_be_name(data[slice(*s)])), SPOTS_MAX))
    if not places and not keyed:
        return
    text = _TextScanner(data, language, first_line)
    done: set[tuple[int, int]] = set()
    end = 0
    for at in sorted(places.union(keyed)):
        low, high = (at, keyed[at]) if at in keyed else text.token_span(at)
        if low >= end:  # no earlier token reaches here
            done.clear()
        end = max(end, high)
        if (low, high) not in done and high - low <= 2 * _REACH:
            done.add((low, high))
            if (spot := text.judge_span(low, high)) is not None:
                yield spot
    if len(places) + len(keyed) >= SPOTS_MAX:
        raise TooManyCandidates


def _may_be_name(word: bytes) -> bool:
    return b"/" in word or candidate.is_official(word.decode())


def find_image_names(window: bytes) -> tuple[str, ...]:
    """Return the flags and variables with "image" in their names, in order."""
    out = []
    for match in _NEAR_NAMES.finditer(window):
        text = match[0].decode()
        out.append(text if match["env"] or text.startswith("--") else f"--{text}")
    return tuple(dict.fromkeys(out))


class _TextScanner:
    """Judge tokens of one text. Tokens should come in order, for the sake of line numbers."""

    def __init__(self, data: bytes, language: str, first_line: int) -> None:
        self._data = data
        self._language = language
        self._line, self._line_at = first_line, 0
        self._documents: list[tuple[int, int]] | None = None

    def token_span(self, at: int) -> tuple[int, int]:
        """Return the span of the word around ``at``."""
        left = self._data[max(0, at - _REACH) : at]
        right = self._data[at : at + _REACH]
        low = at - len(left) + len(left.rstrip(candidate.TOKEN))
        return low, at + len(right) - len(right.lstrip(candidate.TOKEN))

    def judge_span(self, low: int, high: int) -> TextCandidate | None:
        """Return the token between two offsets as a candidate, or None."""
        data = self._data
        raw = data[low:high]
        if not 3 <= len(raw) <= 512:
            return None
        before, after = data[low - 1 : low] if low else b"", data[high : high + 1]
        line_start = data.rfind(b"\n", max(0, low - 4096), low) + 1
        head = data[max(line_start, low - 400) : low]
        if self._language == "build" and _BUILD.search(head):
            return None
        quoted = before == after and before in (b'"', b"'", b"`")
        if quoted and before != b'"':
            # Messages and documentation have quotes inside a longer text.
            is_inside = line_start >= low - 400 and head.count(b'"') % 2 == 1
            is_literal = before != b"`" or self._language in _BACKTICKS
            quoted = is_literal and not (is_inside and self._language in _QUOTING)
        if not quoted and before == b"\\" and raw[:1] in b"nrt":  # the letter of an escape
            raw = raw[1:]
        key = key_before(head)
        if (default := _DEFAULT.search(raw)) is not None:  # ${VARIABLE:-reference}
            key, raw, quoted = default[1].decode(), default[2], True
        alone = quoted or self._is_value(head, after)
        if not candidate.looks_like_reference(raw.decode("ascii"), whole=alone):
            return None
        bounds: Bounds = "quoted" if alone else "word"
        is_command = bool(_COMMANDS.search(head)) and self._language in ("shell", "yaml", "python")
        near = self._nearby_names(low, high)
        if default is not None and candidate.is_image_key(key):
            near = (key, *near)
        if self._language == "script" and _UPPER.fullmatch(key) and not _DECLARED.search(head):
            near = (*near, key)  # `const { X_IMAGE = "..." } = process.env`
        found = candidate.judge_token(
            raw.decode("ascii"),
            bounds=bounds,
            key=key,
            near=near if alone and not candidate.is_image_key(key) else (),
            prose=not alone and not is_command,
        )
        if found is None or self._is_comment(low, head):
            return None
        return TextCandidate(found, low, self._line_of(low), key, near)

    def _is_value(self, head: bytes, after: bytes) -> bool:
        """Return whether an unquoted word is the whole value of a key or an item of a list."""
        if self._language not in ("yaml", "settings", "shell"):
            return False
        if after not in (b"", b"\n", b"\r", b" "):
            return False
        return bool(re.search(rb"(?:^|[\s:=-])$", head)) and bool(
            re.fullmatch(rb"\s*(?:- )?(?:[\w./-]+\s*[:=]\s*|- )?(?:export\s+\w+=)?", head)
        )

    def _nearby_names(self, low: int, high: int) -> tuple[str, ...]:
        """Return flags and variables with "image" in their names on the lines of a token."""
        data = self._data
        start = data.rfind(b"\n", max(0, low - 200), low) + 1 or max(0, low - 200)
        end = data.find(b"\n", high, high + 200)
        return find_image_names(data[start : end if end >= 0 else high + 200])

    def _is_comment(self, at: int, head: bytes) -> bool:
        if self._language == "python":
            return self._is_documentation(at)
        if self._language in ("yaml", "settings", "shell", "build"):
            return bool(_HASH_COMMENT.search(head))
        if self._language in ("go", "script", "other code"):
            mark = _SLASH_COMMENT.search(head)
            # After an odd number of quotes, `//` is inside a string.
            return mark is not None and head.count(b'"', 0, mark.start()) % 2 == 0
        return False

    def _is_documentation(self, at: int) -> bool:
        """Return whether a byte of a Python file is in a comment or a docstring."""
        if self._documents is None:
            self._documents = []
            for match in _PYTHON.finditer(self._data):
                start = match.start()
                if match[0][:1] == b"#":
                    self._documents.append(match.span())
                elif match["doc"]:
                    line = self._data[self._data.rfind(b"\n", 0, start) + 1 : start]
                    if line.strip(b" \trRbBuUfF") == b"":
                        self._documents.append(match.span())
        before = bisect_right(self._documents, (at, len(self._data)))
        return before > 0 and at < self._documents[before - 1][1]

    def _line_of(self, at: int) -> int:
        if at < self._line_at:
            self._line -= self._data.count(b"\n", at, self._line_at)
        else:
            self._line += self._data.count(b"\n", self._line_at, at)
        self._line_at = at
        return self._line
