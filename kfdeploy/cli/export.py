"""What other tools are told of the mirror, and an administrator of the rights: export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from kfdeploy.pipeline.exports import Exported
    from kfdeploy.session import Session


@app.command()
def export(
    format_: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="For nodes: hosts-toml, registries-yaml, idms. For tools that copy images:"
            " regsync, skopeo-sync, hauler, zarf. A bill of materials: cyclonedx. For the cluster's"
            " administrator, of release sets: rbac.",
        ),
    ] = "",
    sets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SET]...", help="For rbac: sets below releases/."),
    ] = None,
    directory: Directory = HERE,
    env: EnvironmentName = "",
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Write files below this folder.")
    ] = None,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """The lock and the mirror as other tools' input; the rights that applying a set takes."""
    from kfdeploy.files import write_all
    from kfdeploy.pipeline import export as stage

    if check and to is None:
        raise UserError("--check compares files: name their folder by --to", exit_code=WRONG_USE)
    if format_ == "rbac":
        made = _rights(open_session(directory, env, quiet), sets or [""], explicit=bool(env))
    elif sets:
        raise UserError(f"export {format_} takes no SET", exit_code=WRONG_USE)
    else:
        made = _of_lock(format_, directory, env, quiet)
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


def _of_lock(format_: str, directory: Path, env: str, quiet: bool) -> Exported:
    from kfdeploy.files import read_text
    from kfdeploy.model import sources
    from kfdeploy.pipeline import export as stage

    maker = stage.find(format_)
    session = open_session(directory, env, quiet)
    locked = session.lock(required=True)
    listed = session.root / sources.NAME
    if not listed.is_file():
        raise UserError(f"the workspace has no {sources.NAME} yet", hint="run `kfdeploy lock`")
    return stage.export(
        maker,
        session.workspace,
        session.root,
        session.environment_name,
        locked,
        sources.parse(read_text(listed)),
        session.known_version(),
    )


def _rights(session: Session, names: list[str], *, explicit: bool) -> Exported:
    from kfdeploy.pipeline.exports import rights
    from kfdeploy.tools import setfolder

    found = [setfolder.open_set(session.find_set(name)) for name in names]
    for one in found:
        session.must_be_of(one.summary, explicit=explicit)
    secrets = session.environment.image_pull_secrets
    return rights.export(found, session.workspace.helm.namespace, secrets)
