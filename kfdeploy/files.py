"""Read and write files: whole or not at all, with errors that name the file."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType

from kfdeploy.errors import UserError


def read_bytes(path: Path) -> bytes:
    """Return the file's bytes.

    Raises:
        UserError: the file can't be read; the message names it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {_describe_error(error)}") from error


def read_text(path: Path) -> str:
    """Return the file as UTF-8 text, with line ends as they are.

    Raises:
        UserError: the file can't be read, or is not UTF-8; the message names file and offset.
    """
    data = read_bytes(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start}: not UTF-8 text") from error


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> bool:
    """Write the file whole or not at all; leave it untouched if it has this content already.

    Returns:
        Whether the file's content changed.

    Raises:
        UserError: the folder is read-only, or the disk full; the old file is still there.
    """
    try:
        if path.is_file() and path.read_bytes() == data:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open_temporary(path) as (descriptor, temporary):
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {_describe_error(error)}") from error
    return True


def write_text(path: Path, text: str) -> bool:
    """Write text as UTF-8, like `write_bytes`."""
    return write_bytes(path, text.encode("utf-8"))


def write_all(root: Path, content: Mapping[str, str], *, remove: Iterable[str] = ()) -> None:
    """Write files that belong together: all of them or none; then remove others.

    A full disk or a read-only folder is noticed before the first file is replaced.

    Args:
        content: path below ``root`` to text; files that have it already are left untouched.
        remove: paths below ``root``; a folder that becomes empty is removed, too.

    Raises:
        UserError: nothing was changed, unless a folder refuses a file that it accepted a moment
            ago.
    """
    import tempfile

    staged: dict[Path, Path] = {}
    made: list[Path] = []
    path = root
    with defer_signals():
        try:
            for name, text in sorted(content.items()):
                path, data = root / name, text.encode("utf-8")
                if path.is_file() and path.read_bytes() == data:
                    continue
                made += _make_folders(path.parent)
                descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
                staged[path] = Path(temporary)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                staged[path].chmod(0o644)
            for path in list(staged):
                staged[path].replace(path)
                del staged[path]
            made.clear()
            for name in sorted(remove):
                path = root / name
                path.unlink(missing_ok=True)
                if path.parent != root and not any(path.parent.iterdir()):
                    path.parent.rmdir()
        except OSError as error:
            raise UserError(f"{path}: can't be written: {_describe_error(error)}") from error
        finally:
            for temporary_path in staged.values():
                temporary_path.unlink(missing_ok=True)
            for folder in reversed(made):
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the ones that are new."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir()
    return missing[::-1]


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Handle ^C and its like only after the block, so that what it begins is completed.

    For short blocks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[tuple[int, FrameType | None]] = []
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    held = [number for number, handler in before.items() if callable(handler)]
    for number in held:
        signal.signal(number, lambda number, frame: waiting.append((number, frame)))
    try:
        yield
    finally:
        for number in held:
            signal.signal(number, before[number])
    for caught, frame in waiting[:1]:
        handler = before[signal.Signals(caught)]
        assert callable(handler)
        handler(caught, frame)


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a program to end, in time to tidy up."""


def replace_tree(target: Path, content: Mapping[str, bytes]) -> None:
    """Make ``target`` a folder with exactly this content, by one rename.

    Args:
        content: relative POSIX path to bytes.

    Raises:
        UserError: nothing was changed: the old folder is still there.
    """
    with defer_signals(), stage_tree(target) as folder:
        for name in sorted(content):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[name])


def tree_differs(target: Path, content: Mapping[str, bytes]) -> bool:
    """Return whether `replace_tree` would change anything."""
    there = {
        path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()
    }
    return there.keys() != content.keys() or any(
        read_bytes(path) != content[name] for name, path in there.items()
    )


@contextlib.contextmanager
def stage_tree(target: Path) -> Iterator[Path]:
    """Yield an empty folder, which replaces ``target`` when the block ends without an exception.

    Modes become 0755 and 0644, so that the umask does not show.

    Raises:
        UserError: on any OSError, also from within the block; ``target`` is as it was.
    """
    import shutil
    import tempfile

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
        raise UserError(f"{target}: can't be written: {_describe_error(error)}") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def is_safe_path(path: str) -> bool:
    """Return whether a relative path stays below its folder, and is legal on every system."""
    elements = path.split("/")
    return (
        0 < len(path) <= 4096
        and not {"", ".", ".."} & set(elements)
        and not any(char == "\\" or ord(char) < 32 or ord(char) == 127 for char in path)
    )


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of data in hex."""
    return hashlib.sha256(data).hexdigest()


def _normalise_modes(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


@contextlib.contextmanager
def _open_temporary(path: Path) -> Iterator[tuple[int, Path]]:
    import tempfile

    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        yield descriptor, temporary
    finally:
        temporary.unlink(missing_ok=True)


def _describe_error(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


@contextlib.contextmanager
def exclusive_lock(path: Path, activity: str) -> Iterator[None]:
    """Let nobody else do the same while the block runs.

    The file at ``path`` stays, and is empty. A killed process releases the lock.

    Args:
        activity: what would be done twice, for the error.

    Raises:
        UserError: another process has the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{activity} is already running here",
                hint="wait until it ends, then run the same command again: it goes on from there",
            ) from None
        yield
