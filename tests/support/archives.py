"""Layers, image layouts and what `docker save` gives, made on the fly."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def tar(files: Mapping[str, bytes | None], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of files; None is a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def layer(files: Mapping[str, bytes | None], packing: str = "gzip") -> bytes:
    """A layer, packed with ``gzip``, ``zstd`` or ``none``."""
    return pack(tar(files), packing)


def pack(content: bytes, packing: str) -> bytes:
    if packing == "gzip":
        return gzip.compress(content, 6, mtime=0)
    return zstandard.compress(content) if packing == "zstd" else content


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


class Chunks:
    """A stream of what a generator gives, that counts what was taken."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.count = 0

    def read(self, size: int, /) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        self.count += len(piece)
        return piece


class Image:
    """One image's blobs."""

    def __init__(self, layers: Sequence[bytes], labels: Mapping[str, str] | None = None) -> None:
        config = {"architecture": "amd64", "os": "linux", "config": {"Labels": dict(labels or {})}}
        self.config = as_json(config)
        self.layers = list(layers)
        self.manifest = as_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": digest(self.config),
                    "size": len(self.config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                        "digest": digest(content),
                        "size": len(content),
                    }
                    for content in layers
                ],
            }
        )

    @property
    def digest(self) -> str:
        return digest(self.manifest)

    def blobs(self) -> dict[str, bytes]:
        return {digest(one): one for one in (self.config, self.manifest, *self.layers)}

    def descriptor(self, name: str = "") -> dict[str, Any]:
        out: dict[str, Any] = {
            "mediaType": MANIFEST,
            "digest": self.digest,
            "size": len(self.manifest),
            "platform": {"os": "linux", "architecture": "amd64"},
        }
        if name:
            out["annotations"] = {"org.opencontainers.image.ref.name": name}
        return out


def layout(folder: Path, images: Mapping[str, Image]) -> Path:
    """An OCI layout folder with these images."""
    (folder / "blobs" / "sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [image.descriptor(name) for name, image in images.items()],
    }
    (folder / "index.json").write_text(json.dumps(index))
    for image in images.values():
        for name, content in image.blobs().items():
            (folder / "blobs" / name.replace(":", "/")).write_bytes(content)
    return folder


def saved(image: Image, name: str) -> bytes:
    """What ``docker save`` of a recent engine gives: an OCI layout, and manifest.json beside it."""
    blobs = {f"blobs/{key.replace(':', '/')}": content for key, content in image.blobs().items()}
    entry = {
        "Config": f"blobs/{digest(image.config).replace(':', '/')}",
        "RepoTags": [name],
        "Layers": [f"blobs/{digest(one).replace(':', '/')}" for one in image.layers],
    }
    index = {"schemaVersion": 2, "manifests": [image.descriptor(name)]}
    return tar(
        {
            "blobs/": None,
            **blobs,
            "index.json": as_json(index),
            "manifest.json": as_json([entry]),
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        }
    )


def saved_long_ago(layers: Sequence[bytes], *, wrong: bool = False) -> bytes:
    """What ``docker save`` of an older engine gives: a folder a layer, and links for equal ones.

    Args:
        wrong: the configuration names other layers than there are.
    """
    diff_ids = [digest(b"other" if wrong else content) for content in layers]
    config = as_json({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        names: list[str] = []
        for number, content in enumerate(layers):
            info = tarfile.TarInfo(f"{number:064x}/layer.tar")
            if content in layers[:number]:
                info.type = tarfile.SYMTYPE
                info.linkname = f"../{names[layers.index(content)]}"
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            names.append(info.name)
        entry = {"Config": "config.json", "RepoTags": ["x:1"], "Layers": names}
        for name, content in (("config.json", config), ("manifest.json", as_json([entry]))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def push(host: str, path: str, tag: str, image: Image) -> None:
    """Put an image into a registry that speaks plain HTTP."""
    connection = http.client.HTTPConnection(host, timeout=30)
    for name, content in image.blobs().items():
        if content is image.manifest:
            continue
        connection.request("POST", f"/v2/{path}/blobs/uploads/")
        answer = connection.getresponse()
        answer.read()
        place = answer.headers["Location"].partition(host)[2] or answer.headers["Location"]
        joint = "&" if "?" in place else "?"
        connection.request("PUT", f"{place}{joint}digest={name}", content)
        done = connection.getresponse()
        assert done.status == 201, done.read()
        done.read()
    headers = {"Content-Type": MANIFEST}
    connection.request("PUT", f"/v2/{path}/manifests/{tag}", image.manifest, headers)
    done = connection.getresponse()
    assert done.status == 201, done.read()
    connection.close()
