"""`kfdeploy.yaml` on disk: every mistake at once, each with its line and key."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kfdeploy.errors import UserError, raise_all
from kfdeploy.files import read_text
from kfdeploy.workspace.settings import Workspace

WORKSPACE_FILE = "kfdeploy.yaml"
UNFINISHED = ".kfdeploy/upgrade"
"""A folder that is there until all of an upgrade is in place (`pipeline.upgrade`)."""
_LATER_FEATURES = (
    "network",
    "identity",
    "contributors",
    "scheduling",
    "pools",
    "teams",
    "services",
    "code",
)


@dataclass(frozen=True)
class WorkspaceFile:
    """The settings, and where each stands."""

    workspace: Workspace
    root: Path
    node: Node

    def locate_key(self, key: str) -> str:
        """``kfdeploy.yaml:14: components[3].path`` for a key path."""
        return f"{WORKSPACE_FILE}:{_find_line(self.node, _parse_key_path(key))}: {key}"


def read_workspace(root: Path) -> WorkspaceFile:
    """Read a workspace's settings.

    Raises:
        UserError: no workspace there; or every mistake in the file, together.
    """
    path = root / WORKSPACE_FILE
    if not path.is_file():
        raise UserError(
            f"no {WORKSPACE_FILE} in {root}",
            hint="`kfdeploy init DIR --upstream ...` makes a workspace; -C DIR names another one",
        )
    text = read_text(path)
    data, node = _parse_yaml(text)
    if not isinstance(node, MappingNode):
        raise UserError(
            f"{WORKSPACE_FILE}:1: not a mapping of settings", hint="see docs/workspace.md"
        )
    try:
        workspace = Workspace.model_validate(data)
    except ValidationError as error:
        raise_all(
            [_describe_mistake(node, details) for details in _drop_derived_mistakes(error.errors())]
        )
        raise
    file = WorkspaceFile(workspace, root, node)
    raise_all(_check_features(file))
    return file


def _parse_yaml(text: str) -> tuple[Any, Any]:
    """The file's values (no key may be there twice) and its nodes.

    ruamel's own parser is slow enough to be felt in every command, so it only reads what libyaml
    refuses: it takes more, and it says better what is wrong.
    """
    with contextlib.suppress(YAMLError):
        return YAML(typ="safe").load(text), YAML(typ="safe").compose(text)
    try:
        pure = YAML(typ="safe", pure=True)
        return pure.load(text), YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = (error.problem or "broken YAML").strip()
        raise UserError(f"{WORKSPACE_FILE}{line}: {problem}") from error


def _drop_derived_mistakes(mistakes: Sequence[Any]) -> list[Any]:
    """Without those that only follow from others: a list of one bad item is not also too short."""
    places = [mistake["loc"] for mistake in mistakes]
    return [
        mistake
        for mistake in mistakes
        if mistake["type"] != "too_short"
        or not any(
            len(p) > len(mistake["loc"]) == _count_common_prefix(p, mistake["loc"]) for p in places
        )
    ]


def _count_common_prefix(one: Sequence[object], other: Sequence[object]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


_WORDS = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
    "too_short": "must not be empty",
    "string_type": "must be a string",
    "string_pattern_mismatch": "must be lower-case letters, digits and dashes, not {input!r}",
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
}
"""Pydantic's kinds of mistakes, in the words of one who writes YAML."""


def _describe_mistake(node: Node, details: Any) -> UserError:
    location: Sequence[str | int] = [
        step for step in details["loc"] if not (isinstance(step, str) and step == "[key]")
    ]
    kind = details["type"]
    message = str(details["msg"]).removeprefix("Value error, ")
    message = message.replace("Input should be", "must be", 1)
    if kind in _WORDS:
        message = _WORDS[kind].format(input=details["input"])
    shown = _format_key_path(location)
    if kind == "value_error" and not location:
        shown, _, message = message.partition(": ")
        location = _parse_key_path(shown)
    hint = "see docs/workspace.md, or `kfdeploy schema`" if kind == "extra_forbidden" else None
    return UserError(
        f"{WORKSPACE_FILE}:{_find_line(node, location)}: {shown}: {message}", hint=hint
    )


def _check_features(file: WorkspaceFile) -> list[UserError]:
    errors = []
    for name, settings in (file.workspace.features.model_extra or {}).items():
        key = f"features.{name}"
        if name not in _LATER_FEATURES:
            errors.append(UserError(f"{file.locate_key(key)}: unknown feature"))
        elif isinstance(settings, dict) and settings.get("enabled"):
            errors.append(
                UserError(
                    f"{file.locate_key(key)}: this version of kfdeploy does not have"
                    " the feature yet"
                )
            )
    return errors


def _format_key_path(location: Sequence[str | int]) -> str:
    out = ""
    for step in location:
        if isinstance(step, int):
            out += f"[{step}]"
        elif re.fullmatch(r"[\w-]+", step):
            out += f".{step}" if out else step
        else:
            out += f"[{step!r}]"
    return out or "the file"


def _parse_key_path(key: str) -> list[str | int]:
    steps: list[str | int] = []
    for part in key.replace("[", ".[").split("."):
        if part.startswith("[") and part.endswith("]"):
            inner = part[1:-1].strip("'\"")
            steps.append(int(inner) if inner.isdigit() else inner)
        elif part:
            steps.append(part)
    return steps


def _find_line(node: Node, location: Sequence[str | int]) -> int:
    """The line of a key, or of the nearest thing around it that is there."""
    line: int = node.start_mark.line + 1
    for step in location:
        found: tuple[int, Node] | None = None
        if isinstance(node, MappingNode):
            for key, value in node.value:
                if isinstance(key, ScalarNode) and str(key.value) == str(step):
                    found = (key.start_mark.line + 1, value)
        elif isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
            found = (node.value[step].start_mark.line + 1, node.value[step])
        if found is None:
            return line
        line, node = found
    return line
