"""Details of an image at its digest: platforms, size, and its index reduced to platforms."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from kfdeploy.images.lockfile import LockedImage, reduced_key
from kfdeploy.oci.manifest import (
    CONFIG_TYPES,
    Descriptor,
    MalformedManifest,
    Manifest,
    format_platform,
    load_image_tree,
    matches_platform,
)
from kfdeploy.oci.manifest import select_platforms as reduce_index
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.manifest_cache import ManifestCache

_PATIENCE: Final = 3.0
"""Seconds to wait for a busy registry when only size and platforms are missing."""


@dataclass(frozen=True, slots=True)
class ImageDetails:
    """Details of a digest; the first three are those of `LockedImage`.

    Attributes:
        missing: why there is no size; empty if there is one.
        unread: why the index could not be reduced; empty if it could.
    """

    platforms: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    reduced: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""
    unread: str = ""


@dataclass(frozen=True, slots=True)
class DetailsReader:
    """Reads details from registries and the cache; safe for threads.

    Attributes:
        lists: each list of platforms that an environment names, sorted.
    """

    client: RegistryClient
    manifests: ManifestCache
    lists: Sequence[tuple[str, ...]]

    def read_details(self, ref: ImageRef, known: LockedImage | None) -> ImageDetails:
        """Return the details of ``ref``'s digest.

        Args:
            known: what the lock before has of the same image; the registry is not asked for it.

        Raises:
            RegistryError: the image or a part of its index is not there (``gone``, ``content``);
                or not even its platforms can be read (other kinds).
        """
        if self.knows_all(known, ref.digest):
            return self.get_known(known, ref.digest)
        # An index that is not read can't be reduced, so wait for it. A size can be read later.
        patience = None if self.lists else _PATIENCE
        root = self.manifests.get(ref, patience=patience)
        is_sized = _is_sized(known, ref.digest)
        details = (
            self.get_known(known, ref.digest) if is_sized else self._inspect_manifests(root, ref)
        )
        return replace(details, reduced=self._reduce_digests(root, details.platforms))

    def read_offline(self, digest: str, known: LockedImage | None) -> ImageDetails:
        """Return what the lock before and the cache have of a digest."""
        details = self.get_known(known, digest)
        if self._is_decided(known, digest):
            return details
        root = self.manifests.get_cached(digest)
        if root is None:
            return replace(details, unread="it is not in the cache, and no registry may be asked")
        return replace(details, reduced=self._reduce_digests(root, details.platforms))

    def get_known(self, known: LockedImage | None, digest: str) -> ImageDetails:
        """Return what the lock before has of a digest, for the lists that environments name."""
        if known is None or known.digest != digest:
            return ImageDetails()
        keys = [key for key in map(reduced_key, self.lists) if key in known.reduced]
        return ImageDetails(known.platforms, known.size, {key: known.reduced[key] for key in keys})

    def knows_all(self, known: LockedImage | None, digest: str) -> bool:
        """Return whether the lock before has everything about a digest."""
        return _is_sized(known, digest) and self._is_decided(known, digest)

    def _is_decided(self, known: LockedImage | None, digest: str) -> bool:
        """Return whether the lock before says what every environment gets, or that it is none."""
        if not self.lists:
            return True
        if known is None or known.digest != digest:
            return False
        return all(
            known.digest_for(wanted) or _has_other_platforms(known, wanted) for wanted in self.lists
        )

    def _inspect_manifests(self, root: Manifest, ref: ImageRef) -> ImageDetails:
        problems: list[str] = []

        def fetch_manifest(child: Descriptor) -> Manifest:
            at = ImageRef(ref.host, ref.path, "", child.digest)
            try:
                return self.manifests.get(at, patience=_PATIENCE)
            except RegistryError as error:
                if not error.is_inconclusive:
                    raise
                problems.append(error.message)
                return Manifest(child.digest, child.media_type, b"{}")

        try:
            found = load_image_tree(root, fetch_manifest)
        except MalformedManifest as error:
            raise RegistryError("content", f"{ref}: {error}") from error
        platforms: dict[str, str] = {}
        for index in reversed([manifest for manifest in found.manifests if manifest.is_index]):
            for child in index.children:
                if child.platform:
                    platforms.setdefault(child.platform, child.digest)
        for blob in () if root.is_index else root.blobs:
            if blob.media_type in CONFIG_TYPES:
                name, problem = self._read_config_platform(ref, blob.digest)
                problems += [problem] if problem else []
                platforms |= {name: ref.digest} if name else {}
        size = None if problems else sum(blob.size for blob in found.blobs)
        return ImageDetails(platforms, size, missing=problems[0] if problems else "")

    def _read_config_platform(self, ref: ImageRef, digest: str) -> tuple[str, str]:
        """Return the platform of a single image; if it can't be read, empty text and the reason."""
        try:
            config = json.loads(self.client.get_blob(ref, digest, patience=_PATIENCE))
        except RegistryError as error:
            if not error.is_inconclusive:
                raise
            return "", error.message
        except ValueError:
            return "", f"{ref}: its config is not JSON"
        return format_platform(config if isinstance(config, dict) else {}), ""

    def _reduce_digests(self, root: Manifest, platforms: Mapping[str, str]) -> dict[str, str]:
        out: dict[str, str] = {}
        for wanted in self.lists:
            if root.is_index:
                with contextlib.suppress(MalformedManifest):  # it has none of them
                    out[reduced_key(wanted)] = reduce_index(root, wanted).digest
            elif not platforms:
                out[reduced_key(wanted)] = root.digest
        return out


def _has_other_platforms(known: LockedImage, wanted: tuple[str, ...]) -> bool:
    """Return whether an image's platforms are known and are none of those wanted."""
    there = known.platforms
    return bool(there) and not any(matches_platform(name, wanted) for name in there)


def _is_sized(known: LockedImage | None, digest: str) -> bool:
    return known is not None and known.digest == digest and known.size is not None
