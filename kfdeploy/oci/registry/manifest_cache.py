"""Keep manifests by digest in the workspace's cache.

A digest's content never changes, so entries never expire. `lock` fills the cache; `mirror` then
does not ask a source that limits requests for the same manifests again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final

from kfdeploy.cache import Cache, make_cache_key
from kfdeploy.oci import manifest as model
from kfdeploy.oci.manifest import ImageTree, MalformedManifest, Manifest
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError

_BLOBS: Final = make_cache_key("blobs of images")


class ManifestCache:
    """Reads manifests and whole images through the cache; safe for threads."""

    def __init__(self, client: RegistryClient, cache: Cache) -> None:
        self._client = client
        self._cache = cache

    def get(self, ref: ImageRef, *, patience: float | None = None) -> Manifest:
        """Return the manifest or index at ``ref``'s digest, from the cache or the registry.

        Raises:
            RegistryError: see `RegistryClient.get_manifest`.
        """
        if (found := self.get_cached(ref.digest)) is not None:
            return found
        found = self._client.get_manifest(ref, patience=patience)
        self.put(found)
        return found

    def get_cached(self, digest: str) -> Manifest | None:
        """Return what the cache has; None for nothing, or a damaged entry."""
        data = self._cache.get(_manifest_key(digest))
        if data is None:
            return None
        media_type, _, body = data.partition(b"\n")
        with contextlib.suppress(MalformedManifest, ValueError):
            found = Manifest.parse(body, media_type.decode(), digest.partition(":")[0])
            if found.digest == digest:
                return found
        return None

    def put(self, manifest: Manifest) -> None:
        """Put a manifest into the cache."""
        self._cache.put(
            _manifest_key(manifest.digest), manifest.media_type.encode() + b"\n" + manifest.body
        )

    def load_tree(
        self, ref: ImageRef, platforms: tuple[str, ...] = (), *, patience: float | None = None
    ) -> ImageTree:
        """Return all manifests of the image at ``ref``'s digest.

        Args:
            platforms: what an index is reduced to; empty for all.

        Raises:
            RegistryError: see `RegistryClient.get_manifest`; of kind ``content`` for indexes
                without an end, and for one that has none of the platforms.
        """

        def fetch_child(child: model.Descriptor) -> Manifest:
            return self.get(ImageRef(ref.host, ref.path, "", child.digest), patience=patience)

        try:
            root = self.get(ref, patience=patience)
            return model.load_image_tree(_select_platforms(root, platforms), fetch_child)
        except MalformedManifest as error:
            raise RegistryError("content", f"{ref}: {error}") from error

    def get_cached_blobs(
        self, images: Mapping[str, tuple[str, tuple[str, ...]]]
    ) -> Mapping[str, Sequence[str]]:
        """Return the digests of images' blobs, by image, as far as the cache has their manifests.

        The digests are kept together in one entry: to read a few hundred manifests for them takes
        longer than to copy an image.

        Args:
            images: digests, each with that of its source and the platforms it was reduced to.
        """
        kept = self._cache.get_json(_BLOBS)
        found: dict[str, list[str]] = kept if isinstance(kept, dict) else {}
        known = {digest: found[digest] for digest in images if digest in found}
        for digest in images.keys() - known.keys():
            tree = self.get_cached_tree(*images[digest])
            if tree is not None and tree.root.digest == digest:
                known[digest] = [blob.digest for blob in tree.blobs]
        if known.keys() - found.keys():
            self._cache.put_json(_BLOBS, known)
        return known

    def get_cached_tree(self, digest: str, platforms: tuple[str, ...] = ()) -> ImageTree | None:
        """Return all manifests of an image if the cache has them; else None."""

        class _Unknown(Exception):
            pass

        def fetch_child(child: model.Descriptor) -> Manifest:
            found = self.get_cached(child.digest)
            if found is None:
                raise _Unknown
            return found

        root = self.get_cached(digest)
        try:
            return (
                None
                if root is None
                else model.load_image_tree(_select_platforms(root, platforms), fetch_child)
            )
        except (_Unknown, MalformedManifest):
            return None


def _select_platforms(root: Manifest, platforms: tuple[str, ...]) -> Manifest:
    return model.select_platforms(root, platforms) if platforms and root.is_index else root


def _manifest_key(digest: str) -> str:
    return hashlib.sha256(json.dumps(["manifest", digest]).encode()).hexdigest()
