"""Render Go templates: the part of text/template and of Helmfile's functions that patches use.

Patches are ``.gotmpl`` files, so that plain Helmfile can apply them. `render` renders the same
files without Helmfile. It raises `UnsupportedTemplate` for a file that needs Helmfile itself.

Sources: text/template's documentation (Go 1.26), helmfile v1.7.4 ``pkg/tmpl``, sprig v3.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_ACTION = re.compile(r"\{\{(?P<left>-\s)?(?P<code>.*?)(?P<right>\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)'
    r"|(?P<field>(?:\$\w*)?(?:\.[A-Za-z_]\w*)+|\.|\$\w*)|(?P<word>[A-Za-z_]\w*)|(?P<punct>[()|]))"
)
_DECLARED = re.compile(r"(?:(\$\w+)\s*,\s*)?(\$\w+)\s*:=\s*(.*)", re.DOTALL)
# The values of names at a point of a template: ``.`` is the dot, ``$`` the dot at the start.
Scope = Mapping[str, Any]
Tokens = tuple[tuple[str, str], ...]
Functions = Mapping[str, Callable[..., Any]]


class UnsupportedTemplate(Exception):
    """The template uses a construct or function that this module does not support."""


class TemplateError(Exception):
    """The template fails: a value is missing, or it calls ``fail``."""


@dataclass(frozen=True, slots=True)
class _TextNode:
    text: str


@dataclass(frozen=True, slots=True)
class _ActionNode:
    code: str


def render(source: str, values: Mapping[str, Any], functions: Functions | None = None) -> str:
    """Return the rendered text of a template.

    Args:
        source: The text of the template.
        values: The dot. Helmfile's ``.Values`` is its key ``Values``.
        functions: More functions by name, such as ``tpl`` and ``readFile``.

    Raises:
        UnsupportedTemplate: The template uses an unsupported construct or function.
        TemplateError: A value is missing, or the template calls ``fail``.
    """
    nodes = list(_parse_nodes(source))
    out: list[str] = []
    scope = {".": values, "$": values}
    _Renderer({**_FUNCTIONS, **(functions or {})}).render_block(nodes, 0, scope, out, None)
    return "".join(out)


def _parse_nodes(source: str) -> Iterator[_TextNode | _ActionNode]:
    end = 0
    trim = False
    for match in _ACTION.finditer(source):
        text = source[end : match.start()]
        if trim:
            text = text.lstrip()
        if match["left"]:
            text = text.rstrip()
        if text:
            yield _make_text_node(text)
        code = match["code"].strip()
        if not code.startswith("/*"):
            yield _ActionNode(code)
        trim = bool(match["right"])
        end = match.end()
    rest = source[end:]
    yield _make_text_node(rest.lstrip() if trim else rest)


def _make_text_node(text: str) -> _TextNode:
    if "{{" in text:
        raise UnsupportedTemplate("an action that is not closed")
    return _TextNode(text)


class _Renderer:
    def __init__(self, functions: Functions) -> None:
        self.functions = functions

    def render_block(
        self,
        nodes: list[_TextNode | _ActionNode],
        at: int,
        scope: Scope,
        out: list[str] | None,
        inside: str | None,
    ) -> int:
        """Render to the block's end and return its index. Without ``out`` only find the end."""
        names = dict(scope)  # a variable's scope is the block that declares it
        while at < len(nodes):
            node = nodes[at]
            if isinstance(node, _TextNode):
                if out is not None:
                    out.append(node.text)
                at += 1
                continue
            word, _, rest = node.code.partition(" ")
            if word in ("end", "else"):
                if inside is None:
                    raise UnsupportedTemplate(f"{word} without a block")
                return at
            if word in ("if", "with", "range"):
                at = self._render_control(nodes, at, word, rest, names, out)
                continue
            if word in ("define", "template", "block", "break", "continue"):
                raise UnsupportedTemplate(node.code)
            if out is not None:
                index, name, code = _split_declaration(node.code)
                value = self.evaluate_pipeline(code, names)
                if index:
                    raise UnsupportedTemplate(node.code)
                if name:
                    names[name] = value
                else:
                    out.append(_format_value(value))
            at += 1
        if inside is not None:
            raise UnsupportedTemplate(f"{inside} without end")
        return at

    def _render_control(
        self,
        nodes: list[_TextNode | _ActionNode],
        at: int,
        word: str,
        rest: str,
        scope: Scope,
        out: list[str] | None,
    ) -> int:
        index, name, code = _split_declaration(rest)
        if index and word != "range":
            raise UnsupportedTemplate(rest)
        value = self.evaluate_pipeline(code, scope) if out is not None else None
        body = at + 1
        if word == "range" and out is not None and value:
            end = body
            for key, item in _range_items(value):
                names = {**scope, ".": item}
                names |= {
                    variable: bound for variable, bound in ((index, key), (name, item)) if variable
                }
                end = self.render_block(nodes, body, names, out, word)
        else:
            taken = out if _is_true(value) else None
            scope = {**scope, name: value} if name else scope
            inner = {**scope, ".": value} if word == "with" else scope
            end = self.render_block(nodes, body, inner, taken, word)
        closing = nodes[end]
        assert isinstance(closing, _ActionNode)
        if closing.code == "else":
            end = self.render_block(nodes, end + 1, scope, None if _is_true(value) else out, word)
        elif closing.code != "end":
            raise UnsupportedTemplate(closing.code)
        return end + 1

    def evaluate_pipeline(self, code: str, scope: Scope) -> Any:
        tokens = _tokenize_action(code)
        try:
            value, rest = self._evaluate_commands(tokens, scope)
        except TemplateError as error:
            shown = code if len(code) < 100 else f"{code[:90]}..."
            note = str(error)
            raise TemplateError(note if shown in note else f"{{{{ {shown} }}}}: {note}") from error
        if rest:
            raise UnsupportedTemplate(code)
        return value

    def _evaluate_commands(self, tokens: Tokens, scope: Scope) -> tuple[Any, Tokens]:
        value, tokens = self._evaluate_command(tokens, scope, ())
        while tokens and tokens[0] == ("punct", "|"):
            value, tokens = self._evaluate_command(tokens[1:], scope, (value,))
        return value, tokens

    def _evaluate_command(
        self, tokens: Tokens, scope: Scope, piped: tuple[Any, ...]
    ) -> tuple[Any, Tokens]:
        if not tokens:
            raise UnsupportedTemplate("an empty action")
        name = tokens[0][1] if tokens[0][0] == "word" else None
        arguments: list[Any] = []
        if name and name not in ("true", "false", "nil"):
            tokens = tokens[1:]
            if name not in self.functions:
                raise UnsupportedTemplate(f"the function {name}")
        else:
            name = None
        while tokens and tokens[0] not in (("punct", ")"), ("punct", "|")):
            try:
                value, tokens = self._evaluate_operand(tokens, scope)
            except TemplateError as error:
                if name in ("and", "or"):  # Go may not come to this one
                    raise UnsupportedTemplate(f"{name} of what fails") from error
                raise
            arguments.append(value)
        if name is None:
            if len(arguments) != 1 or piped:
                raise UnsupportedTemplate("a value that is called")
            return arguments[0], tokens
        try:
            return self.functions[name](*arguments, *piped), tokens
        except TypeError as error:
            raise TemplateError(f"{name}: {error}") from error

    def _evaluate_operand(self, tokens: Tokens, scope: Scope) -> tuple[Any, Tokens]:
        kind, text = tokens[0]
        rest = tokens[1:]
        value: Any
        if kind == "string":
            value = text[1:-1] if text[0] == "`" else json.loads(text)
        elif kind == "number":
            value = float(text) if "." in text else int(text)
        elif kind == "field":
            name, _, path = text.partition(".") if text[0] == "$" else (".", ".", text[1:])
            if name not in scope:
                raise UnsupportedTemplate(f"the variable {name}")
            value = self._resolve_field(scope[name], f".{path}")
        elif text == "(":
            value, rest = self._evaluate_commands(rest, scope)
            if not rest or rest[0] != ("punct", ")"):
                raise UnsupportedTemplate("a parenthesis that is not closed")
            rest = rest[1:]
            if rest and rest[0][0] == "glued":
                value = self._resolve_field(value, rest[0][1])
                rest = rest[1:]
        elif text in ("true", "false", "nil"):
            value = {"true": True, "false": False, "nil": None}[text]
        elif text in self.functions:
            value = self.functions[text]()
        else:
            raise UnsupportedTemplate(f"the function {text}")
        return value, rest

    def _resolve_field(self, value: Any, path: str) -> Any:
        for step in path.split(".")[1:]:
            if not step:
                continue
            if value is None:
                raise TemplateError(f"nil pointer evaluating interface {{}}.{step}")
            if not isinstance(value, Mapping):
                raise TemplateError(f"can't evaluate field {step}")
            if step not in value:  # Helmfile sets missingkey=error
                raise TemplateError(f'map has no entry for key "{step}"')
            value = value[step]
        return value


def _split_declaration(code: str) -> tuple[str, str, str]:
    """Return the variables that an action declares, for key and value, and its pipeline."""
    match = _DECLARED.fullmatch(code)
    return (match[1] or "", match[2], match[3]) if match else ("", "", code)


def _range_items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, list):
        return enumerate(value)
    raise UnsupportedTemplate(f"range over a {type(value).__name__}")


@lru_cache(maxsize=4096)
def _tokenize_action(code: str) -> Tokens:
    out: list[tuple[str, str]] = []
    at = 0
    code = code.rstrip()
    while at < len(code):
        match = _TOKEN.match(code, at)
        if match is None or match.lastgroup is None:
            raise UnsupportedTemplate(code)
        kind = match.lastgroup
        if kind == "field" and out and not code[at : at + 1].isspace() and out[-1][1] != "(":
            if out[-1][1] != ")":
                raise UnsupportedTemplate(code)
            kind = "glued"  # `(index .A "b").c`: a field of what the parenthesis gave
        out.append((kind, match[match.lastgroup]))
        at = match.end()
    return tuple(out)


def _is_true(value: Any) -> bool:
    return bool(value)


def _format_value(value: Any) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int):
        raise UnsupportedTemplate(f"a {type(value).__name__} that is printed")
    return str(value)


def to_json(value: Any) -> str:
    """Return JSON as Go's encoding/json writes it: sorted keys, and ``<``, ``>``, ``&`` escaped."""
    if _has_float(value):
        raise UnsupportedTemplate("a number with a fraction as JSON")
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    for plain, escaped in _GO_ESCAPES:
        text = text.replace(plain, escaped)
    return text


def _has_float(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_float, value.values()))
    return any(map(_has_float, value)) if isinstance(value, list) else isinstance(value, float)


_GO_ESCAPES = (
    ("<", "\\u003c"),
    (">", "\\u003e"),
    ("&", "\\u0026"),
    ("\u2028", "\\u2028"),
    ("\u2029", "\\u2029"),
)


def _index_value(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None:
            raise TemplateError("index of untyped nil")
        if isinstance(value, list):
            try:
                value = value[key]
            except (IndexError, TypeError) as error:
                raise TemplateError(f"index out of range: {key}") from error
        else:
            value = value.get(key)
    return value


def _make_dict(*pairs: Any) -> dict[str, Any]:
    return {str(pairs[i]): pairs[i + 1] for i in range(0, len(pairs) - 1, 2)}


def _set_key(mapping: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    mapping[key] = value
    return mapping


def _raise_failure(message: str) -> None:
    raise TemplateError(message)


def _require_value(message: str, value: Any) -> Any:
    if value is None or value == "":
        raise TemplateError(message)
    return value


def _format_printf(form: str, *values: Any) -> str:
    verbs = re.findall(r"%(.)", form)
    kinds = [verb for verb in verbs if verb != "%"]
    if len(kinds) != len(values) or not all(map(_verb_accepts, kinds, values)):
        raise UnsupportedTemplate(f"printf {form}")
    parts = iter(values)

    def format_verb(match: re.Match[str]) -> str:
        if match[1] == "%":
            return "%"
        value = next(parts)
        return _quote_string(value) if match[1] == "q" else _format_value(value)

    return re.sub(r"%(.)", format_verb, form)


def _verb_accepts(verb: str, value: Any) -> bool:
    if verb in "sq":
        return isinstance(value, str)
    if verb == "d":
        return isinstance(value, int) and not isinstance(value, bool)
    return verb == "v" and isinstance(value, str | int)


def _quote_string(value: Any) -> str:
    """Return a Go string literal, of text that Go quotes as JSON does."""
    text = _format_value(value)
    if not text.isprintable():
        raise UnsupportedTemplate("quotes around what can't be printed")
    return json.dumps(text, ensure_ascii=False)


def _is_equal(first: Any, *others: Any) -> bool:
    if any(type(other) is not type(first) for other in others):
        raise UnsupportedTemplate("values of different kinds that are compared")
    return first in others


def _get_path(path: str, *rest: Any) -> Any:
    """Return Helmfile's ``get PATH [DEFAULT] MAP``: dots part the keys of the path."""
    *default, value = rest
    for key in path.split("."):
        if not isinstance(value, Mapping):
            raise UnsupportedTemplate(f"get {path} of what is no mapping")
        if key not in value:
            if default:
                return default[0]
            raise TemplateError(f"no value exist for key {key!r}")
        value = value[key]
    return value


def _parse_int(value: Any) -> int:
    if isinstance(value, str) and not re.fullmatch(r"0|[1-9]\d*", value):
        raise UnsupportedTemplate(f"int of {value!r}")
    return int(value)


def _is_greater(first: Any, second: Any) -> bool:
    if not isinstance(first, int) or not isinstance(second, int):
        raise UnsupportedTemplate("an order of what are no whole numbers")
    return first > second


def _replace_all(pattern: str, text: str, new: str) -> str:
    if "$" in new or "\\" in new:
        raise UnsupportedTemplate("a replacement with groups")
    return re.sub(pattern, new, text, flags=re.ASCII)


def _slice_text(start: int, end: int, text: str) -> str:
    if not 0 <= start <= len(text) or not text.isascii():  # sprig counts bytes
        raise UnsupportedTemplate("substr from outside the text, or of one that is not ASCII")
    return text[start:end] if 0 <= end <= len(text) else text[start:]


_FUNCTIONS: Functions = {
    "index": _index_value,
    "dict": _make_dict,
    "set": _set_key,
    "list": lambda *items: list(items),
    "toJson": to_json,
    "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "fail": _raise_failure,
    "required": _require_value,
    "default": lambda standard, value=None: value if value else standard,
    "quote": lambda *values: " ".join(
        _quote_string(value) for value in values if value is not None
    ),
    "printf": _format_printf,
    "eq": _is_equal,
    "ne": lambda first, second: not _is_equal(first, second),
    "gt": _is_greater,
    "ge": lambda first, second: not _is_greater(second, first),
    "get": _get_path,
    "int": _parse_int,
    "not": lambda value: not _is_true(value),
    "and": lambda *values: next((v for v in values if not _is_true(v)), values[-1]),
    "or": lambda *values: next((v for v in values if _is_true(v)), values[-1]),
    "upper": str.upper,
    "lower": str.lower,
    "trim": str.strip,
    "contains": lambda part, text: part in text,
    "substr": _slice_text,
    "trimPrefix": lambda prefix, text: text.removeprefix(prefix),
    "trimSuffix": lambda suffix, text: text.removesuffix(suffix),
    "splitList": lambda separator, text: text.split(separator),
    "regexReplaceAll": _replace_all,
    "hasKey": lambda mapping, key: key in mapping,
    "ternary": lambda yes, no, test: yes if test else no,
}
