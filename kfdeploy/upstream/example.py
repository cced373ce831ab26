"""Read the components that an upstream's ``example/kustomization.yaml`` installs."""

from __future__ import annotations

import posixpath
from pathlib import Path

from kfdeploy.errors import UserError
from kfdeploy.file_tree import FileTree, FolderTree
from kfdeploy.redact import redact_url
from kfdeploy.upstream.component import (
    ExampleComponent,
    UpstreamExample,
    UpstreamProblem,
    component_names,
)
from kfdeploy.upstream.kustomization.graph import find_kustomization
from kfdeploy.upstream.kustomization.parse import (
    InvalidKustomization,
    Kustomization,
    Reference,
    parse_kustomization,
)
from kfdeploy.upstream.remote import LocalPath, classify_reference

EXAMPLE = "example"

# sortOptions only orders kustomize's output; kfdeploy computes its own order of installation.
_HARMLESS = {"apiversion", "kind", "metadata", "resources", "bases", "sortoptions", "buildmetadata"}


def read_example(upstream: Path | FileTree) -> UpstreamExample:
    """Return the components that the example lists, in its order.

    Args:
        upstream: The tree of Kubeflow's manifests.

    Returns:
        The components, and as problems everything else in the example, which kfdeploy ignores.

    Raises:
        UserError: The upstream has no example, or it can't be read.
    """
    tree = FolderTree(upstream) if isinstance(upstream, Path) else upstream
    found = find_kustomization(tree, EXAMPLE)
    if len(found) != 1:
        raise UserError(
            "the upstream has no example/kustomization.yaml that lists its components",
            hint="check that this is the root of Kubeflow's manifests, or list the components in"
            " kfdeploy.yaml yourself",
        )
    (file,) = found
    try:
        kustomization = parse_kustomization(tree.read_file(file).decode("utf-8", "replace"))
    except InvalidKustomization as error:
        raise UserError(f"{file}:{error.line}: {error.message}") from error
    listed: list[tuple[str, int]] = []
    problems: list[UpstreamProblem] = []
    for reference in kustomization.references:
        if reference.role in ("resources", "bases"):
            path = _resolve_folder(tree, reference)
            if isinstance(path, UpstreamProblem):
                problems.append(UpstreamProblem(path.message, f"{file}:{reference.line}"))
            else:
                listed.append((path, reference.line))
    names = component_names([path for path, _ in listed])
    return UpstreamExample(
        tuple(
            ExampleComponent(name, path, line)
            for name, (path, line) in zip(names, listed, strict=True)
        ),
        (*problems, *_list_ignored_fields(kustomization, file)),
    )


def _resolve_folder(tree: FileTree, reference: Reference) -> str | UpstreamProblem:
    target = classify_reference(reference.value, reference.accepts)
    if not isinstance(target, LocalPath):
        shown = redact_url(reference.value)
        return UpstreamProblem(f"{shown} is not a folder of the upstream: no component for it", "")
    path = posixpath.normpath(posixpath.join(EXAMPLE, reference.value))
    if path.startswith("../") or tree.get_kind(path) is None:
        return UpstreamProblem(f"{reference.value}: no such folder", "")
    if tree.get_kind(path) == "file":
        return UpstreamProblem(f"{reference.value} is a file: no component for it", "")
    return path


def _list_ignored_fields(kustomization: Kustomization, file: str) -> list[UpstreamProblem]:
    # A kustomize component changes the result of all other entries together. kfdeploy builds each
    # of its components alone, where the objects that a kustomize component changes are missing.
    return [
        UpstreamProblem(
            f"{reference.value}: kfdeploy does not apply the example's kustomize components;"
            " write patches of your own for what it changes",
            f"{file}:{reference.line}",
        )
        for reference in kustomization.references
        if reference.role == "components"
    ] + [
        UpstreamProblem(f"kfdeploy does not apply the example's {name}", f"{file}:{line}")
        for name, line in kustomization.fields.items()
        if name.lower() not in {*_HARMLESS, "components"}
    ]
