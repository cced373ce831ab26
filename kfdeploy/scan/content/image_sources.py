"""Where the images are that are looked into: a registry, an OCI layout folder, a Docker daemon.

All three give a `Layer` for each layer, the lowest first. Nothing is written to disk.
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
    """An image that can't be looked into at all; the message says why."""


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """One layer that can be opened."""

    digest: str
    size: int
    open: BlobOpener

    def scan(self, limits: ScanLimits) -> LayerScan:
        """Read it through; what goes wrong on the way is the layer's damage."""
        try:
            with self.open() as stream:
                return layers.scan_layer(_GuardedStream(stream), self.digest, self.size, limits)
        except UserError as error:
            return LayerScan(self.digest, damage=f"can't be had: {error.message}", trusted=False)
        except OSError as error:
            return LayerScan(self.digest, damage=f"can't be read: {error.strerror}", trusted=False)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image of one platform: its layers, the lowest first."""

    name: str
    platform: str
    layers: tuple[LayerBlob, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


class _GuardedStream:
    """A stream whose broken connection is damage of what is read from it."""

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
    """An image of a registry.

    Args:
        platforms: which one of an index is taken: the first of these that it has.

    Raises:
        UserError: there is no such image, or the registry can't be asked.
        Unreadable: what it has is no image that can be looked into.
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
    """Where the image says that its source is: nice to have, and not worth an error."""
    try:
        return _config_labels(
            _parse_json_object(client.get_blob(ref, _config_digest(content)), "its configuration")
        )
    except (UserError, UnreadableImage):
        return {}


# -- a folder --------------------------------------------------------------------------------------


class OciLayout:
    """An OCI image layout: ``oci-layout``, ``index.json``, ``blobs/ALGORITHM/HEX``."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError: the folder is none."""
        self._folder = folder
        marker = folder / "oci-layout"
        if not marker.is_file():
            raise UserError(
                f"{folder}: no OCI image layout: it has no file oci-layout",
                hint="name the folder that has oci-layout, index.json and blobs/",
            )
        self._index = self._read_json(folder / "index.json")

    def list_names(self) -> list[str]:
        """The images it has, as its index names them; a digest where it has no name."""
        return [_name_of(item) for item in _list_manifests(self._index)]

    def load_image(self, name: str, platforms: Sequence[str] = _PLATFORMS) -> StoredImage:
        """One image, by a name of `names` or its digest.

        Raises:
            UserError: it has no such image.
            Unreadable: it is no image that can be looked into.
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
        """Whether it has a manifest of this digest, named in its index or not."""
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
            raise UnreadableImage(f"its manifest {digest} is not its digest")
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
    """A plain file: a pipe or device in its place would never end."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(number, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(0, "is no plain file")
        yield stream


# -- a daemon --------------------------------------------------------------------------------------


class DockerDaemon:
    """A local Docker engine, asked by the docker SDK (DOCKER_HOST, else its usual socket)."""

    def __init__(self, address: str | None = None) -> None:
        """Raises UserError: there is no engine."""
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
                hint="DOCKER_HOST names it; --image-content reads registries and folders without",
            ) from error

    def scan_image(self, name: str, limits: ScanLimits) -> tuple[list[LayerScan], list[str]]:
        """The layers of one of its images, and what was wrong with the whole.

        Raises:
            UserError: the engine has no such image, or does not answer.
        """
        import requests

        try:
            pieces = iter(self._client.get_image(name, chunk_size=1 << 20))
            first = next(pieces, b"")  # the SDK asks only now
        except (self._errors, requests.RequestException) as error:
            words = str(getattr(error, "explanation", None) or error)
            raise UserError(f"{name}: the Docker engine can't give it: {words}") from error
        return scan_saved_image(
            _ChunkStream(chain((first,), pieces), requests.RequestException), limits
        )


class _ChunkStream:
    """An iterator of pieces as a stream."""

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
    """The layers of what ``docker save`` gives: its own layout, an OCI layout, or both in one.

    The order of the layers is said at the end, so all that looks like a layer is looked through.
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
        problems.append(f"the archive that the engine gave {reason}")
    try:
        order, diff_ids = _read_layer_order(texts)
    except (KeyError, TypeError, ValueError, UnreadableImage):
        problems.append("the archive that the engine gave does not say which layers the image has")
        return [], problems
    out = []
    for index, path in enumerate(order):
        layer = found.get(path) or found.get(links.get(path, ""))
        if layer is None:
            problems.append(f"layer {path} is missing")
            continue
        wanted = diff_ids[index] if index < len(diff_ids) else ""
        if not layer.digest and not layer.damage and wanted not in ("", layer.actual_digest):
            layer.damage = f"is not its digest: its bytes have {layer.actual_digest}"
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
    """Keep a member that is JSON, look through one that is a layer."""
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
    """Paths of the layers, the lowest first, and the digests of their tars where they are said."""
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
        raise UnreadableImage(f"{what} is no JSON") from error
    if not isinstance(content, dict):
        raise UnreadableImage(f"{what} is no JSON object")
    return content


def _list_descriptors(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    items = content.get(key)
    if not isinstance(items, list) or len(items) > _LAYERS_MAX:
        raise UnreadableImage(f"its manifest has no list of {key}, or one that is too long")
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
    """Digest and platform of one of an index's images: the first wanted one, else the first."""
    images: dict[str, str] = {}
    for item in _list_descriptors(index, "manifests"):
        said = item.get("platform")
        said = said if isinstance(said, dict) else {}
        platform = "/".join(
            str(said[key]) for key in ("os", "architecture", "variant") if said.get(key)
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


__all__ = [
    "DockerDaemon",
    "LayerBlob",
    "OciLayout",
    "StoredImage",
    "UnreadableImage",
    "load_registry_image",
    "scan_saved_image",
]
