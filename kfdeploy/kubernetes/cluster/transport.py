"""HTTP to the API server, through the socket of ``kubectl proxy``.

A request is sent again while that may help: when nobody answers, when the server is busy (429) or
when it fails (5xx). One connection a thread stays open.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kfdeploy.kubernetes.cluster.errors import ApiError, ClusterUnreachable

JSON: Final = "application/json"
_SERVER_TIMEOUT: Final = 60.0
"""Seconds that the API server gives a request (its default ``--request-timeout``)."""
_SOCKET_TIMEOUT: Final = _SERVER_TIMEOUT + 10
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_SHOWN_TEXT: Final = 500
_UNREACHABLE_HINT: Final = "`kubectl version` tells whether this machine reaches the API server"


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One HTTP request.

    Attributes:
        target: the URL's path and query.
        purpose: what the request is to do, for the error message.
    """

    method: str
    target: str
    purpose: str
    body: str | None = None
    accept: str = JSON
    content_type: str = JSON

    @property
    def headers(self) -> dict[str, str]:
        return {"Accept": self.accept, "Content-Type": self.content_type}


class ApiTransport:
    """Sends requests to one API server. Several threads may use it at once."""

    def __init__(self, socket_path: Path, patience: float) -> None:
        """Args:
        patience: seconds for which a request is repeated.
        """
        self._patience = patience
        self._connections = _ConnectionPool(socket_path)
        self._outage = _Outage(patience)

    def send(self, request: ApiRequest) -> Any:
        """Send a request, again while that may help, and return the answer's JSON.

        Raises:
            ApiError: the API server refuses the request, or is still busy after ``patience``.
            ClusterUnreachable: nobody has answered any request for ``patience`` seconds.
        """
        deadline = time.monotonic() + self._patience
        pauses = _backoff()
        while True:
            failure: ApiError | ClusterUnreachable
            try:
                answer = self._send_once(request)
            except ApiError as error:
                if not error.is_transient:
                    self._outage.end()
                    raise
                failure = error
            except ClusterUnreachable as error:
                deadline = min(deadline, self._outage.record_failure())
                failure = error
            else:
                self._outage.end()
                return answer
            pause = max(failure.retry_after, next(pauses))
            if time.monotonic() + pause > deadline:
                raise failure
            time.sleep(pause)

    def close(self) -> None:
        self._connections.close()

    def _send_once(self, request: ApiRequest) -> Any:
        """Return the answer's JSON, or its text where it is not JSON."""
        body = None if request.body is None else request.body.encode()
        try:
            connection = self._connections.get()
            connection.request(request.method, request.target, body, request.headers)
            response = connection.getresponse()
            content = _parse_content(response.read())
        except (OSError, http.client.HTTPException) as error:
            self._connections.drop()
            raise _make_unreachable(request, str(error) or type(error).__name__) from error
        if response.will_close:
            self._connections.drop()
        if response.status < 300:
            return content
        retry_after = _parse_seconds(response.headers.get("Retry-After", ""))
        # An error of the API server is a Status in JSON. Text is kubectl proxy's own, which says
        # that it has not reached the server.
        if response.status >= 500 and not isinstance(content, Mapping):
            raise _make_unreachable(request, str(content).strip()[:_SHOWN_TEXT], retry_after)
        raise ApiError(request.purpose, response.status, content, retry_after)


def _parse_content(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode("utf-8", "replace")


def _parse_seconds(text: str) -> float:
    """Return the seconds of a ``Retry-After`` header; 0 for a date."""
    return float(text) if text.isdigit() else 0.0


def _make_unreachable(
    request: ApiRequest, reason: str, retry_after: float = 0.0
) -> ClusterUnreachable:
    error = ClusterUnreachable(
        f"{request.purpose}: the API server does not answer: {reason}", hint=_UNREACHABLE_HINT
    )
    error.retry_after = retry_after
    return error


def _backoff() -> Iterator[float]:
    """Yield the seconds to wait before each further attempt.

    With jitter, so that threads that were refused together do not come back together.
    """
    pause = _FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, _LONGEST_PAUSE)


class _Outage:
    """A time in which nobody got an answer, over all threads.

    Patience counts from its beginning: a request that is sent late in an outage does not wait for
    as long as the first one did.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._first, self._last = 0.0, float("-inf")

    def record_failure(self) -> float:
        """Return the time (`time.monotonic`) when the outage has used up all patience.

        An outage in which nobody has asked for ``patience`` seconds begins anew.
        """
        now = time.monotonic()
        if now - self._last > self._patience:
            self._first = now
        self._last = now
        return self._first + self._patience

    def end(self) -> None:
        self._last = float("-inf")


class _ProxyConnection(http.client.HTTPConnection):
    def __init__(self, socket_path: Path) -> None:
        super().__init__("localhost", timeout=_SOCKET_TIMEOUT)
        self._socket_path = str(socket_path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)


class _ConnectionPool:
    """One open connection a thread."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._local = threading.local()
        # Weak, so that the connection of a thread that has ended is closed then and not kept to the
        # end: a wait starts threads every second.
        self._open = weakref.WeakSet[_ProxyConnection]()

    def get(self) -> _ProxyConnection:
        """Return this thread's connection."""
        connection: _ProxyConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _ProxyConnection(self._socket_path)
            self._open.add(connection)
        return connection

    def drop(self) -> None:
        """Close this thread's connection; the next request opens another."""
        connection: _ProxyConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def close(self) -> None:
        for connection in list(self._open):
            connection.close()
