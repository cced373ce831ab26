"""A workspace -> the same workspace at another release of its upstream.

Decides the settings, tries people's patches, and writes what other stages have made of the new
release: all of it is prepared beside, then takes its place at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kfdeploy.cache import Cache
from kfdeploy.errors import WRONG_USE, UserError, raise_all
from kfdeploy.files import defer_signals, read_text, write_all
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.patch import apply
from kfdeploy.patch.fill import TemplateFiller, patch_sort_key
from kfdeploy.patchfile import patch_file
from kfdeploy.patchfile.patch_file import Patch, strip_name_hash
from kfdeploy.programs import git
from kfdeploy.upgrade import settings_edit
from kfdeploy.upgrade.components import ComponentMigration, migrate_components
from kfdeploy.upgrade.patches import (
    PatchCheck,
    PatchContext,
    PatchNote,
    check_patches,
    suggest_objects,
)
from kfdeploy.upgrade.report import LeftoverObjects, UpstreamRelease
from kfdeploy.upstream.build import RenderedComponent
from kfdeploy.upstream.component import UpstreamProblem
from kfdeploy.upstream.example import read_example
from kfdeploy.upstream.source import UpstreamSource, is_url, read_source
from kfdeploy.upstream.vendored import UPSTREAM, detect_kind
from kfdeploy.workspace.settings import Component, Workspace
from kfdeploy.workspace.settings_file import UNFINISHED

CACHE = ".kfdeploy"
_BESIDE, _UNREADY, _DONE = "upgrade-", "ready-", "done-"
_FILES = "files"
_REMOVED = "removed.json"
_KEPT_KINDS = frozenset(
    ("CustomResourceDefinition", "Namespace", "PersistentVolumeClaim", "Profile")
)
"""What `apply` never deletes without ``--delete-data`` (the contract)."""


# -- settings --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UpgradePlan:
    """The new ``kfdeploy.yaml``, and what became of the components.

    Attributes:
        version: the new upstream's.
        problems: what the new example does besides, and is not taken over.
    """

    text: str
    migration: ComponentMigration
    release: UpstreamRelease
    problems: tuple[UpstreamProblem, ...]


def plan_upgrade(
    workspace: Workspace,
    root: Path,
    text: str,
    *,
    upstream: str | None = None,
    ref: str | None = None,
    remotes: Mapping[str, str] | None = None,
) -> UpgradePlan:
    """Decide what ``kfdeploy.yaml`` says at another release.

    Args:
        root: the workspace's folder, with the ``upstream/`` of the release before.
        text: of its ``kfdeploy.yaml``.
        upstream: the new ``upstream.source``; the same as before when left out.
        ref: the new ``upstream.ref``; what the source says when left out.
        remotes: more entries of ``upstream.remotes``.

    Raises:
        UserError: nothing vendored yet, an upstream that can't be read or says no version, or
            components of a person's own that it has no folder for.
    """
    there = root / UPSTREAM
    if not there.is_dir():
        raise UserError(
            f"there is no {UPSTREAM}/ of the release before, to compare with",
            hint="run `kfdeploy vendor` first",
        )
    given = _keep_source_form(upstream or workspace.upstream.source, workspace, root)
    _refuse_relabelled_folder(workspace, root, given, ref)
    source = read_source(given, ref, root, root / CACHE / "git")
    version = source.version
    example = read_example(source.tree)
    followed = migrate_components(
        workspace.components,
        read_example(there).components,
        example.components,
        version=version,
        can_build=lambda component, path: (
            detect_kind(source.tree, path, component.kind) is not None
        ),
        find_folders=_UpstreamFolders(source).find_ending_in,
    )
    raise_all(
        [
            UserError(
                f"component {lost.component.name}: {version} has nothing to deploy at"
                f" {lost.component.path}",
                hint=_format_hint(lost.candidates),
            )
            for lost in followed.unmatched
        ]
    )
    new_ref = ref
    if ref is None and workspace.upstream.ref is not None:
        new_ref = version
    places = {
        prefix: place
        for prefix, place in (remotes or {}).items()
        if not _is_same_source(root, place, workspace.upstream.remotes.get(prefix))
    }
    changes = settings_edit.SettingsChanges(given, new_ref, followed.entries, places)
    release = UpstreamRelease(version, given, new_ref or "")
    return UpgradePlan(
        settings_edit.edit_settings(text, changes), followed, release, example.problems
    )


def _format_hint(near: Sequence[str]) -> str:
    found = f"it has {' and '.join(near)}; " if near else ""
    return f"{found}change the component's path in kfdeploy.yaml, or take it out, and run it again"


def _keep_source_form(given: str, workspace: Workspace, root: Path) -> str:
    """The new source, written as the one before: a path that was absolute stays so."""
    before = workspace.upstream.source
    if is_url(given) or _is_same_source(root, given, before):
        return before if _is_same_source(root, given, before) else given
    if not is_url(before) and Path(before).is_absolute():
        return os.fspath((root / given).resolve())
    return given


def _is_same_source(root: Path, one: str, other: str | None) -> bool:
    if other is None or is_url(one) or is_url(other):
        return one == other
    return (root / Path(one).expanduser()).resolve() == (root / Path(other).expanduser()).resolve()


def _refuse_relabelled_folder(
    workspace: Workspace, root: Path, given: str, ref: str | None
) -> None:
    """A folder has one release: another ref would only give it another name."""
    before = workspace.upstream
    path = root / Path(given).expanduser()
    if ref in (None, before.ref) or given != before.source or is_url(given):
        return
    if not (path.is_dir() and git.is_repository(path)):
        raise UserError(
            f"--ref {ref}: upstream.source is {given}, which has one release only",
            hint="name the other release's folder, tarball or git URL by --upstream",
            exit_code=WRONG_USE,
        )


class _UpstreamFolders:
    """The folders of an upstream, by what follows their first segment."""

    def __init__(self, source: UpstreamSource) -> None:
        self._source = source
        self._by_end: dict[str, list[str]] | None = None

    def find_ending_in(self, end: str) -> Sequence[str]:
        if self._by_end is None:
            self._by_end = {}
            for folder in sorted({posixpath.dirname(path) for path in self._source.files}):
                self._by_end.setdefault(folder.partition("/")[2], []).append(folder)
        return self._by_end.get(end, ())


# -- patches ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UpgradeCandidate:
    """What patches are tried on.

    Attributes:
        root: the prepared workspace, with people's patches and the new generated ones.
        rendered: the new release's components.
        before: component to what it rendered at the release before.
    """

    root: Path
    rendered: Sequence[RenderedComponent]
    before: Mapping[str, Sequence[Object]]
    filler: TemplateFiller
    cache: Cache


def check_workspace_patches(
    stage: UpgradeCandidate, judged: Sequence[str], shared_folders: Sequence[str]
) -> dict[str, PatchCheck]:
    """Try patches on the new release.

    Args:
        judged: files, relative to the workspace.
        beside: folders of ``patches/`` that hold no patches of a component.
    """
    by_component: dict[str, list[str]] = {}
    for file in judged:
        by_component.setdefault(file.split("/")[1], []).append(file)
    everywhere = {item.component.name: item.objects for item in stage.rendered}
    items = {item.component.name: item for item in stage.rendered}
    out: dict[str, PatchCheck] = {}
    for name, files in sorted(by_component.items()):
        scene = PatchContext(name, stage.before.get(name, ()), everywhere.get(name, ()), everywhere)
        if name in items:
            out |= _check_component(stage, items[name], files, scene)
        elif name not in shared_folders:
            out |= {file: _report_unused(stage, file, scene) for file in files}
    return out


def _check_component(
    stage: UpgradeCandidate, item: RenderedComponent, files: Sequence[str], scene: PatchContext
) -> dict[str, PatchCheck]:
    out: dict[str, PatchCheck] = {}
    found: list[tuple[tuple[int, bool, str], Patch]] = []
    folder = stage.root / "patches" / item.component.name
    for path in sorted(folder.iterdir()):
        if not path.is_file() or not path.name.endswith(patch_file.SUFFIXES):
            continue
        name = path.relative_to(stage.root).as_posix()
        text = read_text(path)
        try:
            patch = stage.filler.fill_patch(path, text, item)
            found.append((patch_sort_key(patch, text), patch))
        except UserError as error:
            if name in files:
                reason = error.message.removeprefix(f"{name}: ").removeprefix(f"{name}:")
                out[name] = PatchCheck(name, "misfit", (PatchNote("", "", reason.strip()),))
    patches = [patch for _, patch in sorted(found, key=lambda pair: pair[0])]
    readable = [file for file in files if file not in out]
    out |= check_patches(patches, readable, scene)
    if any(trial.state == "misfit" for trial in out.values()):
        return out
    try:
        apply.apply_patches(item, patches, stage.cache)
    except UserError as error:
        # Kustomize's own refusal, or one of a generated patch that an edited one stands in for.
        said = error.message
        named = [file for file in readable if file in said] or readable
        out |= {file: PatchCheck(file, "misfit", (PatchNote("", "", said),)) for file in named}
    return out


def _report_unused(stage: UpgradeCandidate, file: str, scene: PatchContext) -> PatchCheck:
    near: tuple[str, ...] = ()
    with contextlib.suppress(UserError):
        text = read_text(stage.root / file)
        if not file.endswith(".gotmpl"):
            near = tuple(suggest_objects(patch_file.parse_patch(file, text).target, scene))
    what = f"kfdeploy.yaml lists no component {scene.component} any more"
    return PatchCheck(file, "unused", (PatchNote("", "", what, near),))


def find_leftovers(
    dropped: Sequence[str],
    before: Mapping[str, Sequence[Object]],
    rendered: Sequence[RenderedComponent],
) -> tuple[LeftoverObjects, ...]:
    """What components that are no longer listed have in a cluster."""
    now: dict[tuple[str, ...], str] = {}
    for item in rendered if dropped else ():
        for one in item.objects:
            now.setdefault(_object_identity(one.key), item.component.name)
    out = []
    for name in dropped:
        keys = [one.key for one in before.get(name, ())]
        gone = [key for key in keys if _object_identity(key) not in now]
        stays = sorted(str(key) for key in gone if key.kind in _KEPT_KINDS)
        others = sorted(
            {now[_object_identity(key)] for key in keys if _object_identity(key) in now}
        )
        out.append(LeftoverObjects(name, len(gone), tuple(stays), tuple(others)))
    return tuple(out)


def _object_identity(key: ObjectKey) -> tuple[str, ...]:
    return key.group, key.kind, key.namespace, strip_name_hash(key)


# -- writing ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def temporary_workspace(root: Path) -> Iterator[Path]:
    """A workspace beside the workspace, for the new release; gone when the block ends.

    It has people's patches, and shares catalogue and cache.
    """
    (root / CACHE).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_BESIDE, dir=root / CACHE) as name:
        folder = Path(name)
        (folder / CACHE).symlink_to((root / CACHE).resolve())
        if (root / "catalogue").exists():
            (folder / "catalogue").symlink_to((root / "catalogue").resolve())
        if (root / "patches").is_dir():
            shutil.copytree(root / "patches", folder / "patches", symlinks=True)
        if (root / "helmfile.yaml.gotmpl").is_file():
            shutil.copy2(root / "helmfile.yaml.gotmpl", folder)
        yield folder


def resolve_value_paths(workspace: Workspace, root: Path) -> Workspace:
    """The settings with Helm's values where they are, for a workspace that lies elsewhere."""
    components = tuple(
        component.model_copy(
            update={"values": tuple(os.fspath((root / v).absolute()) for v in component.values)}
        )
        for component in workspace.components
    )
    return workspace.model_copy(update={"components": components})


def restore_components(
    rendered: Sequence[RenderedComponent], components: Sequence[Component]
) -> list[RenderedComponent]:
    """The same with the components as ``kfdeploy.yaml`` has them."""
    return [
        replace(item, component=component) if component.values else item
        for item, component in zip(rendered, components, strict=True)
    ]


def remove_stale_folders(root: Path) -> None:
    """Take away what a run that was killed has left beside."""
    for pattern in (_BESIDE, _UNREADY, _DONE):
        for folder in (root / CACHE).glob(f"{pattern}*"):
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)


def write_upgrade(
    root: Path, prepared: Path, texts: Mapping[str, str], removed: Sequence[str], upstream: bool
) -> None:
    """Put the new release in place; stopped in any way, `finish` goes on.

    Args:
        prepared: a folder of `beside`, whose ``upstream/`` is taken.
        texts: files of the workspace to what they shall be.
        removed: files of the workspace that go.
        upstream: whether ``upstream/`` changes.

    Raises:
        UserError: a full disk or a folder that can't be written; nothing was changed.
    """
    with defer_signals():
        ready = Path(tempfile.mkdtemp(prefix=_UNREADY, dir=root / CACHE))
        try:
            write_all(ready, {f"{_FILES}/{name}": text for name, text in texts.items()})
            write_all(ready, {_REMOVED: json.dumps(list(removed))})
            if upstream:
                (prepared / UPSTREAM).replace(ready / UPSTREAM)
            ready.replace(root / UNFINISHED)
        except BaseException:
            shutil.rmtree(ready, ignore_errors=True)
            raise
        finish_upgrade(root)


def is_unfinished(root: Path) -> bool:
    """Whether an upgrade was stopped while it took its place."""
    return (root / UNFINISHED).is_dir()


def finish_upgrade(root: Path) -> None:
    """Put in place what `write` has prepared; called again, it goes on.

    Each file takes its place by a rename: what is killed leaves no temporary file behind.

    Raises:
        UserError: a folder that can't be written; the next call goes on.
    """
    ready = root / UNFINISHED
    path = ready
    with defer_signals():
        try:
            if (ready / UPSTREAM).is_dir():
                path, old = root / UPSTREAM, ready / "old"
                if path.exists() and not old.exists():
                    path.replace(old)
                (ready / UPSTREAM).replace(path)
            for new in sorted((ready / _FILES).rglob("*")):
                if new.is_file():
                    path = root / new.relative_to(ready / _FILES)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    new.replace(path)
            for name in json.loads(read_text(ready / _REMOVED)):
                path = root / name
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # not empty, or gone already
                    path.parent.rmdir()
            # Out of the way by one rename: half of it is not to be taken for the whole.
            path = root / CACHE
            done = Path(tempfile.mkdtemp(prefix=_DONE, dir=path))
            ready.replace(done / "upgrade")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(
                f"{path}: can't be written: {reason}",
                hint="`kfdeploy vendor --upgrade` goes on when it can be",
            ) from error
        shutil.rmtree(done, ignore_errors=True)
