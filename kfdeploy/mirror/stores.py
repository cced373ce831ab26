"""What the mirror copies between: registries and bundles, behind two small interfaces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from kfdeploy.errors import UserError
from kfdeploy.oci.manifest import Descriptor, ImageTree

if TYPE_CHECKING:
    from kfdeploy.mirror.plan import MirrorItem


class StoreFull(UserError):
    """Nothing more can be written to a destination; what is there stays."""


class ReadableBlob(Protocol):
    """An open blob."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer as far as there is something; 0 is the end.

        Raises:
            OSError, http.client.HTTPException: reading broke off.
        """


class BlobPieces(Protocol):
    """A blob on its way: its bytes, once, hashed while they pass.

    The last piece is held back until the digest of all is right: no destination ever gets a whole
    blob that is not the one asked for.
    """

    @property
    def size(self) -> int:
        """Bytes in all."""

    def __iter__(self) -> Iterator[memoryview]:
        """The pieces; each is valid until the next is asked for.

        Raises:
            UserError: the source broke off, or its content has another digest.
        """


class Origin(Protocol):
    """Where images come from. Safe for threads; methods raise UserError."""

    def get_host(self, item: MirrorItem) -> str:
        """Who is asked for it; work for the same host shares its limits."""

    def read_tree(self, item: MirrorItem) -> ImageTree:
        """All manifests of an image, reduced to the item's platforms."""

    def open_blob(
        self, item: MirrorItem, blob: Descriptor, offset: int
    ) -> AbstractContextManager[ReadableBlob]:
        """A blob of an image, from byte ``offset`` on."""


class Destination(Protocol):
    """Where images go. Safe for threads; methods raise UserError.

    A *place* is where a blob is looked for: a repository of a registry, or the whole of a bundle.
    """

    def get_host(self, item: MirrorItem) -> str:
        """Whom it is sent to."""

    def get_place(self, item: MirrorItem) -> str:
        """Where the item's blobs go."""

    def has_blob(self, place: str, blob: Descriptor) -> bool:
        """Whether a blob is there, whole."""

    def mount_blob(self, place: str, blob: Descriptor, other: str) -> str | None:
        """Take a blob over from another place, without sending it.

        Returns:
            None when that is done; else what `put` continues with.
        """

    def put_blob(self, place: str, blob: Descriptor, pieces: BlobPieces, begun: str = "") -> None:
        """Write a blob: whole under its digest afterwards, or not at all.

        Args:
            begun: what `mount` returned.
        """

    def seal_image(self, item: MirrorItem, tree: ImageTree) -> None:
        """Write the manifests of an image whose blobs are all there, its root last."""
