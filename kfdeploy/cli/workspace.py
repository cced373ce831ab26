"""The workspace and its upstream: init, vendor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kfdeploy.cli.common import HERE, Check, Directory, OutputFormat, Quiet, app, open_session
from kfdeploy.errors import DIFFERENCE, WRONG_USE, UserError
from kfdeploy.terminal import counted, exit_if_drift, print_json, print_lines


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The new workspace.")] = HERE,
    upstream: Annotated[
        str, typer.Option("--upstream", metavar="DIR_OR_GIT_URL", help="Kubeflow's manifests.")
    ] = "",
    ref: Annotated[str, typer.Option("--ref", help="Tag, branch or commit.")] = "",
    remotes: Annotated[
        Path | None, typer.Option("--remotes", metavar="DIR", help="Folders that answer for hosts.")
    ] = None,
    registry: Annotated[
        str, typer.Option("--registry", metavar="HOST[/PREFIX]", help="The private registry.")
    ] = "",
    features: Annotated[str, typer.Option("--features", help="all, none, or A,B.")] = "none",
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """A new workspace with a commented kfdeploy.yaml."""
    from kfdeploy.files import write_all
    from kfdeploy.pipeline import init as stage

    if not upstream:
        raise UserError(
            "--upstream is missing",
            hint="name the folder, tarball or git URL of Kubeflow's manifests",
            exit_code=WRONG_USE,
        )
    made = stage.init(
        folder,
        upstream,
        ref=ref or None,
        remotes=remotes,
        registry=registry or None,
        features=stage.chosen_features(features),
    )
    if not check:
        kept = [".gitignore"] if (folder / ".gitignore").exists() else []
        write_all(folder, {n: text for n, text in made.files.items() if n not in kept})
    for problem in made.problems:
        print(f"note: {problem.where}: {problem.what}", file=sys.stderr)
    if output == "json":
        print_json(
            {
                "workspace": str(folder),
                "version": made.version,
                "components": [{"name": c.name, "path": c.path} for c in made.components],
                "problems": [{"what": p.what, "where": p.where} for p in made.problems],
            }
        )
    else:
        where = folder / "kfdeploy.yaml"
        print(f"{where}: {counted(len(made.components), 'component')} of {made.version}")
        if not quiet:
            print(f"next: kfdeploy vendor -C {folder}")
    if check:
        raise typer.Exit(DIFFERENCE)


@app.command()
def vendor(
    directory: Directory = HERE,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """A complete local upstream: every remote base and URL, recorded."""
    from kfdeploy.files import uninterrupted
    from kfdeploy.pipeline import vendor as stage

    session = open_session(directory, quiet=quiet)
    plan = stage.vendor(
        session.workspace, session.root, locate=session.locate, step=session.progress.line
    )
    changes = stage.check(plan, session.root)
    if not check:
        with uninterrupted():
            stage.write(plan, session.root)
    for problem in plan.problems:
        print(f"note: {problem.where}: {problem.what}", file=sys.stderr)
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
        remotes = len(plan.lock.remotes)
        print(f"upstream/: {len(plan.files)} files; {counted(remotes, 'remote')}")
    exit_if_drift(check, bool(changes))
