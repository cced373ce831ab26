"""What commands share: the application, options, and the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

# First, so that ^C while modules are read is answered as later.
from kfdeploy import __version__, terminal  # noqa: F401

import typer  # isort: skip


if TYPE_CHECKING:
    from kfdeploy.session import Session

app = typer.Typer(
    name="kfdeploy",
    help="Kubeflow, delivered by Helmfile, where there is no internet.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Output = Literal["text", "json"]
Directory = Annotated[Path, typer.Option("-C", "--directory", metavar="DIR", help="The workspace.")]
EnvironmentName = Annotated[
    str, typer.Option("--env", metavar="NAME", help="The environment in kfdeploy.yaml.")
]
OutputFormat = Annotated[Output, typer.Option("--output", help="What goes to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Check = Annotated[
    bool, typer.Option("--check", help="Write nothing; exit 3 when something would change.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=64, help="How many at a time.")]
HERE = Path()


def open_session(directory: Path, env: str = "", quiet: bool = False) -> Session:
    """The workspace that a command works on."""
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
