"""A workspace moved to another release of its upstream, in place.

`prepare` makes all files of the new release beside the workspace; `write` puts them in place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.files import exclusive_lock
from kfdeploy.session import Session
from kfdeploy.upgrade import write
from kfdeploy.upgrade.options import UpgradeOptions
from kfdeploy.upgrade.prepare import prepare_upgrade
from kfdeploy.upgrade.report import UpgradeReport

_SETTINGS = "kfdeploy.yaml"


def upgrade_workspace(
    root: Path,
    options: UpgradeOptions,
    open_session: Callable[[], Session],
    *,
    write_files: bool,
    on_note: Callable[[str], None],
) -> UpgradeReport | None:
    """Move a workspace to another release, and report what that means.

    An upgrade that was stopped while its files were put in place is finished first.

    Args:
        open_session: opens the workspace, after that.
        write_files: False leaves the workspace as it is.
        on_note: takes what the operator should know, a sentence each.

    Returns:
        The report; None where there was an upgrade to finish, and the options name no release.

    Raises:
        UserError: the release can't be read, vendored or rendered. Nothing was written.
    """
    if not (root / _SETTINGS).is_file():
        open_session()  # raises the error that says what is missing
    with exclusive_lock(root / write.CACHE / "upgrade.lock", "another upgrade"):
        if _finish_earlier_upgrade(root, options, write_files=write_files):
            on_note("finished an upgrade that was stopped while it was written")
        write.remove_stale_folders(root)
        if not options.names_release:
            return None
        session = open_session()
        with write.temporary_workspace(root) as folder:
            prepared = prepare_upgrade(session, options, folder)
            if write_files and not prepared.report.files.is_empty:
                write.write_upgrade(
                    root,
                    folder,
                    prepared.texts,
                    prepared.removed,
                    upstream=prepared.is_upstream_new,
                )
    return prepared.report


def _finish_earlier_upgrade(root: Path, options: UpgradeOptions, *, write_files: bool) -> bool:
    """Finish an upgrade that was stopped; return whether there was one.

    Raises:
        UserError: there was one, and nothing may be written; or there was none, and the options
            name no release.
    """
    if write.is_unfinished(root):
        if not write_files:
            raise UserError(
                "an upgrade was stopped while it was written",
                hint="run the same command without --check: it writes the rest",
            )
        write.finish_upgrade(root)
        return True
    if not options.names_release:
        raise UserError(
            "--upgrade needs the other release",
            hint="name it by --ref; and by --upstream, where it is another folder, tarball or URL",
            exit_code=WRONG_USE,
        )
    return False
