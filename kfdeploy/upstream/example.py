"""Reading an upstream's ``example/kustomization.yaml``: which components it installs."""

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

# sortOptions orders kustomize's output only; kfdeploy orders what it installs itself.
_HARMLESS = {"apiversion", "kind", "metadata", "resources", "bases", "sortoptions", "buildmetadata"}


def read_example(upstream: Path | FileTree) -> UpstreamExample:
    """The components that the example lists, in its order.

    Args:
        upstream: the tree of Kubeflow's manifests.

    Returns:
        Components, and as problems all that the example does besides and kfdeploy would ignore.

    Raises:
        UserError: no example, or one that can't be read.
    """
    tree = FolderTree(upstream) if isinstance(upstream, Path) else upstream
    found = find_kustomization(tree, EXAMPLE)
    if len(found) != 1:
        raise UserError(
            "the upstream has no example/kustomization.yaml that lists its components",
            hint="name the components in kfdeploy.yaml, or check that this is the manifests' root",
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
        return UpstreamProblem(f"{shown} is no folder of the upstream and becomes no component", "")
    path = posixpath.normpath(posixpath.join(EXAMPLE, reference.value))
    if path.startswith("../") or tree.get_kind(path) is None:
        return UpstreamProblem(f"{reference.value}: there is no such folder", "")
    if tree.get_kind(path) == "file":
        return UpstreamProblem(f"{reference.value} is a file and becomes no component", "")
    return path


def _list_ignored_fields(kustomization: Kustomization, file: str) -> list[UpstreamProblem]:
    # A kustomize component changes what all the others made together, and each of kfdeploy's is
    # built for itself: it has no place there, and would fail where what it changes is missing.
    return [
        UpstreamProblem(
            f"{reference.value}: a kustomize component of the example is not taken over by"
            " kfdeploy; what it changes is for patches of your own to say",
            f"{file}:{reference.line}",
        )
        for reference in kustomization.references
        if reference.role == "components"
    ] + [
        UpstreamProblem(f"the example's {name} are not taken over by kfdeploy", f"{file}:{line}")
        for name, line in kustomization.fields.items()
        if name.lower() not in {*_HARMLESS, "components"}
    ]
