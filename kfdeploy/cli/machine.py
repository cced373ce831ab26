"""The machine and its editor: doctor, schema."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kfdeploy.cli.common import (
    HERE,
    Directory,
    EnvironmentName,
    OutputFormat,
    Quiet,
    app,
    open_session,
)
from kfdeploy.errors import FAILED
from kfdeploy.terminal import print_json


@app.command()
def doctor(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """What is missing on this machine or behind these credentials, and how to get it."""
    from kfdeploy.cli import doctor_checks as stage

    findings = list(stage.check_programs())
    if (directory / "kfdeploy.yaml").exists():
        findings += stage.check_workspace(lambda: open_session(directory, env, quiet))
    if output == "json":
        print_json({"findings": findings})
    else:
        for finding in findings:
            print(f"{finding.state:8} {finding.what}: {finding.detail}")
            if finding.mend and finding.state != "ok":
                print(f"         {finding.mend}")
    if any(finding.is_bad for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
def schema(
    catalogue: Annotated[
        bool, typer.Option("--catalogue", help="Of the files in catalogue/ instead.")
    ] = False,
) -> None:
    """The JSON Schema of kfdeploy.yaml, for editors."""
    if catalogue:
        from kfdeploy.catalogue.records import dump_schema
    else:
        from kfdeploy.upstream.init import dump_schema
    sys.stdout.write(dump_schema())
