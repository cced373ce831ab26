"""Recognize failures that pass by themselves, by what Helm and kubectl print."""

from __future__ import annotations

import re
from typing import Final

_UNREACHABLE: Final = (
    *("connection refused", "connection reset", "broken pipe", "unexpected EOF", ": EOF"),
    *("i/o timeout", "TLS handshake timeout", "no route to host", "network is unreachable"),
    *("use of closed network connection", "client connection lost", "server sent GOAWAY"),
    *("server closed idle connection", "Client.Timeout exceeded", "Kubernetes cluster unreachable"),
)
# 429, 500, 503 and 504 as k8s.io/apimachinery pkg/api/errors words them; messages of etcd, of an
# API server that shuts down, and of a load balancer before several.
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
# A webhook's refusal may contain any words. A failed call may pass: a pod is ready a moment before
# all nodes have the route to it.
_WEBHOOK: Final = re.compile(r"admission webhook .* denied the request|failed calling webhook")

# Messages of Helm and of kubectl.
_WAIT_TIMEOUT: Final = re.compile(r"context deadline exceeded|timed out waiting for the condition")


def is_wait_timeout(text: str) -> bool:
    """Return whether a program says that its own wait has timed out."""
    return _WAIT_TIMEOUT.search(text) is not None


def is_transient(text: str) -> bool:
    """Return whether a program that failed with these words may succeed a moment later."""
    found = _WEBHOOK.search(text)
    if found is None:
        return _TRANSIENT.search(text) is not None
    if found[0].endswith("denied the request"):
        return False
    cause = text[found.end() :]
    return any(words in cause for words in (*_UNREACHABLE, "no endpoints available"))
