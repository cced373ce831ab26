"""The files of an upgrade: prepared beside the workspace, then put in place at once.

An upgrade that is killed before `write_upgrade` renames its folder to ``UNFINISHED`` has changed
nothing. Killed later, `finish_upgrade` puts the rest in place.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kfdeploy.errors import UserError
from kfdeploy.files import defer_signals, read_text, write_all
from kfdeploy.upstream.vendored import UPSTREAM
from kfdeploy.workspace.settings_file import UNFINISHED

CACHE = ".kfdeploy"
_PREPARED, _READY, _DONE = "upgrade-", "ready-", "done-"
"""What the names of the folders in the cache begin with, in the order of an upgrade."""
_FILES = "files"
_REMOVED = "removed.json"


@contextlib.contextmanager
def temporary_workspace(root: Path) -> Iterator[Path]:
    """Yield a folder in the workspace's cache for the new release; remove it afterwards.

    It has a copy of the patches, and shares the site's catalogue and the cache.
    """
    (root / CACHE).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_PREPARED, dir=root / CACHE) as name:
        folder = Path(name)
        (folder / CACHE).symlink_to((root / CACHE).resolve())
        if (root / "catalogue").exists():
            (folder / "catalogue").symlink_to((root / "catalogue").resolve())
        if (root / "patches").is_dir():
            shutil.copytree(root / "patches", folder / "patches", symlinks=True)
        if (root / "helmfile.yaml.gotmpl").is_file():
            shutil.copy2(root / "helmfile.yaml.gotmpl", folder)
        yield folder


def remove_stale_folders(root: Path) -> None:
    """Remove the folders of upgrades that were killed."""
    for prefix in (_PREPARED, _READY, _DONE):
        for folder in (root / CACHE).glob(f"{prefix}*"):
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)


def write_upgrade(
    root: Path, prepared: Path, texts: Mapping[str, str], removed: Sequence[str], upstream: bool
) -> None:
    """Put the new release in place. If it is stopped, `finish_upgrade` goes on.

    Args:
        prepared: a folder of `temporary_workspace`; its ``upstream/`` is moved away.
        texts: files of the workspace and their new text.
        removed: files of the workspace to remove.
        upstream: whether ``upstream/`` changes.

    Raises:
        UserError: a full disk, or a folder that can't be written. Nothing was changed.
    """
    with defer_signals():
        ready = Path(tempfile.mkdtemp(prefix=_READY, dir=root / CACHE))
        try:
            write_all(ready, {f"{_FILES}/{name}": text for name, text in texts.items()})
            write_all(ready, {_REMOVED: json.dumps(list(removed))})
            if upstream:
                (prepared / UPSTREAM).replace(ready / UPSTREAM)
            ready.replace(root / UNFINISHED)
        except BaseException:
            shutil.rmtree(ready, ignore_errors=True)
            raise
        finish_upgrade(root)


def is_unfinished(root: Path) -> bool:
    """Return whether an upgrade was stopped while its files were put in place."""
    return (root / UNFINISHED).is_dir()


def finish_upgrade(root: Path) -> None:
    """Put the files of `write_upgrade` in place. It may be called again after it was stopped.

    Each file is moved by a rename, so a kill leaves no temporary file behind.

    Raises:
        UserError: a folder that can't be written. The next call goes on.
    """
    ready = root / UNFINISHED
    path = ready
    with defer_signals():
        try:
            if (ready / UPSTREAM).is_dir():
                path, old = root / UPSTREAM, ready / "old"
                if path.exists() and not old.exists():
                    path.replace(old)
                (ready / UPSTREAM).replace(path)
            for new in sorted((ready / _FILES).rglob("*")):
                if new.is_file():
                    path = root / new.relative_to(ready / _FILES)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    new.replace(path)
            for name in json.loads(read_text(ready / _REMOVED)):
                path = root / name
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # not empty, or removed before
                    path.parent.rmdir()
            # Moved away by one rename: a part of it must not look like an unfinished upgrade.
            path = root / CACHE
            done = Path(tempfile.mkdtemp(prefix=_DONE, dir=path))
            ready.replace(done / "upgrade")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(
                f"{path}: can't be written: {reason}",
                hint="mend that, then run `kfdeploy vendor --upgrade`: it writes the rest",
            ) from error
        shutil.rmtree(done, ignore_errors=True)
