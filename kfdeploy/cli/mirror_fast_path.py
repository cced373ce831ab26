"""A short way for `kfdeploy mirror` when there is little to do, or nothing.

A pipeline calls `mirror` each time, and mostly there is nothing to copy, or an image or two. Then
the time goes into starting Python, parsing the command line and the settings, and one small
request for each image. So a run that ends with all images in the private registry leaves a note
in the cache: the settings, the requests, and the answers. The note holds for the same
`kfdeploy.yaml`, byte for byte.

The next run sends the same requests before it imports anything large. If `images.lock` and all
answers are the same, it prints what the earlier run printed. Otherwise the mirror starts at once
with the noted settings and the new answers (`kfdeploy.cli.mirroring`). For any other option the
command runs as usual.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kfdeploy import __version__
from kfdeploy.cache import Cache, make_cache_key

if TYPE_CHECKING:
    import ssl

_CONNECTIONS: Final = 40
_TLS_CONNECTIONS: Final = 6
"""More connections would cost more time in handshakes than they save."""
_SECONDS: Final = 10.0
_LINE_MAX: Final = 65536
_PLAIN: Final = frozenset({"-q", "--quiet"})
_VALUED: Final = frozenset({"-C", "--directory", "--env", "--jobs", "--output"})
_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_TEXT, _JSON = "text", "json"
_JOBS: Final = "8"
_FORM: Final = 3
"""The version of the note, which is part of its key."""


@dataclass(frozen=True, slots=True)
class CachedMirror:
    """Hold the note that fits a call of `mirror`.

    Attributes:
        env: the value of ``--env``; empty for none.
        settings: `MirrorSettings`, packed by `kfdeploy.codec`.
        answered: waits for the private registry's answers: paths of manifests with the digests
            that it has just given.
        said: what is printed when there is nothing to do, which is what the answers say; None when
            that is not so.
    """

    root: Path
    env: str
    jobs: int
    output: str
    quiet: bool
    settings: Any
    read_answers: Callable[[], frozenset[tuple[str, str]]]
    cached_output: str | None


def find_cached_mirror(arguments: Sequence[str]) -> CachedMirror | None:
    """Return the note for `kfdeploy ARGUMENTS`; None for anything but a plain mirror.

    It reads the cache of the workspace, and sends requests to the private registry.
    """
    options = _parse_options(arguments)
    if options is None or any(os.environ[n] for n in os.environ if n.lower() in _PROXIES):
        return None
    root = Path(options.get("-C", options.get("--directory", ".")))
    env, form = options.get("--env", ""), options.get("--output", _TEXT)
    try:
        lock = (root / "images.lock").read_bytes()
    except OSError:
        return None
    note = _open_cache(root).get_json(_cache_key(root, env) or "")
    if not isinstance(note, dict) or form not in (_TEXT, _JSON):
        return None
    # Ask nothing about images that the lock no longer names.
    named = set(re.findall(rb"[a-z0-9]+:[0-9a-f]{32,}", lock))
    asked = [(p, digest) for p, digest in note["asked"].items() if digest.encode() in named]
    asking = _ManifestRequests(note["url"], note["ca"], asked if note["url"] else [])
    said = None
    if note["lock"] == make_cache_key(lock) and asking.read_answers().issuperset(
        note["asked"].items()
    ):
        said = note[_TEXT] if form == _TEXT else _format_json(note[_JSON])
    jobs, quiet = int(options.get("--jobs", _JOBS)), not _PLAIN.isdisjoint(options)
    return CachedMirror(root, env, jobs, form, quiet, note["settings"], asking.read_answers, said)


def find_cached_output(arguments: Sequence[str]) -> str | None:
    """Return the output of `kfdeploy ARGUMENTS`; None unless it is a mirror with nothing to do."""
    noted = find_cached_mirror(arguments)
    return None if noted is None else noted.cached_output


def cache_mirror(
    root: Path,
    env: str,
    settings: Any,
    url: str,
    ca: str | None,
    asked: Mapping[str, str],
    text: str,
    content: Mapping[str, Any],
) -> None:
    """Note a mirror that has nothing left to do.

    Args:
        env: the value of ``--env``; empty for none.
        settings: `MirrorSettings` of kfdeploy.yaml, packed by `kfdeploy.codec`.
        url: of the private registry: ``https://HOST[:PORT]``; empty where it wants a sign-in, or
            its certificate is not checked.
        ca: PEM file that is trusted beside the system's.
        asked: the path of each manifest, to the digest that the registry answered.
        text, content: what is printed when there is nothing to do, for people and as JSON.
    """
    if (key := _cache_key(root, env)) is not None:
        note = {
            "settings": settings,
            "lock": make_cache_key((root / "images.lock").read_bytes()),
            "url": url,
            "ca": ca,
            "asked": dict(asked),
            _TEXT: text,
            _JSON: content,
        }
        _open_cache(root).put_json(key, note)


def _format_json(content: Any) -> str:
    import json

    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _parse_options(arguments: Sequence[str]) -> dict[str, str] | None:
    """Return the options of a plain `mirror`; None for any other command line."""
    if not arguments or arguments[0] != "mirror":
        return None
    found: dict[str, str] = {}
    rest = list(arguments[1:])
    while rest:
        name, joint, value = rest.pop(0).partition("=")
        if name in _PLAIN and not joint:
            found[name] = ""
            continue
        if name not in _VALUED or not (joint or rest):
            return None
        if joint and not name.startswith("--"):  # `-C=DIR` is a folder called `=DIR`
            return None
        found[name] = value if joint else rest.pop(0)
    jobs = found.get("--jobs", "1")
    return found if jobs.isdigit() and 1 <= int(jobs) <= 64 else None


def _open_cache(root: Path) -> Cache:
    return Cache(root / ".kfdeploy" / "cache")


def _cache_key(root: Path, env: str) -> str | None:
    try:
        settings = (root / "kfdeploy.yaml").read_bytes()
    except OSError:
        return None
    return make_cache_key(f"mirror, noted {_FORM}", __version__, env, settings)


class _ManifestRequests:
    """Request manifests from the private registry without waiting for the answers.

    Each connection sends its requests one after the other (HTTP pipelining), so that all of them
    take about one round trip.
    """

    def __init__(self, url: str, ca: str | None, asked: Sequence[tuple[str, str]]) -> None:
        """Ask; ``asked`` has the path of each manifest, and the digest expected."""
        self._asked = sorted(asked)
        self._found: set[tuple[str, str]] = set()
        self._connections: list[tuple[socket.socket, Sequence[tuple[str, str]]]] = []
        scheme, _, host = url.partition("://")
        count = _CONNECTIONS if scheme == "http" else _TLS_CONNECTIONS
        with contextlib.suppress(OSError, ValueError):  # ssl.SSLError is an OSError
            secured = _tls_context(ca) if scheme == "https" else None
            for number in range(min(count, len(self._asked))):
                share = self._asked[number::count]
                connection = _open_connection(host, secured)
                self._connections.append((connection, share))
                connection.sendall(b"".join(_format_request(host, path) for path, _ in share))

    def read_answers(self) -> frozenset[tuple[str, str]]:
        """Wait for the answers, and return those that are as expected: path and digest."""
        while self._connections:
            connection, share = self._connections.pop()
            with connection, contextlib.suppress(OSError, ValueError):
                digests = _read_digests(connection, len(share))
                self._found.update(zip((path for path, _ in share), digests, strict=True))
        return frozenset(self._found.intersection(self._asked))


def _open_connection(host: str, secured: ssl.SSLContext | None) -> socket.socket:
    name, port = host, 80 if secured is None else 443
    if ":" in host.rpartition("]")[2]:
        name, _, number = host.rpartition(":")
        port = int(number)
    name = name.strip("[]")
    connection = socket.create_connection((name, port), timeout=_SECONDS)
    return connection if secured is None else secured.wrap_socket(connection, server_hostname=name)


def _tls_context(ca: str | None) -> ssl.SSLContext:
    from kfdeploy.http.tls import create_tls_context

    return create_tls_context(None if ca is None else Path(ca))


def _format_request(host: str, path: str) -> bytes:
    return (
        f"HEAD {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kfdeploy\r\nAccept: {_ACCEPT}\r\n\r\n"
    ).encode()


_ACCEPT: Final = (
    "application/vnd.docker.distribution.manifest.list.v2+json,"
    " application/vnd.docker.distribution.manifest.v2+json,"
    " application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
)


def _read_digests(connection: socket.socket, count: int) -> Iterable[str]:
    """Yield the digest of each answer; an empty text for any status but 200."""
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
