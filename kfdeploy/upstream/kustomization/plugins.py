"""Read the paths in files of generators and transformers."""

from __future__ import annotations

from kfdeploy.upstream.kustomization.nodes import FieldMapping, compose_documents, is_map, is_text
from kfdeploy.upstream.kustomization.parse import Reference, is_inline, make_reference
from kfdeploy.upstream.remote import Accepts


def parse_plugins(text: str) -> tuple[Reference, ...]:
    """Return the paths in a file of generators or transformers.

    They are relative to the kustomization that names the file, not to the file's own folder.

    Raises:
        InvalidKustomization: The YAML is broken. It has the line.
    """
    found: list[Reference] = []
    for index, node in enumerate(compose_documents(text)):
        if not is_map(node):
            continue
        for name in ("path", "valuesFile", "env", "chartHome"):
            value = FieldMapping.from_node(node, text).get(name)
            if value is not None and is_text(value) and value.value and not is_inline(value.value):
                accepts: Accepts = "folder" if name == "chartHome" else "file"
                found.append(make_reference(value, f"[{index}].{name}", accepts, name))
        for name in ("paths", "files", "envs", "additionalValuesFiles"):
            for number, value in FieldMapping.from_node(node, text).iter_items(name):
                if not is_text(value) or is_inline(value.value):
                    continue
                where = f"[{index}].{name}[{number}]"
                has_key = name == "files" and "=" in value.value
                key = value.value[: value.value.index("=") + 1] if has_key else ""
                found.append(make_reference(value, where, "file", name, key))
        for number, entry, _ in FieldMapping.from_node(node, text).iter_mappings("replacements"):
            value = entry.get("path")
            if value is not None and is_text(value) and value.value:
                where = f"[{index}].replacements[{number}].path"
                found.append(make_reference(value, where, "file", "replacements"))
    return tuple(found)
