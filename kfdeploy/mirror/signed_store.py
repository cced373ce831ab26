"""Implement an `Origin` that refuses images without the required signatures."""

from __future__ import annotations

from kfdeploy.images.lockfile import Lock
from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.mirror.registry_store import RegistryOrigin
from kfdeploy.oci.manifest import ImageTree
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.manifest_cache import ManifestCache
from kfdeploy.oci.signing.verify import (
    RegistrySignatureReader,
    SignatureRules,
    UnsignedImage,
    check_signatures,
)


class SignedOrigin(RegistryOrigin):
    """A `RegistryOrigin` that checks the signatures of an image before it is copied."""

    def __init__(
        self, client: RegistryClient, manifests: ManifestCache, rules: SignatureRules, lock: Lock
    ) -> None:
        """Read images by ``client`` and check them against ``rules``.

        Args:
            rules: the images that must be signed, and by which keys.
            lock: lists the signatures attached to each image.
        """
        super().__init__(client, manifests)
        self._rules = rules
        self._lock = lock

    def read_tree(self, item: MirrorItem) -> ImageTree:
        image = self._lock.find_image(item.ids[0])
        if image is not None and not item.belongs_to:
            reader = RegistrySignatureReader(self._client, item.source)
            try:
                check_signatures(image.image, self._rules, reader, image.attached)
            except UnsignedImage as error:
                raise error.with_subject(item.name) from error
        return super().read_tree(item)
