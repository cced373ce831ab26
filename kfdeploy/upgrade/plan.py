"""The settings of a workspace at another release of its upstream."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kfdeploy.errors import WRONG_USE, UserError, raise_all
from kfdeploy.programs import git
from kfdeploy.upgrade import settings_edit
from kfdeploy.upgrade.components import ComponentMigration, UnmatchedComponent, migrate_components
from kfdeploy.upgrade.report import UpstreamRelease
from kfdeploy.upgrade.write import CACHE
from kfdeploy.upstream.component import UpstreamProblem
from kfdeploy.upstream.example import read_example
from kfdeploy.upstream.source import UpstreamSource, is_url, read_source
from kfdeploy.upstream.vendored import UPSTREAM, detect_kind
from kfdeploy.workspace.settings import Workspace


@dataclass(frozen=True)
class UpgradePlan:
    """Hold the new ``kfdeploy.yaml``, and the change of each component.

    Attributes:
        text: the new ``kfdeploy.yaml``.
        problems: parts of the new example that a workspace can't express.
    """

    text: str
    migration: ComponentMigration
    release: UpstreamRelease
    problems: tuple[UpstreamProblem, ...]

    @property
    def dropped_components(self) -> list[str]:
        """The names of components that the new release does not have."""
        return [change.name for change in self.migration.changes if change.state == "dropped"]


def plan_upgrade(
    workspace: Workspace,
    root: Path,
    text: str,
    *,
    upstream: str | None = None,
    ref: str | None = None,
    remotes: Mapping[str, str] | None = None,
) -> UpgradePlan:
    """Return what ``kfdeploy.yaml`` says at another release.

    Args:
        root: the workspace's folder, with the ``upstream/`` of the release before.
        text: its ``kfdeploy.yaml``.
        upstream: the new ``upstream.source``; None for the same.
        ref: the new ``upstream.ref``; None for what the source says.
        remotes: more entries of ``upstream.remotes``.

    Raises:
        UserError: nothing is vendored yet, the upstream can't be read or says no version, or it
            has no folder for components that a person added.
    """
    vendored = root / UPSTREAM
    if not vendored.is_dir():
        raise UserError(
            f"there is no {UPSTREAM}/ of the release before to compare with",
            hint="run `kfdeploy vendor` first",
        )
    source_setting = _keep_source_form(upstream or workspace.upstream.source, workspace, root)
    _refuse_relabelled_folder(workspace, root, source_setting, ref)
    source = read_source(source_setting, ref, root, root / CACHE / "git")
    example = read_example(source.tree)
    migration = migrate_components(
        workspace.components,
        read_example(vendored).components,
        example.components,
        version=source.version,
        can_build=lambda component, path: (
            detect_kind(source.tree, path, component.kind) is not None
        ),
        find_folders=_UpstreamFolders(source).find_ending_in,
    )
    raise_all([_make_unmatched_error(lost, source.version) for lost in migration.unmatched])
    new_ref = source.version if ref is None and workspace.upstream.ref is not None else ref
    new_remotes = {
        prefix: place
        for prefix, place in (remotes or {}).items()
        if not _is_same_source(root, place, workspace.upstream.remotes.get(prefix))
    }
    changes = settings_edit.SettingsChanges(source_setting, new_ref, migration.entries, new_remotes)
    return UpgradePlan(
        settings_edit.edit_settings(text, changes),
        migration,
        UpstreamRelease(source.version, source_setting, new_ref or ""),
        example.problems,
    )


def _make_unmatched_error(lost: UnmatchedComponent, version: str) -> UserError:
    found = f"it has {' and '.join(lost.candidates)}; " if lost.candidates else ""
    return UserError(
        f"component {lost.component.name}: {version} has nothing to deploy at"
        f" {lost.component.path}",
        hint=f"{found}change the component's path in kfdeploy.yaml, or remove the component,"
        " and run it again",
    )


def _keep_source_form(source: str, workspace: Workspace, root: Path) -> str:
    """Return the new source in the form of the one before: an absolute path stays absolute."""
    before = workspace.upstream.source
    if _is_same_source(root, source, before):
        return before
    if not is_url(source) and not is_url(before) and Path(before).is_absolute():
        return os.fspath((root / source).resolve())
    return source


def _is_same_source(root: Path, source: str, other: str | None) -> bool:
    if other is None or is_url(source) or is_url(other):
        return source == other
    return (root / Path(source).expanduser()).resolve() == (
        root / Path(other).expanduser()
    ).resolve()


def _refuse_relabelled_folder(
    workspace: Workspace, root: Path, source: str, ref: str | None
) -> None:
    """Refuse another ref for a folder or a tarball: it has one release only."""
    before = workspace.upstream
    path = root / Path(source).expanduser()
    if ref in (None, before.ref) or source != before.source or is_url(source):
        return
    if not (path.is_dir() and git.is_repository(path)):
        raise UserError(
            f"--ref {ref}: upstream.source is {source}, which has one release only",
            hint="name the folder, tarball or git URL of the other release by --upstream",
            exit_code=WRONG_USE,
        )


@dataclass(frozen=True)
class _UpstreamFolders:
    """Find the folders of an upstream by the path below their first segment."""

    source: UpstreamSource

    @cached_property
    def _by_ending(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = {}
        for folder in sorted({posixpath.dirname(path) for path in self.source.files}):
            found.setdefault(folder.partition("/")[2], []).append(folder)
        return found

    def find_ending_in(self, ending: str) -> Sequence[str]:
        return self._by_ending.get(ending, ())
