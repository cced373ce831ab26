"""`kfdeploy export FORMAT`: a command for each format, made from what the format declares."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperGroup

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
from kfdeploy.terminal import exit_if_drift, print_json, print_lines, print_warnings
from kfdeploy.wording import pluralize

if TYPE_CHECKING:
    from kfdeploy.export.format import ExportedFiles, ExportFormat, ExportOption

    AnyFormat = ExportFormat[Any, Any]

Target = Annotated[
    Path | None,
    typer.Option(
        "--to", metavar="DIR", help="Write the files into this folder instead of to stdout."
    ),
]
_SETS = {
    "one": typer.Argument(metavar="SET", help="A set below releases/. Without it: the only one."),
    "many": typer.Argument(
        metavar="SET...", help="Sets below releases/. Without it: the only one."
    ),
}


class ExportGroup(TyperGroup):
    """List the formats as commands. They are imported only when `export` is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the formats."""
        from kfdeploy.export.formats import FORMATS

        return [format_.name for format_ in FORMATS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a format's command.

        Raises:
            UserError: there is no such format.
        """
        from kfdeploy.export.formats import find_format

        return _make_command(find_format(cmd_name))

    def get_params(self, ctx: Any) -> Any:
        """Return the options that may stand before FORMAT: those of all formats."""
        return [*self._any_format.params, *super().get_params(ctx)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move options that stand before FORMAT behind it, where its command reads them."""
        _, rest, _ = self.make_parser(ctx).parse_args(list(args))
        leading = args[: len(args) - len(rest)]
        parsed = super().parse_args(ctx, [*rest[:1], *leading, *rest[1:]])
        if not rest:
            self.get_command(ctx, "")  # no FORMAT: raises the error that lists them
        return parsed

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the formats with their help lines, below a heading for each audience."""
        from kfdeploy.export.formats import FORMATS

        by_audience: dict[str, list[tuple[str, str]]] = {}
        for format_ in FORMATS:
            by_audience.setdefault(format_.audience, []).append((format_.name, format_.summary))
        for audience, lines in by_audience.items():
            with formatter.section(audience):
                formatter.write_dl(lines)

    @cached_property
    def _any_format(self) -> Any:
        """A command that has the options of all formats, and shows those that they share."""
        return _make_command(None)


exports = typer.Typer(
    cls=ExportGroup,
    subcommand_metavar="FORMAT [ARGS]...",
    rich_markup_mode=None,
    help="Write the lock, a release set or the workspace as input of another tool.",
    epilog="`kfdeploy export FORMAT --help` shows the options of a format.",
)
app.add_typer(exports, name="export")


# -- a format's command ----------------------------------------------------------------------------


def _make_command(format_: AnyFormat | None) -> Any:
    """Build the command of a format from its options; for None one with shared options alone.

    `export` used to be one command with the options of all formats. Each format still takes those
    of the others, and ignores them, so that old scripts keep working; help does not show them.
    """

    def run(
        directory: Directory = HERE,
        env: EnvironmentName = "",
        to: Target = None,
        output: OutputFormat = "text",
        quiet: Quiet = False,
        check: Check = False,
        **own: Any,
    ) -> None:
        assert format_ is not None
        if check and to is None:
            raise UserError(
                "--check compares files: name their folder by --to", exit_code=WRONG_USE
            )
        made = _make_files(format_, directory, env, quiet, to, own)
        _write_files(made, to, output, quiet=quiet, check=check)

    *shared, _ = inspect.signature(run, eval_str=True).parameters.values()
    parameters = [*_list_parameters(format_), *shared]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(
        format_.name if format_ else "export",
        help=f"{format_.summary[0].upper()}{format_.summary[1:]}." if format_ else "",
    )(run)
    return typer.main.get_command(single)


def _list_parameters(format_: AnyFormat | None) -> Iterator[inspect.Parameter]:
    """Yield a format's own parameters: its sets, its options, and, hidden, those of the others."""
    from kfdeploy.export.formats import FORMATS

    if format_ is not None and format_.sets != "none":
        type_ = list[str] | None if format_.sets == "many" else str | None
        yield _make_parameter("sets", None, Annotated[type_, _SETS[format_.sets]])
    seen = set()
    for each in [*([format_] if format_ else ()), *FORMATS]:
        hints = get_type_hints(each.options, include_extras=True)
        for field in dataclasses.fields(each.options):
            type_, declared = get_args(hints[field.name])
            if declared.flag not in seen:
                seen.add(declared.flag)
                option = _make_option(declared, hidden=each is not format_)
                yield _make_parameter(field.name, field.default, Annotated[type_, option])


def _make_option(declared: ExportOption, *, hidden: bool) -> Any:
    return typer.Option(declared.flag, metavar=declared.metavar, help=declared.help, hidden=hidden)


def _make_parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


# -- running it ------------------------------------------------------------------------------------


def _make_files(
    format_: AnyFormat, directory: Path, env: str, quiet: bool, to: Path | None, own: dict[str, Any]
) -> ExportedFiles:
    from kfdeploy.export.format import ExportRequest

    session = open_session(directory, env, quiet)
    fields = dataclasses.fields(format_.options)
    sets = own.get("sets") or ()
    return format_.make_files(
        ExportRequest(
            session=session,
            options=format_.options(**{field.name: own[field.name] for field in fields}),
            folder=to.resolve() if to else session.root.resolve() / format_.name,
            set_names=(sets,) if isinstance(sets, str) else tuple(sets),
            is_environment_given=bool(env),
        )
    )


def _write_files(
    made: ExportedFiles, to: Path | None, output: str, *, quiet: bool, check: bool
) -> None:
    """Write the files, or say what would change, and print what came of it."""
    from kfdeploy.export.write import join_files, plan_changes
    from kfdeploy.files import write_all

    fresh, stale = plan_changes(made, to) if to else ({}, [])
    if to and not check:
        write_all(to, fresh, remove=stale)
    if not quiet:
        print_warnings(f"note: {note}" for note in made.notes)
    if output == "json":
        print_json(made.files)
    elif to is None:
        sys.stdout.write(join_files(made))
    elif check:
        print_lines(f"{'changed' if (to / name).exists() else 'new'}: {name}" for name in fresh)
        print_lines(f"stale: {name}" for name in stale)
    else:
        counts = f"{len(fresh)} written, {len(stale)} removed"
        print(f"{to}: {pluralize(len(made.files), 'file')}, {counts}")
    exit_if_drift(check, bool(fresh or stale))
