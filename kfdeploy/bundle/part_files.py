"""List, read and write the files of a part: links are not followed, files appear when complete."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

from kfdeploy.errors import UserError
from kfdeploy.mirror.stores import BlobPieces
from kfdeploy.oci.manifest import Descriptor

# Folders that file systems and desktops create on a disk by themselves.
_LEFT_ALONE: Final = frozenset(
    {
        "lost+found",
        "System Volume Information",
        "$RECYCLE.BIN",
        ".Spotlight-V100",
        ".fseventsd",
        ".Trashes",
    }
)
_DEPTH_MAX: Final = 30
DISK_FULL_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT)


def is_system_name(name: str) -> bool:
    """Tell whether the operating system creates this name at the top of a disk."""
    return name in _LEFT_ALONE or name.startswith(".Trash-")


def list_files(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """List all files below a folder.

    Returns:
        The size in bytes of each file by path, and a description of everything that is neither
        file nor folder, by path.

    Raises:
        UserError: a folder can't be read.
    """
    files: dict[str, int] = {}
    others: dict[str, str] = {}

    def scan_folder(above: Path, prefix: str, depth: int) -> None:
        with os.scandir(above) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = prefix + entry.name
                if not prefix and is_system_name(entry.name):
                    continue
                if entry.is_symlink():
                    others[path] = "a link"
                elif entry.is_dir(follow_symlinks=False):
                    if depth > _DEPTH_MAX:
                        others[path] = "a folder that is nested too deeply"
                    else:
                        scan_folder(Path(entry.path), f"{path}/", depth + 1)
                elif entry.is_file(follow_symlinks=False):
                    files[path] = entry.stat(follow_symlinks=False).st_size
                else:
                    others[path] = "neither file nor folder"

    try:
        scan_folder(folder, "", 0)
    except OSError as error:
        raise UserError(f"{error.filename}: {(error.strerror or '').lower()}") from error
    return files, others


@contextlib.contextmanager
def open_plain_file(path: Path) -> Iterator[io.FileIO]:
    """Open a plain file without a buffer; raise OSError for links, devices and pipes."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    with os.fdopen(number, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        yield stream


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return a plain file's bytes; raise OSError, also if it has more than ``max_bytes``."""
    with open_plain_file(path) as stream:
        pieces, count = [], 0
        while piece := stream.read(1 << 20):
            count += len(piece)
            if count > max_bytes:
                raise OSError(errno.EFBIG, "too long", str(path))
            pieces.append(piece)
    return b"".join(pieces)


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Return the digest of a plain file in hexadecimal; raise OSError."""
    with open_plain_file(path) as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


@contextlib.contextmanager
def stage_file(path: Path, *, executable: bool = False, lasting: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file that gets its name if the block ends without an error.

    Args:
        lasting: wait until the bytes are on the disk, so that a power cut can't damage the file.

    Raises:
        OSError: it could not be written; the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(number, "wb") as stream:
            yield stream
            stream.flush()
            # The file system of a removable disk may refuse to set modes.
            with contextlib.suppress(OSError):
                os.fchmod(number, 0o755 if executable else 0o644)
            if lasting:
                os.fsync(number)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write a small file with `stage_file`, unless it has these bytes; raise OSError."""
    with contextlib.suppress(OSError):
        if read_file(path, len(data)) == data:
            return
    with stage_file(path, lasting=lasting) as stream:
        stream.write(data)


def is_temporary(path: str) -> bool:
    """Tell whether the path is a file that `stage_file` left when it was killed."""
    return path.rpartition("/")[2].startswith(".")


def sync_path(path: Path) -> None:
    """Flush a file or folder to the disk; ignore file systems that can't do so for folders."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(number)


def find_device(path: Path) -> tuple[int, int]:
    """Return the device number and free bytes of the file system that a path is or will be on."""
    while not path.exists():
        path = path.parent
    status = os.statvfs(path)
    return path.stat().st_dev, status.f_bavail * status.f_frsize


def spread_pieces(
    stack: ExitStack,
    pieces: BlobPieces,
    targets: Iterable[tuple[Path | None, int]],
    blob: Descriptor,
) -> None:
    """Write a blob's bytes to its targets in order; the files get their names when the stack ends.

    Args:
        targets: file and size in bytes of each piece; None for a file that is not written now.

    Raises:
        UserError: the blob's size is not that of its manifest.
        OSError: a file could not be written.
    """
    left = iter(targets)
    stream: BinaryIO | None = None
    room = 0

    def open_next() -> int:
        nonlocal stream
        path, size = next(left, (None, -1))
        if size < 0:
            raise _wrong_size(blob)
        is_there = path is None or has_file(path, size)
        stream = None if is_there or path is None else stack.enter_context(stage_file(path))
        return size

    if blob.size == 0:
        open_next()
    for piece in pieces:
        rest = piece
        while len(rest):
            room = room or open_next()
            if stream is not None:
                stream.write(rest[:room])
            taken = min(room, len(rest))
            rest, room = rest[taken:], room - taken
    if room or (blob.size and next(left, None)):
        raise _wrong_size(blob)


def _wrong_size(blob: Descriptor) -> UserError:
    return UserError(
        f"{blob.digest}: its size is not the {blob.size} bytes that its manifest says",
        hint="the image is damaged at its source",
    )


def has_file(path: Path, size: int) -> bool:
    """Tell whether the path is a plain file of this size in bytes."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def remove_empty_folders(folder: Path, below: str) -> None:
    """Remove ``below``, a path in ``folder``, and its parents inside ``folder``, if empty."""
    while below:
        with contextlib.suppress(OSError):
            (folder / below).rmdir()
        below = below.rpartition("/")[0]


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder against other writers; the lock ends with the process and leaves no file."""
    number = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another kfdeploy is writing this bundle",
                hint="wait until it has finished",
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(number)
