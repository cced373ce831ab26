"""`kfdeploy.yaml` on disk: every mistake at once, each with its line and key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kfdeploy.errors import UserError, raise_all
from kfdeploy.files import read_text
from kfdeploy.model.workspace import Workspace

NAME = "kfdeploy.yaml"
_KNOWN_FEATURES = (
    "admission",
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

    def locate(self, key: str) -> str:
        """``kfdeploy.yaml:14: components[3].path`` for a key path."""
        return f"{NAME}:{_line(self.node, _steps(key))}: {key}"


def read(root: Path) -> WorkspaceFile:
    """Read a workspace's settings.

    Raises:
        UserError: no workspace there; or every mistake in the file, together.
    """
    path = root / NAME
    if not path.is_file():
        raise UserError(
            f"no {NAME} in {root}",
            hint="`kfdeploy init DIR --upstream ...` makes a workspace; -C DIR names another one",
        )
    text = read_text(path)
    node = _compose(text)
    if not isinstance(node, MappingNode):
        raise UserError(f"{NAME}:1: not a mapping of settings", hint="see docs/workspace.md")
    try:
        workspace = Workspace.model_validate(YAML(typ="safe").load(text))
    except ValidationError as error:
        raise_all([_mistake(node, details) for details in error.errors()])
        raise
    file = WorkspaceFile(workspace, root, node)
    raise_all(_features(file))
    return file


def _compose(text: str) -> Any:
    try:
        YAML(typ="safe", pure=True).load(text)  # refuses a key that is there twice
        return YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = (error.problem or "broken YAML").strip()
        raise UserError(f"{NAME}{line}: {problem}") from error


def _mistake(node: Node, details: Any) -> UserError:
    location: Sequence[str | int] = [
        step for step in details["loc"] if not (isinstance(step, str) and step == "[key]")
    ]
    kind = details["type"]
    message = str(details["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        message = "unknown key"
    elif kind == "missing":
        message = "is missing"
    shown = _show(location)
    if kind == "value_error" and not location:
        shown, _, message = message.partition(": ")
        location = _steps(shown)
    hint = "see docs/workspace.md, or `kfdeploy schema`" if kind == "extra_forbidden" else None
    return UserError(f"{NAME}:{_line(node, location)}: {shown}: {message}", hint=hint)


def _features(file: WorkspaceFile) -> list[UserError]:
    errors = []
    for name, settings in file.workspace.features.items():
        key = f"features.{name}"
        if name not in _KNOWN_FEATURES:
            errors.append(UserError(f"{file.locate(key)}: unknown feature"))
        elif settings.get("enabled"):
            errors.append(
                UserError(
                    f"{file.locate(key)}: this version of kfdeploy does not have the feature yet"
                )
            )
    return errors


def _show(location: Sequence[str | int]) -> str:
    out = ""
    for step in location:
        out += f"[{step}]" if isinstance(step, int) else f".{step}" if out else str(step)
    return out or "the file"


def _steps(key: str) -> list[str | int]:
    steps: list[str | int] = []
    for part in key.replace("[", ".[").split("."):
        if part.startswith("[") and part.endswith("]"):
            inner = part[1:-1].strip("'\"")
            steps.append(int(inner) if inner.isdigit() else inner)
        elif part:
            steps.append(part)
    return steps


def _line(node: Node, location: Sequence[str | int]) -> int:
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
