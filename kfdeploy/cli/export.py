"""What other tools are told of the mirror: export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kfdeploy.cli.common import (
    HERE,
    Check,
    Directory,
    EnvironmentName,
    OutputFormat,
    Quiet,
    app,
    open_session,
)
from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.terminal import counted, exit_if_drift, print_json, print_lines


@app.command()
def export(
    format_: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="For nodes: hosts-toml, registries-yaml, idms. For tools that copy images:"
            " regsync, skopeo-sync, hauler, zarf. A bill of materials: cyclonedx.",
        ),
    ] = "",
    directory: Directory = HERE,
    env: EnvironmentName = "",
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Write files below this folder.")
    ] = None,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """The lock and the mirror as other tools' input."""
    from kfdeploy.files import read_text, write_all
    from kfdeploy.model import sources
    from kfdeploy.pipeline import export as stage

    if check and to is None:
        raise UserError("--check compares files: name their folder by --to", exit_code=WRONG_USE)
    maker = stage.find(format_)
    session = open_session(directory, env, quiet)
    locked = session.lock(required=True)
    listed = session.root / sources.NAME
    if not listed.is_file():
        raise UserError(f"the workspace has no {sources.NAME} yet", hint="run `kfdeploy lock`")
    made = stage.export(
        maker,
        session.workspace,
        session.root,
        session.environment_name,
        locked,
        sources.parse(read_text(listed)),
        session.known_version(),
    )
    fresh, stale = stage.changes(made, to) if to else ({}, [])
    if to and not check:
        write_all(to, fresh, remove=stale)
    if not quiet:
        sys.stderr.writelines(f"note: {note}\n" for note in made.notes)
    if output == "json":
        print_json(made.files)
    elif to is None:
        sys.stdout.write(stage.text(made))
    elif check:
        there = {name for name in fresh if (to / name).exists()}
        print_lines(f"{'changed' if name in there else 'new'}: {name}" for name in fresh)
        print_lines(f"stale: {name}" for name in stale)
    else:
        counts = f"{len(fresh)} written, {len(stale)} removed"
        print(f"{to}: {counted(len(made.files), 'file')}, {counts}")
    exit_if_drift(check, bool(fresh or stale))
