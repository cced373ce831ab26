"""The command that pushes a release set as an OCI artifact: publish."""

from __future__ import annotations

from typing import Annotated

import typer

from kfdeploy.cli.common import (
    HERE,
    Check,
    Directory,
    EnvironmentName,
    OutputFormat,
    Quiet,
    SetName,
    app,
    open_session,
)
from kfdeploy.terminal import exit_if_drift, print_json, print_lines

_DONE = {"present": "there already", "push": "pushed", "move": "moved"}
_PLANNED = {"present": "there already", "push": "to be pushed", "move": "to be moved"}


@app.command()
def publish(
    name: SetName = "",
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", metavar="TAG", help="Set this tag as well, which may move; repeatable."
        ),
    ] = None,
    directory: Directory = HERE,
    env: EnvironmentName = "",
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """Push a release set into the private registry as an OCI artifact, for Flux and Argo CD."""
    from kfdeploy.mirror import mirror
    from kfdeploy.releaseset import publish as publishing
    from kfdeploy.releaseset.folder import open_set

    session = open_session(directory, env, quiet)
    found = open_set(session.find_set(name))
    session.adopt_set_environment(found.summary, explicit=bool(env))
    registry = session.workspace.resolve_registry(session.environment)
    with mirror.open_client(session.mirror_settings, session.root) as client:
        todo = publishing.plan_publication(found, registry, client, tags or ())
        if not check and not todo.is_there:
            session.progress.print_line(
                f"pushing {todo.artifact.size / 1e6:.1f} MB to {todo.repository}"
            )
            publishing.push_set(todo, registry, client, session.root)
    if output == "json":
        print_json(
            {"set": f"releases/{found.name}", "changed": not todo.is_there, **todo.to_json()}
        )
    else:
        words = _PLANNED if check else _DONE
        print(todo.ref)
        print_lines(f"  {tag}: {words[state]}" for tag, state in todo.states.items())
    exit_if_drift(check, not todo.is_there)
