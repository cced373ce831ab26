"""Which failures pass by themselves, by what Helm and kubectl say of them."""

from __future__ import annotations

import re
from typing import Final

_UNREACHABLE: Final = (
    *("connection refused", "connection reset", "broken pipe", "unexpected EOF", ": EOF"),
    *("i/o timeout", "TLS handshake timeout", "no route to host", "network is unreachable"),
    *("use of closed network connection", "client connection lost", "server sent GOAWAY"),
    *("server closed idle connection", "Client.Timeout exceeded", "Kubernetes cluster unreachable"),
)
# k8s.io/apimachinery pkg/api/errors: 429, 500, 503 and 504, as clients word them; what comes from
# etcd, with an API server that ends, or from what balances the load between several.
_BUSY: Final = (
    *("the server has received too many requests", "Too Many Requests", "too many requests"),
    *("the server is currently unable to handle the request", "Service Unavailable"),
    *("an error on the server (", "Bad Gateway", "Gateway Time"),
    *("the server was unable to return a response in the time allotted", "Internal error occurred"),
    *("etcdserver: ", "leader changed", "apiserver is shutting down", "apiserver not ready"),
    *("storage is (re)initializing", "the object has been modified", "no endpoints available"),
    *("unable to retrieve the complete list of server APIs",),
)
_TRANSIENT: Final = re.compile("|".join(map(re.escape, (*_UNREACHABLE, *_BUSY))))
# A webhook's refusal can have any words. That it can't be called may pass: its pod is ready a
# moment before all nodes know the way to it.
_WEBHOOK: Final = re.compile(r"admission webhook .* denied the request|failed calling webhook")


# Helm's waits, and kubectl's.
_WAIT_TIMEOUT: Final = re.compile(r"context deadline exceeded|timed out waiting for the condition")


def is_wait_timeout(text: str) -> bool:
    """Whether a program has waited for as long as it was told to."""
    return _WAIT_TIMEOUT.search(text) is not None


def is_transient(text: str) -> bool:
    """Whether a program that failed with these words may do better in a moment."""
    found = _WEBHOOK.search(text)
    if found is None:
        return _TRANSIENT.search(text) is not None
    if found[0].endswith("denied the request"):
        return False
    said = text[found.end() :]
    return any(words in said for words in (*_UNREACHABLE, "no endpoints available"))
