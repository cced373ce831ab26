"""The commands for patches and release sets: patch, render, verify."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kfdeploy.cli.common import (
    HERE,
    Check,
    Directory,
    EnvironmentName,
    Jobs,
    OutputFormat,
    Quiet,
    SetName,
    app,
    open_session,
)
from kfdeploy.codec import to_json
from kfdeploy.errors import DIFFERENCE
from kfdeploy.terminal import exit_if_drift, print_json, print_lines, print_warnings
from kfdeploy.wording import pluralize


@app.command()
def patch(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """Write patches/ and helmfile.yaml.gotmpl."""
    from kfdeploy.files import write_all
    from kfdeploy.patch import generate
    from kfdeploy.patch.drift import find_drift

    session = open_session(directory, env, quiet)
    inventory = session.build_inventory()
    made = generate.generate_patches(
        session.workspace,
        session.root,
        inventory,
        session.render_components(),
        session.facts.load(),
    )
    drift = find_drift(session.root, made.files)
    print_warnings(f"note: {p.where}: {p.what}" for p in inventory.problems if p.about == "name")
    if not check:
        wanted = {name: made.files[name] for name in (*drift.new, *drift.changed)}
        write_all(session.root, wanted, remove=drift.stale)
    for name in drift.edited:
        print(
            f"error: {name}: edited by hand; it is left as it is\n"
            "  hint: to keep it, remove its first line and rename it;"
            " to have it generated again, delete it",
            file=sys.stderr,
        )
    if output == "json":
        print_json({"files": sorted(made.files), **to_json(drift)})
    elif check:
        print_lines(drift.format_lines())
    else:
        written = len(drift.new) + len(drift.changed)
        print(
            f"patches/: {pluralize(len(made.files), 'file')}, {written} written,"
            f" {len(drift.stale)} removed"
        )
    if drift.edited:
        raise typer.Exit(DIFFERENCE)
    exit_if_drift(check, not drift.is_clean)


@app.command()
def render(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    set_name: Annotated[
        str,
        typer.Option(
            "--set", metavar="NAME", help="The name of the set. Without it: the environment's."
        ),
    ] = "",
    unpinned: Annotated[
        bool, typer.Option("--unpinned", help="Name images that are not locked by their tag.")
    ] = False,
    explain_order: Annotated[
        bool,
        typer.Option("--explain-order", help="Print the order of the releases, with the reasons."),
    ] = False,
    jobs: Jobs = 2,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """Write a release set: all that apply needs, with pinned images, and nothing from outside."""
    from kfdeploy import files
    from kfdeploy.cli.report import order
    from kfdeploy.releaseset.render import RenderSources
    from kfdeploy.releaseset.render import render as render_set

    session = open_session(directory, env, quiet)
    name = session.resolve_set_name(set_name)
    sources = RenderSources(
        workspace=session.workspace,
        root=session.root,
        environment_name=session.environment_name,
        components=session.render_components(jobs),
        images=session.read_sources(),
        lock=session.read_lock(required=not unpinned),
        version=session.version,
        not_read=session.build_inventory().unknown,
    )
    made = render_set(sources, session.cache, unpinned=unpinned, jobs=jobs)
    environment = session.workspace.describe_environment(session.environment_name)
    for feature in session.workspace.list_features():
        for note in feature.list_notes(environment):
            session.progress.print_line(f"note: {note}")
    target = session.root / "releases" / name
    changed = files.tree_differs(target, made.files)
    if changed and not check:
        files.replace_tree(target, made.files)
    if explain_order and output == "json":
        print_json(made.order)
    elif explain_order:
        print_lines(order.format_order(made.order))
    elif output == "json":
        print_json({"set": f"releases/{name}", "changed": changed, **made.summary.to_json()})
    else:
        objects = sum(release.objects + release.crd_count for release in made.releases)
        print(
            f"releases/{name}: {pluralize(len(made.releases), 'release')}, {objects} objects,"
            f" {pluralize(len(made.summary.images), 'image')}"
        )
        if made.summary.unpinned:
            print(f"  by tag only: {pluralize(len(made.summary.unpinned), 'image')}")
    exit_if_drift(check, changed)


@app.command()
def verify(
    name: SetName = "",
    directory: Directory = HERE,
    env: EnvironmentName = "",
    offline: Annotated[bool, typer.Option("--offline", help="Check all but the registry.")] = False,
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """Check that a set is complete, its images are mirrored, and none comes from elsewhere."""
    from contextlib import nullcontext

    from kfdeploy.mirror import mirror
    from kfdeploy.releaseset.folder import open_set
    from kfdeploy.releaseset.verify import verify as verify_set

    session = open_session(directory, env, quiet)
    release_set = open_set(session.find_set(name))
    session.adopt_set_environment(release_set.summary, explicit=bool(env))
    client = (
        nullcontext(None) if offline else mirror.open_client(session.mirror_settings, session.root)
    )
    with client as opened:
        report = verify_set(
            release_set,
            client=opened,
            features=session.workspace.list_features(),
            uncovered=session.workspace.registries.uncovered,
        )
    print_warnings(f"error: {text}" for text in report.failures)
    print_warnings(f"error: {found} leads elsewhere" for found in report.foreign)
    for note in report.notes:
        session.progress.print_line(f"note: {note}")
    if output == "json":
        print_json(report)
    else:
        state = "verified" if report.is_good else "not fit"
        asked = "" if report.asked_registry else "; the registry was not asked"
        print(f"releases/{release_set.name}: {state}: {pluralize(report.images, 'image')}{asked}")
        print_lines(report.redirects.to_lines())
        if not report.foreign:
            print(f"  {report.redirects.conclusion}")
    if not report.is_good:
        raise typer.Exit(DIFFERENCE)
