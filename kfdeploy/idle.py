"""`kfdeploy mirror` with nothing to do, answered before anything large is read.

A pipeline calls `mirror` each time, and mostly there is nothing to do. What that takes is then
Python starting, a command line and settings being parsed, and one small request an image: the
requests are the least of it. So a run that ends with everything in the private registry leaves a
note in the cache: what was asked, and what the answers were. It holds for the same `kfdeploy.yaml`
and `images.lock`, byte for byte. The next run asks the same, and when all answers are the same it
says what it said before. Anything else whatsoever, and the command runs as it always does.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kfdeploy import __version__
from kfdeploy.cache import Cache, key_of

if TYPE_CHECKING:
    import ssl

_CONNECTIONS: Final = 40
_TLS_CONNECTIONS: Final = 6
"""A handshake takes longer than the requests that it would save waiting for."""
_SECONDS: Final = 10.0
_LINE_MAX: Final = 65536
_PLAIN: Final = frozenset({"-q", "--quiet"})
_VALUED: Final = frozenset({"-C", "--directory", "--env", "--jobs", "--output"})
_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_TEXT, _JSON = "text", "json"


def answer(arguments: Sequence[str]) -> str | None:
    """What `kfdeploy ARGUMENTS` prints, if that is a mirror with nothing to do.

    Reads the workspace's cache, and asks the private registry. None for anything else.
    """
    options = _options(arguments)
    if options is None or any(os.environ[n] for n in os.environ if n.lower() in _PROXIES):
        return None
    root = Path(options.get("-C", options.get("--directory", ".")))
    form = options.get("--output", _TEXT)
    note = _cache(root).get_json(_key(root, options.get("--env", "")) or "")
    if not isinstance(note, dict) or form not in note:
        return None
    there = _all_there(note["url"], note["ca"], note["asked"])
    return str(note[form]) if there else None


def remember(
    root: Path,
    env: str,
    url: str,
    ca: str | None,
    asked: Mapping[str, str],
    text: str,
    content: str,
) -> None:
    """Leave a note of a mirror that had nothing to do.

    Args:
        env: as ``--env`` named it; empty for none.
        url: of the private registry, which wants no sign-in: ``https://HOST[:PORT]``.
        ca: PEM file that is trusted beside the system's.
        asked: the path of each manifest, to the digest that the registry answered.
        text, content: what was printed, for people and as JSON.
    """
    if (key := _key(root, env)) is not None:
        note = {"url": url, "ca": ca, "asked": dict(asked), _TEXT: text, _JSON: content}
        _cache(root).put_json(key, note)


def _options(arguments: Sequence[str]) -> dict[str, str] | None:
    """The options of a plain `mirror`; None for any other command line."""
    if not arguments or arguments[0] != "mirror":
        return None
    found: dict[str, str] = {}
    rest = list(arguments[1:])
    while rest:
        name, joint, value = rest.pop(0).partition("=")
        if name in _PLAIN and not joint:
            continue
        if name not in _VALUED or not (joint or rest):
            return None
        if joint and not name.startswith("--"):  # `-C=DIR` is a folder called `=DIR`
            return None
        found[name] = value if joint else rest.pop(0)
    jobs = found.get("--jobs", "1")
    return found if jobs.isdigit() and 1 <= int(jobs) <= 64 else None


def _cache(root: Path) -> Cache:
    return Cache(root / ".kfdeploy" / "cache")


def _key(root: Path, env: str) -> str | None:
    try:
        files = [(root / name).read_bytes() for name in ("kfdeploy.yaml", "images.lock")]
    except OSError:
        return None
    return key_of("mirror, nothing to do", __version__, env, *files)


def _all_there(url: str, ca: str | None, asked: Mapping[str, str]) -> bool:
    """Whether the registry gives the digests that it gave before.

    Requests are sent one behind the other on each connection, without waiting for answers: all of
    them take as long as one, however far away the registry is.
    """
    scheme, _, host = url.partition("://")
    count = _CONNECTIONS if scheme == "http" else _TLS_CONNECTIONS
    paths = sorted(asked)
    connections: list[tuple[socket.socket, list[str]]] = []
    try:
        secured = _secured(ca) if scheme == "https" else None
        for number in range(min(count, len(paths))):
            share = paths[number::count]
            connection = _connect(host, secured)
            connections.append((connection, share))
            connection.sendall(b"".join(_request(host, path) for path in share))
        return all(
            found == asked[path]
            for connection, share in connections
            for path, found in zip(share, _digests(connection, len(share)), strict=True)
        )
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return False
    finally:
        for connection, _ in connections:
            connection.close()


def _connect(host: str, secured: ssl.SSLContext | None) -> socket.socket:
    name, port = host, 80 if secured is None else 443
    if ":" in host.rpartition("]")[2]:
        name, _, number = host.rpartition(":")
        port = int(number)
    name = name.strip("[]")
    connection = socket.create_connection((name, port), timeout=_SECONDS)
    return connection if secured is None else secured.wrap_socket(connection, server_hostname=name)


def _secured(ca: str | None) -> ssl.SSLContext:
    import ssl

    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    return context


def _request(host: str, path: str) -> bytes:
    return (
        f"HEAD {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kfdeploy\r\nAccept: {_ACCEPT}\r\n\r\n"
    ).encode()


_ACCEPT: Final = (
    "application/vnd.docker.distribution.manifest.list.v2+json,"
    " application/vnd.docker.distribution.manifest.v2+json,"
    " application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
)


def _digests(connection: socket.socket, count: int) -> Iterable[str]:
    """The digest of each answer; empty for one that is no plain 200."""
    with connection.makefile("rb") as stream:
        for _ in range(count):
            status = stream.readline(_LINE_MAX).split()
            digest = ""
            while (line := stream.readline(_LINE_MAX)) not in (b"\r\n", b"\n"):
                if not line:
                    raise ValueError("the answer ended early")
                name, _, value = line.partition(b":")
                if name.lower() == b"docker-content-digest":
                    digest = value.strip().decode("ascii", "replace")
            yield digest if status[1:2] == [b"200"] else ""


def main(arguments: Sequence[str] | None = None) -> bool:
    """Print the answer, if there is one; whether there was."""
    said: Any = answer(sys.argv[1:] if arguments is None else arguments)
    if said is None:
        return False
    sys.stdout.write(said)
    return True
