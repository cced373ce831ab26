"""An independent look at images: every manifest and blob is read and hashed, by nothing of ours.

What is asked is whether an image that shows itself is whole. One that is not there is no fault of
this kind: whoever pulls it is told so.
"""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_MANIFESTS: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that is to be at a place: REPOSITORY:TAG of a registry."""

    repository: str
    tag: str
    digest: str


@dataclass(slots=True)
class Look:
    """What was found of the images that were wanted.

    Attributes:
        whole: those that are there with all that belongs to them.
        absent: those whose tag nobody knows.
        broken: those that show themselves and are not whole, with what is wrong.
    """

    whole: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    broken: dict[str, str] = field(default_factory=dict)


class _Wrong(Exception):
    pass


def read_registry(host: str, images: Iterable[Wanted], *, read_blobs: bool = True) -> Look:
    """Read images from a registry over plain HTTP.

    Args:
        read_blobs: False to ask only whether blobs are there, and how large.
    """
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        reader = _RegistryReader(connection, read_blobs)
        return _looked(reader, images)
    finally:
        connection.close()


def read_layout(folder: Path, images: Iterable[Wanted]) -> Look:
    """Read images from an OCI image layout: one is there when ``index.json`` names its digest."""
    return _looked(_LayoutReader(folder), images)


def _looked(reader: _RegistryReader | _LayoutReader, images: Iterable[Wanted]) -> Look:
    found = Look()
    for image in images:
        name = f"{image.repository}:{image.tag}"
        try:
            top = reader.top(image)
            if top is None:
                found.absent.add(name)
                continue
            _check(reader, image.repository, image.digest, top)
        except ConnectionError:
            raise  # nobody answers: nothing was seen
        except (_Wrong, OSError, ValueError, KeyError) as error:
            found.broken[name] = f"{type(error).__name__}: {error}"
        else:
            found.whole.add(name)
    return found


def _check(
    reader: _RegistryReader | _LayoutReader, repository: str, digest: str, data: bytes
) -> None:
    there = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if there != digest:
        raise _Wrong(f"{there} instead of {digest}")
    content = json.loads(data)
    for child in content.get("manifests", ()):
        _check(reader, repository, child["digest"], reader.manifest(repository, child["digest"]))
    blobs: list[dict[str, Any]] = []
    if "config" in content:
        blobs = [content["config"], *content["layers"]]
    for blob in blobs:
        reader.blob(repository, blob["digest"], blob["size"])


class _RegistryReader:
    def __init__(self, connection: http.client.HTTPConnection, read_blobs: bool) -> None:
        self._connection = connection
        self._read_blobs = read_blobs
        self._seen: set[tuple[str, str]] = set()

    def top(self, image: Wanted) -> bytes | None:
        response = self._ask("GET", f"/v2/{image.repository}/manifests/{image.tag}")
        data = response.read()
        if response.status == 404:
            return None
        if response.status != 200:
            raise _Wrong(f"{response.status} for the tag")
        return data

    def manifest(self, repository: str, digest: str) -> bytes:
        response = self._ask("GET", f"/v2/{repository}/manifests/{digest}")
        data = response.read()
        if response.status != 200:
            raise _Wrong(f"{response.status} for the manifest {digest}")
        return data

    def blob(self, repository: str, digest: str, size: int) -> None:
        if (repository, digest) in self._seen:
            return
        method = "GET" if self._read_blobs else "HEAD"
        response = self._ask(method, f"/v2/{repository}/blobs/{digest}")
        number, length = hashlib.sha256(), 0
        while piece := response.read(_PIECE):
            number.update(piece)
            length += len(piece)
        if response.status != 200:
            raise _Wrong(f"{response.status} for the blob {digest}")
        if self._read_blobs and f"sha256:{number.hexdigest()}" != digest:
            raise _Wrong(f"the blob {digest} has other bytes")
        if size != (length if self._read_blobs else int(response.headers["Content-Length"])):
            raise _Wrong(f"the blob {digest} has another size")
        self._seen.add((repository, digest))

    def _ask(self, method: str, path: str) -> http.client.HTTPResponse:
        self._connection.request(method, path, headers={"Accept": ", ".join(_MANIFESTS)})
        return self._connection.getresponse()


class _LayoutReader:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        index = folder / "index.json"
        content = json.loads(index.read_bytes()) if index.exists() else {"manifests": []}
        self._named = {entry["digest"] for entry in content["manifests"]}

    def top(self, image: Wanted) -> bytes | None:
        if image.digest not in self._named:
            return None
        return self.manifest("", image.digest)

    def manifest(self, repository: str, digest: str) -> bytes:
        return self._file(digest).read_bytes()

    def blob(self, repository: str, digest: str, size: int) -> None:
        file = self._file(digest)
        with file.open("rb") as opened:
            number = hashlib.file_digest(opened, "sha256").hexdigest()
        if (f"sha256:{number}", file.stat().st_size) != (digest, size):
            raise _Wrong(f"the blob {digest} has other bytes")

    def _file(self, digest: str) -> Path:
        algorithm, _, number = digest.partition(":")
        return self._folder / "blobs" / algorithm / number
