"""Write what stands in a generated patch for an image: a look-up in the environment's values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from kfdeploy.images.inventory import ImageUse
from kfdeploy.oci.reference import WrittenRef
from kfdeploy.patchfile.quoting import quote_go_string

SHARED: Final = "_kfdeploy"
"""Below ``patches/``: the values that patches look up, and templates that they share."""
_BY_DIGEST: Final = {"reference": "ref", "hub": "parent", "name": "repository", "tag": "tag"}
_BY_TAG: Final = {**_BY_DIGEST, "reference": "byTag", "tag": "plainTag"}
"""Part of a reference to its key in the values; by tag where a digest breaks what is made of it."""
_NEEDS_QUOTES: Final = re.compile(r'["\\{}\x00-\x1f]')


def format_lookup(ref: WrittenRef, key: str) -> str:
    """Return the template that looks up one value of an image."""
    return f"{{{{ {_index_image(ref, key)} }}}}"


def fill_references(value: str, uses: Sequence[ImageUse]) -> str:
    """Return a short string as YAML, with its references looked up and the rest as it is."""
    expressions = dict(list_replacements(uses))
    names = "|".join(map(re.escape, sorted(expressions, key=len, reverse=True)))
    parts = re.split(rf"(?<![\w./@:-])({names})(?![\w/@-]|[.:]\w)", value, flags=re.ASCII)
    texts, found = parts[0::2], [expressions[old] for old in parts[1::2]]
    is_plain = not _NEEDS_QUOTES.search("".join(texts))
    if is_plain and not any(expression.startswith("(printf") for expression in found):
        lookups = [f"{{{{ {expression} }}}}" for expression in found]
        return '"' + "".join(_interleave(texts, lookups)) + '"'
    form = "".join(_interleave(map(_escape_form, texts), ["%s"] * len(found)))
    return f"{{{{ printf {quote_go_string(form)} {' '.join(found)} | toJson }}}}"


def list_replacements(uses: Sequence[ImageUse]) -> list[tuple[str, str]]:
    """Return each text that is replaced with the template expression of the new one, sorted."""
    out: dict[str, str] = {}
    for use in uses:
        keys = _BY_TAG if use.pin else _BY_DIGEST
        for piece in use.pieces:
            expression = _index_image(use.ref, keys[piece.role])
            if piece.old != piece.text:
                before = _escape_form(piece.old[: piece.offset])
                after = _escape_form(piece.old[piece.offset + len(piece.text) :])
                expression = f"(printf {quote_go_string(before + '%s' + after)} {expression})"
            out[piece.old] = expression
    return sorted(out.items())


def _index_image(ref: WrittenRef, key: str) -> str:
    return f"(index .Values.images {json.dumps(ref.text)}).{key}"


def _escape_form(text: str) -> str:
    """Return text that ``printf`` prints as it is."""
    return text.replace("%", "%%")


def _interleave(texts: Iterable[str], between: Sequence[str]) -> Iterator[str]:
    for text, new in zip(texts, [*between, ""], strict=True):
        yield text + new
