"""Vendor an upstream: make a complete local tree that needs no network to build.

``upstream/`` has the upstream's files and the files of remote bases, byte for byte. A kustomization
that refers to a remote, directly or through others, gets a copy in ``_local/`` with local
references.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kfdeploy.errors import UserError, raise_all
from kfdeploy.file_tree import OverlayTree, tree_sha256
from kfdeploy.files import read_bytes, sha256_hex, stage_tree, write_text
from kfdeploy.programs.helm import find_missing_dependencies
from kfdeploy.redact import redact_url
from kfdeploy.upstream.component import LOCAL, UpstreamProblem
from kfdeploy.upstream.kustomization.graph import KustomizationGraph, ReferenceEdge, build_graph
from kfdeploy.upstream.local_copies import make_local_copies, wrap_manifests
from kfdeploy.upstream.lockfile import LockedRemote, LockedUpstream, UpstreamLock
from kfdeploy.upstream.remote import Remote, RemoteRepo
from kfdeploy.upstream.remotes import FetchedRemote, RemoteFetcher
from kfdeploy.upstream.source import UpstreamSource, read_content, read_source
from kfdeploy.upstream.vendored import (
    LOCK,
    UPSTREAM,
    ComponentKind,
    component_dir,
    component_folder,
    component_kind,
    describe_missing,
    detect_kind,
)
from kfdeploy.workspace.settings import Workspace

__all__ = [
    "VendorPlan",
    "component_dir",
    "component_folder",
    "component_kind",
    "list_plan_changes",
    "plan_vendoring",
    "write_plan",
]

CACHE = ".kfdeploy"


@dataclass(frozen=True, slots=True)
class VendorPlan:
    """The wanted content of ``upstream/`` and ``upstream.lock``.

    Attributes:
        files: Path below ``upstream/`` to its content, on disk or in memory.
        links: Path of each symbolic link to its target in the tree.
        lock: The content of ``upstream.lock``.
        kinds: Component name to its kind.
        problems: What an operator should know, such as a base without a ref.
    """

    files: Mapping[str, Path | bytes]
    links: Mapping[str, str]
    lock: UpstreamLock
    kinds: Mapping[str, ComponentKind]
    problems: tuple[UpstreamProblem, ...]


def plan_vendoring(
    workspace: Workspace,
    root: Path,
    *,
    locate: Callable[[str], str] = lambda key: f"kfdeploy.yaml: {key}",
    on_progress: Callable[[str], None] = lambda _: None,
) -> VendorPlan:
    """Read the upstream and every remote that a listed component reaches.

    Only the git cache is written.

    Args:
        workspace: The settings.
        root: The workspace's folder.
        locate: Returns ``kfdeploy.yaml:LINE: KEY`` for a key, for error messages.
        on_progress: Called with a description of each step.

    Raises:
        UserError: Something is missing, broken or can't be fetched. It lists all such faults.
    """
    settings = workspace.upstream
    cache = root / CACHE / "git"
    _refuse_own_folder(settings.source, root)
    on_progress(f"reading {redact_url(settings.source)}")
    source = read_source(settings.source, settings.ref, root, cache)
    version = source.version
    if any(path.partition("/")[0] == LOCAL for path in (*source.files, *source.links)):
        raise UserError(
            f"{source.name} has a folder {LOCAL}/, but kfdeploy needs that name for its own files"
        )
    overlay = OverlayTree(source.tree)
    kinds = _detect_kinds(workspace, overlay, version, locate)
    resolver = _RemoteMounter(RemoteFetcher(settings.remotes, root, cache), overlay, on_progress)
    folders = [c.path for c in workspace.components if kinds[c.name] == "kustomization"]
    graph = build_graph(overlay, folders, resolver, boundary=overlay.find_mount)
    charts = [c.path for c in workspace.components if kinds[c.name] == "chart"]
    raise_all(
        [*graph.errors, *(e for path in charts for e in find_missing_dependencies(overlay, path))]
    )
    on_progress("making references local")
    files: dict[str, Path | bytes] = dict(source.files)
    remote_files = _collect_remote_files(graph, overlay)
    clash = sorted(remote_files.keys() & (files.keys() | source.links.keys()))
    raise_all([UserError(f"{path}: both the upstream and a remote have it") for path in clash])
    files |= remote_files
    files |= make_local_copies(graph, set(folders))
    manifests = [c.path for c in workspace.components if kinds[c.name] == "manifests"]
    files |= dict(wrap_manifests(overlay, path) for path in manifests)
    return VendorPlan(
        files=files,
        links=source.links,
        lock=_build_lock(source, version, graph, resolver, overlay, remote_files),
        kinds=kinds,
        problems=_list_unpinned(graph),
    )


def list_plan_changes(plan: VendorPlan, root: Path) -> tuple[str, ...]:
    """Return what writing the plan would change, one line for each file; empty without changes."""
    upstream = root / UPSTREAM
    present = set(_iter_entries(upstream))
    wanted = plan.files.keys() | plan.links.keys()
    differing = (path for path in wanted & present if _has_changed(plan, path, upstream))
    changes = [
        *(f"{UPSTREAM}/{path}: missing" for path in wanted - present),
        *(f"{UPSTREAM}/{path}: not part of the upstream" for path in present - wanted),
        *(f"{UPSTREAM}/{path}: differs" for path in differing),
    ]
    lock = root / LOCK
    if not lock.is_file():
        changes.append(f"{LOCK}: missing")
    elif read_bytes(lock) != plan.lock.dump().encode():
        changes.append(f"{LOCK}: differs")
    return tuple(sorted(changes))


def write_plan(plan: VendorPlan, root: Path) -> bool:
    """Write ``upstream/`` and ``upstream.lock``.

    ``upstream/`` is replaced as a whole by one rename. If that is interrupted, the old folder
    stays.

    Returns:
        Whether anything changed.

    Raises:
        UserError: The disk is full or a folder is read-only. No half-written folder is left.
    """
    changes = list_plan_changes(plan, root)
    if any(change.startswith(f"{UPSTREAM}/") for change in changes):
        with stage_tree(root / UPSTREAM) as folder:
            for parent in sorted({posixpath.dirname(p) for p in (*plan.files, *plan.links)}):
                (folder / parent).mkdir(parents=True, exist_ok=True)
            for path, data in sorted(plan.files.items()):
                (folder / path).write_bytes(read_content(data))
            for path, target in sorted(plan.links.items()):
                (folder / path).symlink_to(target)
    write_text(root / LOCK, plan.lock.dump())
    return bool(changes)


# -- reading ------------------------------------------------------------------------------------


class _RemoteMounter:
    """Fetch and mount each remote when it is first met. Failures are remembered, not retried."""

    def __init__(
        self, remotes: RemoteFetcher, overlay: OverlayTree, on_progress: Callable[[str], None]
    ) -> None:
        self.remotes = remotes
        self.overlay = overlay
        self.on_progress = on_progress
        self.commits: dict[str, str] = {}
        self.failed: dict[str, UserError] = {}

    def __call__(self, remote: Remote) -> str:
        at = remote.mount
        if at in self.failed:
            raise self.failed[at]
        if at not in self.overlay.mounts:
            try:
                found = self._fetch_remote(remote, at)
            except UserError as error:
                self.failed[at] = error
                raise
            self.overlay.mount(at, found.tree)
            self.commits[at] = found.commit
        return posixpath.join(at, remote.path) if isinstance(remote, RemoteRepo) else at

    def _fetch_remote(self, remote: Remote, at: str) -> FetchedRemote:
        if any(part in ("", ".", "..") for part in at.split("/")):
            raise UserError(f"{at} is not valid as the path of a folder")
        self.on_progress(f"fetching {at}")
        return self.remotes.fetch(remote)


def _refuse_own_folder(source: str, root: Path) -> None:
    path = root / source
    if not path.is_dir():
        return
    inside = path.resolve()
    target = (root / UPSTREAM).resolve()
    if inside == target or inside in target.parents:
        raise UserError(
            f"upstream.source: {source} contains the workspace's own {UPSTREAM}/",
            hint="move the upstream's folder out of the workspace, or use a tarball or a git URL",
        )


def _detect_kinds(
    workspace: Workspace, overlay: OverlayTree, version: str, locate: Callable[[str], str]
) -> dict[str, ComponentKind]:
    kinds: dict[str, ComponentKind] = {}
    errors: list[UserError] = []
    for index, component in enumerate(workspace.components):
        kind = detect_kind(overlay, component.path, component.kind)
        if kind is None:
            errors.append(
                UserError(
                    f"{locate(f'components[{index}].path')}: {describe_missing(component)}",
                    hint=f"upstream is at {version}; `kfdeploy init` lists the components it has",
                )
            )
        else:
            kinds[component.name] = kind
    raise_all(errors)
    return kinds


def _collect_remote_files(
    graph: KustomizationGraph, overlay: OverlayTree
) -> dict[str, Path | bytes]:
    """Return the files of remotes that are reached, and all files of a chart that is reached."""
    paths: set[str] = set()
    for node in graph.nodes.values():
        paths.add(node.file)
        paths |= {edge.target for edge in node.edges if not edge.is_folder}
        paths |= {path for chart in node.charts for path in overlay.list_files(chart)}
    return {path: overlay.read_file(path) for path in sorted(paths) if overlay.find_mount(path)}


# -- recording ----------------------------------------------------------------------------------


def _build_lock(
    source: UpstreamSource,
    version: str,
    graph: KustomizationGraph,
    resolver: _RemoteMounter,
    overlay: OverlayTree,
    files: Mapping[str, Path | bytes],
) -> UpstreamLock:
    used: dict[tuple[str, str], list[ReferenceEdge]] = {}
    for edge in graph.list_remote_edges():
        used.setdefault((redact_url(edge.reference.value), edge.target), []).append(edge)
    digests = {path: sha256_hex(read_content(data)) for path, data in files.items()}
    remotes = []
    for (url, target), edges in used.items():
        at = overlay.find_mount(target)
        if target in digests:
            digest = digests[target]
        else:
            below = _list_files_below(graph, overlay, target)
            digest = tree_sha256(
                {
                    path[len(at) + 1 :]: found
                    for path, found in digests.items()
                    if path in below and overlay.find_mount(path) == at
                }
            )
        remote = edges[0].remote
        remotes.append(
            LockedRemote(
                url=url,
                ref=remote.ref if isinstance(remote, RemoteRepo) else "",
                commit=resolver.commits.get(at, ""),
                sha256=digest,
                path=target,
                used_by=tuple(sorted({edge.where for edge in edges})),
            )
        )
    return UpstreamLock(
        LockedUpstream(source.name, version, source.ref, source.commit, source.compute_sha256()),
        tuple(sorted(remotes, key=lambda r: (r.path, r.url))),
    )


def _list_files_below(graph: KustomizationGraph, overlay: OverlayTree, folder: str) -> set[str]:
    charts = [chart for at in graph.list_reachable(folder) for chart in graph.nodes[at].charts]
    return {
        *graph.list_files(folder),
        *(path for chart in charts for path in overlay.list_files(chart)),
    }


def _list_unpinned(graph: KustomizationGraph) -> tuple[UpstreamProblem, ...]:
    return tuple(
        UpstreamProblem(
            f"{redact_url(edge.reference.value)} names no ref, so its content may change",
            edge.where,
        )
        for edge in graph.list_remote_edges()
        if isinstance(edge.remote, RemoteRepo) and not edge.remote.ref
    )


def _has_changed(plan: VendorPlan, path: str, upstream: Path) -> bool:
    full = upstream / path
    if path in plan.links:
        return not full.is_symlink() or os.readlink(full) != plan.links[path]  # noqa: PTH115
    if full.is_symlink() or not full.is_file():
        return True
    wanted = plan.files[path]
    size = len(wanted) if isinstance(wanted, bytes) else wanted.stat().st_size
    return full.stat().st_size != size or read_bytes(full) != read_content(wanted)


def _iter_entries(folder: Path) -> Iterator[str]:
    """Yield every file and link below a folder, relative to it."""
    for at, folders, names in os.walk(folder):
        here = Path(at)
        inside = here.relative_to(folder).as_posix()
        links = [name for name in folders if (here / name).is_symlink()]
        yield from (posixpath.normpath(f"{inside}/{name}") for name in (*names, *links))
