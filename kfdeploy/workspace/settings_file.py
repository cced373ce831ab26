"""Read `kfdeploy.yaml` from disk, and report every mistake at once, with its line and key."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node

from kfdeploy.errors import UserError, raise_all
from kfdeploy.features.registry import PLANNED
from kfdeploy.files import read_text
from kfdeploy.workspace.settings import Workspace
from kfdeploy.yamltext.mistakes import describe_mistakes, locate_key_path, parse_key_path

WORKSPACE_FILE = "kfdeploy.yaml"
UNFINISHED = ".kfdeploy/upgrade"
"""A folder that is there until all of an upgrade is in place (`kfdeploy.upgrade`)."""
_MESSAGES = {
    "string_pattern_mismatch": "must be lower-case letters, digits and dashes, not {input!r}"
}


@dataclass(frozen=True)
class WorkspaceFile:
    """The settings, and the nodes of the file that tell the line of each key."""

    workspace: Workspace
    root: Path
    node: Node

    def locate_key(self, key: str) -> str:
        """Return ``kfdeploy.yaml:14: components[3].path`` for the path of a key."""
        return locate_key_path(WORKSPACE_FILE, self.node, parse_key_path(key))


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
            describe_mistakes(
                WORKSPACE_FILE,
                node,
                error.errors(),
                messages=_MESSAGES,
                hint="see docs/workspace.md, or `kfdeploy schema`",
            )
        )
        raise
    file = WorkspaceFile(workspace, root, node)
    raise_all(_check_features(file))
    return file


def _parse_yaml(text: str) -> tuple[Any, Any]:
    """Return the file's values, in which no key may be there twice, and its nodes.

    ruamel's own parser slows every command, so it reads only what libyaml refuses: it accepts more,
    and its errors are better.
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


def _check_features(file: WorkspaceFile) -> list[UserError]:
    errors = []
    for name, settings in file.workspace.features.unknown.items():
        key = f"features.{name}"
        if name not in PLANNED:
            errors.append(UserError(f"{file.locate_key(key)}: unknown feature"))
        elif isinstance(settings, dict) and settings.get("enabled"):
            errors.append(
                UserError(
                    f"{file.locate_key(key)}: this version of kfdeploy does not have"
                    " the feature yet"
                )
            )
    return errors
