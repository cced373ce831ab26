"""Open images in a registry, an OCI layout folder or a Docker engine.

All three return a `LayerBlob` or a `LayerScan` for each layer, the lowest first. Nothing is written
to disk.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final

from kfdeploy.errors import UserError
from kfdeploy.http.pool import ConnectionsClosed
from kfdeploy.oci.reference import ImageRef, is_digest
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.scan.content import layers
from kfdeploy.scan.content.layer import LayerScan, normalize_path
from kfdeploy.scan.content.tar_stream import (
    ArchiveStream,
    DamagedStream,
    LimitExceeded,
    ScanLimits,
    TarMember,
    TarReader,
)

REF_NAME: Final = "org.opencontainers.image.ref.name"
_FULL_NAME: Final = "io.containerd.image.name"
_JSON_MAX: Final = 4 << 20
_JSONS_MAX: Final = 2000
_LAYERS_MAX: Final = 1000
_DEPTH: Final = 4
_STREAM_MAX: Final = 1 << 40
_PLATFORMS: Final = ("linux/amd64", "linux/arm64")

BlobOpener = Callable[[], AbstractContextManager[ArchiveStream]]


class UnreadableImage(Exception):
    """An image can't be scanned at all; the message says why."""


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """One layer that can be opened."""

    digest: str
    size: int
    open: BlobOpener

    def scan(self, limits: ScanLimits) -> LayerScan:
        """Scan the layer. Errors on the way are in the result's ``damage``."""
        try:
            with self.open() as stream:
                return layers.scan_layer(_GuardedStream(stream), self.digest, self.size, limits)
        except UserError as error:
            return LayerScan(
                self.digest, damage=f"can't be fetched: {error.message}", trusted=False
            )
        except OSError as error:
            return LayerScan(self.digest, damage=f"can't be read: {error.strerror}", trusted=False)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of one platform, with its layers, the lowest first."""

    name: str
    platform: str
    layers: tuple[LayerBlob, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


class _GuardedStream:
    """Turn errors of a connection into `DamagedStream`."""

    def __init__(self, stream: ArchiveStream) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        try:
            return self._stream.read(size)
        except (http.client.HTTPException, ConnectionsClosed, OSError) as error:
            words = str(error) or type(error).__name__
            raise DamagedStream(f"could not be read to its end: {words}") from error


# -- a registry ------------------------------------------------------------------------------------


def load_registry_image(
    client: RegistryClient, ref: ImageRef, platforms: Sequence[str] = _PLATFORMS
) -> StoredImage:
    """Return an image of a registry.

    Args:
        client: a client for the registry.
        ref: the image's tag or digest.
        platforms: of an index, the first of these platforms that it has is taken.

    Raises:
        UserError: there is no such image, or the registry does not answer.
        UnreadableImage: the manifest is not that of an image with layers.
    """
    manifest = client.get_manifest(ref)
    content, platform = manifest.content, ""
    for _ in range(_DEPTH):
        if "manifests" not in content:
            break
        chosen, platform = _choose_platform(content, platforms)
        content = client.get_manifest(ImageRef(ref.host, ref.path, "", chosen)).content

    def make_opener(digest: str) -> BlobOpener:
        return lambda: client.open_blob(ref, digest)

    return StoredImage(
        str(ref),
        platform,
        _layer_blobs(content, make_opener),
        _registry_labels(client, ref, content),
    )


def _registry_labels(
    client: RegistryClient, ref: ImageRef, content: Mapping[str, Any]
) -> Mapping[str, str]:
    """Return the labels of an image; none if its configuration can't be read.

    They only help to name the image's source.
    """
    try:
        return _config_labels(
            _parse_json_object(client.get_blob(ref, _config_digest(content)), "its configuration")
        )
    except (UserError, UnreadableImage):
        return {}


# -- a folder --------------------------------------------------------------------------------------


class OciLayout:
    """A folder in the OCI image layout: ``oci-layout``, ``index.json``, ``blobs/ALGORITHM/HEX``."""

    def __init__(self, folder: Path) -> None:
        """Read the folder's index.

        Raises:
            UserError: the folder is not an OCI image layout.
        """
        self._folder = folder
        marker = folder / "oci-layout"
        if not marker.is_file():
            raise UserError(
                f"{folder}: not an OCI image layout: it has no file oci-layout",
                hint="name the folder that has oci-layout, index.json and blobs/",
            )
        self._index = self._read_json(folder / "index.json")

    def list_names(self) -> list[str]:
        """Return the names of its images from the index; the digest for an image without a name."""
        return [_name_of(item) for item in _list_manifests(self._index)]

    def load_image(self, name: str, platforms: Sequence[str] = _PLATFORMS) -> StoredImage:
        """Return an image by its name in `list_names` or by its digest.

        Raises:
            UserError: the folder has no such image.
            UnreadableImage: the manifest is missing, wrong, or not that of an image with layers.
        """
        found = [i for i in _list_manifests(self._index) if name in (_name_of(i), i.get("digest"))]
        if not found and self.has_manifest(name):
            found = [{"digest": name}]
        if not found:
            raise UserError(f"{self._folder}: has no image {name}")
        content: Mapping[str, Any] = {"manifests": found}
        platform = ""
        for _ in range(_DEPTH):
            if "manifests" not in content:
                break
            digest, seen = _choose_platform(content, platforms)
            platform = seen or platform
            content = self._read_manifest(digest)
        try:
            labels = _config_labels(self._read_manifest(_config_digest(content)))
        except UnreadableImage:
            labels = {}
        return StoredImage(name, platform, _layer_blobs(content, self._make_opener), labels)

    def has_manifest(self, digest: str) -> bool:
        """Return whether the folder has a manifest of this digest, in the index or not."""
        return is_digest(digest) and self._blob_path(digest).is_file()

    def _make_opener(self, digest: str) -> BlobOpener:
        return lambda: _open_plain_file(self._blob_path(digest))

    def _blob_path(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        return self._folder / "blobs" / algorithm / value

    def _read_manifest(self, digest: str) -> Mapping[str, Any]:
        import hashlib

        path = self._blob_path(digest)
        try:
            with _open_plain_file(path) as stream:
                body = stream.read(_JSON_MAX + 1)
        except OSError as error:
            raise UnreadableImage(
                f"its manifest {digest} can't be read: {error.strerror}"
            ) from error
        algorithm = digest.partition(":")[0]
        if f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}" != digest:
            raise UnreadableImage(f"its manifest {digest} does not match its digest")
        return _parse_json_object(body, digest)

    def _read_json(self, path: Path) -> Mapping[str, Any]:
        try:
            with _open_plain_file(path) as stream:
                return _parse_json_object(stream.read(_JSON_MAX + 1), path.name)
        except (OSError, UnreadableImage) as error:
            words = getattr(error, "strerror", None) or str(error)
            raise UserError(f"{path}: {words}") from error


@contextlib.contextmanager
def _open_plain_file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file. Refuse pipes and devices, which may never end."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(number, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(0, "not a regular file")
        yield stream


# -- a daemon --------------------------------------------------------------------------------------


class DockerDaemon:
    """A Docker engine, reached by the docker SDK: DOCKER_HOST, else the default socket."""

    def __init__(self, address: str | None = None) -> None:
        """Make a client.

        Raises:
            UserError: there is no engine.
        """
        import docker
        from docker.errors import DockerException

        self._errors = DockerException
        try:
            usual = docker.utils.kwargs_from_env
            settings = usual() if address is None else {"base_url": address}
            self._client = docker.APIClient(version="1.41", **settings)
        except DockerException as error:
            raise UserError(
                f"no Docker engine can be reached: {error}",
                hint="set DOCKER_HOST; or read from a registry or a folder: --image-content --from",
            ) from error

    def scan_image(self, name: str, limits: ScanLimits) -> tuple[list[LayerScan], list[str]]:
        """Scan one of its images; return its layers, and the problems of the archive.

        Raises:
            UserError: the engine has no such image, or does not answer.
        """
        import requests

        try:
            pieces = iter(self._client.get_image(name, chunk_size=1 << 20))
            first = next(pieces, b"")  # only now does the SDK send the request
        except (self._errors, requests.RequestException) as error:
            words = str(getattr(error, "explanation", None) or error)
            raise UserError(f"{name}: the Docker engine does not return it: {words}") from error
        return scan_saved_image(
            _ChunkStream(chain((first,), pieces), requests.RequestException), limits
        )


class _ChunkStream:
    """Make a stream from an iterator of pieces."""

    def __init__(self, pieces: Iterable[bytes], broken: type[Exception]) -> None:
        self._pieces = iter(pieces)
        self._broken = broken
        self._rest = b""
        self._count = 0

    def read(self, size: int, /) -> bytes:
        if not self._rest:
            try:
                self._rest = next(self._pieces, b"")
            except (self._broken, OSError, http.client.HTTPException) as error:
                raise DamagedStream(f"the engine's answer broke off: {error}") from error
            self._count += len(self._rest)
            if self._count > _STREAM_MAX:
                raise LimitExceeded(f"has more than {_STREAM_MAX >> 30} GiB")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def scan_saved_image(
    stream: ArchiveStream, limits: ScanLimits
) -> tuple[list[LayerScan], list[str]]:
    """Scan the archive of ``docker save``: in Docker's layout, in the OCI layout, or in both.

    The order of the layers comes at the end of the archive, so each member that looks like a layer
    is scanned.

    Returns:
        The layers, the lowest first, and the archive's problems.
    """
    texts: dict[str, bytes] = {}
    found: dict[str, LayerScan] = {}
    links: dict[str, str] = {}
    problems: list[str] = []
    tar = TarReader(stream, limits)
    try:
        for member in tar.iter_members():
            path = normalize_path(member.name)
            if member.kind == "link":
                if len(links) < _JSONS_MAX:
                    links[path] = normalize_path(
                        f"{path.rpartition('/')[0]}/{member.target}"
                    ).lstrip("/")
            elif member.kind == "file":
                _take_member(path, member, texts, found, limits)
    except (DamagedStream, LimitExceeded) as reason:
        problems.append(f"the engine's archive {reason}")
    try:
        order, diff_ids = _read_layer_order(texts)
    except (KeyError, TypeError, ValueError, UnreadableImage):
        problems.append("the engine's archive does not say which layers the image has")
        return [], problems
    out = []
    for index, path in enumerate(order):
        layer = found.get(path) or found.get(links.get(path, ""))
        if layer is None:
            problems.append(f"layer {path} is missing")
            continue
        wanted = diff_ids[index] if index < len(diff_ids) else ""
        if not layer.digest and not layer.damage and wanted not in ("", layer.actual_digest):
            layer.damage = f"does not match its digest: its bytes have {layer.actual_digest}"
            layer.trusted = False
        layer.digest = layer.digest or wanted
        out.append(layer)
    return out, problems


def _take_member(
    path: str,
    member: TarMember,
    texts: dict[str, bytes],
    found: dict[str, LayerScan],
    limits: ScanLimits,
) -> None:
    """Keep a member that is JSON, and scan one that is a layer."""
    is_blob = path.startswith("blobs/")
    start = member.peek_content(1)
    if member.size <= _JSON_MAX and (path.endswith(".json") or (is_blob and start == b"{")):
        if len(texts) < _JSONS_MAX and sum(map(len, texts.values())) < 8 * _JSON_MAX:
            texts[path] = b"".join(member.iter_content())
    elif len(found) < _LAYERS_MAX and (is_blob or path.endswith(".tar")):
        digest = ":".join(path.split("/")[1:]) if is_blob else ""
        if digest and not is_digest(digest):
            return
        kept = sum(layer.kept for layer in found.values())
        left = replace(limits, kept=max(0, limits.kept - kept))
        found[path] = layers.scan_layer(member, digest, member.size, left)


def _read_layer_order(texts: Mapping[str, bytes]) -> tuple[list[str], list[str]]:
    """Return the paths of the layers, the lowest first, and the digests of their tars if known.

    Raises:
        KeyError, TypeError, ValueError, UnreadableImage: the archive's JSON does not name them.
    """
    if "manifest.json" in texts:
        (entry, *_) = json.loads(texts["manifest.json"])
        config = json.loads(texts.get(normalize_path(entry["Config"]), b"{}"))
        diff_ids = [str(value) for value in config.get("rootfs", {}).get("diff_ids", ())]
        return [normalize_path(str(path)) for path in entry["Layers"]], diff_ids
    content: Mapping[str, Any] = _parse_json_object(texts["index.json"], "index.json")
    for _ in range(_DEPTH):
        if "manifests" not in content:
            break
        digest, _ = _choose_platform(content, _PLATFORMS)
        content = _parse_json_object(texts[f"blobs/{digest.replace(':', '/')}"], digest)
    return [
        f"blobs/{item['digest'].replace(':', '/')}" for item in _list_descriptors(content, "layers")
    ], []


# -- manifests -------------------------------------------------------------------------------------


def _parse_json_object(body: bytes, what: str) -> Mapping[str, Any]:
    if len(body) > _JSON_MAX:
        raise UnreadableImage(f"{what} has more than {_JSON_MAX >> 20} MiB")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableImage(f"{what} is not JSON") from error
    if not isinstance(content, dict):
        raise UnreadableImage(f"{what} is not a JSON object")
    return content


def _list_descriptors(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    items = content.get(key)
    if not isinstance(items, list) or len(items) > _LAYERS_MAX:
        raise UnreadableImage(f"its manifest has no list of {key}, or too long a list")
    for item in items:
        if not isinstance(item, dict) or not is_digest(str(item.get("digest", ""))):
            raise UnreadableImage(f"its manifest names {key} without a digest")
    return items


def _list_manifests(index: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    try:
        return _list_descriptors(index, "manifests")
    except UnreadableImage as error:
        raise UserError(f"index.json: {error}") from error


def _name_of(item: Mapping[str, Any]) -> str:
    notes = item.get("annotations")
    notes = notes if isinstance(notes, dict) else {}
    return str(notes.get(_FULL_NAME) or notes.get(REF_NAME) or item["digest"])


def _choose_platform(index: Mapping[str, Any], wanted: Sequence[str]) -> tuple[str, str]:
    """Return digest and platform of one image of an index: the first wanted one, else the first."""
    images: dict[str, str] = {}
    for item in _list_descriptors(index, "manifests"):
        parts = item.get("platform")
        parts = parts if isinstance(parts, dict) else {}
        platform = "/".join(
            str(parts[key]) for key in ("os", "architecture", "variant") if parts.get(key)
        )
        if platform != "unknown/unknown":  # attestations
            images.setdefault(platform, item["digest"])
    if not images:
        raise UnreadableImage("its index names no image")
    for platform in wanted:
        for name, digest in images.items():
            if name == platform or name.startswith(f"{platform}/"):
                return digest, name
    name, digest = next(iter(images.items()))
    return digest, name


def _config_digest(content: Mapping[str, Any]) -> str:
    config = content.get("config")
    digest = str(config.get("digest", "")) if isinstance(config, dict) else ""
    if not is_digest(digest):
        raise UnreadableImage("its manifest names no configuration")
    return digest


def _config_labels(config: Mapping[str, Any]) -> Mapping[str, str]:
    inner = config.get("config")
    labels = inner.get("Labels") if isinstance(inner, dict) else None
    return {str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {}


def _layer_blobs(
    content: Mapping[str, Any], opener: Callable[[str], BlobOpener]
) -> tuple[LayerBlob, ...]:
    out = []
    for item in _list_descriptors(content, "layers"):
        size = item.get("size")
        if not isinstance(size, int) or size < 0:
            raise UnreadableImage("its manifest names a layer without a size")
        out.append(LayerBlob(item["digest"], size, opener(item["digest"])))
    return tuple(out)
