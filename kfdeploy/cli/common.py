"""The application, and the options and the workspace that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

# First, so that ^C during the imports below prints no traceback.
from kfdeploy import __version__, terminal  # noqa: F401

import typer  # isort: skip


if TYPE_CHECKING:
    from kfdeploy.session import Session

app = typer.Typer(
    name="kfdeploy",
    help="Install Kubeflow with Helmfile in clusters without internet access.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Output = Literal["text", "json"]
Directory = Annotated[
    Path, typer.Option("-C", "--directory", metavar="DIR", help="The workspace's folder.")
]
EnvironmentName = Annotated[
    str, typer.Option("--env", metavar="NAME", help="An environment of kfdeploy.yaml.")
]
OutputFormat = Annotated[Output, typer.Option("--output", help="The form of the result on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress to stderr.")]
Check = Annotated[
    bool, typer.Option("--check", help="Write nothing; exit with 3 when something would change.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=64, help="The number of jobs at a time.")]
SetName = Annotated[
    str, typer.Argument(metavar="SET", help="A set below releases/. Without it: the only one.")
]
HERE = Path()


def open_session(directory: Path, env: str = "", quiet: bool = False) -> Session:
    """Open the workspace that a command works on."""
    from kfdeploy.session import Session

    return Session.open(directory, env, quiet=quiet)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kfdeploy {__version__}")
        raise typer.Exit


@app.callback()
def global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass
