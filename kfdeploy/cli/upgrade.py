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
from kfdeploy.terminal import complain, exit_if_drift, print_json, print_lines

if TYPE_CHECKING:
    from kfdeploy.cli.session import Session
    from kfdeploy.images.inventory import Inventory
    from kfdeploy.images.lockfile import Lock
    from kfdeploy.images.sources_file import SourceImage
    from kfdeploy.kubernetes.objects import Object
    from kfdeploy.patch.generate import Drift, Generated
    from kfdeploy.upgrade.images import Carry
    from kfdeploy.upgrade.patches import Trial
    from kfdeploy.upgrade.report import Files, GeneratedFiles, LockReport, UpgradeReport
    from kfdeploy.upgrade.upgrade import Planned

Form = Literal["text", "json", "markdown"]
_SETTINGS = "kfdeploy.yaml"
_LOCK = "images.lock"


@dataclass(frozen=True, slots=True)
class Wish:
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
class _Made:
    """The new release, not written yet."""

    report: UpgradeReport
    texts: Mapping[str, str]
    removed: Sequence[str]
    is_upstream_new: bool
    prepared: Path


def upgrade(directory: Path, wish: Wish, *, form: Form, quiet: bool, check: bool) -> None:
    """Move a workspace to another release, and report what that means.

    Raises:
        UserError: see the stages; nothing was written.
        Exit: 3 when something would change (``check``) or patches no longer match, 1 when images
            could not be locked.
    """
    from kfdeploy.files import alone
    from kfdeploy.upgrade import upgrade as stage

    if not (directory / _SETTINGS).is_file():
        open_session(directory, quiet=quiet)  # says what is missing
    with alone(directory / stage.CACHE / "upgrade.lock", "another upgrade"):
        _finish(directory, wish, check)
        stage.tidy(directory)
        if not (wish.upstream or wish.ref):
            return
        session = open_session(directory, quiet=quiet)
        with stage.beside(directory) as prepared:
            made = _make(session, wish, prepared)
            if not check and not made.report.files.is_nothing:
                stage.write(
                    directory, prepared, made.texts, made.removed, upstream=made.is_upstream_new
                )
    _show(made.report, form, check)


def _finish(root: Path, wish: Wish, check: bool) -> None:
    from kfdeploy.upgrade import upgrade as stage

    if stage.is_unfinished(root):
        if check:
            raise UserError(
                "an upgrade was stopped while it was written",
                hint="run it again without --check: it goes on where it was",
            )
        stage.finish(root)
        print("note: finished an upgrade that was stopped while it was written", file=sys.stderr)
    elif not (wish.upstream or wish.ref):
        raise UserError(
            "--upgrade needs the other release",
            hint="--ref names it; and --upstream, where it is another folder, tarball or URL",
            exit_code=WRONG_USE,
        )


# -- making ----------------------------------------------------------------------------------------


def _make(session: Session, wish: Wish, prepared: Path) -> _Made:
    from kfdeploy.files import read_text, write_text
    from kfdeploy.images import lockfile
    from kfdeploy.images import sources_file as sources
    from kfdeploy.images.stale_settings import stale
    from kfdeploy.upgrade import upgrade as stage
    from kfdeploy.upgrade.images import compared
    from kfdeploy.upgrade.report import Release, UpgradeReport

    root, before = session.root, session.workspace
    planned = stage.plan(
        before,
        root,
        read_text(root / _SETTINGS),
        upstream=wish.upstream or None,
        ref=wish.ref or None,
        remotes=wish.remotes,
    )
    write_text(prepared / _SETTINGS, planned.text)
    new, changes, notes = _vendored(session, prepared)
    session.progress.line(f"the release before: {session.version}")
    old = _earlier(session)
    olds, news = old.inventory(), new.inventory()
    images_before = sources.listed(olds, before.images)
    images_now = sources.listed(news, before.images)
    lock, locked = _locked(session, images_now, wish)
    made, drift = _patched(new, prepared, news, session)
    objects = {item.component.name: item.objects for item in old.rendered()}
    generated, edited, own = _tried(new, session, prepared, made, drift, objects, images_now, lock)
    texts = {_SETTINGS: planned.text, "upstream.lock": read_text(prepared / "upstream.lock")}
    texts |= {name: made.files[name] for name in (*drift.new, *drift.changed)}
    if lock is not None:
        texts |= {_LOCK: lockfile.dumps(lock), sources.NAME: sources.dump(news, images_now)}
    files = _files(session, texts, drift.stale, changes)
    known = {(one.entry, one.image) for one in olds.unknown}
    there = {image.ref for image in images_before}
    report = UpgradeReport(
        before=Release(session.version, before.upstream.source, before.upstream.ref or ""),
        now=planned.release,
        components=planned.followed.changes,
        absent=planned.followed.absent,
        left=stage.left_behind(_dropped(planned), objects, new.rendered()),
        generated=generated,
        edited=edited,
        own=own,
        images=compared(images_before, images_now),
        lock=locked,
        carry=_carry(session, lock, images_now),
        unknown=tuple(one for one in news.unknown if (one.entry, one.image) not in known),
        lost=tuple(lost for lost in news.lost if not before.images.substitute(lost.ref)),
        stale=stale(before, there, {image.ref for image in images_now}),
        problems=(
            *((problem.what, problem.where) for problem in planned.problems),
            *notes,
            *((p.what, p.where) for p in news.problems if p.about == "name"),
        ),
        files=files,
    )
    written = {name: texts[name] for name in (*files.new, *files.changed)}
    return _Made(report, written, drift.stale, any(files.upstream.values()), prepared)


def _dropped(planned: Planned) -> list[str]:
    return [change.name for change in planned.followed.changes if change.state == "dropped"]


def _vendored(
    session: Session, prepared: Path
) -> tuple[Session, tuple[str, ...], list[tuple[str, str]]]:
    """The new release's session, what vendoring changes, and its problems."""
    from dataclasses import replace

    from kfdeploy.cli.session import Session
    from kfdeploy.upgrade import upgrade as stage
    from kfdeploy.upstream import vendor
    from kfdeploy.workspace import settings_file

    file = settings_file.read(prepared)
    plan = vendor.vendor(
        file.workspace, session.root, locate=file.locate, step=session.progress.line
    )
    changes = vendor.check(plan, session.root)
    vendor.write(plan, prepared)
    where_values_are = replace(file, workspace=stage.absolute(file.workspace, session.root))
    new = Session(prepared, where_values_are, session.environment_name, session.progress)
    return new, changes, [(problem.what, problem.where) for problem in plan.problems]


def _earlier(session: Session) -> Session:
    """The release before, without components that its ``upstream/`` does not have."""
    from dataclasses import replace

    from kfdeploy.cli.session import Session
    from kfdeploy.file_tree import FolderTree
    from kfdeploy.upstream.vendored import UPSTREAM, kind_of

    tree = FolderTree(session.root / UPSTREAM)
    components = tuple(c for c in session.workspace.components if kind_of(tree, c.path, c.kind))
    workspace = session.workspace.model_copy(update={"components": components})
    file = replace(session.file, workspace=workspace)
    return Session(session.root, file, session.environment_name, session.progress)


def _locked(
    session: Session, images: Sequence[SourceImage], wish: Wish
) -> tuple[Lock | None, LockReport | None]:
    """The lock of the new images: what an earlier lock has keeps its digest, the rest is asked."""
    from kfdeploy.images import lockfile
    from kfdeploy.lock import lock as stage
    from kfdeploy.upgrade.images import still_locked
    from kfdeploy.upgrade.report import LockReport

    if not (session.root / _LOCK).is_file():
        return None, None
    previous = session.lock(required=True)
    # A set that was rendered at the release one goes back to has the digests of then.
    earlier = [lockfile.read(p) for p in sorted(session.root.glob(f"releases/*/{_LOCK}"))]
    covered = [image.ref for image in images if image.covered]
    known = still_locked(covered, [previous, *earlier], session.workspace)
    missing = [ref for ref in covered if ref not in known.by_id]
    with session.progress.counting("locking") as advance:
        result = stage.resolve(
            missing,
            session.workspace,
            root=session.root,
            environment=session.environment,
            previous=previous,
            jobs=wish.jobs,
            offline=wish.offline,
            on_event=lambda event: advance(event.id, event.done, event.total),
            cache=session.cache,
        )
    lock = lockfile.Lock((*known, *result.lock))
    failures = tuple(failure.to_json() for failure in result.failures)
    return lock, LockReport(len(known), len(result.lock), failures, wish.offline)


def _carry(session: Session, lock: Lock | None, images: Sequence[SourceImage]) -> Carry | None:
    from kfdeploy.images.lockfile import Lock
    from kfdeploy.mirror import mirror
    from kfdeploy.mirror.plan import wanted_items
    from kfdeploy.upgrade.images import carried

    if lock is None:
        return None
    registry = session.workspace.registry(session.environment)
    sources, platforms = session.workspace.registries.sources, session.environment.platforms
    sides = []
    for each in (session.lock(required=False), lock):
        reduced = Lock([image for image in each if image.digest_for(platforms)])
        whole = Lock([image for image in each if not image.digest_for(platforms)])
        try:
            sides.append(
                [
                    *wanted_items(reduced, registry, sources, platforms),
                    *wanted_items(whole, registry, sources),
                ]
            )
        except UserError:
            return None  # two images on one target: `render` says which
    unlocked = [image.ref for image in images if image.covered and image.ref not in lock.by_id]
    with mirror.opened(session.mirror_settings, session.root, session.cache) as opened:
        return carried(
            sides[0],
            sides[1],
            lambda item: opened.manifests.known_tree(item.source.digest, item.platforms),
            unlocked,
        )


def _patched(
    new: Session, prepared: Path, inventory: Inventory, session: Session
) -> tuple[Generated, Drift]:
    """The new generated files, which are written beside people's in the prepared workspace."""
    from kfdeploy.files import write_all
    from kfdeploy.patch import generate
    from kfdeploy.upgrade import upgrade as stage
    from kfdeploy.workspace import settings_file

    workspace = settings_file.read(prepared).workspace
    rendered = stage.relative(new.rendered(), workspace.components)
    facts = session.facts.catalogue()
    made = generate.generate(workspace, prepared, inventory, rendered, facts)
    drift = generate.compare(prepared, made)
    wanted = {name: made.files[name] for name in (*drift.new, *drift.changed)}
    write_all(prepared, wanted, remove=drift.stale)
    return made, drift


def _tried(
    new: Session,
    session: Session,
    prepared: Path,
    made: Generated,
    drift: Drift,
    before: Mapping[str, Sequence[Object]],
    images: Sequence[SourceImage],
    lock: Lock | None,
) -> tuple[GeneratedFiles, tuple[Trial, ...], tuple[Trial, ...]]:
    from dataclasses import replace

    from kfdeploy import features
    from kfdeploy.images import lockfile
    from kfdeploy.images.naming import Mirror
    from kfdeploy.patch import generate
    from kfdeploy.patch.fill import Filler, environment_values
    from kfdeploy.patch.values import look_ups
    from kfdeploy.upgrade import upgrade as stage
    from kfdeploy.upgrade.patches import Trial
    from kfdeploy.upgrade.report import GeneratedFiles

    written = {*drift.new, *drift.changed, *drift.edited}
    generated = GeneratedFiles(
        same=tuple(sorted(made.files.keys() - written)),
        changed=drift.changed,
        new=drift.new,
        gone=drift.stale,
    )
    workspace, environment = session.workspace, session.environment
    mirror = Mirror(workspace.registry(environment), environment.platforms)
    looks = look_ups(images, lock or lockfile.Lock(()), mirror, unpinned=True)
    values = environment_values(workspace, session.root, session.environment_name, looks)
    own = sorted(_own(prepared))
    edited = [name for name in drift.edited if name.startswith("patches/")]
    trials = stage.trials(
        stage.Stage(prepared, new.rendered(), before, Filler(prepared, values), session.cache),
        [*own, *edited],
        [generate.SHARED, *(addition.release for addition in features.additions(workspace))],
    )
    earlier = _generated_before(session) if drift.edited else {}
    judged = []
    for name in drift.edited:
        was, now = earlier.get(name), made.files.get(name)
        state = "gone" if now is None else "same" if now == was else "changed"
        trial = trials.get(name) or Trial(name, "holds")
        judged.append(replace(trial, generated=state))
    return generated, tuple(judged), tuple(trials[name] for name in own if name in trials)


def _own(root: Path) -> Iterator[str]:
    from kfdeploy.patch import generate

    folders = root / "patches"
    for folder in sorted(folders.iterdir()) if folders.is_dir() else ():
        yield from (f"patches/{folder.name}/{n}" for n in generate.own_files(root, folder.name))


def _generated_before(session: Session) -> Mapping[str, str]:
    """What `patch` generates at the release before."""
    from kfdeploy.patch import generate

    old = _earlier(session)
    facts = session.facts.catalogue()
    return generate.generate(old.workspace, old.root, old.inventory(), old.rendered(), facts).files


def _files(
    session: Session, texts: Mapping[str, str], stale: Sequence[str], upstream: Sequence[str]
) -> Files:
    from kfdeploy.upgrade.report import Files

    new = [name for name in texts if not (session.root / name).is_file()]
    changed = [n for n, text in texts.items() if n not in new and session.differs(n, text)]
    endings = {
        "added": ": missing",
        "changed": ": differs",
        "removed": ": not part of the upstream",
    }
    counts = {
        what: sum(line.startswith("upstream/") and line.endswith(end) for line in upstream)
        for what, end in endings.items()
    }
    return Files(tuple(sorted(new)), tuple(sorted(changed)), tuple(sorted(stale)), counts)


# -- showing ---------------------------------------------------------------------------------------


def _show(report: UpgradeReport, form: Form, check: bool) -> None:
    from kfdeploy.cli.report import upgrade as show_upgrade

    if form == "json":
        print_json(report.to_json())
    elif form == "markdown":
        print_lines(show_upgrade.markdown(report))
    else:
        print_lines(show_upgrade.lines(report, check=check))
    exit_if_drift(check, not report.files.is_nothing)
    if check:
        return
    if report.lock and report.lock.failures and not report.lock.was_offline:
        raise typer.Exit(FAILED)
    if report.misfits:
        complain(f"error: {trial.file}: has to be adapted" for trial in report.misfits)
        raise typer.Exit(DIFFERENCE)
