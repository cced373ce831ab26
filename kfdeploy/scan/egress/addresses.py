"""Parse addresses, and tell which hosts are, or may be, outside the cluster."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Container
from dataclasses import dataclass

HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,}"
_HOST = re.compile(rf"{HOST}\.?", re.ASCII)
_AUTHORITY = re.compile(
    r"(?:(?P<user>[^@/\s]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)"
    r"(?::(?P<port>\d*))?",
    re.ASCII,
)
_METADATA = "169.254.169.254"
"""The metadata service of clouds: the only link-local address that programs connect to."""
_BUCKETS = "az azure cos gcs gs hf kaggle modelscope obs oss s3 s3a s3n"
BUCKETS = frozenset(_BUCKETS.split())
"""Schemes whose authority is not a host but a bucket, or an account at a public hub."""
_NOWHERE = (
    "about blob chrome classpath data docker-daemon file kubernetes local memory minio pvc sqlite"
    " static unix urn vscode"
)
_LOCAL = frozenset(_NOWHERE.split())
"""Schemes of addresses inside. ``minio://`` is Kubeflow Pipelines' name for its own store."""
_NO_AUTHORITY = frozenset(("dns", "passthrough", "xds"))
"""Schemes of gRPC without an authority: ``dns:///HOST:PORT``."""
_DOMAINS = (
    "academy agency ai app art aws bar biz blog build cafe capital center chat cloud club co codes"
    " com community company computer consulting coop corp design dev digital directory dog domains"
    " edu education email energy engineering enterprises events example exchange expert express"
    " farm finance foundation fun fund fyi games global gmbh google gov group guide health host"
    " hosting house inc industries info ink institute int internal international invalid io jobs"
    " lan land legal life link live llc ltd management market marketing media mil ml mobi money"
    " museum name net network news ninja one online org page partners party photos plus press pro"
    " products pub science security services shop site social software solutions space store"
    " studio support systems team tech technology test tips today tools top tube university"
    " ventures video vip wiki work works world xyz zone"
)
_GENERIC = frozenset(_DOMAINS.split())
"""Top-level domains that a name of two labels may end in, besides those of two letters."""


@dataclass(frozen=True, slots=True)
class ExternalAddress:
    """A host or a bucket outside the cluster.

    Attributes:
        scheme: the URL's scheme, in lower case; empty if there is none.
        host: the host, in lower case; empty for a bucket.
        text: the address without user name and password.
    """

    scheme: str
    host: str
    text: str

    def is_inside(self, namespaces: Container[str]) -> bool:
        """Return whether it is a Service: ``NAME.NAMESPACE`` in one of these namespaces."""
        return self.host.rpartition(".")[2] in namespaces if self.host else False


def parse_url(scheme: str, rest: str) -> ExternalAddress | None:
    """Return the address ``SCHEME://REST``, or None if it is inside the cluster or a pattern."""
    scheme = scheme.lower()
    if scheme in _LOCAL:
        return None
    if scheme in _NO_AUTHORITY:
        rest = rest.lstrip("/")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if scheme in BUCKETS:
        bucket = rest.strip("/")
        if not re.match(r"[A-Za-z0-9]", bucket) or re.search(r"[${}()*+]", bucket):
            return None
        return ExternalAddress(scheme, "", f"{scheme}://{rest}")
    match = _AUTHORITY.fullmatch(authority)
    if match is None or not is_outside(match["host"]):
        return None
    start = match.end("user") + 1 if match["user"] is not None else 0
    if match["user"] is not None and ":" not in match["user"]:
        start = 0  # not a password: a container of an Azure account, or the user "git"
    return ExternalAddress(scheme, match["host"].lower(), f"{scheme}://{rest[start:]}")


def parse_host(text: str) -> ExternalAddress | None:
    """Return the address ``HOST[:PORT]``, or None if it is inside the cluster or has no dot."""
    host = text.partition("/")[0].partition(":")[0]
    return (
        ExternalAddress("", host.lower(), text)
        if _HOST.fullmatch(host) and is_outside(host)
        else None
    )


def is_outside(host: str) -> bool:
    """Return whether a host may be outside the cluster.

    A name without a dot is a Service. So is ``NAME.NAMESPACE``, unless it ends in a top-level
    domain. Private IP addresses belong to the site's own network.
    """
    host = host.lower().strip("[]").rstrip(".")
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return number.is_global or host == _METADATA
    labels = host.split(".")
    if len(labels) < 2 or labels[-1] == "localhost" or "svc" in labels[2:]:
        return False
    if host.endswith(".cluster.local") or not labels[-1].isalpha():
        return False
    return len(labels) > 2 or len(labels[-1]) == 2 or labels[-1] in _GENERIC
