"""HTTP/1.1 as a proxy sees it: heads, and bodies passed on without being held."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

_PIECE: Final = 256 * 1024
_HEAD_MOST: Final = 64 * 1024
_TLS_HANDSHAKE: Final = 0x16

Framing = int | Literal["chunked", "close"]
"""A body's length, 0 for none; or how its end is told."""


class Gone(Exception):
    """The other side ended in the middle."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body; ``raw`` ends with the empty line."""

    raw: bytes
    method: str
    target: str
    framing: Framing
    expects_continue: bool
    wants_close: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer without its body.

    Attributes:
        digest: its Docker-Content-Digest, empty for none.
        keeps_open: the connection can be used again.
    """

    raw: bytes
    status: int
    framing: Framing
    digest: bytes
    keeps_open: bool


class Side:
    """One end of a connection, with what was read of it ahead."""

    def __init__(self, own: socket.socket) -> None:
        self.socket: Final = own
        self._ahead = bytearray()
        self._buffer: Final = bytearray(_PIECE)

    def request(self) -> Head | None:
        """The next request; None when the client has ended instead.

        Raises:
            Gone: it ended in the middle.
        """
        raw = self._head(may_end=True)
        if not raw:
            return None
        method, target, _ = raw.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        headers = _headers(raw)
        framing: Framing = int(headers.get(b"content-length", b"0"))
        if b"chunked" in headers.get(b"transfer-encoding", b""):
            framing = "chunked"
        return Head(
            raw,
            method,
            target,
            framing,
            headers.get(b"expect", b"").lower() == b"100-continue",
            headers.get(b"connection", b"").lower() == b"close",
        )

    def answer(self, method: str, interim: Callable[[bytes], None] | None) -> Answer:
        """The answer to a request of that method.

        Args:
            interim: is given what comes before with 1xx; None to have that returned.

        Raises:
            Gone: it ended in the middle.
        """
        while True:
            raw = self._head()
            status = int(raw.split(b" ", 2)[1])
            if status >= 200 or interim is None:
                break
            interim(raw)
        headers = _headers(raw)
        framing: Framing = "close"
        if method == "HEAD" or status in {204, 304} or status < 200:
            framing = 0
        elif b"chunked" in headers.get(b"transfer-encoding", b""):
            framing = "chunked"
        elif b"content-length" in headers:
            framing = int(headers[b"content-length"])
        closes = headers.get(b"connection", b"").lower() == b"close"
        opened = framing != "close" and not closes and raw.startswith(b"HTTP/1.1")
        return Answer(raw, status, framing, headers.get(b"docker-content-digest", b""), opened)

    def body(self, framing: Framing) -> Iterator[memoryview]:
        """Its bytes without chunks' frames; a piece holds until the next is asked for.

        Raises:
            Gone: it ended early.
        """
        if isinstance(framing, int):
            yield from self._exactly(framing)
        elif framing == "close":
            while piece := self._some(_PIECE):
                yield piece
        else:
            while size := int(self._line().split(b";")[0], 16):
                yield from self._exactly(size)
                self._line()
            while self._line().strip():  # trailers
                pass

    def skip(self, framing: Framing) -> None:
        """Read a body, and throw it away."""
        for _ in self.body(framing):
            pass

    def send(self, piece: memoryview, chunked: bool) -> None:
        """A piece of a body, as a chunk of its own where the body is in chunks."""
        if not chunked:
            self.socket.sendall(piece)
        elif piece:
            self.socket.sendall(b"%x\r\n" % len(piece))
            self.socket.sendall(piece)
            self.socket.sendall(b"\r\n")

    def _exactly(self, size: int) -> Iterator[memoryview]:
        while size:
            piece = self._some(min(size, _PIECE))
            if not piece:
                raise Gone
            size -= len(piece)
            yield piece

    def _some(self, most: int) -> memoryview:
        if self._ahead:
            taken = bytearray(self._ahead[:most])
            del self._ahead[:most]
            return memoryview(taken)
        view = memoryview(self._buffer)
        return view[: self.socket.recv_into(view, most)]

    def _line(self) -> bytes:
        while (end := self._ahead.find(b"\n")) < 0:
            self._read_ahead()
        return self._take(end + 1)

    def _head(self, may_end: bool = False) -> bytes:
        while (end := self._ahead.find(b"\r\n\r\n")) < 0:
            if len(self._ahead) > _HEAD_MOST:
                raise Gone
            if may_end and not self._ahead:
                self._ahead += self.socket.recv(_PIECE)
                if not self._ahead:
                    return b""
                if self._ahead[0] == _TLS_HANDSHAKE:
                    # Go's servers say this too, and clients then go on without TLS.
                    self.socket.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                    return b""
            else:
                self._read_ahead()
        return self._take(end + 4)

    def _read_ahead(self) -> None:
        more = self.socket.recv(_PIECE)
        if not more:
            raise Gone
        self._ahead += more

    def _take(self, number: int) -> bytes:
        taken = bytes(self._ahead[:number])
        del self._ahead[:number]
        return taken


def simple_answer(status: int, method: str, retry_after: int | None = None) -> bytes:
    """A whole answer in the form that registries give for errors."""
    code = "TOOMANYREQUESTS" if status == 429 else "UNAVAILABLE"
    body = b'{"errors":[{"code":"%s","message":"made up by the test\'s proxy"}]}' % code.encode()
    wait = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        f"{wait}Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    return head if method == "HEAD" else head + body


def _headers(raw: bytes) -> dict[bytes, bytes]:
    found = {}
    for line in raw.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            found[name.strip().lower()] = value.strip()
    return found
