"""A release set as one OCI artifact, which Flux, Argo CD and `oras pull` take alike.

The same set has the same digest on every machine, so the digest can be pinned before anything is
pushed. The archive is therefore gzip without compression: the output of compressors differs from
version to version, and a set has some ten megabytes beside the images' gigabytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kfdeploy.oci.manifest import OCI_MANIFEST, Descriptor, Manifest
from kfdeploy.oci.reference import ImageRef
from kfdeploy.releaseset.summary import SetSummary

REPOSITORY: Final = "kfdeploy-sets"
"""Repository of all sets, below the private registry's prefix: only one has to be made."""
CONFIG_TYPE: Final = "application/vnd.cncf.flux.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
"""Argo CD takes only this type unless its server is told of others (util/oci/client.go, 3.5). Flux
takes the first layer, whatever its type (ocirepository_controller.go, 1.9)."""
_TAG_MAX: Final = 128
_STORED_MAX: Final = 0xFFFF


@dataclass(frozen=True)
class Artifact:
    """Two blobs that are pushed, and the manifest that names them."""

    manifest: Manifest
    config: bytes = field(repr=False)
    layer: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        return len(self.layer)

    @property
    def blobs(self) -> tuple[tuple[Descriptor, bytes], ...]:
        return (
            (_make_descriptor(self.config, CONFIG_TYPE), self.config),
            (_make_descriptor(self.layer, LAYER_TYPE), self.layer),
        )


def build_artifact(
    name: str, summary: SetSummary, files: Mapping[str, bytes], set_digest: str
) -> Artifact:
    """Build the artifact of a set.

    Args:
        name: the set's.
        files: all files of the set, relative path to bytes.
        set_digest: sha256 of its ``SHA256SUMS``, in hex.
    """
    archive = _write_tar(files)
    layer = b"".join(_gzip_stored(archive))
    config = _dump_json(
        {
            "architecture": "",
            "config": {},
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [_sha256_digest(archive)]},
        }
    )
    manifest = _dump_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor_json(config, CONFIG_TYPE),
            "layers": [
                {
                    **_descriptor_json(layer, LAYER_TYPE),
                    # With these `oras pull` unpacks the layer into its output folder.
                    "annotations": {
                        "io.deis.oras.content.digest": _sha256_digest(archive),
                        "io.deis.oras.content.unpack": "true",
                        "org.opencontainers.image.title": ".",
                    },
                }
            ],
            "annotations": {
                "org.opencontainers.image.description": (
                    f"Kubeflow {summary.upstream} for the environment {summary.environment},"
                    f" rendered by kfdeploy {summary.kfdeploy}"
                ),
                "org.opencontainers.image.revision": f"sha256:{set_digest}",
                "org.opencontainers.image.title": name,
                "org.opencontainers.image.version": summary.upstream,
            },
        }
    )
    return Artifact(Manifest.parse(manifest, OCI_MANIFEST), config, layer)


def content_tag(name: str, upstream: str, set_digest: str) -> str:
    """Return the tag that only this content of the set has: ``NAME-UPSTREAM-<first 12 hex>``."""
    end = f"-{upstream}-{set_digest[:12]}"
    whole = f"{name[: _TAG_MAX - len(end)]}{end}"
    return re.sub(r"^[.-]", "_", re.sub(r"[^A-Za-z0-9_.-]", "-", whole))


def repository_of(host: str, prefix: str) -> ImageRef:
    """Return the repository of a private registry that has the sets."""
    return ImageRef(host, "/".join(part for part in (prefix, REPOSITORY) if part))


def _write_tar(files: Mapping[str, bytes]) -> bytes:
    """Return a tar of the files, without time and owner.

    Folders are entries too, for programs that do not create them.
    """
    folders = {
        "/".join(parts[:count])
        for parts in (name.split("/") for name in files)
        for count in range(1, len(parts))
    }
    out = io.BytesIO()
    with tarfile.TarFile(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(folders | files.keys()):
            entry = tarfile.TarInfo(name)
            if name in folders:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                entry.size, entry.mode = len(files[name]), 0o644
                archive.addfile(entry, io.BytesIO(files[name]))
        end = archive.offset + 2 * tarfile.BLOCKSIZE
    # Python pads to a whole record; oras hashes only up to the two empty blocks.
    return out.getvalue()[:end]


def _gzip_stored(data: bytes) -> Iterator[bytes]:
    """Yield gzip (RFC 1952) of stored blocks (RFC 1951, 3.2.4)."""
    yield b"\x1f\x8b\x08\x00" + b"\x00\x00\x00\x00" + b"\x00\xff"
    for start in range(0, len(data), _STORED_MAX):
        piece = data[start : start + _STORED_MAX]
        is_last = start + _STORED_MAX >= len(data)
        size = len(piece).to_bytes(2, "little")
        yield bytes([is_last]) + size + (len(piece) ^ 0xFFFF).to_bytes(2, "little") + piece
    yield zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")


def _dump_json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), sort_keys=True).encode()


def _sha256_digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor_json(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _sha256_digest(data), "size": len(data)}


def _make_descriptor(data: bytes, media_type: str) -> Descriptor:
    return Descriptor(_sha256_digest(data), len(data), media_type)
