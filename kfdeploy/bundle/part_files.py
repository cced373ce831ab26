"""The files of a bundle's part on its disk: listed without following links, written whole."""

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

# What file systems and desktops put onto a disk by themselves.
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
    """Whether a name at the top of a disk is the system's, and nothing of a bundle."""
    return name in _LEFT_ALONE or name.startswith(".Trash-")


def list_files(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """All files below a folder.

    Returns:
        Path to bytes, and path to what it is for all that is neither file nor folder.

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
                        others[path] = "a folder too deep below others"
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
    """A plain file, unbuffered; raises OSError for links, and for what never ends."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    with os.fdopen(number, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "no plain file", str(path))
        yield stream


def read_file(path: Path, max_bytes: int) -> bytes:
    """A plain file's bytes; raises OSError, also when it has more than ``most``."""
    with open_plain_file(path) as stream:
        pieces, count = [], 0
        while piece := stream.read(1 << 20):
            count += len(piece)
            if count > max_bytes:
                raise OSError(errno.EFBIG, "too long", str(path))
            pieces.append(piece)
    return b"".join(pieces)


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a plain file; raises OSError."""
    with open_plain_file(path) as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


@contextlib.contextmanager
def stage_file(path: Path, *, executable: bool = False, lasting: bool = True) -> Iterator[BinaryIO]:
    """A file that has its name when the block ends well.

    Args:
        lasting: wait until its bytes are on the disk, so that it is whole after a power cut.

    Raises:
        OSError: nothing of it is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(number, "wb") as stream:
            yield stream
            stream.flush()
            # A disk's file system may have no modes, and refuses to be told some.
            with contextlib.suppress(OSError):
                os.fchmod(number, 0o755 if executable else 0o644)
            if lasting:
                os.fsync(number)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write a small file by `staged`, unless it is there; raises OSError."""
    with contextlib.suppress(OSError):
        if read_file(path, len(data)) == data:
            return
    with stage_file(path, lasting=lasting) as stream:
        stream.write(data)


def is_temporary(path: str) -> bool:
    """Whether `staged` left it when it was killed."""
    return path.rpartition("/")[2].startswith(".")


def sync_path(path: Path) -> None:
    """Have a file or folder on the disk; some file systems can't be asked that of a folder."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(number)


def find_device(path: Path) -> tuple[int, int]:
    """The file system that a path is, or will be, on, and its free bytes."""
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    return path.stat().st_dev, found.f_bavail * found.f_frsize


def spread_pieces(
    stack: ExitStack,
    pieces: BlobPieces,
    targets: Iterable[tuple[Path | None, int]],
    blob: Descriptor,
) -> None:
    """Write a blob's bytes one target after the other; all get their names when the stack ends.

    Args:
        targets: file and bytes of each piece; None where it is not to be written.

    Raises:
        UserError: the blob has not as many bytes as are said.
        OSError: the disk.
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
        f"{blob.digest}: has not the {blob.size} bytes that its manifest says",
        hint="the image is damaged where it comes from",
    )


def has_file(path: Path, size: int) -> bool:
    """Whether a plain file of this size is there."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def remove_empty_folders(folder: Path, below: str) -> None:
    """Remove ``below``, a path in ``folder``, and the folders above it, as far as empty."""
    while below:
        with contextlib.suppress(OSError):
            (folder / below).rmdir()
        below = below.rpartition("/")[0]


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """One writer at a time; the lock goes with the process, and leaves no file."""
    number = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another kfdeploy writes this bundle now", hint="wait until it is done"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(number)
