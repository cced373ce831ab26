"""Registries as what the mirror copies from and to."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from kfdeploy.mirror.plan import Item
from kfdeploy.mirror.stores import Pieces, Readable
from kfdeploy.oci.manifest import Descriptor, Tree
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.client import Client
from kfdeploy.oci.registry.manifest_cache import Manifests
from kfdeploy.oci.registry.push import Uploads

if TYPE_CHECKING:
    from kfdeploy.oci.registry.settings import PrivateRegistry


class RegistryOrigin:
    """The registries that the lock's images are in (an `Origin`)."""

    def __init__(self, client: Client, manifests: Manifests) -> None:
        self._client = client
        self._manifests = manifests

    def host(self, item: Item) -> str:
        return item.source.host

    def tree(self, item: Item) -> Tree:
        return self._manifests.tree(item.source, item.platforms)

    def open(self, item: Item, blob: Descriptor, offset: int) -> AbstractContextManager[Readable]:
        return self._client.open_blob(item.source, blob.digest, offset=offset)


class RegistryDestination:
    """The private registry (a `Destination`); a place is one of its repositories."""

    def __init__(self, client: Client, registry: PrivateRegistry, root: Path) -> None:
        """Take the registry.

        Args:
            root: folder that `createRepository` is run in.
        """
        self._host = registry.host
        create = registry.creation if registry.create_repository else None
        self._uploads = Uploads(client, create, root)

    def host(self, item: Item) -> str:
        return item.repository.host

    def place(self, item: Item) -> str:
        return item.repository.path

    def has(self, place: str, blob: Descriptor) -> bool:
        return self._uploads.has(self._at(place), blob)

    def mount(self, place: str, blob: Descriptor, other: str) -> str | None:
        return self._uploads.mount(self._at(place), blob, self._at(other))

    def put(self, place: str, blob: Descriptor, pieces: Pieces, begun: str = "") -> None:
        self._uploads.put(self._at(place), blob, pieces, begun)

    def seal(self, item: Item, tree: Tree) -> None:
        for manifest in tree.manifests:
            self._uploads.put_manifest(item.repository, manifest)
            self._uploads.confirm(item.repository, manifest)
        if item.push_tag:
            self._uploads.put_manifest(item.repository, tree.root, item.push_tag)

    def _at(self, place: str) -> ImageRef:
        return ImageRef(self._host, place)
