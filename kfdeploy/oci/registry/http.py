"""HTTP over kept-alive connections, for threads.

The standard library's client: a mirror with nothing to do is a hundred small requests, where
importing a larger client and what it does for each request would cost more than the requests.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol
from urllib.parse import unquote, urljoin, urlsplit

_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 30.0
_LAST_WORDS_SECONDS: Final = 2.0
"""How long to listen to a server that stopped to take a body."""
_SETTLES_BYTES: Final = 20_000_000
"""Bytes a second at which a server may put away a body before it answers, at the slowest."""
_REDIRECTS: Final = 5
BODY_MAX: Final = 16 * 1024 * 1024
"""Bytes of an answer that are read: registries limit manifests to 4 MiB."""


class ResponseTooLong(Exception):
    """An answer has more than BODY_MAX bytes."""


class ConnectionsClosed(Exception):
    """`Wire.close` was called while a request ran, or before."""


class RequestBody(Protocol):
    """A body that is sent piece by piece; it can be read once."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def __iter__(self) -> Iterator[memoryview]:
        """The pieces; whatever it raises ends the request."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What a server answered: header names are in lower case.

    ``stream`` is set instead of ``body`` where that was asked for and the status is 200 or 206;
    whoever asked must close it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    stream: ResponseStream | None = None


class ResponseStream:
    """A body that is read piece by piece, on a connection of its own meanwhile."""

    def __init__(
        self, response: http.client.HTTPResponse, on_close: Callable[[bool], None]
    ) -> None:
        self._response = response
        self._on_close = on_close
        self._open = True

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes, none at the end.

        Raises:
            OSError, http.client.HTTPException: the connection broke.
        """
        return self._response.read(size)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer as far as there is something; 0 at the end, or where it broke off.

        Raises:
            OSError, http.client.HTTPException: the connection broke.
        """
        return self._response.readinto(buffer)

    def close(self) -> None:
        """Give the connection back; it is kept where all was read."""
        if self._open:
            self._open = False
            self._on_close(self._response.isclosed() and not self._response.will_close)


@dataclass(frozen=True, slots=True)
class _Route:
    """What a connection is for: only requests with the same route share one."""

    scheme: str
    netloc: str
    tls: ssl.SSLContext | None
    proxy: str


class ConnectionPool:
    """A pool of connections; `request` may be called from any number of threads."""

    def __init__(
        self, *, connect_seconds: float = _CONNECT_SECONDS, read_seconds: float = _READ_SECONDS
    ) -> None:
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._lock = threading.Lock()
        self._idle: dict[_Route, list[http.client.HTTPConnection]] = {}
        self._all: set[http.client.HTTPConnection] = set()
        self._closed = False

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        tls: ssl.SSLContext | None,
        body: bytes | RequestBody | None = None,
        stream: bool = False,
    ) -> HttpResponse:
        """Ask, following redirects; credentials are not sent on to another host.

        Args:
            tls: for https URLs; the system's trust when None.
            body: where it can be read only once, a redirect is not followed.
            stream: do not read the body of an answer with status 200 or 206.

        Raises:
            OSError: no connection, or it broke; ssl.SSLError is one.
            http.client.HTTPException: the answer is no HTTP.
            TooLong, Closed.
        """
        for _ in range(_REDIRECTS + 1):
            answer = self._request_once(method, url, headers, tls, body, stream)
            location = answer.headers.get("location")
            if answer.status not in {301, 302, 303, 307, 308} or location is None:
                return answer
            if body is not None and not isinstance(body, bytes):
                return answer
            target = urljoin(url, location)
            if urlsplit(target).scheme not in {"http", "https"}:
                return answer
            if urlsplit(target)[:2] != urlsplit(url)[:2]:
                headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
            url = target
        raise http.client.HTTPException(f"more than {_REDIRECTS} redirects")

    def close(self) -> None:
        """Close all connections; requests under way end with `Closed`."""
        with self._lock:
            self._closed = True
            connections = list(self._all)
            self._idle.clear()
        for connection in connections:
            # From another thread only shutdown wakes up who reads from the socket.
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _request_once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        tls: ssl.SSLContext | None,
        body: bytes | RequestBody | None,
        stream: bool,
    ) -> HttpResponse:
        parts = urlsplit(url)
        proxy = _find_proxy(parts.scheme, parts.netloc)
        route = _Route(parts.scheme, parts.netloc, tls if parts.scheme == "https" else None, proxy)
        target = parts.path or "/"
        if parts.query:
            target = f"{target}?{parts.query}"
        if proxy and parts.scheme == "http":
            target = f"http://{parts.netloc}{target}"
            headers = {**headers, **_proxy_headers(proxy)}
        while True:
            connection, used = self._take_connection(route)
            kept = streams = False
            whole = True
            try:
                if body is None or isinstance(body, bytes):
                    connection.request(method, target, body, dict(headers))
                    response = connection.getresponse()
                else:
                    response, whole = self._send_body(connection, method, target, headers, body)
                if stream and response.status in {200, 206}:
                    streams = True
                    found = {name.lower(): value for name, value in response.getheaders()}
                    give = partial(self._return_connection, route, connection)
                    return HttpResponse(
                        response.status, found, b"", url, ResponseStream(response, give)
                    )
                data = response.read(BODY_MAX + 1)
                if len(data) > BODY_MAX:
                    raise ResponseTooLong
                found = {name.lower(): value for name, value in response.getheaders()}
                kept = whole and response.isclosed() and not response.will_close
                return HttpResponse(response.status, found, data, url)
            except (ConnectionError, http.client.BadStatusLine):
                if self._closed:
                    raise ConnectionsClosed from None
                # A server may close a connection that idles: that is no failure of this request.
                if not used or not (body is None or isinstance(body, bytes)):
                    raise
            except OSError:
                if self._closed:
                    raise ConnectionsClosed from None
                raise
            finally:
                if not streams:
                    self._return_connection(route, connection, kept)

    def _send_body(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: RequestBody,
    ) -> tuple[http.client.HTTPResponse, bool]:
        """Send a body piece by piece; a server that refuses it on the way is listened to.

        Returns:
            The answer, and whether the body was sent whole.
        """
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(body.size))
        connection.endheaders()
        pieces = iter(body)
        while (piece := next(pieces, None)) is not None:
            try:
                connection.send(piece)
            except OSError:
                if connection.sock is None or self._closed:
                    raise
                connection.sock.settimeout(_LAST_WORDS_SECONDS)
                try:
                    response = connection.getresponse()
                except (OSError, http.client.HTTPException):
                    response = None
                if response is None or response.status < 400:
                    raise
                return response, False
        connection.sock.settimeout(self._read_seconds + body.size / _SETTLES_BYTES)
        return connection.getresponse(), True

    def _take_connection(self, route: _Route) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if self._closed:
                raise ConnectionsClosed
            idle = self._idle.get(route)
            while idle:
                connection = idle.pop()
                if not _has_ended(connection):
                    return connection, True
                self._all.discard(connection)
                connection.close()
        connection = self._open_connection(route)
        with self._lock:
            self._all.add(connection)
        return connection, False

    def _return_connection(
        self, route: _Route, connection: http.client.HTTPConnection, kept: bool
    ) -> None:
        with self._lock:
            if kept and not self._closed:
                if connection.sock is not None:
                    connection.sock.settimeout(self._read_seconds)
                self._idle.setdefault(route, []).append(connection)
                return
            self._all.discard(connection)
        connection.close()

    def _open_connection(self, route: _Route) -> http.client.HTTPConnection:
        place = route.netloc
        headers: dict[str, str] = {}
        if route.proxy:
            parts = urlsplit(route.proxy)
            place = f"{parts.hostname}:{parts.port or 80}"
            headers = _proxy_headers(route.proxy)
        connection: http.client.HTTPConnection
        if route.scheme == "https":
            context = route.tls or ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                place, timeout=self._connect_seconds, context=context
            )
            if route.proxy:
                connection.set_tunnel(route.netloc, headers=headers)
        else:
            connection = http.client.HTTPConnection(place, timeout=self._connect_seconds)
        connection.connect()
        connection.sock.settimeout(self._read_seconds)
        return connection


def _has_ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has closed a connection that idled: there is something to read then."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _find_proxy(scheme: str, netloc: str) -> str:
    """The proxy that the environment names for this server; empty for none."""
    names = {name.lower() for name in os.environ} - {"no_proxy"}
    if not any(name.endswith("_proxy") for name in names):
        return ""
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all") or ""
    if not proxy or proxy_bypass(netloc) or is_loopback(netloc):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _proxy_headers(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def is_loopback(host: str) -> bool:
    """Whether HOST[:PORT] is this machine itself."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return (
        name in {"localhost", "[::1]", "::1"}
        or name.endswith(".localhost")
        or (name.startswith("127.") and name.replace(".", "").isdigit())
    )
