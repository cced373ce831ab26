"""Replacements whose selectors kustomize 5.8 reads in another way than those before it.

Since 5.8 (api v0.21, ``types/selector.go``) a target's ``select`` is made of regular expressions,
as a patch's target always was; until 5.7 it was plain text. So ``name: $(profile-name)``, which
Kubeflow 1.10's user-namespace has, selects nothing any more, and kustomize says nothing: the
object keeps the name `$(profile-name)`, which an API server refuses
(kubeflow/community-distribution#3315).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml.error import YAMLError

from kfdeploy.yamltext import nodes

_FIELDS = ("group", "version", "kind", "name", "namespace")
_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$])")


def escape_replacements(text: str) -> str:
    """The ``replacements`` of a kustomization that 5.8 would not apply, as a transformer's YAML.

    Their selectors are escaped, so that up to 5.7 nothing is selected by them, and since 5.8 what
    was meant: with the ones that are there, every kustomize does the same.

    Args:
        text: a kustomization.

    Returns:
        Empty where there are none.
    """
    if "replacements" not in text:
        return ""
    try:
        top = next(iter(nodes.load_documents(text)), None)
    except YAMLError:
        # A key that is there twice, for example: kustomize says it when it builds.
        return ""
    listed = top.get("replacements") if isinstance(top, dict) else None
    made = [
        {"source": entry["source"], "targets": targets}
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict)
        and isinstance(entry.get("source"), dict)
        and (targets := list(_escape_targets(entry)))
    ]
    if not made:
        return ""
    lines = [
        "apiVersion: builtin",
        "kind: ReplacementTransformer",
        "metadata:",
        "  name: replacements-since-kustomize-5.8",
        "replacements:",
        *(f"- {json.dumps(entry, ensure_ascii=False)}" for entry in made),
    ]
    return "\n".join(lines) + "\n"


def _escape_targets(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for target in entry.get("targets") or ():
        select = target.get("select") if isinstance(target, dict) else None
        if isinstance(select, dict) and any(_is_misread(select.get(name)) for name in _FIELDS):
            fixed = {
                name: _SPECIAL.sub(r"\\\1", value) if _is_misread(value) else value
                for name, value in select.items()
            }
            yield {**target, "select": fixed}


def _is_misread(value: object) -> bool:
    """Whether a text, read as a regular expression, is not that text."""
    if not isinstance(value, str) or not value:
        return False
    try:
        return re.fullmatch(value, value) is None
    except re.error:
        return True
