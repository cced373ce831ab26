"""What is behind an image's digest: platforms, size, and its index reduced to platforms."""

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
    """What is behind a digest; the first three are those of `LockedImage`.

    Attributes:
        missing: why there is no size.
        unread: why nothing could be reduced.
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
        """What is behind ``ref``'s digest.

        Args:
            known: what the lock before has for the same image; not asked for again.

        Raises:
            RegistryError: kind ``gone`` or ``content`` when the image, or a part of its index, is
                not there; other kinds only when not even the platforms can be had.
        """
        if self.knows_all(known, ref.digest):
            return self.get_known(known, ref.digest)
        # Without its index nothing can be reduced, but a size can be had another day.
        patience = None if self.lists else _PATIENCE
        root = self.manifests.get(ref, patience=patience)
        is_sized = _is_sized(known, ref.digest)
        details = (
            self.get_known(known, ref.digest) if is_sized else self._inspect_manifests(root, ref)
        )
        return replace(details, reduced=self._reduce_digests(root, details.platforms))

    def read_offline(self, digest: str, known: LockedImage | None) -> ImageDetails:
        """What the lock before says of a digest, and the cache."""
        details = self.get_known(known, digest)
        if self._is_decided(known, digest):
            return details
        root = self.manifests.get_cached(digest)
        if root is None:
            return replace(details, unread="it is not in the cache, and no registry may be asked")
        return replace(details, reduced=self._reduce_digests(root, details.platforms))

    def get_known(self, known: LockedImage | None, digest: str) -> ImageDetails:
        """What the lock before says of a digest; without lists that nobody names any more."""
        if known is None or known.digest != digest:
            return ImageDetails()
        keys = [key for key in map(reduced_key, self.lists) if key in known.reduced]
        return ImageDetails(known.platforms, known.size, {key: known.reduced[key] for key in keys})

    def knows_all(self, known: LockedImage | None, digest: str) -> bool:
        """Whether the lock before says all of a digest."""
        return _is_sized(known, digest) and self._is_decided(known, digest)

    def _is_decided(self, known: LockedImage | None, digest: str) -> bool:
        """Whether the lock before says what every environment gets, be it nothing."""
        if not self.lists:
            return True
        return (known is not None and known.digest == digest) and all(
            known.digest_for(wanted)
            or (
                known.platforms
                and not any(matches_platform(name, wanted) for name in known.platforms)
            )
            for wanted in self.lists
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
        for index in reversed([one for one in found.manifests if one.is_index]):
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
        """The platform of a single image, and why it can't be had otherwise."""
        try:
            config = json.loads(self.client.get_blob(ref, digest, patience=_PATIENCE))
        except RegistryError as error:
            if not error.is_inconclusive:
                raise
            return "", error.message
        except ValueError:
            return "", f"{ref}: its config is no JSON"
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


def _is_sized(known: LockedImage | None, digest: str) -> bool:
    return known is not None and known.digest == digest and known.size is not None
