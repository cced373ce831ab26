"""Small made images that stand in for real ones, and a quick way to put many into a registry.

What an image is follows from its reference alone, so that two runs make the same digests: OCI and
Docker formats, single images and indexes, with base layers in common and now and then BuildKit's
attestation (a manifest for platform ``unknown/unknown``).

    python -m tests.support.standins 127.0.0.1:5001 < refs
"""

from __future__ import annotations

import argparse
import base64
import functools
import gzip
import hashlib
import http.client
import io
import json
import ssl
import sys
import tarfile
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from kfdeploy.oci.reference import ImageRef, host_qualified_path

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_WORKERS: Final = 4
_BASES: Final = 3
_TAG: Final = "stand-in"

Platform = tuple[str, str, str]
"""os, architecture, variant (empty for none)."""
_PLATFORM_SETS: Final[tuple[tuple[Platform, ...], ...]] = (
    (("linux", "amd64", ""), ("linux", "arm64", "")),
    (("linux", "amd64", ""), ("linux", "arm64", "v8"), ("linux", "arm", "v7")),
    (("linux", "amd64", ""), ("linux", "arm64", ""), ("linux", "s390x", "")),
)


@dataclass(slots=True)
class Standin:
    """One made image.

    Attributes:
        digest: of the manifest or index that a tag points at.
        media_type: of the same.
        manifests: digest to (media type, bytes), in the order to push; the top one is last.
        blobs: digest to bytes: configs and layers.
        platforms: ``os/arch[/variant]`` to digest.
    """

    digest: str = ""
    media_type: str = ""
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    platforms: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(map(len, self.blobs.values()))


def make_standin(reference: str, *, kind: int | None = None) -> Standin:
    """The image that stands in for ``reference``.

    Args:
        kind: 0 and 1 OCI index, 2 OCI index with an attestation, 3 and 4 Docker manifest list,
            5 single OCI image, 6 single Docker image; by default it follows from the reference.
    """
    seed = hashlib.sha256(str(ImageRef.parse(reference).with_default_tag()).encode()).hexdigest()
    number = int(seed[:8], 16)
    chosen = number % 7 if kind is None else kind
    oci = chosen in {0, 1, 2, 5}
    image = Standin()
    if chosen in {5, 6}:
        _add_manifest(image, seed, _PLATFORM_SETS[0][0], oci)
        return image
    children: list[dict[str, Any]] = []
    for platform in _PLATFORM_SETS[number // 7 % len(_PLATFORM_SETS)]:
        descriptor = _add_manifest(image, seed, platform, oci)
        children.append({**descriptor, "platform": _platform(platform)})
    if chosen == 2:
        children.append(_add_attestation(image, children[0]["digest"]))
    kind_of_index = OCI_INDEX if oci else DOCKER_LIST
    index = {"schemaVersion": 2, "mediaType": kind_of_index, "manifests": children}
    _put_manifest(image, kind_of_index, index)
    return image


def name_standin(reference: str) -> str:
    """Return the tag that stands in for a reference by digest: no content can be made for that."""
    return f"{ImageRef.parse(reference).repository}:{_TAG}"


def push_standins(
    registry_host: str,
    refs: Iterable[str],
    path_of: Callable[[ImageRef], str] = host_qualified_path,
    *,
    ca: Path | None = None,
    sign_in: tuple[str, str] | None = None,
) -> list[str]:
    """Push a stand-in for each reference; ``gcr.io/a/b:v1`` goes to ``HOST/gcr.io/a/b:v1``.

    Args:
        registry_host: HOST:PORT; plain HTTP unless ``ca`` is given.
        refs: references as found; ``latest`` where no tag is named.
        path_of: repository below the registry; by default ``neutral_path``.
        sign_in: user and password (Basic).

    Returns:
        References with a digest, sorted: content can't be made to have a given digest.

    Raises:
        RuntimeError: the registry refused something.
    """
    wanted: dict[tuple[str, str], str] = {}
    skipped: list[str] = []
    for text in refs:
        ref = ImageRef.parse(text).with_default_tag()
        if ref.digest:
            skipped.append(text)
        else:
            wanted[path_of(ref), ref.tag] = text
    push = _Push(registry_host, ca, sign_in)
    with ThreadPoolExecutor(_WORKERS) as pool:
        jobs = [
            pool.submit(push.image, make_standin(text), path, tag)
            for (path, tag), text in sorted(wanted.items())
        ]
        for job in jobs:
            job.result()
    return sorted(set(skipped))


def push(registry_host: str, image: Standin, path: str, name: str) -> None:
    """Push one image, or anything else that is a manifest with blobs.

    Args:
        path: repository.
        name: the tag, or its digest.
    """
    _Push(registry_host, None, None).image(image, path, name)


class _Push:
    """Pushes over one kept-alive connection for each thread."""

    def __init__(self, host: str, ca: Path | None, sign_in: tuple[str, str] | None) -> None:
        self._host = host
        self._tls = ssl.create_default_context(cafile=str(ca)) if ca else None
        self._headers: dict[str, str] = {}
        if sign_in:
            token = base64.b64encode(":".join(sign_in).encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"
        self._local = threading.local()
        self._shared: dict[str, str] = {}

    def image(self, image: Standin, path: str, tag: str) -> None:
        for digest, data in image.blobs.items():
            self._blob(path, digest, data)
        for digest, (media_type, data) in image.manifests.items():
            name = tag if digest == image.digest else digest
            self._call("PUT", f"/v2/{path}/manifests/{name}", data, {"Content-Type": media_type})

    def _blob(self, path: str, digest: str, data: bytes) -> None:
        start = f"/v2/{path}/blobs/uploads/"
        if source := self._shared.get(digest):
            start += f"?mount={digest}&from={source}"
        status, headers = self._call("POST", start)
        if status == 202:
            location = urlsplit(headers["location"])
            query = f"{location.query}&digest={digest}".lstrip("&")
            binary = {"Content-Type": "application/octet-stream"}
            self._call("PUT", f"{location.path}?{query}", data, binary)
        self._shared[digest] = path

    def _call(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str]]:
        for attempt in range(2):
            connection = getattr(self._local, "connection", None) or self._connect()
            try:
                connection.request(method, target, body, {**self._headers, **(headers or {})})
                response = connection.getresponse()
                answer = response.read()
            except (http.client.HTTPException, ConnectionError):
                self._local.connection = None
                if attempt:
                    raise
                continue
            if response.status >= 300:
                raise RuntimeError(f"{method} {target}: {response.status} {answer[:300]!r}")
            return response.status, {k.lower(): v for k, v in response.getheaders()}
        raise AssertionError

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, timeout=30, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(self._host, timeout=30)
        self._local.connection = connection
        return connection


def _add_manifest(image: Standin, seed: str, platform: Platform, oci: bool) -> dict[str, Any]:
    base = _base_layer(int(seed[8:10], 16) % _BASES, platform[1])
    own = _layer("etc/stand-in", f"{seed} {'/'.join(platform)}\n".encode() * 8)
    config = {
        **_platform(platform),
        "config": {"Labels": {"stand-in": seed}},
        "rootfs": {"type": "layers", "diff_ids": [_diff_id(base), _diff_id(own)]},
    }
    if oci:
        config_type = "application/vnd.oci.image.config.v1+json"
        layer_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    else:
        config_type = "application/vnd.docker.container.image.v1+json"
        layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    media_type = OCI_MANIFEST if oci else DOCKER_MANIFEST
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _put_blob(image, config_type, _json(config)),
        "layers": [_put_blob(image, layer_type, layer) for layer in (base, own)],
    }
    descriptor = _put_manifest(image, media_type, manifest)
    image.platforms["/".join(filter(None, platform))] = descriptor["digest"]
    return descriptor


def _add_attestation(image: Standin, subject: str) -> dict[str, Any]:
    """BuildKit's shape: a manifest whose layer is a statement about ``subject``."""
    layer = _put_blob(image, "application/vnd.in-toto+json", _json({"subject": subject}))
    config = _put_blob(
        image,
        "application/vnd.oci.image.config.v1+json",
        _json({"architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers"}}),
    )
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}
    return {
        **_put_manifest(image, OCI_MANIFEST, manifest),
        "platform": {"architecture": "unknown", "os": "unknown"},
        "annotations": {
            "vnd.docker.reference.digest": subject,
            "vnd.docker.reference.type": "attestation-manifest",
        },
    }


def _put_manifest(image: Standin, media_type: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    data = _json(manifest)
    image.digest, image.media_type = _sha256(data), media_type
    image.manifests[image.digest] = (media_type, data)
    return {"mediaType": media_type, "digest": image.digest, "size": len(data)}


def _put_blob(image: Standin, media_type: str, data: bytes) -> dict[str, Any]:
    digest = _sha256(data)
    image.blobs[digest] = data
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _platform(platform: Platform) -> dict[str, str]:
    names = ("os", "architecture", "variant")
    return {name: value for name, value in zip(names, platform, strict=True) if value}


@functools.cache
def _base_layer(number: int, architecture: str) -> bytes:
    # Hex of hashes hardly compresses: about 5 KiB remain.
    noise = b"".join(
        hashlib.sha256(f"{number} {architecture} {i}".encode()).hexdigest().encode()
        for i in range(128)
    )
    return _layer("usr/share/base", noise)


def _layer(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), 6, mtime=0)


@functools.lru_cache(maxsize=1024)
def _diff_id(layer: bytes) -> str:
    return _sha256(gzip.decompress(layer))


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def main() -> int:
    """Read references from stdin, one a line, and push their stand-ins."""
    parser = argparse.ArgumentParser(description="put stand-in images into a registry")
    parser.add_argument("host", help="HOST:PORT of the registry")
    parser.add_argument("--ca", type=Path, help="PEM file of its CA; plain HTTP when left out")
    arguments = parser.parse_args()
    refs = [line.strip() for line in sys.stdin if line.strip() and not line.startswith("#")]
    skipped = push_standins(arguments.host, refs, ca=arguments.ca)
    for ref in skipped:
        print(f"skipped, named by digest: {ref}", file=sys.stderr)
    print(f"{len(set(refs)) - len(skipped)} images", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
