"""Find the proxy for a server, as the environment names it."""

from __future__ import annotations

import base64
import os
from typing import Final
from urllib.parse import SplitResult, unquote

_NOT_PROXIES: Final = frozenset({"no_proxy"})


def find_proxy(scheme: str, netloc: str) -> str:
    """Return the URL of the proxy for a server; empty for none.

    Reads HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in lower case too. A server on this
    machine is never asked through a proxy.

    Args:
        netloc: ``HOST[:PORT]``.
    """
    names = {name.lower() for name in os.environ} - _NOT_PROXIES
    if not any(name.endswith("_proxy") for name in names):
        return ""
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all") or ""
    if not proxy or proxy_bypass(netloc) or is_loopback(netloc):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def basic_authorization(url: SplitResult) -> str:
    """Return the Authorization value for the user and password in a URL; empty without a user."""
    if url.username is None:
        return ""
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def is_loopback(host: str) -> bool:
    """Return whether ``HOST[:PORT]`` is this machine itself."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return (
        name in {"localhost", "[::1]", "::1"}
        or name.endswith(".localhost")
        or (name.startswith("127.") and name.replace(".", "").isdigit())
    )
