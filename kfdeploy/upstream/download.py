"""Download one file by HTTP."""

from __future__ import annotations

import contextlib
import http.client
import time
from typing import Final

from kfdeploy.errors import UserError
from kfdeploy.http.faults import FaultKind, classify_fault
from kfdeploy.http.pool import (
    ConnectionPool,
    HttpRequest,
    HttpResponse,
    ResponseStream,
    ResponseTooLong,
)
from kfdeploy.http.retry import parse_retry_after, retry_delay
from kfdeploy.redact import redact_url
from kfdeploy.wording import format_bytes

MAX_BYTES: Final = 256 * 1024 * 1024
_READ_SECONDS: Final = 60.0
_TRIES: Final = 3
_WAIT_MAX_SECONDS: Final = 30.0
_PIECE_BYTES: Final = 1 << 20
_RETRIED_FAULTS: Final = frozenset[FaultKind]({"broken", "name"})
"""Not retried: a refused connection or a minute of silence, as the server is not there."""
_HEADERS: Final = {"User-Agent": "kfdeploy", "Accept": "*/*"}
_MIRROR_HINT: Final = "name a folder or a mirror that has it in `upstream.remotes`"
_CA_HINT: Final = (
    "add the CA to the system's certificate store, or name its PEM file in SSL_CERT_FILE"
)


class DownloadError(UserError):
    """A file could not be downloaded.

    Attributes:
        retry_seconds: Seconds to wait before the next try; None when a retry can't help.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, retry_seconds: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_seconds = retry_seconds


def download_file(url: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the bytes of a file.

    Follows redirects, uses the proxies that the environment names, and trusts the system's
    certificate store (or SSL_CERT_FILE and SSL_CERT_DIR). Transient faults are retried.

    Args:
        url: An http or https URL. A user and password in it are sent as basic authentication.
        max_bytes: The largest size that is accepted.

    Raises:
        DownloadError: There is no connection, the status is not 200, or the file is too large. The
            message has the URL without its password.
    """
    pool = ConnectionPool(read_seconds=_READ_SECONDS)
    tries = 0
    try:
        while True:
            try:
                return _download_once(pool, url, max_bytes)
            except DownloadError as error:
                tries += 1
                if error.retry_seconds is None or tries == _TRIES:
                    raise
                seconds = max(error.retry_seconds, retry_delay(tries))
                if seconds > _WAIT_MAX_SECONDS:
                    raise
            time.sleep(seconds)
    finally:
        pool.close()


def _download_once(pool: ConnectionPool, url: str, max_bytes: int) -> bytes:
    what = f"can't fetch {redact_url(url)}"
    try:
        response = pool.send(HttpRequest("GET", url, _HEADERS, stream=True))
        if response.status != 200 or response.stream is None:
            raise _status_error(what, response)
        data = _read_limited(response.stream, max_bytes)
    except ResponseTooLong as error:
        raise DownloadError(f"{what}: the server's error page is too long") from error
    except http.client.InvalidURL as error:
        raise DownloadError(f"{what}: not a valid URL") from error
    except (OSError, http.client.HTTPException) as error:
        raise _connection_error(what, error) from error
    except ValueError as error:  # of urlsplit; ssl's certificate errors are OSError, too
        raise DownloadError(f"{what}: not a valid URL") from error
    if len(data) > max_bytes:
        raise DownloadError(f"{what}: larger than {format_bytes(max_bytes)}")
    if not _is_complete(response, data):
        raise DownloadError(
            f"{what}: the connection broke after {format_bytes(len(data))}", retry_seconds=0
        )
    return bytes(data)


def _read_limited(stream: ResponseStream, max_bytes: int) -> bytearray:
    """Return the body, cut off at one byte more than ``max_bytes``."""
    data = bytearray()
    with contextlib.closing(stream):
        while len(data) <= max_bytes:
            piece = stream.read(min(_PIECE_BYTES, max_bytes + 1 - len(data)))
            if not piece:
                break
            data += piece
    return data


def _is_complete(response: HttpResponse, data: bytearray) -> bool:
    """Return whether the body is as long as announced; `http.client` does not check that."""
    length = response.headers.get("content-length", "")
    return not length.isdigit() or int(length) == len(data)


def _status_error(what: str, response: HttpResponse) -> DownloadError:
    is_transient = response.status == 429 or response.status >= 500
    return DownloadError(
        f"{what}: the server answers {response.status}",
        hint=_MIRROR_HINT,
        retry_seconds=parse_retry_after(response, 0.0) if is_transient else None,
    )


def _connection_error(what: str, error: Exception) -> DownloadError:
    fault = classify_fault(error)
    return DownloadError(
        f"{what}: {fault.reason}",
        hint=_CA_HINT if fault.kind == "unknown-ca" else _MIRROR_HINT,
        retry_seconds=0.0 if fault.kind in _RETRIED_FAULTS and fault.is_transient else None,
    )
