"""What stands in a generated patch for an image: a look-up in the environment's values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from kfdeploy.images.inventory import ImageUse
from kfdeploy.patchfile.writer import quote_go_string


def fill_references(value: str, found: Sequence[tuple[str, ImageUse]]) -> str:
    """A short string with its references looked up; the rest of it as it is."""
    table = dict(list_replacements(found))
    names = "|".join(map(re.escape, sorted(table, key=len, reverse=True)))
    parts = re.split(rf"(?<![\w./@:-])({names})(?![\w/@-]|[.:]\w)", value, flags=re.ASCII)
    texts, news = parts[0::2], [table[old] for old in parts[1::2]]
    if not _HARD.search("".join(texts)) and not any(new.startswith("(printf") for new in news):
        return '"' + "".join(_interleave_texts(texts, [f"{{{{ {new} }}}}" for new in news])) + '"'
    form = "".join(
        _interleave_texts([text.replace("%", "%%") for text in texts], ["%s"] * len(news))
    )
    return f"{{{{ printf {quote_go_string(form)} {' '.join(news)} | toJson }}}}"


_HARD = re.compile(r'["\\{}\x00-\x1f]')


def _interleave_texts(texts: Sequence[str], between: Sequence[str]) -> Iterator[str]:
    for text, new in zip(texts, [*between, ""], strict=True):
        yield text + new


_BY_DIGEST = {"reference": "ref", "hub": "parent", "name": "repository", "tag": "tag"}
_BY_TAG = {**_BY_DIGEST, "reference": "byTag", "tag": "plainTag"}


def list_replacements(found: Sequence[tuple[str, ImageUse]]) -> list[tuple[str, str]]:
    """Old text and the Go expression of the new one, by the old text, each once."""
    out: dict[str, str] = {}
    for ref, place in found:
        parts = _BY_TAG if place.pin else _BY_DIGEST
        for piece in place.pieces:
            part = parts[piece.role]
            new = f"(index .Values.images {json.dumps(ref)}).{part}"
            if piece.old != piece.text:
                before = piece.old[: piece.offset].replace("%", "%%")
                after = piece.old[piece.offset + len(piece.text) :].replace("%", "%%")
                new = f"(printf {quote_go_string(before + '%s' + after)} {new})"
            out[piece.old] = new
    return sorted(out.items())


def format_lookup(ref: str, part: str) -> str:
    return f"{{{{ (index .Values.images {json.dumps(ref)}).{part} }}}}"
