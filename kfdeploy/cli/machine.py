"""The commands for a machine and its editor: doctor, schema."""

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
    """Find what is missing on this machine or behind these credentials, and say how to get it."""
    from kfdeploy.cli import doctor_checks

    findings = list(doctor_checks.check_programs())
    if (directory / "kfdeploy.yaml").exists():
        findings += doctor_checks.check_workspace(lambda: open_session(directory, env, quiet))
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
        bool, typer.Option("--catalogue", help="Print that of the files in catalogue/ instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of kfdeploy.yaml, for editors."""
    if catalogue:
        from kfdeploy.catalogue.records import dump_schema
    else:
        from kfdeploy.upstream.init import dump_schema
    sys.stdout.write(dump_schema())
