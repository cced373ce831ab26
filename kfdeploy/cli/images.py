"""The commands for images: scan, why, lock, mirror."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kfdeploy.cli.common import (
    HERE,
    Check,
    Directory,
    EnvironmentName,
    Jobs,
    OutputFormat,
    Quiet,
    app,
    open_session,
)
from kfdeploy.errors import FAILED, WRONG_USE, UserError
from kfdeploy.terminal import exit_if_drift, print_json, print_lines, print_warnings
from kfdeploy.wording import pluralize

if TYPE_CHECKING:
    from kfdeploy.cli.bundles import OutputOptions
    from kfdeploy.images.inventory import Inventory
    from kfdeploy.images.lockfile import Lock
    from kfdeploy.images.sources_file import SourceImage
    from kfdeploy.lock.result import Resolution
    from kfdeploy.session import Session

ScanForm = Literal["table", "json", "csv", "refs"]


@app.command()
def scan(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    format_: Annotated[ScanForm, typer.Option("--format", help="The form of the list.")] = "table",
    egress: Annotated[
        bool,
        typer.Option(
            "--egress", help="List the other addresses that are used outside the cluster instead."
        ),
    ] = False,
    image_content: Annotated[
        bool, typer.Option("--image-content", help="Search the contents of the operators' images.")
    ] = False,
    images: Annotated[
        list[str] | None,
        typer.Option("--image", metavar="REF", help="Search only this image; repeatable."),
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            "--from", metavar="private|daemon|DIR", help="The place to read the images from."
        ),
    ] = "private",
    source: Annotated[
        Path | None,
        typer.Option("--source", metavar="DIR", help="Search a checkout of an operator instead."),
    ] = None,
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """List every image, with the places that name it."""
    from kfdeploy.cli import content

    form: ScanForm = "json" if output == "json" else format_
    searches_images = image_content or bool(images) or where != "private"
    _check_scan_options(egress, searches_images, source)
    if source is not None:
        content.scan_source_checkout(source, directory, env, quiet, form)
        return
    session = open_session(directory, env, quiet)
    if searches_images:
        content.scan_image_content(session, images or (), where, form)
    elif egress:
        _print_egress(session, form)
    else:
        _print_inventory(session, form)


def _check_scan_options(egress: bool, searches_images: bool, source: Path | None) -> None:
    if egress and (searches_images or source is not None):
        raise UserError(
            "--egress lists what the manifests and the catalogue say, and searches no image",
            hint="leave out --image-content, --image, --from and --source",
            exit_code=WRONG_USE,
        )
    if searches_images and source is not None:
        raise UserError(
            "--source searches a checkout; --image-content, --image and --from search images",
            hint="run one after the other",
            exit_code=WRONG_USE,
        )


def _print_egress(session: Session, form: ScanForm) -> None:
    from kfdeploy.cli.report import egress as egress_report

    report = session.scan_egress()
    print_lines(egress_report.format_egress(report, form))
    if form == "table":
        print_warnings(egress_report.format_unread(report))


def _print_inventory(session: Session, form: ScanForm) -> None:
    from kfdeploy.cli.report import inventory as inventory_report
    from kfdeploy.images import sources_file

    inventory = session.build_inventory()
    if form == "json":
        print_json(inventory)  # it holds what the notes below say
        return
    print_lines(inventory_report.format_inventory(inventory, form))
    print_warnings(f"note: {each.where}: {each.what}" for each in inventory.problems)
    print_warnings(inventory_report.format_unreviewed(inventory))
    settings = session.workspace.images
    print_warnings(inventory_report.format_unavailable(inventory, settings))
    images = sources_file.collect_source_images(inventory, settings)
    refs = [image.ref for image in images]
    print_warnings(inventory_report.format_unused_substitutes(settings, refs))


@app.command()
def why(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="A reference, a part of one, or a digest.")
    ],
    directory: Directory = HERE,
    env: EnvironmentName = "",
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """Show each place that names an image, with file and line, and what redirects it."""
    from kfdeploy.cli.report import inventory as inventory_report
    from kfdeploy.images import lookup
    from kfdeploy.images.naming import MirrorNaming

    session = open_session(directory, env, quiet)
    inventory = session.build_inventory()
    settings = session.workspace.images
    private = session.mirror_settings.private
    names = lookup.ImageAliases(
        session.read_lock(required=False), settings, private.host, MirrorNaming(private)
    )
    images = lookup.resolve_images(inventory.images, image, names)
    if not images:
        near = ", ".join(map(str, lookup.suggest_refs(inventory.images, image)))
        raise UserError(
            f"{image}: nothing in this workspace names it",
            hint=f"similar: {near}" if near else "`kfdeploy scan --format refs` lists the images",
        )
    if output == "json":
        print_json({"images": images})
    else:
        print_lines(inventory_report.explain_images(images, inventory, settings))


@app.command()
def lock(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    jobs: Jobs = 8,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Ask no registry: lock only what is known by digest."),
    ] = False,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Ask again which signatures belong to unchanged images."),
    ] = False,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """Pin images to digests: images.lock, and images.sources.yaml beside it."""
    from kfdeploy.cli.report.lock import format_lock_summary
    from kfdeploy.files import write_all
    from kfdeploy.images import lockfile, sources_file
    from kfdeploy.lock.resolve import resolve_digests

    session = open_session(directory, env, quiet)
    inventory = session.build_inventory()
    previous = session.read_lock(required=False)
    images = sources_file.collect_source_images(inventory, session.workspace.images)
    with session.progress.count_items("locking") as advance:
        result = resolve_digests(
            [image.ref for image in images if image.covered],
            session.workspace,
            root=session.root,
            environment=session.environment,
            previous=previous,
            jobs=jobs,
            offline=offline,
            refresh=refresh,
            on_event=lambda event: advance(event.id.text, event.done, event.total),
            cache=session.cache,
        )
    kept = _keep_entries(result, previous, session)
    texts = {
        "images.lock": lockfile.dumps(lockfile.Lock((*result.lock, *kept))),
        sources_file.NAME: sources_file.dump_sources(inventory, images),
    }
    changed = [name for name, text in texts.items() if session.would_change(name, text)]
    if not check:
        write_all(session.root, texts)
    _print_lock_notes(session, result, inventory, images, kept)
    if output == "json":
        print_json({**result.to_json(), "kept": sorted(kept.by_id), "changed": changed})
    else:
        print(format_lock_summary(result, kept))
    if result.failures:
        raise typer.Exit(FAILED)
    exit_if_drift(check, bool(changed))


def _keep_entries(result: Resolution, previous: Lock, session: Session) -> Lock:
    """Return the entries of the lock before for images that can't be resolved now.

    A registry that refuses an image is believed; one that is down for a night is not.
    """
    from kfdeploy.lock.reuse import reuse_locked_images

    refused = {failure.id for failure in result.failures if failure.is_refused}
    failed = {failure.id for failure in result.failures}
    unresolved = sorted(failed - refused - result.lock.by_id.keys())
    return reuse_locked_images(unresolved, [previous], session.workspace.images)


def _print_lock_notes(
    session: Session,
    result: Resolution,
    inventory: Inventory,
    images: Sequence[SourceImage],
    kept: Lock,
) -> None:
    from kfdeploy.catalogue import hidden_images
    from kfdeploy.cli.report import inventory as inventory_report
    from kfdeploy.cli.report import lock as lock_report

    refs = [image.ref for image in images]
    for ref in sorted(image.ref for image in images if not image.covered):
        session.progress.print_line(f"not covered: {ref}")
    print_warnings(lock_report.format_moved_tags(result))
    for line in lock_report.format_progress_notes(result):
        session.progress.print_line(line)
    print_warnings(f"note: {warning}" for warning in result.warnings)
    settings = session.workspace.images
    print_warnings(inventory_report.format_unused_substitutes(settings, refs))
    print_warnings(inventory_report.format_lock_failures(result.failures, inventory, kept.by_id))
    if unknown := hidden_images.group_unknown_programs(inventory.unknown):
        count = pluralize(len(unknown), "program")
        session.progress.print_line(
            f"note: nobody has reviewed {count} at these versions for hidden images:"
            " `kfdeploy scan` names them"
        )


@app.command()
def mirror(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    jobs: Jobs = 8,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and copy nothing.")
    ] = False,
    to_bundle: Annotated[
        Path | None,
        typer.Option("--to-bundle", metavar="DIR", help="Write a bundle into this folder instead."),
    ] = None,
    part_size: Annotated[
        str,
        typer.Option(
            "--part-size",
            metavar="SIZE",
            help="Divide the bundle into parts of this size, such as 4.7G or 700M.",
        ),
    ] = "",
    part: Annotated[
        list[int] | None,
        typer.Option("--part", metavar="N", help="Write only this part; repeatable."),
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option(
            "--since", metavar="LOCK", help="Leave out what the far side has by this images.lock."
        ),
    ] = None,
    images_only: Annotated[
        bool, typer.Option("--images-only", help="Leave out kfdeploy's wheels and the programs.")
    ] = False,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME", help="Take only this release set along; repeatable."),
    ] = None,
    sign_key: Annotated[
        Path | None,
        typer.Option("--sign-key", metavar="FILE", help="Sign the parts with this key."),
    ] = None,
    from_bundle: Annotated[
        list[Path] | None,
        typer.Option(
            "--from-bundle", metavar="DIR", help="Push the images of a bundle; repeatable."
        ),
    ] = None,
    verify_key: Annotated[
        list[Path] | None,
        typer.Option(
            "--verify-key", metavar="FILE", help="Accept only what this key has signed; repeatable."
        ),
    ] = None,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Print the plan; exit with 3 when something is to be copied. With --from-bundle:"
            " check the hashes of all files and push nothing.",
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="List what no kept release set needs, and ask before deleting it."
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --prune: delete without asking.")
    ] = False,
) -> None:
    """Copy images into the private registry, directly or by way of a bundle."""
    from kfdeploy.cli import bundles

    options = bundles.OutputOptions(jobs, dry_run, check, output)
    writing: dict[str, object] = {
        "--part-size": part_size,
        "--part": part,
        "--since": since,
        "--images-only": images_only,
        "--set": sets,
        "--sign-key": sign_key,
    }
    bundles.check_option_groups(
        {"--to-bundle": to_bundle, **writing},
        {"--from-bundle": from_bundle, "--verify-key": verify_key},
        {"--prune": prune, "--yes": yes},
    )
    session = open_session(directory, env, quiet)
    if prune:
        from kfdeploy.cli.prune import prune_registry

        prune_registry(session, yes=yes, output=output)
    elif to_bundle is not None:
        bundle_options = bundles.build_bundle_options(
            session, to_bundle, part_size, part or (), images_only, sets or ()
        )
        bundles.write_bundle(session, options, bundle_options, since, sign_key)
    elif from_bundle:
        bundles.read_bundle(session, options, from_bundle, verify_key or ())
    else:
        _mirror_images(session, options, env)


def _mirror_images(session: Session, options: OutputOptions, env: str) -> None:
    from kfdeploy.cli import mirroring

    code = mirroring.mirror_lock(
        session.root,
        session.mirror_settings,
        session.read_lock(required=True),
        env,
        session.progress,
        mirroring.MirrorOptions(options.jobs, options.dry_run, options.check, options.output),
        by_tag=session.read_tag_only_refs(),
    )
    if code:
        raise typer.Exit(code)
