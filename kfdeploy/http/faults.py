"""Name the faults of connections: what went wrong, and whether it may pass."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from kfdeploy.http.pool import ConnectionsClosed

FaultKind = Literal[
    "closed",
    "unknown-ca",
    "certificate",
    "plain-http",
    "tls",
    "name",
    "refused",
    "timeout",
    "not-http",
    "broken",
]
_PLAIN_HTTP_REASONS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}
)
_UNKNOWN_CA_WORDS: Final = ("issuer", "self-signed", "self signed")


@dataclass(frozen=True, slots=True)
class ConnectionFault:
    """Why there is no response.

    Attributes:
        reason: in words, to be put after the server's name.
        is_transient: the same request may succeed later.
    """

    kind: FaultKind
    reason: str
    is_transient: bool = False


_FAULTS: Final[Mapping[type[Exception], ConnectionFault]] = {
    ConnectionsClosed: ConnectionFault("closed", "interrupted"),
    ConnectionRefusedError: ConnectionFault("refused", "connection refused", is_transient=True),
    TimeoutError: ConnectionFault("timeout", "no answer in time", is_transient=True),
}


def classify_fault(error: Exception) -> ConnectionFault:
    """Return what an exception of `ConnectionPool.send` means."""
    if isinstance(error, ssl.SSLError):
        return _classify_tls_error(error)
    if isinstance(error, socket.gaierror):
        # EAI_AGAIN: the name server did not answer, so the name may exist.
        return ConnectionFault("name", "no such host name", error.errno == socket.EAI_AGAIN)
    for kind, fault in _FAULTS.items():
        if isinstance(error, kind):
            return fault
    if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
        return ConnectionFault("not-http", "the answer is not HTTP")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ConnectionFault("broken", f"the connection broke: {reason.lower()}", is_transient=True)


def _classify_tls_error(error: ssl.SSLError) -> ConnectionFault:
    if not isinstance(error, ssl.SSLCertVerificationError):
        if error.reason in _PLAIN_HTTP_REASONS:
            return ConnectionFault("plain-http", "the server does not speak TLS")
        return ConnectionFault("tls", f"TLS failed: {error.reason or error}")
    if any(word in error.verify_message for word in _UNKNOWN_CA_WORDS):
        return ConnectionFault("unknown-ca", "certificate: signed by a CA that is not trusted here")
    return ConnectionFault("certificate", f"certificate: {error.verify_message}")
