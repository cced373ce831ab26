"""`kfdeploy export`: what other tools are told of the mirror."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.terminal import counted, exit_if_drift, print_json

HERE = Path()


def export(
    format_: Annotated[
        str, typer.Argument(metavar="FORMAT", help="hosts-toml, registries-yaml or idms.")
    ] = "",
    directory: Annotated[
        Path, typer.Option("-C", "--directory", metavar="DIR", help="The workspace.")
    ] = HERE,
    env: Annotated[
        str, typer.Option("--env", metavar="NAME", help="The environment in kfdeploy.yaml.")
    ] = "",
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Write files below this folder.")
    ] = None,
    output: Annotated[
        Literal["text", "json"], typer.Option("--output", help="What goes to stdout.")
    ] = "text",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="With --to: write nothing; exit 3 on a difference.")
    ] = False,
) -> None:
    """The mirror as other tools' input, such as a node's registry configuration."""
    from kfdeploy.files import read_text, write_all
    from kfdeploy.model import sources
    from kfdeploy.pipeline import export as stage
    from kfdeploy.session import Session

    if check and to is None:
        raise UserError("--check compares files: name their folder by --to", exit_code=WRONG_USE)
    session = Session.open(directory, env, quiet=quiet)
    maker = stage.find(format_)
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
        sys.stdout.writelines(
            f"{'new' if not (to / name).exists() else 'changed'}: {name}\n" for name in fresh
        )
        sys.stdout.writelines(f"stale: {name}\n" for name in stale)
    else:
        print(
            f"{to}: {counted(len(made.files), 'file')}, {len(fresh)} written, {len(stale)} removed"
        )
    exit_if_drift(check, bool(fresh or stale))
