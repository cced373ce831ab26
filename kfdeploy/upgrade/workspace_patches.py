"""The patches of a workspace, tried on the components of another release."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kfdeploy.cache import Cache
from kfdeploy.errors import UserError
from kfdeploy.files import read_text
from kfdeploy.kubernetes.objects import Object
from kfdeploy.patch import apply
from kfdeploy.patch.fill import TemplateFiller, patch_sort_key
from kfdeploy.patchfile import patch_file
from kfdeploy.patchfile.patch_file import Patch
from kfdeploy.upgrade.patches import (
    PatchCheck,
    PatchContext,
    PatchNote,
    check_patches,
    suggest_objects,
)
from kfdeploy.upstream.build import RenderedComponent


@dataclass(frozen=True)
class UpgradeCandidate:
    """Hold what patches are tried on.

    Attributes:
        root: the prepared workspace, with people's patches and the new generated ones.
        rendered: the components of the new release.
        before: each component's objects at the release before.
    """

    root: Path
    rendered: Sequence[RenderedComponent]
    before: Mapping[str, Sequence[Object]]
    filler: TemplateFiller
    cache: Cache


def check_workspace_patches(
    candidate: UpgradeCandidate, files: Sequence[str], shared_folders: Sequence[str]
) -> dict[str, PatchCheck]:
    """Return the outcome for each patch file.

    Args:
        files: relative to the workspace: ``patches/COMPONENT/NAME``.
        shared_folders: folders of ``patches/`` that belong to no component; they are skipped.
    """
    by_component: dict[str, list[str]] = {}
    for file in files:
        by_component.setdefault(file.split("/")[1], []).append(file)
    items = {item.component.name: item for item in candidate.rendered}
    everywhere = {name: item.objects for name, item in items.items()}
    checks: dict[str, PatchCheck] = {}
    for name, own_files in sorted(by_component.items()):
        context = PatchContext(
            name, candidate.before.get(name, ()), everywhere.get(name, ()), everywhere
        )
        if name in items:
            checks |= _check_component(candidate, items[name], own_files, context)
        elif name not in shared_folders:
            checks |= {file: _report_unused(candidate, file, context) for file in own_files}
    return checks


def _check_component(
    candidate: UpgradeCandidate,
    item: RenderedComponent,
    files: Sequence[str],
    context: PatchContext,
) -> dict[str, PatchCheck]:
    patches, checks = _read_patches(candidate, item, files)
    readable = [file for file in files if file not in checks]
    checks |= check_patches(patches, readable, context)
    if any(check.state == "misfit" for check in checks.values()):
        return checks
    try:
        apply.apply_patches(item, patches, candidate.cache)
    except UserError as error:
        # Kustomize refuses it, or a generated patch that an edited one stands in for conflicts.
        named = [file for file in readable if file in error.message] or readable
        checks |= {file: _misfit(file, error.message) for file in named}
    return checks


def _read_patches(
    candidate: UpgradeCandidate, item: RenderedComponent, files: Sequence[str]
) -> tuple[list[Patch], dict[str, PatchCheck]]:
    """Return a component's patches in their order, and a misfit for each file that is broken."""
    found: list[tuple[tuple[int, bool, str], Patch]] = []
    broken: dict[str, PatchCheck] = {}
    folder = candidate.root / "patches" / item.component.name
    for path in sorted(folder.iterdir()):
        if not path.is_file() or not path.name.endswith(patch_file.SUFFIXES):
            continue
        name = path.relative_to(candidate.root).as_posix()
        text = read_text(path)
        try:
            patch = candidate.filler.fill_patch(path, text, item)
        except UserError as error:
            if name in files:
                reason = error.message.removeprefix(f"{name}: ").removeprefix(f"{name}:")
                broken[name] = _misfit(name, reason.strip())
            continue
        found.append((patch_sort_key(patch, text), patch))
    return [patch for _, patch in sorted(found, key=lambda pair: pair[0])], broken


def _misfit(file: str, reason: str) -> PatchCheck:
    return PatchCheck(file, "misfit", (PatchNote("", "", reason),))


def _report_unused(candidate: UpgradeCandidate, file: str, context: PatchContext) -> PatchCheck:
    suggestions: tuple[str, ...] = ()
    with contextlib.suppress(UserError):
        text = read_text(candidate.root / file)
        if not file.endswith(".gotmpl"):
            target = patch_file.parse_patch(file, text).target
            suggestions = tuple(suggest_objects(target, context))
    what = f"kfdeploy.yaml no longer lists a component {context.component}"
    return PatchCheck(file, "unused", (PatchNote("", "", what, suggestions),))
