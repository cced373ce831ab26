"""Report what pydantic finds wrong in YAML files that people write, with line and key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kfdeploy.errors import UserError

KeyPath = Sequence[str | int]
"""Keys of mappings and indices of lists, from the top of a file."""
_MESSAGES: Final = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
    "too_short": "must not be empty",
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "model_type": "must be a mapping",
    "dataclass_type": "must be a mapping",
    "unexpected_keyword_argument": "unknown key",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "bool_type": "must be true or false",
}
"""Pydantic's kinds of mistakes, in the words of YAML."""


def describe_mistakes(
    file: str,
    node: Node | None,
    mistakes: Sequence[Any],
    *,
    messages: Mapping[str, str] | None = None,
    hint: str | None = None,
) -> list[UserError]:
    """Return an error for each mistake: ``kfdeploy.yaml:14: components[3].path: is missing``.

    Args:
        node: the file's top node; None for an empty file.
        mistakes: what `ValidationError.errors` returns.
        messages: the words for some of pydantic's kinds; ``{input!r}`` in them is the value.
        hint: for unknown keys.
    """
    words = {**_MESSAGES, **(messages or {})}
    return [
        _describe_mistake(file, node, mistake, words, hint)
        for mistake in _drop_derived_mistakes(mistakes)
    ]


def _describe_mistake(
    file: str, node: Node | None, mistake: Any, messages: Mapping[str, str], hint: str | None
) -> UserError:
    kind = mistake["type"]
    location: KeyPath = [step for step in mistake["loc"] if step != "[key]"]
    message = str(mistake["msg"]).removeprefix("Value error, ")
    message = message.replace("Input should be", "must be", 1)
    if kind in messages:
        message = messages[kind].format(input=mistake["input"])
    if kind == "value_error" and not location and ": " in message:
        # A validator of a whole model names the key itself.
        key, _, message = message.partition(": ")
        location = parse_key_path(key)
    is_unknown = kind in ("extra_forbidden", "unexpected_keyword_argument")
    return UserError(
        f"{locate_key_path(file, node, location)}: {message}", hint=hint if is_unknown else None
    )


def _drop_derived_mistakes(mistakes: Sequence[Any]) -> list[Any]:
    """Leave out mistakes that follow from others: a list of one bad item is not also too short."""
    places = [mistake["loc"] for mistake in mistakes]
    return [
        mistake
        for mistake in mistakes
        if mistake["type"] != "too_short"
        or not any(
            len(place) > len(mistake["loc"]) == _count_common_prefix(place, mistake["loc"])
            for place in places
        )
    ]


def _count_common_prefix(one: Sequence[object], other: Sequence[object]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def locate_key_path(file: str, node: Node | None, location: KeyPath) -> str:
    """Return ``kfdeploy.yaml:14: components[3].path``; the line is that of the nearest key."""
    line: int = node.start_mark.line + 1 if node else 1
    for depth, step in enumerate(location):
        if isinstance(node, ScalarNode) and isinstance(step, int):
            # One value where a list may stand: pydantic numbers it, the file does not.
            location = location[:depth]
            break
        found = _find_child(node, step)
        if found is None:
            break
        line, node = found
    return f"{file}:{line}: {_format_key_path(location)}"


def _find_child(node: Node | None, step: str | int) -> tuple[int, Node] | None:
    """Return the line and the value of a key or an index; of a repeated key the last."""
    if isinstance(node, SequenceNode):
        if not isinstance(step, int) or step >= len(node.value):
            return None
        return node.value[step].start_mark.line + 1, node.value[step]
    if not isinstance(node, MappingNode):
        return None
    for key, value in reversed(node.value):
        if isinstance(key, ScalarNode) and str(key.value) == str(step):
            return key.start_mark.line + 1, value
    return None


def _format_key_path(location: KeyPath) -> str:
    out = ""
    for step in location:
        if isinstance(step, int):
            out += f"[{step}]"
        elif re.fullmatch(r"[\w-]+", step):
            out += f".{step}" if out else step
        else:
            out += f"[{step!r}]"
    return out or "the file"


def parse_key_path(key: str) -> KeyPath:
    """Return the steps of ``components[3].path``."""
    steps: list[str | int] = []
    for part in key.replace("[", ".[").split("."):
        if part.startswith("[") and part.endswith("]"):
            inner = part[1:-1].strip("'\"")
            steps.append(int(inner) if inner.isdigit() else inner)
        elif part:
            steps.append(part)
    return steps
