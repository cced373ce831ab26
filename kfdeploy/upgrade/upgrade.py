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
from kfdeploy.files import read_text, uninterrupted, write_all
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.patch import apply, patch_file
from kfdeploy.patch.fill import Filler, order
from kfdeploy.patch.patch_file import Patch, unhashed
from kfdeploy.programs import git
from kfdeploy.upgrade import settings_edit
from kfdeploy.upgrade.components import Followed, follow
from kfdeploy.upgrade.patches import Note, Scene, Trial, near_objects, tried
from kfdeploy.upgrade.report import LeftBehind, Release
from kfdeploy.upstream.build import Rendered
from kfdeploy.upstream.component import Problem
from kfdeploy.upstream.example import read_example
from kfdeploy.upstream.source import Source, is_url, read_source
from kfdeploy.upstream.vendored import UPSTREAM, kind_of
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
class Planned:
    """The new ``kfdeploy.yaml``, and what became of the components.

    Attributes:
        version: the new upstream's.
        problems: what the new example does besides, and is not taken over.
    """

    text: str
    followed: Followed
    release: Release
    problems: tuple[Problem, ...]


def plan(
    workspace: Workspace,
    root: Path,
    text: str,
    *,
    upstream: str | None = None,
    ref: str | None = None,
    remotes: Mapping[str, str] | None = None,
) -> Planned:
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
    given = _named_as_before(upstream or workspace.upstream.source, workspace, root)
    _refuse_a_relabelled_folder(workspace, root, given, ref)
    source = read_source(given, ref, root, root / CACHE / "git")
    version = source.version
    example = read_example(source.tree)
    followed = follow(
        workspace.components,
        read_example(there).components,
        example.components,
        version=version,
        builds=lambda component, path: kind_of(source.tree, path, component.kind) is not None,
        folders=_Folders(source).ending_in,
    )
    raise_all(
        [
            UserError(
                f"component {lost.component.name}: {version} has nothing to deploy at"
                f" {lost.component.path}",
                hint=_hint(lost.near),
            )
            for lost in followed.nowhere
        ]
    )
    new_ref = ref
    if ref is None and workspace.upstream.ref is not None:
        new_ref = version
    places = {
        prefix: place
        for prefix, place in (remotes or {}).items()
        if not _is_same(root, place, workspace.upstream.remotes.get(prefix))
    }
    changes = settings_edit.Changes(given, new_ref, followed.entries, places)
    release = Release(version, given, new_ref or "")
    return Planned(settings_edit.changed(text, changes), followed, release, example.problems)


def _hint(near: Sequence[str]) -> str:
    found = f"it has {' and '.join(near)}; " if near else ""
    return f"{found}change the component's path in kfdeploy.yaml, or take it out, and run it again"


def _named_as_before(given: str, workspace: Workspace, root: Path) -> str:
    """The new source, written as the one before: a path that was absolute stays so."""
    before = workspace.upstream.source
    if is_url(given) or _is_same(root, given, before):
        return before if _is_same(root, given, before) else given
    if not is_url(before) and Path(before).is_absolute():
        return os.fspath((root / given).resolve())
    return given


def _is_same(root: Path, one: str, other: str | None) -> bool:
    if other is None or is_url(one) or is_url(other):
        return one == other
    return (root / Path(one).expanduser()).resolve() == (root / Path(other).expanduser()).resolve()


def _refuse_a_relabelled_folder(
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


class _Folders:
    """The folders of an upstream, by what follows their first segment."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._by_end: dict[str, list[str]] | None = None

    def ending_in(self, end: str) -> Sequence[str]:
        if self._by_end is None:
            self._by_end = {}
            for folder in sorted({posixpath.dirname(path) for path in self._source.files}):
                self._by_end.setdefault(folder.partition("/")[2], []).append(folder)
        return self._by_end.get(end, ())


# -- patches ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """What patches are tried on.

    Attributes:
        root: the prepared workspace, with people's patches and the new generated ones.
        rendered: the new release's components.
        before: component to what it rendered at the release before.
    """

    root: Path
    rendered: Sequence[Rendered]
    before: Mapping[str, Sequence[Object]]
    filler: Filler
    cache: Cache


def trials(stage: Stage, judged: Sequence[str], beside: Sequence[str]) -> dict[str, Trial]:
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
    out: dict[str, Trial] = {}
    for name, files in sorted(by_component.items()):
        scene = Scene(name, stage.before.get(name, ()), everywhere.get(name, ()), everywhere)
        if name in items:
            out |= _component(stage, items[name], files, scene)
        elif name not in beside:
            out |= {file: _unused(stage, file, scene) for file in files}
    return out


def _component(
    stage: Stage, item: Rendered, files: Sequence[str], scene: Scene
) -> dict[str, Trial]:
    out: dict[str, Trial] = {}
    found: list[tuple[tuple[int, bool, str], Patch]] = []
    folder = stage.root / "patches" / item.component.name
    for path in sorted(folder.iterdir()):
        if not path.is_file() or not path.name.endswith(patch_file.SUFFIXES):
            continue
        name = path.relative_to(stage.root).as_posix()
        text = read_text(path)
        try:
            patch = stage.filler.patch(path, text, item)
            found.append((order(patch, text), patch))
        except UserError as error:
            if name in files:
                reason = error.message.removeprefix(f"{name}: ").removeprefix(f"{name}:")
                out[name] = Trial(name, "misfit", (Note("", "", reason.strip()),))
    patches = [patch for _, patch in sorted(found, key=lambda pair: pair[0])]
    readable = [file for file in files if file not in out]
    out |= tried(patches, readable, scene)
    if any(trial.state == "misfit" for trial in out.values()):
        return out
    try:
        apply.apply(item, patches, stage.cache)
    except UserError as error:
        # Kustomize's own refusal, or one of a generated patch that an edited one stands in for.
        said = error.message
        named = [file for file in readable if file in said] or readable
        out |= {file: Trial(file, "misfit", (Note("", "", said),)) for file in named}
    return out


def _unused(stage: Stage, file: str, scene: Scene) -> Trial:
    near: tuple[str, ...] = ()
    with contextlib.suppress(UserError):
        text = read_text(stage.root / file)
        if not file.endswith(".gotmpl"):
            near = tuple(near_objects(patch_file.parse(file, text).target, scene))
    what = f"kfdeploy.yaml lists no component {scene.component} any more"
    return Trial(file, "unused", (Note("", "", what, near),))


def left_behind(
    dropped: Sequence[str],
    before: Mapping[str, Sequence[Object]],
    rendered: Sequence[Rendered],
) -> tuple[LeftBehind, ...]:
    """What components that are no longer listed have in a cluster."""
    now: dict[tuple[str, ...], str] = {}
    for item in rendered if dropped else ():
        for one in item.objects:
            now.setdefault(_identity(one.key), item.component.name)
    out = []
    for name in dropped:
        keys = [one.key for one in before.get(name, ())]
        gone = [key for key in keys if _identity(key) not in now]
        stays = sorted(str(key) for key in gone if key.kind in _KEPT_KINDS)
        others = sorted({now[_identity(key)] for key in keys if _identity(key) in now})
        out.append(LeftBehind(name, len(gone), tuple(stays), tuple(others)))
    return tuple(out)


def _identity(key: ObjectKey) -> tuple[str, ...]:
    return key.group, key.kind, key.namespace, unhashed(key)


# -- writing ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def beside(root: Path) -> Iterator[Path]:
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


def absolute(workspace: Workspace, root: Path) -> Workspace:
    """The settings with Helm's values where they are, for a workspace that lies elsewhere."""
    components = tuple(
        component.model_copy(
            update={"values": tuple(os.fspath((root / v).absolute()) for v in component.values)}
        )
        for component in workspace.components
    )
    return workspace.model_copy(update={"components": components})


def relative(rendered: Sequence[Rendered], components: Sequence[Component]) -> list[Rendered]:
    """The same with the components as ``kfdeploy.yaml`` has them."""
    return [
        replace(item, component=component) if component.values else item
        for item, component in zip(rendered, components, strict=True)
    ]


def tidy(root: Path) -> None:
    """Take away what a run that was killed has left beside."""
    for pattern in (_BESIDE, _UNREADY, _DONE):
        for folder in (root / CACHE).glob(f"{pattern}*"):
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)


def write(
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
    with uninterrupted():
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
        finish(root)


def is_unfinished(root: Path) -> bool:
    """Whether an upgrade was stopped while it took its place."""
    return (root / UNFINISHED).is_dir()


def finish(root: Path) -> None:
    """Put in place what `write` has prepared; called again, it goes on.

    Each file takes its place by a rename: what is killed leaves no temporary file behind.

    Raises:
        UserError: a folder that can't be written; the next call goes on.
    """
    ready = root / UNFINISHED
    path = ready
    with uninterrupted():
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
