"""A workspace at another release, in place: `init --upgrade` and `vendor --upgrade`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from kfdeploy.cli.common import open_session
from kfdeploy.errors import DIFFERENCE, FAILED, WRONG_USE, UserError
from kfdeploy.terminal import exit_if_drift, print_json, print_lines, print_warnings

if TYPE_CHECKING:
    from kfdeploy.cli.session import Session
    from kfdeploy.images.inventory import Inventory
    from kfdeploy.images.lockfile import Lock
    from kfdeploy.images.sources_file import SourceImage
    from kfdeploy.kubernetes.objects import Object
    from kfdeploy.patch.generate import Drift, PatchOutput
    from kfdeploy.upgrade.images import TransferEstimate
    from kfdeploy.upgrade.patches import PatchCheck
    from kfdeploy.upgrade.report import FileChanges, GeneratedFileChanges, LockReport, UpgradeReport
    from kfdeploy.upgrade.upgrade import UpgradePlan

Form = Literal["text", "json", "markdown"]
_SETTINGS = "kfdeploy.yaml"
_LOCK = "images.lock"


@dataclass(frozen=True, slots=True)
class UpgradeOptions:
    """What the command line asks for; empty where it does not say.

    Attributes:
        upstream: as `upstream.source` is to name it.
        remotes: more entries of `upstream.remotes`.
    """

    upstream: str
    ref: str
    remotes: Mapping[str, str]
    offline: bool
    jobs: int


@dataclass(frozen=True)
class _PreparedUpgrade:
    """The new release, not written yet."""

    report: UpgradeReport
    texts: Mapping[str, str]
    removed: Sequence[str]
    is_upstream_new: bool
    prepared: Path


def upgrade_workspace(
    directory: Path, options: UpgradeOptions, *, form: Form, quiet: bool, check: bool
) -> None:
    """Move a workspace to another release, and report what that means.

    Raises:
        UserError: see the stages; nothing was written.
        Exit: 3 when something would change (``check``) or patches no longer match, 1 when images
            could not be locked.
    """
    from kfdeploy.files import exclusive_lock
    from kfdeploy.upgrade import upgrade as stage

    if not (directory / _SETTINGS).is_file():
        open_session(directory, quiet=quiet)  # says what is missing
    with exclusive_lock(directory / stage.CACHE / "upgrade.lock", "another upgrade"):
        _finish_earlier(directory, options, check)
        stage.remove_stale_folders(directory)
        if not (options.upstream or options.ref):
            return
        session = open_session(directory, quiet=quiet)
        with stage.temporary_workspace(directory) as prepared:
            made = _prepare_upgrade(session, options, prepared)
            if not check and not made.report.files.is_empty:
                stage.write_upgrade(
                    directory, prepared, made.texts, made.removed, upstream=made.is_upstream_new
                )
    _show_report(made.report, form, check)


def _finish_earlier(root: Path, options: UpgradeOptions, check: bool) -> None:
    from kfdeploy.upgrade import upgrade as stage

    if stage.is_unfinished(root):
        if check:
            raise UserError(
                "an upgrade was stopped while it was written",
                hint="run it again without --check: it goes on where it was",
            )
        stage.finish_upgrade(root)
        print("note: finished an upgrade that was stopped while it was written", file=sys.stderr)
    elif not (options.upstream or options.ref):
        raise UserError(
            "--upgrade needs the other release",
            hint="--ref names it; and --upstream, where it is another folder, tarball or URL",
            exit_code=WRONG_USE,
        )


# -- making ----------------------------------------------------------------------------------------


def _prepare_upgrade(session: Session, options: UpgradeOptions, prepared: Path) -> _PreparedUpgrade:
    from kfdeploy.files import read_text, write_text
    from kfdeploy.images import lockfile
    from kfdeploy.images import sources_file as sources
    from kfdeploy.images.stale_settings import find_stale_settings
    from kfdeploy.upgrade import upgrade as stage
    from kfdeploy.upgrade.images import compare_images
    from kfdeploy.upgrade.report import UpgradeReport, UpstreamRelease

    root, before = session.root, session.workspace
    planned = stage.plan_upgrade(
        before,
        root,
        read_text(root / _SETTINGS),
        upstream=options.upstream or None,
        ref=options.ref or None,
        remotes=options.remotes,
    )
    write_text(prepared / _SETTINGS, planned.text)
    new, changes, notes = _vendor_release(session, prepared)
    session.progress.print_line(f"the release before: {session.version}")
    old = _open_earlier_release(session)
    olds, news = old.build_inventory(), new.build_inventory()
    images_before = sources.collect_source_images(olds, before.images)
    images_now = sources.collect_source_images(news, before.images)
    lock, locked = _lock_images(session, images_now, options)
    made, drift = _generate_patches(new, prepared, news, session)
    objects = {item.component.name: item.objects for item in old.render_components()}
    generated, edited, own = _try_patches(
        new, session, prepared, made, drift, objects, images_now, lock
    )
    texts = {_SETTINGS: planned.text, "upstream.lock": read_text(prepared / "upstream.lock")}
    texts |= {name: made.files[name] for name in (*drift.new, *drift.changed)}
    if lock is not None:
        texts |= {_LOCK: lockfile.dumps(lock), sources.NAME: sources.dump_sources(news, images_now)}
    files = _compare_files(session, texts, drift.stale, changes)
    known = {(one.entry, one.image) for one in olds.unknown}
    there = {image.ref for image in images_before}
    report = UpgradeReport(
        before=UpstreamRelease(session.version, before.upstream.source, before.upstream.ref or ""),
        now=planned.release,
        components=planned.migration.changes,
        absent=planned.migration.absent,
        leftovers=stage.find_leftovers(
            _list_dropped_components(planned), objects, new.render_components()
        ),
        generated=generated,
        edited=edited,
        own=own,
        images=compare_images(images_before, images_now),
        lock=locked,
        transfer=_measure_carry(session, lock, images_now),
        unknown=tuple(one for one in news.unknown if (one.entry, one.image) not in known),
        lost=tuple(lost for lost in news.lost if not before.images.find_substitute(lost.ref)),
        stale=find_stale_settings(before, there, {image.ref for image in images_now}),
        problems=(
            *((problem.message, problem.where) for problem in planned.problems),
            *notes,
            *((p.what, p.where) for p in news.problems if p.about == "name"),
        ),
        files=files,
    )
    written = {name: texts[name] for name in (*files.new, *files.changed)}
    return _PreparedUpgrade(report, written, drift.stale, any(files.upstream.values()), prepared)


def _list_dropped_components(planned: UpgradePlan) -> list[str]:
    return [change.name for change in planned.migration.changes if change.state == "dropped"]


def _vendor_release(
    session: Session, prepared: Path
) -> tuple[Session, tuple[str, ...], list[tuple[str, str]]]:
    """The new release's session, what vendoring changes, and its problems."""
    from dataclasses import replace

    from kfdeploy.cli.session import Session
    from kfdeploy.upgrade import upgrade as stage
    from kfdeploy.upstream import vendor
    from kfdeploy.workspace import settings_file

    file = settings_file.read_workspace(prepared)
    plan = vendor.plan_vendoring(
        file.workspace,
        session.root,
        locate=file.locate_key,
        on_progress=session.progress.print_line,
    )
    changes = vendor.list_plan_changes(plan, session.root)
    vendor.write_plan(plan, prepared)
    where_values_are = replace(
        file, workspace=stage.resolve_value_paths(file.workspace, session.root)
    )
    new = Session(prepared, where_values_are, session.environment_name, session.progress)
    return new, changes, [(problem.message, problem.where) for problem in plan.problems]


def _open_earlier_release(session: Session) -> Session:
    """The release before, without components that its ``upstream/`` does not have."""
    from dataclasses import replace

    from kfdeploy.cli.session import Session
    from kfdeploy.file_tree import FolderTree
    from kfdeploy.upstream.vendored import UPSTREAM, detect_kind

    tree = FolderTree(session.root / UPSTREAM)
    components = tuple(c for c in session.workspace.components if detect_kind(tree, c.path, c.kind))
    workspace = session.workspace.model_copy(update={"components": components})
    file = replace(session.file, workspace=workspace)
    return Session(session.root, file, session.environment_name, session.progress)


def _lock_images(
    session: Session, images: Sequence[SourceImage], options: UpgradeOptions
) -> tuple[Lock | None, LockReport | None]:
    """The lock of the new images: what an earlier lock has keeps its digest, the rest is asked."""
    from kfdeploy.images import lockfile
    from kfdeploy.lock import lock as stage
    from kfdeploy.upgrade.images import reuse_locked_images
    from kfdeploy.upgrade.report import LockReport

    if not (session.root / _LOCK).is_file():
        return None, None
    previous = session.read_lock(required=True)
    # A set that was rendered at the release one goes back to has the digests of then.
    earlier = [lockfile.read_lock(p) for p in sorted(session.root.glob(f"releases/*/{_LOCK}"))]
    covered = [image.ref for image in images if image.covered]
    known = reuse_locked_images(covered, [previous, *earlier], session.workspace)
    missing = [ref for ref in covered if ref not in known.by_id]
    with session.progress.count_items("locking") as advance:
        result = stage.resolve(
            missing,
            session.workspace,
            root=session.root,
            environment=session.environment,
            previous=previous,
            jobs=options.jobs,
            offline=options.offline,
            on_event=lambda event: advance(event.id, event.done, event.total),
            cache=session.cache,
        )
    lock = lockfile.Lock((*known, *result.lock))
    failures = tuple(failure.to_json() for failure in result.failures)
    return lock, LockReport(len(known), len(result.lock), failures, options.offline)


def _measure_carry(
    session: Session, lock: Lock | None, images: Sequence[SourceImage]
) -> TransferEstimate | None:
    from kfdeploy.images.lockfile import Lock
    from kfdeploy.mirror import mirror
    from kfdeploy.mirror.plan import list_mirror_items
    from kfdeploy.upgrade.images import estimate_transfer

    if lock is None:
        return None
    registry = session.workspace.resolve_registry(session.environment)
    sources, platforms = session.workspace.registries.sources, session.environment.platforms
    sides = []
    for each in (session.read_lock(required=False), lock):
        reduced = Lock([image for image in each if image.digest_for(platforms)])
        whole = Lock([image for image in each if not image.digest_for(platforms)])
        try:
            sides.append(
                [
                    *list_mirror_items(reduced, registry, sources, platforms),
                    *list_mirror_items(whole, registry, sources),
                ]
            )
        except UserError:
            return None  # two images on one target: `render` says which
    unlocked = [image.ref for image in images if image.covered and image.ref not in lock.by_id]
    with mirror.open_endpoints(session.mirror_settings, session.root, session.cache) as opened:
        return estimate_transfer(
            sides[0],
            sides[1],
            lambda item: opened.manifests.get_cached_tree(item.source.digest, item.platforms),
            unlocked,
        )


def _generate_patches(
    new: Session, prepared: Path, inventory: Inventory, session: Session
) -> tuple[PatchOutput, Drift]:
    """The new generated files, which are written beside people's in the prepared workspace."""
    from kfdeploy.files import write_all
    from kfdeploy.patch import generate
    from kfdeploy.upgrade import upgrade as stage
    from kfdeploy.workspace import settings_file

    workspace = settings_file.read_workspace(prepared).workspace
    rendered = stage.restore_components(new.render_components(), workspace.components)
    facts = session.facts.load()
    made = generate.generate_patches(workspace, prepared, inventory, rendered, facts)
    drift = generate.find_drift(prepared, made)
    wanted = {name: made.files[name] for name in (*drift.new, *drift.changed)}
    write_all(prepared, wanted, remove=drift.stale)
    return made, drift


def _try_patches(
    new: Session,
    session: Session,
    prepared: Path,
    made: PatchOutput,
    drift: Drift,
    before: Mapping[str, Sequence[Object]],
    images: Sequence[SourceImage],
    lock: Lock | None,
) -> tuple[GeneratedFileChanges, tuple[PatchCheck, ...], tuple[PatchCheck, ...]]:
    from dataclasses import replace

    from kfdeploy import features
    from kfdeploy.images import lockfile
    from kfdeploy.images.naming import MirrorNaming
    from kfdeploy.patch import generate
    from kfdeploy.patch.fill import TemplateFiller, environment_values
    from kfdeploy.patch.values import build_image_values
    from kfdeploy.upgrade import upgrade as stage
    from kfdeploy.upgrade.patches import PatchCheck
    from kfdeploy.upgrade.report import GeneratedFileChanges

    written = {*drift.new, *drift.changed, *drift.edited}
    generated = GeneratedFileChanges(
        same=tuple(sorted(made.files.keys() - written)),
        changed=drift.changed,
        new=drift.new,
        gone=drift.stale,
    )
    workspace, environment = session.workspace, session.environment
    mirror = MirrorNaming(workspace.resolve_registry(environment), environment.platforms)
    looks = build_image_values(images, lock or lockfile.Lock(()), mirror, unpinned=True)
    values = environment_values(workspace, session.root, session.environment_name, looks)
    own = sorted(_list_own_patches(prepared))
    edited = [name for name in drift.edited if name.startswith("patches/")]
    trials = stage.check_workspace_patches(
        stage.UpgradeCandidate(
            prepared,
            new.render_components(),
            before,
            TemplateFiller(prepared, values),
            session.cache,
        ),
        [*own, *edited],
        [
            generate.SHARED,
            *(addition.release for addition in features.iter_feature_releases(workspace)),
        ],
    )
    earlier = _generate_earlier_patches(session) if drift.edited else {}
    judged = []
    for name in drift.edited:
        was, now = earlier.get(name), made.files.get(name)
        state = "gone" if now is None else "same" if now == was else "changed"
        trial = trials.get(name) or PatchCheck(name, "holds")
        judged.append(replace(trial, generated=state))
    return generated, tuple(judged), tuple(trials[name] for name in own if name in trials)


def _list_own_patches(root: Path) -> Iterator[str]:
    from kfdeploy.patch import generate

    folders = root / "patches"
    for folder in sorted(folders.iterdir()) if folders.is_dir() else ():
        yield from (f"patches/{folder.name}/{n}" for n in generate.own_files(root, folder.name))


def _generate_earlier_patches(session: Session) -> Mapping[str, str]:
    """What `patch` generates at the release before."""
    from kfdeploy.patch import generate

    old = _open_earlier_release(session)
    facts = session.facts.load()
    return generate.generate_patches(
        old.workspace, old.root, old.build_inventory(), old.render_components(), facts
    ).files


def _compare_files(
    session: Session, texts: Mapping[str, str], stale: Sequence[str], upstream: Sequence[str]
) -> FileChanges:
    from kfdeploy.upgrade.report import FileChanges

    new = [name for name in texts if not (session.root / name).is_file()]
    changed = [n for n, text in texts.items() if n not in new and session.would_change(n, text)]
    endings = {
        "added": ": missing",
        "changed": ": differs",
        "removed": ": not part of the upstream",
    }
    counts = {
        what: sum(line.startswith("upstream/") and line.endswith(end) for line in upstream)
        for what, end in endings.items()
    }
    return FileChanges(tuple(sorted(new)), tuple(sorted(changed)), tuple(sorted(stale)), counts)


# -- showing ---------------------------------------------------------------------------------------


def _show_report(report: UpgradeReport, form: Form, check: bool) -> None:
    from kfdeploy.cli.report import upgrade as show_upgrade

    if form == "json":
        print_json(report)
    elif form == "markdown":
        print_lines(show_upgrade.format_markdown(report))
    else:
        print_lines(show_upgrade.format_text(report, check=check))
    exit_if_drift(check, not report.files.is_empty)
    if check:
        return
    if report.lock and report.lock.failures and not report.lock.was_offline:
        raise typer.Exit(FAILED)
    if report.conflicts:
        print_warnings(f"error: {trial.file}: has to be adapted" for trial in report.conflicts)
        raise typer.Exit(DIFFERENCE)
