"""`mirror --to-bundle` and `--from-bundle`: images that cross the gap on disks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kfdeploy.cli.common import Output
from kfdeploy.errors import FAILED, WRONG_USE, UserError
from kfdeploy.terminal import exit_if_drift, print_errors, print_json, print_lines
from kfdeploy.wording import format_bytes, pluralize

if TYPE_CHECKING:
    from kfdeploy.bundle import read as bundle_read
    from kfdeploy.bundle import write as bundle_write
    from kfdeploy.bundle.plan import DeliveredContents
    from kfdeploy.bundle.read_layout import VerifySignature
    from kfdeploy.bundle.write_layout import BundlePart
    from kfdeploy.mirror import mirror
    from kfdeploy.mirror.plan import MirrorSummary
    from kfdeploy.mirror.stores import ReadableBlob
    from kfdeploy.session import Session


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Hold the options that every way of mirroring has."""

    jobs: int
    dry_run: bool
    check: bool
    output: Output


def check_option_groups(*groups: Mapping[str, object]) -> None:
    """Refuse options that need another one, or that exclude each other.

    Args:
        groups: options and their values. The first one of a group is what the others need.

    Raises:
        UserError: names the options.
    """
    used = [[name for name, value in group.items() if value] for group in groups]
    heads = [next(iter(group)) for group in groups]
    for head, names in zip(heads, used, strict=True):
        if names and head not in names:
            raise UserError(f"{names[0]} needs {head}", exit_code=WRONG_USE)
    together = [names[0] for names in used if names]
    if len(together) > 1:
        raise UserError(
            f"{' and '.join(together)} exclude each other",
            hint="run one after the other",
            exit_code=WRONG_USE,
        )
    if "--part" in used[0] and "--part-size" not in used[0]:
        raise UserError(
            "--part needs --part-size, with the size that the parts were made with",
            exit_code=WRONG_USE,
        )


def build_bundle_options(
    session: Session,
    to: Path,
    part_size: str,
    parts: Sequence[int],
    images_only: bool,
    sets: Sequence[str],
) -> bundle_write.BundleOptions:
    """Return the options of a bundle, with the workspace's release sets, CAs and keys.

    Without ``sets`` all release sets of the workspace go along.
    """
    from kfdeploy.bundle.plan import parse_size
    from kfdeploy.bundle.write import BundleOptions

    releases = session.root / "releases"
    there = sorted(releases.iterdir()) if releases.is_dir() and not sets else []
    found = [path for path in there if path.is_dir() and not path.name.startswith(".")]
    registries = session.workspace.registries
    authorities = [access.ca for access in (registries.private, *registries.hosts.values())]
    authorities += [each.registry.ca for each in session.workspace.environments.values()]
    return BundleOptions(
        to=to,
        part_size=parse_size(part_size) if part_size else 0,
        only=tuple(parts),
        images_only=images_only,
        sets=tuple(session.find_set(name) for name in sets) or tuple(found),
        named_files=(
            *(name for name in authorities if name),
            *registries.bundle_keys,
            *(key for rule in session.workspace.images.signatures for key in rule.keys),
        ),
    )


# -- writing ---------------------------------------------------------------------------------------


def write_bundle(
    session: Session,
    run_options: OutputOptions,
    options: bundle_write.BundleOptions,
    since: Path | None,
    sign_key: Path | None,
) -> None:
    """Write the images of the lock into a bundle, or print what would be written."""
    from kfdeploy.bundle import write as writing
    from kfdeploy.cli.mirror_progress import watch_mirror
    from kfdeploy.mirror import mirror
    from kfdeploy.mirror.plan import list_mirror_items
    from kfdeploy.mirror.signed_store import SignedOrigin
    from kfdeploy.oci.signing.verify import SignatureRules

    sign = _make_signer(sign_key) if sign_key else None
    lock = session.read_lock(required=True)
    workspace, environment = session.workspace, session.environment
    registry, sources = workspace.resolve_registry(environment), workspace.registries.sources
    rules = SignatureRules.from_settings(workspace.images.signatures, session.root)
    with mirror.open_endpoints(session.mirror_settings, session.root, session.cache) as sides:
        origin = SignedOrigin(sides.client, sides.manifests, rules, lock)
        older, notes = _read_older_lock(session, sides, since) if since else (None, [])
        with session.progress.count_items("reading") as advance:
            prepared = writing.prepare_bundle(
                list_mirror_items(lock, registry, sources, environment.platforms),
                lock,
                session.root,
                options,
                origin,
                older=older,
                close=sides.client.close,
                on_progress=advance,
            )
        _print_notes([*notes, *prepared.notes])
        if run_options.dry_run or run_options.check:
            _show_plan(prepared, run_options)
            return
        with prepared.writer.open_for_writing():
            _print_notes(prepared.writer.notes)
            with watch_mirror(session.progress) as (watch, on_tick):
                summary = mirror.run_mirror(
                    prepared.build_plan(),
                    prepared.origin,
                    prepared.writer,
                    jobs=run_options.jobs,
                    progress=watch,
                    stop=sides.client.close,
                    on_tick=on_tick,
                )
            parts = prepared.finish_parts(sign)
    _show_written(prepared, summary, parts, run_options)


def _read_older_lock(
    session: Session, sides: mirror.MirrorEndpoints, since: Path
) -> tuple[DeliveredContents, list[str]]:
    from kfdeploy.bundle import write as writing
    from kfdeploy.files import read_bytes
    from kfdeploy.images import lockfile
    from kfdeploy.mirror.plan import list_earlier_items

    environment = session.environment
    earlier = list_earlier_items(
        lockfile.read_lock(since),
        session.workspace.resolve_registry(environment),
        session.workspace.registries.sources,
        environment.platforms,
    )
    return writing.find_delivered(
        read_bytes(since),
        earlier,
        lambda item: sides.manifests.get_cached_tree(item.source.digest, item.platforms),
        sides.origin,
        sides.client.close,
    )


def _show_plan(prepared: bundle_write.PreparedBundle, run_options: OutputOptions) -> None:
    print_errors([failed.error for failed in prepared.failed])
    plan = prepared.build_plan()
    finished = prepared.writer.is_finished() and not prepared.failed
    if run_options.output == "json":
        print_json({**plan.to_json(), "bundle": prepared, "finished": finished})
    else:
        print_lines(prepared.format_lines())
        print(plan.format_lines()[-1])
    if prepared.failed:
        raise typer.Exit(FAILED)
    exit_if_drift(run_options.check, not finished)


def _show_written(
    prepared: bundle_write.PreparedBundle,
    summary: MirrorSummary,
    parts: Sequence[BundlePart],
    run_options: OutputOptions,
) -> None:

    failed = [*prepared.failed, *summary.failed]
    unfinished = [part for part in parts if part.state == "unfinished"]
    print_errors([item.error for item in failed])
    print_errors(
        [
            UserError(
                f"{part.folder}: not finished"
                + (f": {pluralize(part.missing, 'file')} missing" if part.missing else ""),
                hint="run the same command again; exclude images that can't be pulled by"
                " images.exclude, and run `kfdeploy lock`",
            )
            for part in unfinished
        ]
    )
    if run_options.output == "json":
        content = {**summary.to_json(), "failed": failed}
        bundle = prepared.to_json()
        for part, entry in zip(parts, bundle["parts"], strict=True):
            entry.update({"state": part.state, "missing": part.missing})
        print_json({**content, "bundle": bundle})
    else:
        for part in parts:
            print(f"{part.folder}: {format_bytes(part.size)}, {part.state}")
        print_lines(summary.format_lines())
    if failed or unfinished:
        raise typer.Exit(FAILED)


# -- reading ---------------------------------------------------------------------------------------


def read_bundle(
    session: Session, run_options: OutputOptions, given: Sequence[Path], keys: Sequence[Path]
) -> None:
    """Push the images of a bundle into the private registry, or check its files."""
    from kfdeploy.bundle import read as reading
    from kfdeploy.files import read_bytes

    own = [session.root / name for name in session.workspace.registries.bundle_keys]
    verify = _make_verifier([*keys] or own)
    with session.progress.count_items("checking") as advance:
        opened = reading.open_bundle(
            given, verify, hash_blobs=run_options.check, on_progress=advance
        )
    print_errors(opened.problems)
    path = session.root / "images.lock"
    lock = read_bytes(path) if path.is_file() else None
    _print_notes(opened.list_notes(lock, is_verified=verify is not None))
    if run_options.check:
        _show_checked(opened, run_options)
    else:
        _push_bundle(session, run_options, opened)


def _push_bundle(
    session: Session, run_options: OutputOptions, opened: bundle_read.CheckedBundle
) -> None:
    from kfdeploy.bundle import read as reading
    from kfdeploy.cli.mirror_progress import watch_mirror
    from kfdeploy.files import exclusive_lock
    from kfdeploy.images.naming import MirrorNaming
    from kfdeploy.mirror import mirror
    from kfdeploy.oci.reference import ImageRef

    names = MirrorNaming(session.mirror_settings.private)
    with mirror.open_endpoints(session.mirror_settings, session.root, session.cache) as sides:

        def fetch_blob(path: str, digest: str, offset: int) -> AbstractContextManager[ReadableBlob]:
            ref = ImageRef(names.host, path)
            return sides.client.open_blob(ref, digest, offset=offset)

        plan = mirror.plan_mirror(
            opened.lock,
            session.mirror_settings,
            client=sides.client,
            jobs=run_options.jobs,
            by_tag=session.read_tag_only_refs(),
        )
        arrival = reading.prepare_import(
            opened,
            plan,
            sides.destination,
            lambda path: f"{names.host}/{names.repository_path(path)}",
            fetch_blob,
            sides.client.close,
        )
        _print_notes(arrival.notes)
        if run_options.dry_run:
            if run_options.output == "json":
                print_json({**plan.to_json(), "bundle": opened})
            else:
                print_lines(plan.format_lines())
            if opened.problems:
                raise typer.Exit(FAILED)
            return
        with (
            exclusive_lock(session.root / ".kfdeploy" / "mirror.lock", "another `kfdeploy mirror`"),
            watch_mirror(session.progress) as (watch, on_tick),
        ):
            summary = mirror.run_mirror(
                plan,
                arrival.origin,
                arrival.destination,
                jobs=run_options.jobs,
                known=arrival.known,
                progress=watch,
                stop=sides.client.close,
                on_tick=on_tick,
            )
    print_errors([failed.error for failed in summary.failed])
    if run_options.output == "json":
        print_json({**summary.to_json(), "bundle": opened})
    else:
        print_lines(summary.format_lines())
    if summary.failed or opened.problems:
        raise typer.Exit(FAILED)


def _show_checked(opened: bundle_read.CheckedBundle, run_options: OutputOptions) -> None:
    bundle = opened.available.bundle
    if run_options.output == "json":
        print_json({"bundle": opened})
    else:
        whole = bundle.parts - len(opened.available.missing)
        print(f"{whole} of {pluralize(bundle.parts, 'part')}, {len(opened.problems)} problems")
    if opened.problems or opened.available.missing:
        raise typer.Exit(FAILED)


# -- keys ------------------------------------------------------------------------------------------


def _make_signer(key: Path) -> Callable[[bytes], bytes]:
    from kfdeploy.oci.signing import verify as signature

    def sign_data(data: bytes) -> bytes:
        return signature.sign_blob(data, key)

    sign_data(b"")  # refuse a bad key now, not after hours of writing
    return sign_data


def _make_verifier(keys: Sequence[Path]) -> VerifySignature | None:
    if not keys:
        return None
    from kfdeploy.bundle.read import accept_any_key
    from kfdeploy.oci.signing import verify as signature

    return accept_any_key(keys, signature.verify_blob)


def _print_notes(notes: Sequence[str]) -> None:
    sys.stderr.writelines(f"note: {note}\n" for note in notes)
