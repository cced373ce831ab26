"""Quote what upstream says for a template: it never becomes one.

Generated patches are templates, which Helmfile may run programs from (`exec`). Every text of an
upstream that goes into one passes one of these functions.
"""

from __future__ import annotations

import json
import re

from kfdeploy.yamltext.emit import quote_scalar

_UNPRINTABLE = re.compile(r"[^ -~]")


def quote_literal(value: str) -> str:
    """Return a string as YAML in a template: upstream's own braces stay what they are."""
    return f"{{{{ {quote_go_string(value)} | toJson }}}}" if "{{" in value else quote_scalar(value)


def quote_go_string(text: str) -> str:
    """Return a Go string literal: raw where the text has quotes.

    A literal never holds two braces in a row, so that every reader of templates finds its end.
    """
    has_braces = "{{" in text or "}}" in text
    if '"' in text and not has_braces and "`" not in text and "\r" not in text:
        return f"`{text}`"
    literal = json.dumps(text, ensure_ascii=False)
    return literal.replace("{", r"\u007b").replace("}", r"\u007d") if has_braces else literal


def escape_comment(text: str) -> str:
    """Return a text for a comment of a template: on one line, without an action in it."""
    shown = _UNPRINTABLE.sub("?", text)
    return shown.replace("{", "{ ") if "{{" in shown else shown
