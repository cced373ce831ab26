"""Read the paths in files of generators and transformers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from kfdeploy.upstream.kustomization.nodes import FieldMapping, compose_documents, is_map
from kfdeploy.upstream.kustomization.parse import (
    Reference,
    is_inline,
    make_reference,
    split_key,
)
from kfdeploy.upstream.remote import Accepts


def parse_plugins(text: str) -> tuple[Reference, ...]:
    """Return the paths in a file of generators or transformers.

    They are relative to the kustomization that names the file, not to the file's own folder.

    Raises:
        InvalidKustomization: The YAML is broken. It has the line.
    """
    documents = enumerate(compose_documents(text))
    return tuple(
        chain.from_iterable(
            _parse_plugin(FieldMapping.from_node(node, text), f"[{index}]")
            for index, node in documents
            if is_map(node)
        )
    )


def _parse_plugin(plugin: FieldMapping, where: str) -> Iterator[Reference]:
    for name in ("path", "valuesFile", "env", "chartHome"):
        node = plugin.get_filled(name)
        if node is not None and not is_inline(node.value):
            accepts: Accepts = "folder" if name == "chartHome" else "file"
            yield make_reference(node, f"{where}.{name}", accepts, name)
    for name in ("paths", "files", "envs", "additionalValuesFiles"):
        for index, node in plugin.iter_texts(name):
            if not is_inline(node.value):
                key = split_key(node.value) if name == "files" else ""
                yield make_reference(node, f"{where}.{name}[{index}]", "file", name, key)
    for index, entry, _ in plugin.iter_mappings("replacements"):
        if (node := entry.get_filled("path")) is not None:
            yield make_reference(
                node, f"{where}.replacements[{index}].path", "file", "replacements"
            )
