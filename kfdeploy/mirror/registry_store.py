"""Implement `Origin` and `Destination` for registries."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.mirror.stores import BlobPieces, ReadableBlob
from kfdeploy.oci.manifest import Descriptor, ImageTree
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.manifest_cache import ManifestCache
from kfdeploy.oci.registry.push import RegistryPusher

if TYPE_CHECKING:
    from kfdeploy.oci.registry.settings import PrivateRegistry


class RegistryOrigin:
    """The registries that have the lock's images; an `Origin`."""

    def __init__(self, client: RegistryClient, manifests: ManifestCache) -> None:
        self._client = client
        self._manifests = manifests

    def get_host(self, item: MirrorItem) -> str:
        return item.source.host

    def read_tree(self, item: MirrorItem) -> ImageTree:
        return self._manifests.load_tree(item.source, item.platforms)

    def open_blob(
        self, item: MirrorItem, blob: Descriptor, offset: int
    ) -> AbstractContextManager[ReadableBlob]:
        return self._client.open_blob(item.source, blob.digest, offset=offset)


class RegistryDestination:
    """The private registry; a `Destination` whose places are its repositories."""

    def __init__(self, client: RegistryClient, registry: PrivateRegistry, root: Path) -> None:
        """Prepare pushes to the private registry.

        Args:
            root: the folder in which the `createRepository` command runs.
        """
        self._host = registry.host
        create = registry.creation_command if registry.create_repository else None
        self._pusher = RegistryPusher(client, create, root)

    def get_host(self, item: MirrorItem) -> str:
        return item.repository.host

    def get_place(self, item: MirrorItem) -> str:
        return item.repository.path

    def has_blob(self, place: str, blob: Descriptor) -> bool:
        return self._pusher.has_blob(self._repository_at(place), blob)

    def mount_blob(self, place: str, blob: Descriptor, other: str) -> str | None:
        return self._pusher.mount_blob(self._repository_at(place), blob, self._repository_at(other))

    def put_blob(self, place: str, blob: Descriptor, pieces: BlobPieces, begun: str = "") -> None:
        self._pusher.push_blob(self._repository_at(place), blob, pieces, begun)

    def seal_image(self, item: MirrorItem, tree: ImageTree) -> None:
        for manifest in tree.manifests:
            self._pusher.push_manifest(item.repository, manifest)
            self._pusher.confirm_manifest(item.repository, manifest)
        if item.push_tag:
            self._pusher.push_manifest(item.repository, tree.root, item.push_tag)

    def _repository_at(self, place: str) -> ImageRef:
        return ImageRef(self._host, place)
