"""What differs: diff, audit."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kfdeploy.cli.common import (
    HERE,
    Directory,
    Quiet,
    app,
    open_session,
)
from kfdeploy.errors import DIFFERENCE, WRONG_USE, UserError
from kfdeploy.terminal import print_json, print_lines


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A release set: its name or folder.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another.")] = "",
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="PART", help="One part, such as plan or images; repeatable."
        ),
    ] = None,
    directory: Directory = HERE,
    output: Annotated[
        Literal["text", "json", "markdown"],
        typer.Option("--output", help="What goes to stdout; markdown is for a merge request."),
    ] = "text",
    quiet: Quiet = False,
) -> None:
    """Two release sets: what an upgrade changes, recreates and deletes."""
    from kfdeploy import show_changes
    from kfdeploy.pipeline import diff as stage

    for part in only or ():
        if part not in show_changes.names():
            raise UserError(
                f"--only {part}: there is no such part",
                hint=f"there are {', '.join(show_changes.names())}",
                exit_code=WRONG_USE,
            )
    session = open_session(directory, quiet=quiet)
    if not new:
        raise UserError("diff needs two release sets", exit_code=WRONG_USE)
    found = stage.diff(session.find_set(old), session.find_set(new), session.cache)
    if output == "json":
        print_json(found.to_json())
    else:
        show = show_changes.markdown if output == "markdown" else show_changes.text
        print_lines(show(found, only or ()))
    if not found.is_empty:
        raise typer.Exit(DIFFERENCE)
