"""A bundle that is read, as the origin of a mirror."""

from __future__ import annotations

import errno
import io
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from kfdeploy.bundle import part_files
from kfdeploy.bundle.read_layout import Found
from kfdeploy.errors import UserError
from kfdeploy.mirror.plan import Item
from kfdeploy.mirror.stores import Readable
from kfdeploy.oci import manifest as manifests
from kfdeploy.oci.manifest import Descriptor, Malformed, Manifest, Tree

_MANIFEST_MAX: Final = 64 << 20


class Source:
    """A bundle that images are taken from; an `Origin`."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self._manifests: dict[str, Manifest] = {}

    def host(self, item: Item) -> str:
        return "the bundle"

    def has(self, digest: str) -> bool:
        """Whether it has a manifest of this digest."""
        return digest in self.found.bundle.manifest_by_digest

    def manifest(self, digest: str) -> Manifest:
        """A manifest; each part has all.

        Raises:
            UserError: the bundle has none of this digest, or no part can read it.
        """
        if digest in self._manifests:
            return self._manifests[digest]
        entry = self.found.bundle.manifest_by_digest.get(digest)
        if entry is None:
            raise UserError(f"the bundle has no manifest {digest}")
        for part in self.found.parts.values():
            try:
                body = part_files.read(part.folder / entry.path, _MANIFEST_MAX)
                found = Manifest.parse(body, entry.media_type, digest.partition(":")[0])
            except (OSError, Malformed):
                continue
            if found.digest == digest:
                self._manifests[digest] = found
                return found
        raise UserError(
            f"the bundle's manifest {digest} is damaged in every part",
            hint="have a part written and carried again",
        )

    def tree(self, item: Item) -> Tree:
        def fetch(child: Descriptor) -> Manifest:
            return self.manifest(child.digest)

        try:
            if self.has(item.digest):
                return manifests.tree(self.manifest(item.digest), fetch)
            whole = item.source.digest
            if item.platforms and self.has(whole):
                root = manifests.reduced(self.manifest(whole), item.platforms)
                if root.digest == item.digest:
                    return manifests.tree(root, fetch)
        except Malformed as error:
            raise UserError(f"{item.name}: {error}") from error
        since = self.found.bundle.since
        if since is not None and item.digest in since.images.values():
            raise UserError(
                f"{item.name}: the bundle leaves it out, as the older lock has it too, and the"
                " private registry lacks it",
                hint="import the older bundle first, or make one without --since",
            )
        raise UserError(
            f"{item.name}: the bundle has no {item.digest}",
            hint="it was written for another images.lock, or for other platforms",
        )

    def open(self, item: Item, blob: Descriptor, offset: int) -> AbstractContextManager[Readable]:
        return _Joined(self.found.files(blob.digest), offset)


class _Joined:
    """The pieces of a blob, one after the other."""

    def __init__(self, files: Sequence[tuple[Path, int]], offset: int) -> None:
        self._files = self._from(files, offset)
        self._stream: io.FileIO | None = None

    def _from(
        self, files: Sequence[tuple[Path, int]], offset: int
    ) -> Generator[io.FileIO, None, None]:
        for path, size in files:
            if offset >= size and size:
                offset -= size
                continue
            with part_files.opened(path) as stream:
                stream.seek(offset)
                offset = 0
                yield stream

    def __enter__(self) -> _Joined:
        try:
            self._stream = next(self._files, None)
        except OSError as error:
            raise UserError(
                f"{error.filename}: {(error.strerror or str(error)).lower()}",
                hint="is the disk still there? Run the same command again",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def readinto(self, buffer: memoryview, /) -> int:
        while self._stream is not None:
            count = self._stream.readinto(buffer)
            if count is None:
                raise OSError(errno.EAGAIN, "no plain file")
            if count:
                return count
            self._stream = next(self._files, None)
        return 0
