"""Registries as what is copied from, as far as it is signed."""

from __future__ import annotations

from kfdeploy.images.lockfile import Lock
from kfdeploy.mirror.plan import Item
from kfdeploy.mirror.registry_store import RegistryOrigin
from kfdeploy.oci.manifest import Tree
from kfdeploy.oci.registry.client import Client
from kfdeploy.oci.registry.manifest_cache import Manifests
from kfdeploy.oci.signing.verify import AtRegistry, Rules, Unsigned, check


class SignedOrigin(RegistryOrigin):
    """A `RegistryOrigin`, of which an image that must be signed comes only when it is."""

    def __init__(self, client: Client, manifests: Manifests, rules: Rules, lock: Lock) -> None:
        """Take what must be signed.

        Args:
            lock: says what belongs to its images.
        """
        super().__init__(client, manifests)
        self._rules = rules
        self._lock = lock

    def tree(self, item: Item) -> Tree:
        image = self._lock.find(item.ids[0])
        if image is not None and not item.belongs_to:
            reader = AtRegistry(self._client, item.source)
            try:
                check(image.image, self._rules, reader, image.attached)
            except Unsigned as error:
                raise error.about(item.name) from error
        return super().tree(item)
