"""Find a component in the vendored tree: the folder it is built from, and its kind."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Literal, Protocol

from kfdeploy.errors import UserError
from kfdeploy.file_tree import MANIFEST_SUFFIXES, FileTree, FolderTree
from kfdeploy.upstream.component import local_folder
from kfdeploy.upstream.kustomization.graph import find_kustomization
from kfdeploy.upstream.kustomization.parse import FILE_NAMES

UPSTREAM = "upstream"
LOCK = "upstream.lock"

ComponentKind = Literal["kustomization", "chart", "manifests"]


class VendoredComponent(Protocol):
    """A component as listed in `kfdeploy.yaml`."""

    @property
    def path(self) -> str: ...

    @property
    def kind(self) -> ComponentKind | None: ...


def detect_kind(
    tree: FileTree, path: str, declared: ComponentKind | None = None
) -> ComponentKind | None:
    """Return the kind of an upstream folder; ``None`` if it has nothing that can be deployed.

    Args:
        tree: The upstream.
        path: The folder, relative to ``tree``.
        declared: The kind in `kfdeploy.yaml`. It is kept if the folder has what that kind needs.
    """
    if tree.get_kind(path) != "folder":
        return None
    kinds: list[ComponentKind] = []
    if find_kustomization(tree, path):
        kinds.append("kustomization")
    if tree.get_kind(posixpath.join(path, "Chart.yaml")) == "file":
        kinds.append("chart")
    if declared in (None, "manifests") and _has_manifests(tree, path, deep=declared is not None):
        kinds.append("manifests")
    if declared is not None:
        return declared if declared in kinds else None
    return kinds[0] if kinds else None


def _has_manifests(tree: FileTree, path: str, *, deep: bool) -> bool:
    """Return whether the folder has YAML files and no kustomization.

    A deep look accepts files in subfolders, and kustomizations too.
    """
    below = list(tree.list_files(path))
    if deep:
        return any(p.endswith(MANIFEST_SUFFIXES) for p in below)
    if any(posixpath.basename(p) in FILE_NAMES for p in below):
        return False
    return any(p.endswith(MANIFEST_SUFFIXES) and posixpath.dirname(p) == path for p in below)


def component_folder(root: Path, component: VendoredComponent) -> str:
    """Return the folder that a component is built from, relative to ``upstream/``.

    That is its generated local copy, if it has one. ``root`` is the workspace.
    """
    local = local_folder(component.path)
    if (
        component.kind in (None, "kustomization", "manifests")
        and (root / UPSTREAM / local / "kustomization.yaml").is_file()
    ):
        return local
    return component.path


def component_dir(root: Path, component: VendoredComponent) -> Path:
    """Return `component_folder` as a path in the workspace ``root``."""
    return root / UPSTREAM / component_folder(root, component)


def component_kind(root: Path, component: VendoredComponent) -> ComponentKind:
    """Return the kind of a component in a vendored workspace.

    Raises:
        UserError: The folder has nothing that can be deployed, or ``upstream/`` does not exist.
    """
    upstream = root / UPSTREAM
    if not upstream.is_dir():
        raise UserError("there is no upstream/ yet", hint="run `kfdeploy vendor` first")
    found = detect_kind(FolderTree(upstream), component.path, component.kind)
    if found is None:
        raise UserError(describe_missing(component))
    return found


def describe_missing(component: VendoredComponent) -> str:
    """Return the error message for a component whose folder has nothing of its kind."""
    wanted = {"chart": "Helm chart", "manifests": "manifests", "kustomization": "kustomization"}
    return f"no {wanted[component.kind or 'kustomization']} at {component.path}"
