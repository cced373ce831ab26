"""Images: scan, why, lock, mirror."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

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
    from kfdeploy.session import Session

_ABOUT: Final = {
    "size": "no size known",
    "platforms": "note",
    "attached": "not known what belongs to it",
    "signature": "its signature is not checked",
}
"""How each kind of `lock`'s notes begins."""


@app.command()
def scan(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    format_: Annotated[
        Literal["table", "json", "csv", "refs"], typer.Option("--format", help="How it is shown.")
    ] = "table",
    egress: Annotated[
        bool, typer.Option("--egress", help="Not the images: what else is reached for outside.")
    ] = False,
    image_content: Annotated[
        bool, typer.Option("--image-content", help="Look into the operators' images themselves.")
    ] = False,
    images: Annotated[
        list[str] | None, typer.Option("--image", metavar="REF", help="Only into this; repeatable.")
    ] = None,
    where: Annotated[
        str, typer.Option("--from", metavar="private|daemon|DIR", help="Where images are read.")
    ] = "private",
    source: Annotated[
        Path | None, typer.Option("--source", metavar="DIR", help="Look into a checkout instead.")
    ] = None,
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """Every image, with where it was found."""
    from kfdeploy.cli.report import inventory as show

    into_images = image_content or bool(images) or where != "private"
    if egress and (into_images or source is not None):
        raise UserError(
            "--egress lists what the manifests and the catalogue say, and looks into nothing",
            hint="call it without --image-content, --image, --from and --source",
            exit_code=WRONG_USE,
        )
    if into_images or source is not None:
        from kfdeploy.cli import content

        form = "json" if output == "json" else format_
        if into_images and source is not None:
            raise UserError(
                "--source looks into a checkout, --image-content, --image and --from into images",
                hint="call them one after the other",
                exit_code=WRONG_USE,
            )
        if source is not None:
            content.scan_source_checkout(source, directory, env, quiet, form)
        else:
            session = open_session(directory, env, quiet)
            content.scan_image_content(session, images or (), where, form)
        return
    session = open_session(directory, env, quiet)
    if egress:
        from kfdeploy.cli.report import egress as show_egress

        form = "json" if output == "json" else format_
        report = session.scan_egress()
        print_lines(show_egress.format_egress(report, form))
        if form == "table":
            print_warnings(show_egress.format_unread(report))
        return
    inventory = session.build_inventory()
    if output == "json" or format_ == "json":
        print_json(inventory)
    else:
        print_lines(show.format_inventory(inventory, format_))
        # In JSON the same is part of the answer.
        for problem in inventory.problems:
            print(f"note: {problem.where}: {problem.what}", file=sys.stderr)
        print_warnings(show.format_unreviewed(inventory))
        from kfdeploy.images import sources_file

        settings = session.workspace.images
        print_warnings(show.format_unavailable(inventory, settings))
        print_warnings(
            show.format_unused_substitutes(
                settings, (i.ref for i in sources_file.collect_source_images(inventory, settings))
            )
        )


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
    """Each place that names an image, with file and line, and what redirects it."""
    from kfdeploy.cli.report import inventory as show
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
        near = ", ".join(lookup.suggest_refs(inventory.images, image))
        raise UserError(
            f"{image}: nothing in this workspace names it",
            hint=f"there is {near}" if near else "`kfdeploy scan --format refs` lists the images",
        )
    if output == "json":
        print_json({"images": images})
    else:
        print_lines(show.explain_images(images, inventory, settings))


@app.command()
def lock(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    jobs: Jobs = 8,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nobody: only what is known by digest.")
    ] = False,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Ask again which signatures belong to unchanged images."),
    ] = False,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """Tags to digests: images.lock, and images.sources.yaml beside it."""
    from kfdeploy.catalogue import hidden_images
    from kfdeploy.cli.report import inventory as show
    from kfdeploy.files import write_all
    from kfdeploy.images import lockfile, sources_file
    from kfdeploy.lock import lock as stage

    session = open_session(directory, env, quiet)
    inventory = session.build_inventory()
    previous = session.read_lock(required=False)
    images = sources_file.collect_source_images(inventory, session.workspace.images)
    with session.progress.count_items("locking") as advance:
        result = stage.resolve(
            [image.ref for image in images if image.covered],
            session.workspace,
            root=session.root,
            environment=session.environment,
            previous=previous,
            jobs=jobs,
            offline=offline,
            refresh=refresh,
            on_event=lambda event: advance(event.id, event.done, event.total),
            cache=session.cache,
        )
    failed = {failure.id for failure in result.failures}
    not_locked = sorted(failed - result.lock.by_id.keys())
    refused = {failure.id for failure in result.failures if failure.is_refused}
    kept = session.still_locked([ref for ref in not_locked if ref not in refused], previous)
    locked = lockfile.Lock((*result.lock, *kept.values()))
    texts = {
        "images.lock": lockfile.dumps(locked),
        sources_file.NAME: sources_file.dump_sources(inventory, images),
    }
    changed = [name for name, text in texts.items() if session.would_change(name, text)]
    if not check:
        write_all(session.root, texts)
    for ref in sorted(i.ref for i in images if not i.covered):
        session.progress.print_line(f"not covered: {ref}")
    for moved in result.moved:
        print(f"note: {moved.id}: was {moved.before}, is {moved.now}", file=sys.stderr)
    for note in result.notes:
        session.progress.print_line(f"{_ABOUT[note.about]}: {note.id}: {note.reason}")
    for warning in result.warnings:
        print(f"note: {warning}", file=sys.stderr)
    print_warnings(
        show.format_unused_substitutes(session.workspace.images, (image.ref for image in images))
    )
    print_warnings(show.format_lock_failures(result.failures, inventory, kept))
    if not_read := hidden_images.group_unknown_programs(inventory.unknown):
        count = pluralize(len(not_read), "program")
        session.progress.print_line(
            f"note: {count} at versions that nobody has read for images: `kfdeploy scan` names them"
        )
    if output == "json":
        print_json({**result.to_json(), "kept": sorted(kept), "changed": changed})
    else:
        print(
            f"images.lock: {pluralize(len(result.lock), 'image')} locked, {len(not_locked)} not"
            + (f" ({len(kept)} of them as before)" if kept else "")
            + (
                f", {unfit} not for every environment"
                if (unfit := len(failed) - len(not_locked))
                else ""
            )
        )
    if result.failures:
        raise typer.Exit(FAILED)
    exit_if_drift(check, bool(changed))


@app.command()
def mirror(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    jobs: Jobs = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan.")] = False,
    to_bundle: Annotated[
        Path | None, typer.Option("--to-bundle", metavar="DIR", help="Into a bundle instead.")
    ] = None,
    part_size: Annotated[
        str, typer.Option("--part-size", metavar="SIZE", help="In parts, such as 4.7G or 700M.")
    ] = "",
    part: Annotated[
        list[int] | None, typer.Option("--part", metavar="N", help="Only this part; repeatable.")
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option("--since", metavar="LOCK", help="Without what the far side has by this lock."),
    ] = None,
    images_only: Annotated[
        bool, typer.Option("--images-only", help="Without kfdeploy's wheels and the programs.")
    ] = False,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME", help="Only this release set; repeatable."),
    ] = None,
    sign_key: Annotated[
        Path | None, typer.Option("--sign-key", metavar="FILE", help="Sign the parts with it.")
    ] = None,
    from_bundle: Annotated[
        list[Path] | None,
        typer.Option("--from-bundle", metavar="DIR", help="From a bundle; repeatable."),
    ] = None,
    verify_key: Annotated[
        list[Path] | None,
        typer.Option("--verify-key", metavar="FILE", help="Take only what it has signed."),
    ] = None,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Print the plan; exit 3 when something is to be copied. --from-bundle: hash all"
            " of it and push nothing.",
        ),
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="List what no kept release set needs; ask to delete it.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --prune: delete without asking.")
    ] = False,
) -> None:
    """Images into the private registry, or by way of a bundle."""
    from kfdeploy.cli import bundles

    shown = bundles.OutputOptions(jobs, dry_run, check, output)
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
        from kfdeploy.cli.prune import prune_registry as prune_registry

        prune_registry(session, yes=yes, output=output)
    elif to_bundle is not None:
        wish = bundles.build_bundle_options(
            session, to_bundle, part_size, part or (), images_only, sets or ()
        )
        bundles.write_bundle(session, shown, wish, since, sign_key)
    elif from_bundle:
        bundles.read_bundle(session, shown, from_bundle, verify_key or ())
    else:
        _mirror_images(session, shown, env)


def _mirror_images(session: Session, shown: OutputOptions, env: str) -> None:
    from kfdeploy.cli import mirroring

    code = mirroring.mirror_lock(
        session.root,
        session.mirror_settings,
        session.read_lock(required=True),
        env,
        session.progress,
        mirroring.MirrorOptions(shown.jobs, shown.dry_run, shown.check, shown.output),
        by_tag=session.read_tag_only_refs(),
    )
    if code:
        raise typer.Exit(code)
