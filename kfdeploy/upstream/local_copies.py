"""Generate the copies of kustomizations that have local references (see `upstream.vendor`)."""

from __future__ import annotations

import json
import posixpath

from kfdeploy.errors import UserError, raise_all
from kfdeploy.file_tree import MANIFEST_SUFFIXES, FileTree
from kfdeploy.upstream.component import local_folder, local_header
from kfdeploy.upstream.kustomization.graph import (
    KustomizationGraph,
    KustomizationNode,
    ReferenceEdge,
)
from kfdeploy.upstream.kustomization.parse import (
    DEFAULT_CHART_HOME,
    InvalidKustomization,
    Reference,
    replace_references,
)
from kfdeploy.upstream.kustomization.plugins import parse_plugins
from kfdeploy.upstream.replacements import escape_replacements

REPLACEMENTS = "kfdeploy-replacements.yaml"
"""File in a local copy with the replacements that need another selector since kustomize 5.8."""


def wrap_manifests(tree: FileTree, folder: str) -> tuple[str, bytes]:
    """Return a kustomization that lists a folder's manifests, so that kustomize can build them.

    Returns:
        The path of the kustomization, and its text. It lists every manifest below the folder.
    """
    local = local_folder(folder)
    names = [path for path in tree.list_files(folder) if path.endswith(MANIFEST_SUFFIXES)]
    entries = "".join(f"- {json.dumps(posixpath.relpath(name, local))}\n" for name in names)
    path = posixpath.join(local, "kustomization.yaml")
    return path, f"{local_header(folder)}\nresources:\n{entries}".encode()


def make_local_copies(graph: KustomizationGraph, roots: set[str]) -> dict[str, bytes]:
    """Return copies, with local references, of the kustomizations that can't be used as they are.

    Copied are kustomizations that reach a remote, those whose replacements kustomize 5.8 would not
    apply (see `upstream.replacements`), components' own whose file is not named
    ``kustomization.yaml`` (Helmfile knows no other name), and all that refer to a copied one.

    Args:
        graph: The kustomizations.
        roots: The folders of the components.

    Returns:
        Path below ``upstream/`` to content.

    Raises:
        UserError: A path is in a place that can't be rewritten, such as inline YAML.
    """
    copied = {
        folder
        for folder, node in graph.nodes.items()
        if graph.list_remote_edges(folder)
        or escape_replacements(node.kustomization.text)
        or (folder in roots and posixpath.basename(node.file) != "kustomization.yaml")
    }
    # What refers to a copied kustomization must refer to the copy, so it is copied too.
    while more := {
        folder
        for folder, node in graph.nodes.items()
        if folder not in copied and any(e.is_folder and e.target in copied for e in node.edges)
    }:
        copied |= more
    made: dict[str, bytes] = {}
    errors: list[UserError] = []
    for folder in sorted(copied):
        node = graph.nodes[folder]
        for text in node.kustomization.inline_plugins:
            if _has_paths(text.value):
                errors.append(
                    UserError(
                        f"{node.file}:{text.line}: a path in inline YAML can't be made local",
                        hint="upstream, move the generator or transformer to a file of its own",
                    )
                )
        try:
            made |= _copy_kustomization(node, copied)
        except UserError as error:
            errors.append(error)
    raise_all(errors)
    return made


def _has_paths(text: str) -> bool:
    try:
        return bool(parse_plugins(text))
    except InvalidKustomization:
        return False


def _copy_kustomization(node: KustomizationNode, copied: set[str]) -> dict[str, bytes]:
    """Return the local copies of a kustomization and of its plugins' files that have paths."""
    folder = local_folder(node.folder)
    plugins = _name_plugins(node)

    def resolve_target(edge: ReferenceEdge) -> str:
        if edge.target in plugins and edge.file == node.file:
            return plugins[edge.target]
        is_copied = edge.is_folder and edge.target in copied
        return posixpath.relpath(local_folder(edge.target) if is_copied else edge.target, folder)

    def map_new_paths(file: str) -> dict[Reference, str]:
        return {edge.reference: resolve_target(edge) for edge in node.edges if edge.file == file}

    text = replace_references(node.kustomization.text, map_new_paths(node.file))
    if node.kustomization.charts and node.kustomization.chart_home is None:
        text = _with_chart_home(node, text, folder)
    made: dict[str, bytes] = {}
    if more := escape_replacements(node.kustomization.text):
        made[f"{folder}/{REPLACEMENTS}"] = _prepend_header(node.file, more)
        text = _with_transformer(node, text)
    made[f"{folder}/kustomization.yaml"] = _prepend_header(node.file, text)
    for path, own_text in node.plugins.items():
        own = replace_references(own_text.removeprefix("\ufeff"), map_new_paths(path))
        made[f"{folder}/{plugins[path]}"] = _prepend_header(path, own)
    return made


def _name_plugins(node: KustomizationNode) -> dict[str, str]:
    names: dict[str, str] = {}
    for path in node.plugins:
        name = posixpath.basename(path)
        while name in names.values() or name in ("kustomization.yaml", REPLACEMENTS):
            name = f"plugin-{name}"
        names[path] = name
    return names


def _with_chart_home(node: KustomizationNode, text: str, folder: str) -> str:
    if any(name.lower() == "helmglobals" for name in node.kustomization.fields):
        raise UserError(
            f"{node.file}: helmGlobals has no chartHome, but its local copy needs one",
            hint=f"upstream, add `chartHome: {DEFAULT_CHART_HOME}` to helmGlobals",
        )
    home = posixpath.relpath(posixpath.join(node.folder, DEFAULT_CHART_HOME), folder)
    return f"{text.rstrip()}\nhelmGlobals:\n  chartHome: {home}\n"


def _with_transformer(node: KustomizationNode, text: str) -> str:
    """Append the transformer at the end, so that the original's lines keep their numbers."""
    if any(name.lower() == "transformers" for name in node.kustomization.fields):
        raise UserError(
            f"{node.file}: its replacements select names that kustomize 5.8 and later reads as"
            " regular expressions; kfdeploy can't repair that because the file has transformers",
            hint="upstream, escape the names for kustomize 5.8 and later",
        )
    return f"{text.rstrip()}\ntransformers:\n- {REPLACEMENTS}\n"


def _prepend_header(file: str, text: str) -> bytes:
    end = "\r\n" if "\r\n" in text else "\n"
    return f"{local_header(file)}{end}{text}".encode()
