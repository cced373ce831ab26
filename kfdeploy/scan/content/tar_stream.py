"""Read layers as streams: check the digest, inflate, and read the tar, with a few small buffers.

Nothing is written to disk, and no member is held in memory as a whole. What an archive claims
(sizes, names, links, maps of holes) decides neither where data goes nor how much is kept.
Python's `tarfile` is not safe enough here: it keeps every member and reads pax headers of any size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from isal import igzip_lib, isal_zlib

PIECE: Final = 1 << 20
"""The largest number of bytes that is passed on at a time."""
_RAW: Final = 1 << 18
_BLOCK: Final = 512
_HEADER_MAX: Final = 1 << 20
"""Larger pax headers and long names are skipped; real ones have a few hundred bytes."""
_NAME_MAX: Final = 4096
_ZSTD_WINDOW: Final = 1 << 26
"""The memory that a zstd stream may ask for; builders use 8 MiB."""
_CORRUPT: Final[Any] = igzip_lib.IsalError  # its stubs take the class for an instance
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


class DamagedStream(Exception):
    """A stream is cut short, is corrupt, or does not match its digest.

    The message is the rest of a sentence about the layer: "ends in the middle".
    """


class WrongDigest(DamagedStream):
    """A stream was read to its end and does not have its digest."""


class LimitExceeded(Exception):
    """Reading stopped at one of our limits; the message is like that of `DamagedStream`."""


class ArchiveStream(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end of the stream."""
        ...


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """Limits of one layer.

    Attributes:
        inflated: bytes of the layer when inflated; the largest real ones have about 15 GiB.
        ratio: inflated bytes for each packed byte, checked once there are more than
            ``ratio_from`` inflated bytes. Deflate reaches 1032, real layers stay below 100.
        members: files, folders and links.
        kept: bytes of memory for hashes of names, deleted files and candidates.
    """

    inflated: int = 64 << 30
    ratio: int = 400
    ratio_from: int = 256 << 20
    members: int = 4_000_000
    kept: int = 32 << 20


class VerifyingStream:
    """Count and hash the bytes of a blob while they are read."""

    def __init__(self, stream: ArchiveStream, digest: str, size: int | None) -> None:
        self._stream = stream
        self._digest = digest
        self._size = size
        self._hash = hashlib.new(digest.partition(":")[0] or "sha256")
        self.count = 0

    @property
    def actual_digest(self) -> str:
        """Return the digest of the bytes that were read."""
        return f"{self._hash.name}:{self._hash.hexdigest()}"

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end.

        Raises:
            DamagedStream: the blob is larger than its manifest says.
        """
        piece = self._stream.read(size)
        self.count += len(piece)
        self._hash.update(piece)
        if self._size is not None and self.count > self._size:
            raise DamagedStream(f"has more than the {self._size} bytes that its manifest says")
        return piece

    def finish(self) -> None:
        """Read the rest and check size and digest.

        Raises:
            DamagedStream: one of them is wrong.
        """
        while self.read(_RAW):
            pass
        if self._size is not None and self.count != self._size:
            raise DamagedStream(f"ends after {self.count} of {self._size} bytes")
        if self._digest and self.actual_digest != self._digest:
            raise WrongDigest(f"does not match its digest: its bytes have {self.actual_digest}")


class InflatedStream:
    """Inflate a layer that is compressed with gzip, zstd or nothing."""

    def __init__(self, stream: ArchiveStream, limits: ScanLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._head = b""
        while len(self._head) < len(_ZSTD) and (piece := stream.read(_RAW)):
            self._head += piece
        self._packed = len(self._head)
        self.count = 0
        self._read = self._read_plain
        self._unpacker: Any = None
        self._left = b""
        self._more = False
        if self._head[:2] == _GZIP:
            self._read = self._read_gzip
        elif self._head[:4] == _ZSTD:
            import zstandard

            unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
            packed: Any = _PackedStream(self)
            self._unpacker = unpacker.stream_reader(packed, read_across_frames=True)
            self._read = self._read_zstd

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` inflated bytes; none at the end.

        Raises:
            DamagedStream: the stream is corrupt or cut short.
            LimitExceeded: there are too many bytes.
        """
        piece = self._read(size)
        self.count += len(piece)
        if self.count > self._limits.inflated:
            raise LimitExceeded(f"has more than {self._limits.inflated >> 30} GiB when inflated")
        if self.count > self._limits.ratio_from and self.count > self._limits.ratio * self._packed:
            raise LimitExceeded(f"inflates to more than {self._limits.ratio} times its size")
        return piece

    def _read_packed(self, size: int) -> bytes:
        """Return packed bytes, first those that were read to detect the compression."""
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        piece = self._stream.read(size)
        self._packed += len(piece)
        return piece

    def _read_plain(self, size: int) -> bytes:
        return self._read_packed(size)

    def _read_gzip(self, size: int) -> bytes:
        while True:
            if not self._left and not self._more:
                self._left = self._read_packed(_RAW)
                if not self._left:
                    if self._unpacker is not None:
                        raise DamagedStream("its gzip stream ends in the middle")
                    return b""
            if self._unpacker is None:
                # Some tools pad with zeros after the last member.
                self._left = self._left.lstrip(b"\0")
                if not self._left:
                    continue
                self._unpacker = isal_zlib.decompressobj(31)
            try:
                piece: bytes = self._unpacker.decompress(self._left, size)
            except _CORRUPT as error:
                raise DamagedStream(f"its gzip stream is corrupt: {error}") from error
            if self._unpacker.eof:
                self._left, self._unpacker = self._unpacker.unused_data, None
            else:
                self._left = self._unpacker.unconsumed_tail
            # After a full piece there may be more output without more input.
            self._more = len(piece) == size and self._unpacker is not None
            if piece:
                return piece

    def _read_zstd(self, size: int) -> bytes:
        import zstandard

        try:
            piece: bytes = self._unpacker.read(size)
        except zstandard.ZstdError as error:
            if "memory" in str(error):
                raise LimitExceeded(f"its zstd window is over {_ZSTD_WINDOW >> 20} MiB") from error
            raise DamagedStream(f"its zstd stream is corrupt: {error}") from error
        return piece


class _PackedStream:
    """Let a library read the packed bytes of an `InflatedStream` itself."""

    def __init__(self, owner: InflatedStream) -> None:
        self._owner = owner

    def read(self, size: int = -1) -> bytes:
        return self._owner._read_packed(_RAW if size < 0 else size)


@dataclass(slots=True)
class TarMember:
    """One entry of a tar. Read its content before the next entry.

    The methods that read raise DamagedStream and LimitExceeded.

    Attributes:
        name: its name without ``./`` and ``/`` at the beginning; never used as a path on disk.
        kind: ``file``, ``folder``, ``link`` or ``other``.
        size: the number of bytes that the archive has of it.
        target: a link's target, which is never followed.
    """

    name: str
    kind: str
    size: int
    target: str
    _tar: TarReader

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` of its next bytes, as an `ArchiveStream` does."""
        return self._tar.read(size)

    def iter_content(self) -> Iterator[bytes]:
        """Yield its content in pieces of up to PIECE bytes."""
        return self._tar.iter_content()

    def peek_content(self, size: int) -> bytes:
        """Return its first bytes without consuming them."""
        return self._tar.peek(size)


class TarReader:
    """Read a tar once, from the beginning to the end."""

    def __init__(self, stream: ArchiveStream, limits: ScanLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._buffer = b""
        self._at = 0
        self._left = 0
        self._padding = 0
        self.notes: list[str] = []

    def iter_members(self) -> Iterator[TarMember]:
        """Yield the entries in order.

        Raises:
            DamagedStream: the stream is not a tar, is corrupt or cut short.
            LimitExceeded: there are too many entries.
        """
        count = 0
        name, size = "", -1
        while True:
            self._skip_bytes(self._left + self._padding)
            self._left = self._padding = 0
            header = self._read_exactly(_BLOCK, end_is_fine=True)
            if header is None or (not header[0] and not header.strip(b"\0")):
                return
            count += 1
            if count > self._limits.members:
                raise LimitExceeded(f"has more than {self._limits.members} members")
            stored = _member_size(header)
            kind = header[156:157]
            if kind in (b"x", b"g", b"L", b"K"):
                text = self._read_extended_header(stored)
                if text and kind == b"L":
                    name = text.rstrip(b"\0").decode(errors="replace")
                elif text and kind == b"x":
                    path, wanted = _parse_pax(text)
                    name, size = path or name, wanted if wanted >= 0 else size
                continue
            if kind == b"S" and header[482]:  # the map of holes continues in further blocks
                while (more := self._read_exactly(_BLOCK)) and more[504]:
                    pass
            if size >= 0:
                stored = size
            is_file = kind in (b"0", b"\0", b"7", b"S")
            self._left = 0 if kind in _WITHOUT_CONTENT else stored
            self._padding = -self._left % _BLOCK
            yield TarMember(
                (name or _member_name(header))[:_NAME_MAX]
                .lstrip("/")
                .removeprefix("./")
                .lstrip("/"),
                "file" if is_file else _KINDS.get(kind, "other"),
                self._left,
                header[157:257].partition(b"\0")[0].decode(errors="replace"),
                self,
            )
            name, size = "", -1

    def iter_content(self) -> Iterator[bytes]:
        """Yield the rest of the current member."""
        while piece := self.read(PIECE):
            yield piece

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of the current member; none at its end."""
        piece = self._read_some(min(self._left, size)) if self._left else b""
        self._left -= len(piece)
        return piece

    def peek(self, size: int) -> bytes:
        """Return the next bytes of the current member without consuming them."""
        wanted = min(size, self._left)
        while len(self._buffer) - self._at < wanted:
            more = self._stream.read(PIECE)
            if not more:
                raise DamagedStream("ends in the middle of a file")
            self._buffer = self._buffer[self._at :] + more
            self._at = 0
        return self._buffer[self._at : self._at + wanted]

    def _read_extended_header(self, size: int) -> bytes:
        """Return the text of a pax header or a long name; empty if it is too long to be one."""
        padding = -size % _BLOCK
        if size > _HEADER_MAX:
            if len(self.notes) < 5:
                self.notes.append(f"a header of {size} bytes was skipped")
            self._skip_bytes(size + padding)
            return b""
        text = self._read_exactly(size) or b""
        self._skip_bytes(padding)
        return text

    def _read_some(self, size: int) -> bytes:
        """Return between one and ``size`` bytes."""
        if self._at >= len(self._buffer):
            self._buffer, self._at = self._stream.read(PIECE), 0
            if not self._buffer:
                raise DamagedStream("ends in the middle of a file")
        start = self._at
        self._at = min(len(self._buffer), start + size)
        if start == 0 and self._at == len(self._buffer):
            return self._buffer
        return self._buffer[start : self._at]

    def _read_exactly(self, size: int, *, end_is_fine: bool = False) -> bytes | None:
        """Return exactly ``size`` bytes; None at the end of the stream if that is allowed."""
        start = self._at
        if start + size <= len(self._buffer):
            self._at = start + size
            return self._buffer[start : self._at]
        parts = []
        left = size
        while left:
            if self._at >= len(self._buffer):
                self._buffer, self._at = self._stream.read(PIECE), 0
                if not self._buffer:
                    if end_is_fine and left == size:
                        return None
                    raise DamagedStream("ends in the middle")
            part = self._read_some(left)
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _skip_bytes(self, size: int) -> None:
        while size:
            here = min(size, len(self._buffer) - self._at)
            self._at += here
            size -= here
            if size:
                self._buffer, self._at = self._stream.read(PIECE), 0
                if not self._buffer:
                    raise DamagedStream("ends in the middle of a file")


_KINDS: Final = {b"5": "folder", b"1": "link", b"2": "link"}
_WITHOUT_CONTENT: Final = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
"""Links, devices, folders and pipes: no content follows, whatever their size says."""


def _member_name(header: bytes) -> str:
    name = header[:100].rstrip(b"\0").partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].partition(b"\0")[0]):
        name = prefix + b"/" + name
    return name.decode(errors="replace")


def _member_size(header: bytes) -> int:
    """Return the size in a header: octal, or binary if its first bit is set.

    Raises:
        DamagedStream: the header's checksum or its size is wrong.
    """
    try:
        wanted = int(header[148:156].strip(b"\0 ") or b"0", 8)
    except ValueError:
        wanted = -1
    if wanted != sum(header) - sum(header[148:156]) + 256:
        raise DamagedStream("is not a tar, or a corrupt one: the checksum of a header is wrong")
    field = header[124:136]
    if field[0] & 0x80:
        size = int.from_bytes(field, "big") & ~(0x80 << 88)
    else:
        try:
            size = int(field.strip(b"\0 ") or b"0", 8)
        except ValueError as error:
            raise DamagedStream("is a corrupt tar: a size is not a number") from error
    if not 0 <= size < 1 << 62:
        raise DamagedStream("is a corrupt tar: a size is out of range")
    return size


def _parse_pax(text: bytes) -> tuple[str, int]:
    """Return path and size from a pax header; empty and -1 if it has none."""
    path, size = "", -1
    at = 0
    while at < len(text):
        blank = text.find(b" ", at, at + 12)
        if blank < 0 or not text[at:blank].isdigit():
            break
        end = at + int(text[at:blank])
        if end <= blank or end > len(text):
            break
        key, _, value = text[blank + 1 : end - 1].partition(b"=")
        if key in (b"path", b"GNU.sparse.name"):
            path = value.decode(errors="replace")
        elif key == b"size" and value.isdigit() and len(value) < 19:
            size = int(value)
        at = end
    return path, size
