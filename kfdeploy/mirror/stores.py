"""Define the interfaces of what the mirror copies between: registries and bundles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from kfdeploy.errors import UserError
from kfdeploy.oci.manifest import Descriptor, ImageTree

if TYPE_CHECKING:
    from kfdeploy.mirror.plan import MirrorItem


class StoreFull(UserError):
    """The destination has no space left; what was written stays."""


class ReadableBlob(Protocol):
    """An open blob."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Read bytes into the buffer and return their number; 0 at the end.

        Raises:
            OSError, http.client.HTTPException: the connection or the disk failed.
        """


class BlobPieces(Protocol):
    """The bytes of one blob, to be iterated once, hashed while they pass.

    The last piece is held back until the digest is verified: no destination ever gets a complete
    blob with the wrong content.
    """

    @property
    def size(self) -> int:
        """Return the blob's size in bytes."""

    def __iter__(self) -> Iterator[memoryview]:
        """Yield the pieces; each is valid until the next one is requested.

        Raises:
            UserError: the source failed, or its content has another digest.
        """


class Origin(Protocol):
    """The source of images. Safe for threads; methods raise UserError."""

    def get_host(self, item: MirrorItem) -> str:
        """Return the host that has the item; tasks for one host share its limits."""

    def read_tree(self, item: MirrorItem) -> ImageTree:
        """Return all manifests of an image, reduced to the item's platforms."""

    def open_blob(
        self, item: MirrorItem, blob: Descriptor, offset: int
    ) -> AbstractContextManager[ReadableBlob]:
        """Open a blob of an image at byte ``offset``."""


class Destination(Protocol):
    """The target of images. Safe for threads; methods raise UserError.

    A *place* is the scope in which a blob is visible: a repository of a registry, or a whole
    bundle.
    """

    def get_host(self, item: MirrorItem) -> str:
        """Return the host that the item is sent to."""

    def get_place(self, item: MirrorItem) -> str:
        """Return the place of the item's blobs."""

    def has_blob(self, place: str, blob: Descriptor) -> bool:
        """Tell whether the place has the complete blob."""

    def mount_blob(self, place: str, blob: Descriptor, other: str) -> str | None:
        """Mount a blob from another place, without sending it.

        Returns:
            None if the blob is mounted; else the ``begun`` argument for `put_blob`.
        """

    def put_blob(self, place: str, blob: Descriptor, pieces: BlobPieces, begun: str = "") -> None:
        """Write a blob under its digest: completely or not at all.

        Args:
            begun: the upload that `mount_blob` returned; empty to begin one.
        """

    def seal_image(self, item: MirrorItem, tree: ImageTree) -> None:
        """Write the manifests of an image whose blobs are all present, the root last."""
