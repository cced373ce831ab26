"""Follow a kustomization's references to other kustomizations, files and remotes.

Only kustomizations and plugin configurations are read, not the resources they name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kfdeploy.errors import UserError
from kfdeploy.file_tree import FileTree, FolderTree, escapes_root
from kfdeploy.redact import redact_url
from kfdeploy.upstream.kustomization.nodes import LocatedText
from kfdeploy.upstream.kustomization.parse import (
    DEFAULT_CHART_HOME,
    FILE_NAMES,
    InvalidKustomization,
    Kustomization,
    Reference,
    parse_kustomization,
)
from kfdeploy.upstream.kustomization.plugins import parse_plugins
from kfdeploy.upstream.remote import (
    LocalPath,
    Remote,
    RemoteFile,
    RemoteRepo,
    classify_reference,
)

RemoteResolver = Callable[[Remote], str]
"""Returns a remote's path in the tree, fetched on first use. UserError if it can't be fetched."""

_PLUGIN_ROLES = ("generators", "transformers", "validators")


@dataclass(frozen=True, slots=True)
class ReferenceEdge:
    """A reference and its target.

    Attributes:
        file: The file that has the reference, relative to the tree.
        reference: The reference as written there.
        remote: The remote that it names; None for a local path.
        target: The path in the tree; empty for a remote that was not resolved.
        is_folder: Whether the target is a base or a chart home and not a file.
    """

    file: str
    reference: Reference
    remote: Remote | None
    target: str
    is_folder: bool

    @property
    def where(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.reference.line}"


@dataclass(frozen=True, slots=True)
class KustomizationNode:
    """A kustomization that is reached.

    Attributes:
        folder: Its folder, relative to the tree.
        file: Its file, relative to the tree.
        kustomization: Its content.
        edges: Its references in the order of the text, then those of ``plugins``.
        plugins: Path to text of the generators' and transformers' files that have paths. Kustomize
            reads those paths relative to ``folder``.
        charts: Folders of local charts.
    """

    folder: str
    file: str
    kustomization: Kustomization
    edges: tuple[ReferenceEdge, ...]
    plugins: Mapping[str, str] = field(default_factory=dict)
    charts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KustomizationGraph:
    """The kustomizations that ``roots`` reach, in the order they were reached, and all errors."""

    roots: tuple[str, ...]
    nodes: Mapping[str, KustomizationNode]
    errors: tuple[UserError, ...]

    def list_reachable(self, folder: str) -> tuple[str, ...]:
        """Return the folder and every base that it reaches, each once, in kustomize's order."""
        seen: dict[str, None] = {}

        def visit_folder(at: str) -> None:
            if at in seen or at not in self.nodes:
                return
            seen[at] = None
            for edge in self.nodes[at].edges:
                if edge.is_folder:
                    visit_folder(edge.target)

        visit_folder(folder)
        return tuple(seen)

    def list_files(self, folder: str | None = None) -> dict[str, tuple[str, ...]]:
        """Return every file that is reached from one folder, or from all, with its roles.

        A role is the field that names the file (``resources``, ``patches``, ``files``,
        ``envs`` ...), or ``kustomization``. Paths and roles are sorted.
        """
        roles: dict[str, set[str]] = {}
        for at in self.nodes if folder is None else self.list_reachable(folder):
            node = self.nodes[at]
            roles.setdefault(node.file, set()).add("kustomization")
            for edge in node.edges:
                if edge.target and not edge.is_folder:
                    roles.setdefault(edge.target, set()).add(edge.reference.role)
        return {path: tuple(sorted(roles[path])) for path in sorted(roles)}

    def list_remote_edges(self, folder: str | None = None) -> tuple[ReferenceEdge, ...]:
        """Return the references to remotes, of one folder and its bases or of all."""
        nodes = self.nodes if folder is None else self.list_reachable(folder)
        return tuple(e for at in nodes for e in self.nodes[at].edges if e.remote is not None)


def build_graph(
    tree: FileTree | Path,
    folders: Sequence[str],
    resolve: RemoteResolver | None = None,
    *,
    boundary: Callable[[str], str] | None = None,
) -> KustomizationGraph:
    """Read the kustomizations that these folders reach.

    Args:
        tree: The tree of files. References that lead out of it are errors.
        folders: The kustomizations to start from, relative to the tree.
        resolve: Finds remotes in the tree. Without it they stay unresolved, which is no error.
        boundary: Returns the repository that a path is in. A reference must not lead out of it.

    Returns:
        The graph. Its ``errors`` have everything that is wrong, each with file and line.
    """
    walker = _GraphBuilder(
        FolderTree(tree) if isinstance(tree, Path) else tree, resolve, boundary or (lambda _: "")
    )
    roots = tuple(dict.fromkeys(_normalize_path(folder) for folder in folders))
    for folder in roots:
        walker.visit_folder(folder, None)
    return KustomizationGraph(roots, walker.nodes, tuple(walker.errors))


def find_kustomization(tree: FileTree, folder: str) -> list[str]:
    """Return the kustomization files in a folder. Several are an error for kustomize."""
    paths = [posixpath.join(folder, name) for name in FILE_NAMES]
    return [path for path in paths if tree.get_kind(path) == "file"]


class _GraphBuilder:
    def __init__(
        self, tree: FileTree, resolve: RemoteResolver | None, boundary: Callable[[str], str]
    ) -> None:
        self.tree = tree
        self.resolve = resolve
        self.boundary = boundary
        self.nodes: dict[str, KustomizationNode] = {}
        self.errors: list[UserError] = []
        self.stack: list[str] = []
        self.failed: set[str] = set()

    def visit_folder(self, folder: str, edge: ReferenceEdge | None) -> None:
        if edge is not None and self._is_cycle(folder, edge):
            return
        if folder in self.nodes or folder in self.failed:
            return
        node = self._read_node(folder, edge)
        if node is None:
            self.failed.add(folder)
            return
        self.nodes[folder] = node
        self.stack.append(folder)
        for below in node.edges:
            if below.is_folder and below.reference.role != "chartHome" and below.target:
                self.visit_folder(below.target, below)
        self.stack.pop()

    def _is_cycle(self, folder: str, edge: ReferenceEdge) -> bool:
        """Report a base that is, or contains, one that is being visited: kustomize refuses it."""
        for index, open_folder in enumerate(self.stack):
            if open_folder == folder or _is_below(open_folder, folder):
                chain = " -> ".join(name or "." for name in [*self.stack[index:], folder])
                self._add_error(edge.where, edge.reference, f"a cycle: {chain}")
                return True
        return False

    def _read_node(self, folder: str, edge: ReferenceEdge | None) -> KustomizationNode | None:
        found = find_kustomization(self.tree, folder)
        if len(found) != 1:
            problem = (
                f"several kustomizations at {folder}: {', '.join(map(posixpath.basename, found))}"
                if found
                else f"no kustomization at {folder or '.'}"
            )
            if edge is None:
                self.errors.append(UserError(problem))
            else:
                self._add_error(edge.where, edge.reference, problem)
            return None
        (file,) = found
        text = self._read_text(file)
        if text is None:
            return None
        try:
            kustomization = parse_kustomization(text)
        except InvalidKustomization as error:
            self.errors.append(UserError(f"{file}:{error.line}: {error.message}"))
            return None
        edges = [
            self._resolve_edge(folder, file, reference) for reference in kustomization.references
        ]
        plugins = dict(self._read_plugins(edges))
        for path, (_, references) in plugins.items():
            edges += [self._resolve_edge(folder, path, reference) for reference in references]
        for plugin in kustomization.inline_plugins:
            self._check_inline_plugin(folder, file, plugin)
        charts = tuple(self._find_charts(folder, file, kustomization))
        return KustomizationNode(
            folder,
            file,
            kustomization,
            tuple(e for e in edges if e is not None),
            {path: text for path, (text, _) in plugins.items()},
            charts,
        )

    def _read_text(self, path: str) -> str | None:
        try:
            return self.tree.read_file(path).decode("utf-8")
        except UserError as error:
            self.errors.append(error)
        except UnicodeDecodeError as error:
            self.errors.append(UserError(f"{path}: byte {error.start}: not UTF-8 text"))
        return None

    def _read_plugins(
        self, edges: Sequence[ReferenceEdge | None]
    ) -> Iterator[tuple[str, tuple[str, tuple[Reference, ...]]]]:
        for edge in edges:
            if edge is None or edge.is_folder or not edge.target:
                continue
            if edge.reference.role not in _PLUGIN_ROLES:
                continue
            text = self._read_text(edge.target)
            if text is None:
                continue
            try:
                references = parse_plugins(text)
            except InvalidKustomization as error:
                self.errors.append(UserError(f"{edge.target}:{error.line}: {error.message}"))
                continue
            if references:
                yield edge.target, (text, references)

    def _check_inline_plugin(self, folder: str, file: str, plugin: LocatedText) -> None:
        """Refuse paths in an inline generator or transformer that lead out of the tree."""
        try:
            references = parse_plugins(plugin.value)
        except InvalidKustomization as error:
            line = plugin.line + (error.line or 1) - 1
            self.errors.append(UserError(f"{file}:{line}: {error.message}"))
            return
        for reference in references:
            target = _join_path(folder, reference.value)
            is_remote = "://" in reference.value
            if not is_remote and (reference.value.startswith("/") or escapes_root(target)):
                where = f"{file}:{plugin.line + reference.line - 1}"
                problem = self._find_path_problem(folder, reference, target)
                self._add_error(where, reference, problem or "leads out of the upstream")

    def _find_charts(self, folder: str, file: str, kustomization: Kustomization) -> Iterator[str]:
        named = kustomization.chart_home
        home = _join_path(folder, named.value if named else DEFAULT_CHART_HOME)
        for chart in kustomization.charts:
            path = chart.resolve_folder(home)
            if self.tree.get_kind(f"{path}/Chart.yaml") == "file":
                yield path
            else:
                self.errors.append(
                    UserError(
                        f"{file}:{chart.line}: {chart.field}: no chart at {path}",
                        hint=(
                            "put the unpacked chart there (`helm pull --untar`); without it"
                            " kustomize would fetch the chart from its repository"
                        ),
                    )
                )

    def _resolve_edge(self, folder: str, file: str, reference: Reference) -> ReferenceEdge | None:
        target = classify_reference(reference.value, reference.accepts)
        # Kustomize looks for a file of that name before it takes anything for a repository.
        if isinstance(target, RemoteRepo) and reference.accepts == "any":
            local = _join_path(folder, reference.value)
            if "://" not in reference.value and self.tree.get_kind(local) == "file":
                target = LocalPath(reference.value)
        where = f"{file}:{reference.line}"
        if isinstance(target, LocalPath):
            return self._resolve_local_edge(folder, file, reference, where)
        if self.resolve is None:
            is_folder = isinstance(target, RemoteRepo)
            return ReferenceEdge(file, reference, target, "", is_folder)
        try:
            path = self.resolve(target)
        except UserError as error:
            for cause in error.list_errors():
                message = f"{where}: {reference.field}: {cause.message}"
                self.errors.append(UserError(message, hint=cause.hint, exit_code=cause.exit_code))
            return None
        kind = self.tree.get_kind(path)
        if kind is None or (kind == "folder" and isinstance(target, RemoteFile)):
            missing = f"{redact_url(reference.value)} holds no such path ({path})"
            self._add_error(where, reference, missing)
            return None
        return ReferenceEdge(file, reference, target, path, kind == "folder")

    def _resolve_local_edge(
        self, folder: str, file: str, reference: Reference, where: str
    ) -> ReferenceEdge | None:
        path = _join_path(folder, reference.value)
        problem = self._find_path_problem(folder, reference, path)
        if problem is not None:
            self._add_error(where, reference, problem)
            return None
        is_folder = reference.role == "chartHome" or self.tree.get_kind(path) == "folder"
        return ReferenceEdge(file, reference, None, path, is_folder)

    def _find_path_problem(self, folder: str, reference: Reference, path: str) -> str | None:
        value = reference.value
        if not value:
            return "an empty path"
        if value.startswith("/"):
            return f"an absolute path: {value}"
        if escapes_root(path):
            return f"{value} leads out of the upstream"
        if self.boundary(path) != self.boundary(folder):
            return f"{value} leads out of {self.boundary(folder)}"
        if reference.role == "chartHome":  # `_find_charts` reports charts that are missing
            return None
        kind = self.tree.get_kind(path)
        if kind is None or reference.accepts not in ("any", kind):
            expected = "file or folder" if reference.accepts == "any" else reference.accepts
            return f"no {expected} at {path or '.'}"
        return None

    def _add_error(self, where: str, reference: Reference, problem: str) -> None:
        self.errors.append(UserError(f"{where}: {reference.field}: {problem}"))


def _is_below(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _join_path(folder: str, path: str) -> str:
    return _normalize_path(posixpath.join(folder, path))


def _normalize_path(path: str) -> str:
    clean = posixpath.normpath(path)
    return "" if clean == "." else clean
