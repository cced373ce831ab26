"""The commands for a workspace and its upstream: init, vendor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from kfdeploy.cli.common import HERE, Check, Directory, Jobs, Quiet, app, open_session
from kfdeploy.errors import DIFFERENCE, WRONG_USE, UserError
from kfdeploy.terminal import exit_if_drift, print_json, print_lines
from kfdeploy.wording import pluralize

Upgrade = Annotated[
    bool, typer.Option("--upgrade", help="Move the workspace to another release, in place.")
]
Offline = Annotated[
    bool, typer.Option("--offline", help="With --upgrade: ask no registry for new images.")
]
Form = Annotated[
    Literal["text", "json", "markdown"],
    typer.Option(
        "--output",
        help="The form of the result on stdout; markdown is for the report of --upgrade.",
    ),
]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The workspace's folder.")] = HERE,
    upstream: Annotated[
        str,
        typer.Option(
            "--upstream", metavar="DIR_OR_GIT_URL", help="The source of Kubeflow's manifests."
        ),
    ] = "",
    ref: Annotated[str, typer.Option("--ref", help="A tag, branch or commit of it.")] = "",
    remotes: Annotated[
        Path | None,
        typer.Option(
            "--remotes", metavar="DIR", help="A folder with a copy of remotes for each host."
        ),
    ] = None,
    registry: Annotated[
        str, typer.Option("--registry", metavar="HOST[/PREFIX]", help="The private registry.")
    ] = "",
    features: Annotated[
        str, typer.Option("--features", help="The features to turn on: all, none, or A,B.")
    ] = "none",
    upgrade: Upgrade = False,
    offline: Offline = False,
    jobs: Jobs = 8,
    output: Form = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """Create a workspace with a commented kfdeploy.yaml, or move one to another release."""
    from kfdeploy.files import write_all
    from kfdeploy.upstream import init as initial

    if upgrade:
        if registry or features != "none":
            raise UserError(
                "--upgrade leaves the registry and the features as kfdeploy.yaml has them",
                hint="edit kfdeploy.yaml to change them",
                exit_code=WRONG_USE,
            )
        _run_upgrade(folder, upstream, ref, remotes, offline, jobs, output, quiet, check)
        return
    _refuse_upgrade_options(offline, output)
    if not upstream:
        raise UserError(
            "--upstream is missing",
            hint="name the folder, tarball or git URL of Kubeflow's manifests",
            exit_code=WRONG_USE,
        )
    made = initial.plan_workspace(
        folder,
        upstream,
        ref=ref or None,
        remotes=remotes,
        registry=registry or None,
        features=initial.parse_features(features),
    )
    if not check:
        kept = [".gitignore"] if (folder / ".gitignore").exists() else []
        write_all(folder, {n: text for n, text in made.files.items() if n not in kept})
    for problem in made.problems:
        print(f"note: {problem.where}: {problem.message}", file=sys.stderr)
    if output == "json":
        print_json(
            {
                "workspace": str(folder),
                "version": made.version,
                "components": [{"name": c.name, "path": c.path} for c in made.components],
                "problems": [{"what": p.message, "where": p.where} for p in made.problems],
            }
        )
    else:
        where = folder / "kfdeploy.yaml"
        print(f"{where}: {pluralize(len(made.components), 'component')} of {made.version}")
        if not quiet:
            print(f"next: kfdeploy vendor -C {folder}")
    if check:
        raise typer.Exit(DIFFERENCE)


@app.command()
def vendor(
    directory: Directory = HERE,
    upgrade: Upgrade = False,
    upstream: Annotated[
        str,
        typer.Option(
            "--upstream",
            metavar="DIR_OR_GIT_URL",
            help="With --upgrade: the source of the other release.",
        ),
    ] = "",
    ref: Annotated[
        str, typer.Option("--ref", help="With --upgrade: a tag, branch or commit of it.")
    ] = "",
    remotes: Annotated[
        Path | None,
        typer.Option(
            "--remotes",
            metavar="DIR",
            help="With --upgrade: a folder with a copy of remotes for each host.",
        ),
    ] = None,
    offline: Offline = False,
    jobs: Jobs = 8,
    output: Form = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """Copy the upstream, with every remote base and URL that it uses, and record them."""
    from kfdeploy.files import defer_signals
    from kfdeploy.upstream import vendor as vendoring

    if upgrade:
        _run_upgrade(directory, upstream, ref, remotes, offline, jobs, output, quiet, check)
        return
    if upstream or ref or remotes:
        raise UserError(
            "--upstream, --ref and --remotes go with --upgrade",
            hint="kfdeploy.yaml says what is vendored; add --upgrade to move to another release",
            exit_code=WRONG_USE,
        )
    _refuse_upgrade_options(offline, output)
    session = open_session(directory, quiet=quiet)
    plan = vendoring.plan_vendoring(
        session.workspace,
        session.root,
        locate=session.locate_key,
        on_progress=session.progress.print_line,
    )
    changes = vendoring.list_plan_changes(plan, session.root)
    if not check:
        with defer_signals():
            vendoring.write_plan(plan, session.root)
    for problem in plan.problems:
        print(f"note: {problem.where}: {problem.message}", file=sys.stderr)
    if output == "json":
        print_json(
            {
                "version": plan.lock.upstream.version,
                "files": len(plan.files),
                "remotes": [{"url": r.url, "path": r.path} for r in plan.lock.remotes],
                "changes": list(changes),
            }
        )
    elif check:
        print_lines(changes)
    else:
        found = pluralize(len(plan.lock.remotes), "remote")
        print(f"upstream/: {len(plan.files)} files; {found}")
    exit_if_drift(check, bool(changes))


def _refuse_upgrade_options(offline: bool, output: str) -> None:
    if offline or output == "markdown":
        given = "--offline" if offline else "--output markdown"
        raise UserError(f"{given} goes with --upgrade", exit_code=WRONG_USE)


def _run_upgrade(
    folder: Path,
    upstream: str,
    ref: str,
    remotes: Path | None,
    offline: bool,
    jobs: int,
    output: Literal["text", "json", "markdown"],
    quiet: bool,
    check: bool,
) -> None:
    from kfdeploy.cli.upgrade import run_upgrade
    from kfdeploy.upgrade.options import UpgradeOptions
    from kfdeploy.upstream.init import find_host_remotes, format_upstream_source

    options = UpgradeOptions(
        upstream=format_upstream_source(upstream, folder) if upstream else "",
        ref=ref,
        remotes=dict(find_host_remotes(remotes, folder)),
        offline=offline,
        jobs=jobs,
    )
    run_upgrade(folder, options, form=output, quiet=quiet, check=check)
