"""Reading and writing files: whole or not at all, and errors that name the file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from kfdeploy.errors import UserError


def read_bytes(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        UserError: when it can't be read; the message names it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {_reason(error)}") from error


def read_text(path: Path) -> str:
    """The file as UTF-8 text, line ends as they are.

    Raises:
        UserError: when it can't be read or isn't UTF-8; the message names file and offset.
    """
    data = read_bytes(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start}: not UTF-8 text") from error


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> bool:
    """Write the file whole or not at all; what stands there already is left untouched.

    Returns:
        Whether the file's content changed.

    Raises:
        UserError: read-only folder, full disk; the old file is still there.
    """
    try:
        if path.is_file() and path.read_bytes() == data:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with _beside(path) as (descriptor, temporary):
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {_reason(error)}") from error
    return True


def write_text(path: Path, text: str) -> bool:
    """`write_bytes` for text, as UTF-8."""
    return write_bytes(path, text.encode("utf-8"))


def replace_tree(target: Path, content: Mapping[str, bytes]) -> None:
    """Make ``target`` a folder with exactly this content, by one rename.

    Args:
        content: relative POSIX path to bytes.

    Raises:
        UserError: nothing was changed: the old folder is still there.
    """
    with staged_tree(target) as folder:
        for name in sorted(content):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[name])


def tree_differs(target: Path, content: Mapping[str, bytes]) -> bool:
    """Whether `replace_tree` would change anything."""
    there = {
        path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()
    }
    return there.keys() != content.keys() or any(
        read_bytes(path) != content[name] for name, path in there.items()
    )


@contextlib.contextmanager
def staged_tree(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target`` that takes its place when the block ends well.

    Modes are normalised (0755, 0644), so that the umask does not show.

    Raises:
        UserError: on any OSError, from within the block too; ``target`` is as it was.
    """
    staging: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield staging
        _normalise_modes(staging)
        if target.exists() or target.is_symlink():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.replace(old / "tree")
            try:
                staging.replace(target)
            except OSError:
                (old / "tree").replace(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            staging.replace(target)
        staging = None
    except OSError as error:
        raise UserError(f"{target}: can't be written: {_reason(error)}") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def _normalise_modes(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[tuple[int, Path]]:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        yield descriptor, temporary
    finally:
        temporary.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
