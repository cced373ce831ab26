"""Keep HTTP connections and share them between threads."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol
from urllib.parse import quote, urljoin, urlsplit

from kfdeploy.http.proxy import basic_authorization, find_proxy
from kfdeploy.http.tls import create_tls_context

_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 30.0
_REFUSAL_SECONDS: Final = 2.0
"""How long to wait for the answer of a server that stopped reading a body."""
_STORE_BYTES_PER_SECOND: Final = 20_000_000
"""How fast the slowest server stores a body before it answers."""
_REDIRECTS_MAX: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_WITH_CONTENT: Final = frozenset({200, 206})
_URL_CHARACTERS: Final = "!#$%&'()*+,/:;=?@[]~"
"""What stays as it is in a path and a query: the reserved characters, and escapes."""
BODY_MAX: Final = 16 * 1024 * 1024
"""Bytes of a response that are read at once: registries limit manifests to 4 MiB."""


class ResponseTooLong(Exception):
    """A response has more than BODY_MAX bytes."""


class ConnectionsClosed(Exception):
    """`ConnectionPool.close` was called before a request, or while it ran."""


class RequestBody(Protocol):
    """A body that is sent piece by piece. It can be read once."""

    @property
    def size(self) -> int:
        """Return the bytes in all."""

    def __iter__(self) -> Iterator[memoryview]:
        """Yield the pieces; an exception ends the request."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request to send.

    Attributes:
        url: with the scheme http or https; a user and password in it become an Authorization
            header.
        tls: for https URLs; None for the system's certificate store.
        stream: do not read the body of a response with status 200 or 206.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | RequestBody | None = None
    tls: ssl.SSLContext | None = None
    stream: bool = False

    @property
    def is_repeatable(self) -> bool:
        """Whether its body can be sent a second time."""
        return self.body is None or isinstance(self.body, bytes)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A server's response.

    Attributes:
        headers: by name in lower case.
        url: of the server that answered, after redirects.
        stream: set instead of ``body`` where the request asked for it and the status is 200 or
            206; the caller must close it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    stream: ResponseStream | None = None


class ResponseStream:
    """A body that is read piece by piece. It keeps its connection until it is closed."""

    def __init__(
        self, response: http.client.HTTPResponse, on_close: Callable[[bool], None]
    ) -> None:
        self._response = response
        self._on_close = on_close
        self._open = True

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end, or where the connection ended early.

        Raises:
            OSError, http.client.HTTPException: the connection broke.
        """
        return self._response.read(size)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer as far as possible; return 0 like `read` returns no bytes.

        Raises:
            OSError, http.client.HTTPException: the connection broke.
        """
        return self._response.readinto(buffer)

    def close(self) -> None:
        """Return the connection to the pool, which keeps it if all was read."""
        if self._open:
            self._open = False
            self._on_close(_can_be_kept(self._response))


@dataclass(frozen=True, slots=True)
class _Route:
    """Where a connection leads: only requests with the same route share one."""

    scheme: str
    netloc: str
    tls: ssl.SSLContext | None
    proxy: str

    @property
    def has_plain_proxy(self) -> bool:
        """Whether a proxy gets whole URLs, instead of a tunnel to the server."""
        return bool(self.proxy) and self.scheme == "http"


class ConnectionPool:
    """A pool of connections; `send` may be called from any number of threads."""

    def __init__(
        self, *, connect_seconds: float = _CONNECT_SECONDS, read_seconds: float = _READ_SECONDS
    ) -> None:
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._lock = threading.Lock()
        self._idle: dict[_Route, list[http.client.HTTPConnection]] = {}
        self._all: set[http.client.HTTPConnection] = set()
        self._system_tls: ssl.SSLContext | None = None
        self._closed = False

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send a request and return the response, after following redirects.

        Credentials are not sent on to another server. A body that can be read only once is not
        sent on at all: its redirect is the response.

        Raises:
            OSError: no connection, or it broke; ssl.SSLError is one.
            http.client.HTTPException: the response is not HTTP, or there are too many redirects.
            ResponseTooLong, ConnectionsClosed.
        """
        for _ in range(_REDIRECTS_MAX + 1):
            response = self._send_once(request)
            redirected = _follow_redirect(request, response)
            if redirected is None:
                return response
            request = redirected
        raise http.client.HTTPException(f"more than {_REDIRECTS_MAX} redirects")

    def close(self) -> None:
        """Close all connections; requests under way end with `ConnectionsClosed`."""
        with self._lock:
            self._closed = True
            connections = list(self._all)
            self._idle.clear()
        for connection in connections:
            # Only a shutdown wakes a thread that reads from the socket; close() does not.
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _send_once(self, request: HttpRequest) -> HttpResponse:
        route = self._find_route(request)
        while True:
            connection, is_reused = self._take_connection(route)
            try:
                return self._exchange(connection, route, request)
            except (OSError, http.client.BadStatusLine) as error:
                self._return_connection(route, connection, False)
                if self._closed:
                    raise ConnectionsClosed from None
                # A server may close a connection that was idle: that is no failure of this request.
                is_stale = is_reused and isinstance(
                    error, ConnectionError | http.client.BadStatusLine
                )
                if not (is_stale and request.is_repeatable):
                    raise
            except BaseException:
                self._return_connection(route, connection, False)
                raise

    def _exchange(
        self, connection: http.client.HTTPConnection, route: _Route, request: HttpRequest
    ) -> HttpResponse:
        """Send a request and read its response, which returns the connection to the pool."""
        is_sent_whole = True
        if request.body is None or isinstance(request.body, bytes):
            target, headers = _request_target(request, route), _request_headers(request, route)
            connection.request(request.method, target, request.body, headers)
            response = connection.getresponse()
        else:
            response, is_sent_whole = self._send_body(connection, route, request, request.body)
        headers = {name.lower(): value for name, value in response.getheaders()}
        if request.stream and response.status in _WITH_CONTENT:
            on_close = partial(self._return_connection, route, connection)
            stream = ResponseStream(response, on_close)
            return HttpResponse(response.status, headers, b"", request.url, stream)
        body = response.read(BODY_MAX + 1)
        if len(body) > BODY_MAX:
            raise ResponseTooLong
        self._return_connection(route, connection, is_sent_whole and _can_be_kept(response))
        return HttpResponse(response.status, headers, body, request.url)

    def _send_body(
        self,
        connection: http.client.HTTPConnection,
        route: _Route,
        request: HttpRequest,
        body: RequestBody,
    ) -> tuple[http.client.HTTPResponse, bool]:
        """Send a body piece by piece.

        Returns:
            The response, and whether the body was sent whole: a server may refuse it before.
        """
        target = _request_target(request, route)
        connection.putrequest(request.method, target, skip_accept_encoding=True)
        for name, value in _request_headers(request, route).items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(body.size))
        connection.endheaders()
        # A generator's own OSError, of a file or of another server, is not this connection's.
        pieces = iter(body)
        while (piece := next(pieces, None)) is not None:
            try:
                connection.send(piece)
            except OSError:
                refusal = None if self._closed else _read_refusal(connection)
                if refusal is None:
                    raise
                return refusal, False
        connection.sock.settimeout(self._read_seconds + body.size / _STORE_BYTES_PER_SECOND)
        return connection.getresponse(), True

    def _find_route(self, request: HttpRequest) -> _Route:
        parts = urlsplit(request.url)
        netloc = parts.netloc.rpartition("@")[2]
        tls = None
        if parts.scheme == "https":
            tls = request.tls or self._get_system_tls()
        return _Route(parts.scheme, netloc, tls, find_proxy(parts.scheme, netloc))

    def _get_system_tls(self) -> ssl.SSLContext:
        with self._lock:
            if self._system_tls is None:
                self._system_tls = create_tls_context()
            return self._system_tls

    def _take_connection(self, route: _Route) -> tuple[http.client.HTTPConnection, bool]:
        """Return a connection, and whether it was used before."""
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
        self, route: _Route, connection: http.client.HTTPConnection, keep: bool
    ) -> None:
        with self._lock:
            if keep and not self._closed:
                if connection.sock is not None:
                    connection.sock.settimeout(self._read_seconds)
                self._idle.setdefault(route, []).append(connection)
                return
            self._all.discard(connection)
        connection.close()

    def _open_connection(self, route: _Route) -> http.client.HTTPConnection:
        proxy = urlsplit(route.proxy)
        address = f"{proxy.hostname}:{proxy.port or 80}" if route.proxy else route.netloc
        connection: http.client.HTTPConnection
        if route.tls is None:
            connection = http.client.HTTPConnection(address, timeout=self._connect_seconds)
        else:
            connection = http.client.HTTPSConnection(
                address, timeout=self._connect_seconds, context=route.tls
            )
            if route.proxy:
                connection.set_tunnel(route.netloc, headers=_proxy_headers(route))
        connection.connect()
        connection.sock.settimeout(self._read_seconds)
        return connection


def _follow_redirect(request: HttpRequest, response: HttpResponse) -> HttpRequest | None:
    """Return the request that a response leads to; None where it leads nowhere."""
    location = response.headers.get("location")
    if response.status not in _REDIRECTS or location is None or not request.is_repeatable:
        return None
    url = urljoin(request.url, location)
    if urlsplit(url).scheme not in {"http", "https"}:
        return None
    headers = request.headers
    if urlsplit(url)[:2] != urlsplit(request.url)[:2]:
        headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
    return replace(request, url=url, headers=headers)


def _request_target(request: HttpRequest, route: _Route) -> str:
    """Return what the request line names: a path, or for a proxy the whole URL."""
    parts = urlsplit(request.url)
    target = parts.path or "/"
    if parts.query:
        target = f"{target}?{parts.query}"
    target = quote(target, safe=_URL_CHARACTERS)
    return f"http://{route.netloc}{target}" if route.has_plain_proxy else target


def _request_headers(request: HttpRequest, route: _Route) -> dict[str, str]:
    headers = dict(request.headers)
    if route.has_plain_proxy:
        headers |= _proxy_headers(route)
    if authorization := basic_authorization(urlsplit(request.url)):
        headers.setdefault("Authorization", authorization)
    return headers


def _proxy_headers(route: _Route) -> dict[str, str]:
    authorization = basic_authorization(urlsplit(route.proxy))
    return {"Proxy-Authorization": authorization} if authorization else {}


def _read_refusal(connection: http.client.HTTPConnection) -> http.client.HTTPResponse | None:
    """Return the answer of a server that stopped reading; None where it did not refuse."""
    if connection.sock is None:
        return None
    connection.sock.settimeout(_REFUSAL_SECONDS)
    try:
        response = connection.getresponse()
    except (OSError, http.client.HTTPException):
        return None
    return response if response.status >= 400 else None


def _can_be_kept(response: http.client.HTTPResponse) -> bool:
    """Return whether all of a response was read, and the connection stays open after it."""
    return response.isclosed() and not response.will_close


def _has_ended(connection: http.client.HTTPConnection) -> bool:
    """Return whether the server closed an idle connection: then there is something to read."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
