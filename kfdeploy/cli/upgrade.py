"""A workspace at another release, in place: `init --upgrade` and `vendor --upgrade`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from kfdeploy.cli.common import open_session
from kfdeploy.errors import DIFFERENCE, FAILED
from kfdeploy.terminal import exit_if_drift, print_json, print_lines, print_warnings

if TYPE_CHECKING:
    from kfdeploy.upgrade.options import UpgradeOptions
    from kfdeploy.upgrade.report import UpgradeReport

Form = Literal["text", "json", "markdown"]


def run_upgrade(
    directory: Path, options: UpgradeOptions, *, form: Form, quiet: bool, check: bool
) -> None:
    """Move a workspace to another release, and print the report.

    Raises:
        UserError: see `upgrade_workspace`.
        Exit: 3 when something would change (``check``) or patches no longer match, 1 when images
            could not be locked.
    """
    from kfdeploy.upgrade.upgrade import upgrade_workspace

    report = upgrade_workspace(
        directory,
        options,
        lambda: open_session(directory, quiet=quiet),
        write_files=not check,
        on_note=lambda note: print(f"note: {note}", file=sys.stderr),
    )
    if report is None:
        return
    _print_report(report, form, check)
    exit_if_drift(check, not report.files.is_empty)
    if check:
        return
    if report.lock and report.lock.failures and not report.lock.was_offline:
        raise typer.Exit(FAILED)
    if report.conflicts:
        print_warnings(f"error: {patch.file}: must be adapted" for patch in report.conflicts)
        raise typer.Exit(DIFFERENCE)


def _print_report(report: UpgradeReport, form: Form, check: bool) -> None:
    from kfdeploy.cli.report import upgrade as upgrade_report

    if form == "json":
        print_json(report)
    elif form == "markdown":
        print_lines(upgrade_report.format_markdown(report))
    else:
        print_lines(upgrade_report.format_text(report, check=check))
