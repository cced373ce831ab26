"""All files of a workspace at another release, made in a folder beside it, and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kfdeploy.errors import UserError
from kfdeploy.files import read_text, write_all, write_text
from kfdeploy.images import lockfile, sources_file
from kfdeploy.images.inventory import Inventory, UnavailableReference, UnreviewedProgram
from kfdeploy.images.lockfile import Lock
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.images.sources_file import SourceImage
from kfdeploy.images.stale_settings import find_stale_settings
from kfdeploy.lock.resolve import resolve_digests
from kfdeploy.lock.reuse import reuse_locked_images
from kfdeploy.mirror import mirror
from kfdeploy.mirror.plan import MirrorItem, list_earlier_items
from kfdeploy.patch import generate
from kfdeploy.patch.drift import Drift, find_drift, own_files
from kfdeploy.patch.fill import TemplateFiller, environment_values
from kfdeploy.patch.generate import PatchOutput
from kfdeploy.patch.lookups import SHARED
from kfdeploy.patch.values import build_image_values
from kfdeploy.session import Session
from kfdeploy.upgrade.images import (
    TransferEstimate,
    compare_images,
    estimate_transfer,
)
from kfdeploy.upgrade.leftovers import find_leftovers
from kfdeploy.upgrade.options import UpgradeOptions
from kfdeploy.upgrade.patches import PatchCheck
from kfdeploy.upgrade.plan import plan_upgrade
from kfdeploy.upgrade.release import (
    ScannedRelease,
    open_release_before,
    scan_release,
    vendor_release,
)
from kfdeploy.upgrade.report import (
    FileChanges,
    GeneratedFileChanges,
    LockReport,
    UpgradeReport,
    UpstreamRelease,
)
from kfdeploy.upgrade.workspace_patches import UpgradeCandidate, check_workspace_patches
from kfdeploy.upstream.build import RenderedComponent
from kfdeploy.workspace import settings_file
from kfdeploy.workspace.settings import Component, Workspace

_SETTINGS = "kfdeploy.yaml"
_UPSTREAM_LOCK = "upstream.lock"
_LOCK = "images.lock"
_UPSTREAM_ENDINGS = {
    "added": ": missing",
    "changed": ": differs",
    "removed": ": not part of the upstream",
}
"""How `vendor` ends a line about a file of ``upstream/``."""


@dataclass(frozen=True)
class PreparedUpgrade:
    """Hold the files of the new release, which are not written yet, and the report.

    Attributes:
        texts: files of the workspace that are new or change, and their text.
        removed: generated files that go.
        is_upstream_new: whether ``upstream/`` changes.
    """

    report: UpgradeReport
    texts: Mapping[str, str]
    removed: Sequence[str]
    is_upstream_new: bool


@dataclass(frozen=True)
class _PatchReport:
    generated: GeneratedFileChanges
    edited: tuple[PatchCheck, ...]
    own: tuple[PatchCheck, ...]


def prepare_upgrade(session: Session, options: UpgradeOptions, folder: Path) -> PreparedUpgrade:
    """Make all files of the new release, and compare them with the workspace.

    Args:
        session: the workspace at the release before.
        folder: of `write.temporary_workspace`; ``upstream/`` and generated files go there.

    Raises:
        UserError: the release can't be read, vendored or rendered.
    """
    settings = session.workspace
    plan = plan_upgrade(
        settings,
        session.root,
        read_text(session.root / _SETTINGS),
        upstream=options.upstream or None,
        ref=options.ref or None,
        remotes=options.remotes,
    )
    write_text(folder / _SETTINGS, plan.text)
    vendored = vendor_release(session, folder)
    session.progress.print_line(f"the release before: {session.version}")
    before = scan_release(open_release_before(session), settings)
    now = scan_release(vendored.session, settings)

    lock, lock_report = _lock_images(session, now.images, options)
    made, drift = _generate_patches(now, session)
    patches = _check_patches(session, before, now, made, drift, lock)

    texts = {
        _SETTINGS: plan.text,
        _UPSTREAM_LOCK: read_text(folder / _UPSTREAM_LOCK),
        **{name: made.files[name] for name in (*drift.new, *drift.changed)},
    }
    if lock is not None:
        texts[_LOCK] = lockfile.dumps(lock)
        texts[sources_file.NAME] = sources_file.dump_sources(now.inventory, now.images)
    files = _compare_files(session, texts, drift.stale, vendored.changes)

    report = UpgradeReport(
        before=UpstreamRelease(
            session.version, settings.upstream.source, settings.upstream.ref or ""
        ),
        now=plan.release,
        components=plan.migration.changes,
        absent=plan.migration.absent,
        leftovers=tuple(
            find_leftovers(plan.dropped_components, before.objects, now.session.render_components())
        ),
        generated=patches.generated,
        edited=patches.edited,
        own=patches.own,
        images=compare_images(before.images, now.images),
        lock=lock_report,
        transfer=None if lock is None else _estimate_transfer(session, lock, now.images),
        unknown=_find_new_programs(before.inventory, now.inventory),
        lost=_find_lost_images(now.inventory, settings),
        stale=find_stale_settings(settings, before.refs, now.refs),
        problems=(
            *((problem.message, problem.where) for problem in plan.problems),
            *vendored.problems,
            *((each.what, each.where) for each in now.inventory.problems if each.about == "name"),
        ),
        files=files,
    )
    return PreparedUpgrade(
        report,
        texts={name: texts[name] for name in (*files.new, *files.changed)},
        removed=drift.stale,
        is_upstream_new=any(files.upstream.values()),
    )


# -- images ----------------------------------------------------------------------------------------


def _lock_images(
    session: Session, images: Sequence[SourceImage], options: UpgradeOptions
) -> tuple[Lock | None, LockReport | None]:
    """Lock the new images; None where the workspace has no lock.

    An image that a lock of the workspace has keeps its digest. Registries are asked for the rest.
    """
    if not (session.root / _LOCK).is_file():
        return None, None
    previous = session.read_lock(required=True)
    # On the way back to a release, a set that was rendered there has the digests of that time.
    of_sets = [
        lockfile.read_lock(path) for path in sorted(session.root.glob(f"releases/*/{_LOCK}"))
    ]
    covered = [image.ref for image in images if image.covered]
    known = reuse_locked_images(covered, [previous, *of_sets], session.workspace.images)
    missing = [ref for ref in covered if ref not in known.by_id]
    with session.progress.count_items("locking") as advance:
        result = resolve_digests(
            missing,
            session.workspace,
            root=session.root,
            environment=session.environment,
            previous=previous,
            jobs=options.jobs,
            offline=options.offline,
            on_event=lambda event: advance(event.id.text, event.done, event.total),
            cache=session.cache,
        )
    report = LockReport(len(known), len(result.lock), result.failures, options.offline)
    return Lock((*known, *result.lock)), report


def _estimate_transfer(
    session: Session, lock: Lock, images: Sequence[SourceImage]
) -> TransferEstimate | None:
    """Return what the private registry lacks; None where two images have one target."""
    try:
        before = _list_items(session, session.read_lock(required=False))
        now = _list_items(session, lock)
    except UserError:
        return None  # `render` names the two images
    unlocked = [image.ref for image in images if image.covered and image.ref not in lock.by_id]
    with mirror.open_endpoints(session.mirror_settings, session.root, session.cache) as endpoints:
        return estimate_transfer(
            before,
            now,
            lambda item: endpoints.manifests.get_cached_tree(item.source.digest, item.platforms),
            unlocked,
        )


def _list_items(session: Session, lock: Lock) -> list[MirrorItem]:
    return list_earlier_items(
        lock,
        session.workspace.resolve_registry(session.environment),
        session.workspace.registries.sources,
        session.environment.platforms,
    )


def _find_new_programs(before: Inventory, now: Inventory) -> tuple[UnreviewedProgram, ...]:
    known = {(program.entry, program.image) for program in before.unknown}
    return tuple(program for program in now.unknown if (program.entry, program.image) not in known)


def _find_lost_images(now: Inventory, settings: Workspace) -> tuple[UnavailableReference, ...]:
    return tuple(lost for lost in now.lost if not settings.images.find_substitute(lost.ref.parsed))


# -- patches ---------------------------------------------------------------------------------------


def _generate_patches(now: ScannedRelease, session: Session) -> tuple[PatchOutput, Drift]:
    """Generate the files of the new release, and write them into its folder."""
    folder = now.session.root
    workspace = settings_file.read_workspace(folder).workspace
    rendered = _restore_components(now.session.render_components(), workspace.components)
    made = generate.generate_patches(
        workspace, folder, now.inventory, rendered, session.facts.load()
    )
    drift = find_drift(folder, made.files)
    wanted = {name: made.files[name] for name in (*drift.new, *drift.changed)}
    write_all(folder, wanted, remove=drift.stale)
    return made, drift


def _restore_components(
    rendered: Sequence[RenderedComponent], components: Sequence[Component]
) -> list[RenderedComponent]:
    """Undo `_resolve_value_paths`: generated files name Helm's values as ``kfdeploy.yaml`` does."""
    return [
        replace(item, component=component) if component.values else item
        for item, component in zip(rendered, components, strict=True)
    ]


def _check_patches(
    session: Session,
    before: ScannedRelease,
    now: ScannedRelease,
    made: PatchOutput,
    drift: Drift,
    lock: Lock | None,
) -> _PatchReport:
    """Try people's patches, and generated ones that they edited, on the new release."""
    folder, workspace, environment = now.session.root, session.workspace, session.environment
    mirror_names = MirrorNaming(workspace.resolve_registry(environment), environment.platforms)
    image_values = build_image_values(now.images, lock or Lock(()), mirror_names, unpinned=True)
    values = environment_values(workspace, session.root, session.environment_name, image_values)
    own = sorted(_list_own_patches(folder))
    edited = [name for name in drift.edited if name.startswith("patches/")]
    checks = check_workspace_patches(
        UpgradeCandidate(
            root=folder,
            rendered=now.session.render_components(),
            before=before.objects,
            filler=TemplateFiller(folder, values),
            cache=session.cache,
        ),
        [*own, *edited],
        [
            SHARED,
            *(
                addition.release
                for feature in workspace.list_enabled_features()
                for addition in feature.build_releases()
            ),
        ],
    )
    unedited = made.files.keys() - {*drift.new, *drift.changed, *drift.edited}
    return _PatchReport(
        generated=GeneratedFileChanges(
            same=tuple(sorted(unedited)), changed=drift.changed, new=drift.new, gone=drift.stale
        ),
        edited=tuple(_compare_edited(before, made, drift.edited, checks)),
        own=tuple(checks[name] for name in own if name in checks),
    )


def _compare_edited(
    before: ScannedRelease,
    made: PatchOutput,
    edited: Sequence[str],
    checks: Mapping[str, PatchCheck],
) -> Iterator[PatchCheck]:
    """Add to each edited file's check what becomes of the text that would be generated."""
    if not edited:
        return
    session = before.session
    earlier = generate.generate_patches(
        session.workspace,
        session.root,
        before.inventory,
        session.render_components(),
        session.facts.load(),
    ).files
    for name in edited:
        check = checks.get(name) or PatchCheck(name, "holds")
        yield replace(check, generated=_compare_texts(earlier.get(name), made.files.get(name)))


def _compare_texts(earlier: str | None, now: str | None) -> str:
    if now is None:
        return "gone"
    return "same" if now == earlier else "changed"


def _list_own_patches(root: Path) -> Iterator[str]:
    folders = root / "patches"
    for folder in sorted(folders.iterdir()) if folders.is_dir() else ():
        for name in own_files(root, folder.name):
            yield f"patches/{folder.name}/{name}"


# -- files -----------------------------------------------------------------------------------------


def _compare_files(
    session: Session, texts: Mapping[str, str], stale: Sequence[str], upstream: Sequence[str]
) -> FileChanges:
    """Compare the new files with the workspace.

    Args:
        upstream: lines of `vendor` about the files of ``upstream/``.
    """
    new = [name for name in texts if not (session.root / name).is_file()]
    changed = [
        name for name, text in texts.items() if name not in new and session.would_change(name, text)
    ]
    counts = {
        what: sum(line.startswith("upstream/") and line.endswith(ending) for line in upstream)
        for what, ending in _UPSTREAM_ENDINGS.items()
    }
    return FileChanges(tuple(sorted(new)), tuple(sorted(changed)), tuple(sorted(stale)), counts)
