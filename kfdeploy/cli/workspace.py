"""The workspace and its upstream: init, vendor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from kfdeploy.cli.common import HERE, Check, Directory, Jobs, Quiet, app, open_session
from kfdeploy.errors import DIFFERENCE, WRONG_USE, UserError
from kfdeploy.terminal import counted, exit_if_drift, print_json, print_lines

Upgrade = Annotated[
    bool, typer.Option("--upgrade", help="Move the workspace to this release, in place.")
]
Offline = Annotated[
    bool, typer.Option("--offline", help="With --upgrade: ask no registry for new images.")
]
Form = Annotated[
    Literal["text", "json", "markdown"],
    typer.Option("--output", help="What goes to stdout; markdown is the report of --upgrade."),
]


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
    upgrade: Upgrade = False,
    offline: Offline = False,
    jobs: Jobs = 8,
    output: Form = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """A new workspace with a commented kfdeploy.yaml; or one at another release, in place."""
    from kfdeploy.files import write_all
    from kfdeploy.upstream import init as stage

    if upgrade:
        if registry or features != "none":
            raise UserError(
                "--upgrade leaves the registry and the features as kfdeploy.yaml has them",
                hint="edit kfdeploy.yaml for these",
                exit_code=WRONG_USE,
            )
        _upgrade(folder, upstream, ref, remotes, offline, jobs, output, quiet, check)
        return
    _only_with_upgrade(offline, output)
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
    upgrade: Upgrade = False,
    upstream: Annotated[
        str,
        typer.Option(
            "--upstream", metavar="DIR_OR_GIT_URL", help="With --upgrade: where it is from."
        ),
    ] = "",
    ref: Annotated[str, typer.Option("--ref", help="With --upgrade: tag, branch or commit.")] = "",
    remotes: Annotated[
        Path | None,
        typer.Option(
            "--remotes", metavar="DIR", help="With --upgrade: folders that answer for hosts."
        ),
    ] = None,
    offline: Offline = False,
    jobs: Jobs = 8,
    output: Form = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """A complete local upstream: every remote base and URL, recorded."""
    from kfdeploy.files import uninterrupted
    from kfdeploy.upstream import vendor as stage

    if upgrade:
        _upgrade(directory, upstream, ref, remotes, offline, jobs, output, quiet, check)
        return
    if upstream or ref or remotes:
        raise UserError(
            "--upstream, --ref and --remotes go with --upgrade",
            hint="kfdeploy.yaml says what is vendored; --upgrade changes it with all that follows",
            exit_code=WRONG_USE,
        )
    _only_with_upgrade(offline, output)
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
        found = counted(len(plan.lock.remotes), "remote")
        print(f"upstream/: {len(plan.files)} files; {found}")
    exit_if_drift(check, bool(changes))


def _only_with_upgrade(offline: bool, output: str) -> None:
    if offline or output == "markdown":
        given = "--offline" if offline else "--output markdown"
        raise UserError(f"{given} goes with --upgrade", exit_code=WRONG_USE)


def _upgrade(
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
    from kfdeploy.cli.upgrade import Wish
    from kfdeploy.cli.upgrade import upgrade as run
    from kfdeploy.upstream import init as stage

    wish = Wish(
        stage.named(upstream, folder) if upstream else "",
        ref,
        dict(stage.remotes_in(remotes, folder)),
        offline,
        jobs,
    )
    run(folder, wish, form=output, quiet=quiet, check=check)
