"""Implement an `Origin` that reads images from a bundle."""

from __future__ import annotations

import errno
import io
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from kfdeploy.bundle import part_files
from kfdeploy.bundle.read_layout import AvailableBundle
from kfdeploy.errors import UserError
from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.mirror.stores import ReadableBlob
from kfdeploy.oci import manifest as manifests
from kfdeploy.oci.manifest import Descriptor, ImageTree, MalformedManifest, Manifest

_MANIFEST_MAX: Final = 64 << 20


class BundleOrigin:
    """A bundle to copy images from; an `Origin`."""

    def __init__(self, found: AvailableBundle) -> None:
        self.available = found
        self._manifests: dict[str, Manifest] = {}

    def get_host(self, item: MirrorItem) -> str:
        return "the bundle"

    def has_manifest(self, digest: str) -> bool:
        """Tell whether the bundle has a manifest of this digest."""
        return digest in self.available.bundle.manifest_by_digest

    def read_manifest(self, digest: str) -> Manifest:
        """Read a manifest from any part; each part has all manifests.

        Raises:
            UserError: the bundle has no such manifest, or it is damaged in every part.
        """
        if digest in self._manifests:
            return self._manifests[digest]
        entry = self.available.bundle.manifest_by_digest.get(digest)
        if entry is None:
            raise UserError(f"the bundle has no manifest {digest}")
        for part in self.available.parts.values():
            try:
                body = part_files.read_file(part.folder / entry.path, _MANIFEST_MAX)
                found = Manifest.parse(body, entry.media_type, digest.partition(":")[0])
            except (OSError, MalformedManifest):
                continue
            if found.digest == digest:
                self._manifests[digest] = found
                return found
        raise UserError(
            f"the bundle's manifest {digest} is damaged in every part",
            hint="write one part again on the near side and bring it",
        )

    def read_tree(self, item: MirrorItem) -> ImageTree:
        def fetch_manifest(child: Descriptor) -> Manifest:
            return self.read_manifest(child.digest)

        try:
            if self.has_manifest(item.digest):
                return manifests.load_image_tree(self.read_manifest(item.digest), fetch_manifest)
            whole = item.source.digest
            if item.platforms and self.has_manifest(whole):
                root = manifests.select_platforms(self.read_manifest(whole), item.platforms)
                if root.digest == item.digest:
                    return manifests.load_image_tree(root, fetch_manifest)
        except MalformedManifest as error:
            raise UserError(f"{item.name}: {error}") from error
        since = self.available.bundle.since
        if since is not None and item.digest in since.images.values():
            raise UserError(
                f"{item.name}: the bundle leaves it out, as the older lock has it too, but the"
                " private registry lacks it",
                hint="import the older bundle first, or write a bundle without --since",
            )
        raise UserError(
            f"{item.name}: the bundle has no {item.digest}",
            hint="the bundle was written for another images.lock or other platforms",
        )

    def open_blob(
        self, item: MirrorItem, blob: Descriptor, offset: int
    ) -> AbstractContextManager[ReadableBlob]:
        return _JoinedPieces(self.available.locate_files(blob.digest), offset)


class _JoinedPieces:
    """Reads the pieces of a blob as one stream."""

    def __init__(self, files: Sequence[tuple[Path, int]], offset: int) -> None:
        self._files = self._open_from(files, offset)
        self._stream: io.FileIO | None = None

    def _open_from(
        self, files: Sequence[tuple[Path, int]], offset: int
    ) -> Generator[io.FileIO, None, None]:
        for path, size in files:
            if offset >= size and size:
                offset -= size
                continue
            with part_files.open_plain_file(path) as stream:
                stream.seek(offset)
                offset = 0
                yield stream

    def __enter__(self) -> _JoinedPieces:
        try:
            self._stream = next(self._files, None)
        except OSError as error:
            raise UserError(
                f"{error.filename}: {(error.strerror or str(error)).lower()}",
                hint="check that the disk is still connected, and run the same command again",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def readinto(self, buffer: memoryview, /) -> int:
        while self._stream is not None:
            count = self._stream.readinto(buffer)
            if count is None:
                raise OSError(errno.EAGAIN, "not a plain file")
            if count:
                return count
            self._stream = next(self._files, None)
        return 0
