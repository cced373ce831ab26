"""Repair replacements whose selectors kustomize 5.8 reads differently from earlier releases.

Until 5.7 a target's ``select`` was plain text. Since 5.8 (api v0.21, ``types/selector.go``) its
fields are regular expressions, as those of a patch's target always were. So
``name: $(profile-name)`` in Kubeflow 1.10's user-namespace selects nothing any more. Kustomize
does not report that: the object keeps the name `$(profile-name)`, which an API server refuses
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
    """Return a transformer that applies the ``replacements`` which kustomize 5.8 would not apply.

    Its selectors are escaped: since 5.8 they select what was meant, and up to 5.7 they select
    nothing. Added to the original replacements, the result is the same with every release.

    Args:
        text: The text of a kustomization.

    Returns:
        The YAML of a ReplacementTransformer; empty when every replacement is read as before.
    """
    if "replacements" not in text:
        return ""
    try:
        top = next(iter(nodes.load_documents(text)), None)
    except YAMLError:
        # A duplicate key, for example. Kustomize reports it when it builds.
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
    """Return whether a text, read as a regular expression, does not match itself."""
    if not isinstance(value, str) or not value:
        return False
    try:
        return re.fullmatch(value, value) is None
    except re.error:
        return True
