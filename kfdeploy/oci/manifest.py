"""Read manifests and indexes, and reduce an index to some platforms.

The OCI image specification and Docker's schema 2 describe the same in different media types; both
are read. A manifest keeps the bytes it came as: its digest is of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES: Final = frozenset({OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST})
CONFIG_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)
INDEX_DEPTH_MAX: Final = 4
"""How deep indexes may lie in indexes."""
_ATTESTED: Final = "vnd.docker.reference.digest"
"""BuildKit's annotation: the manifest that an attestation in the same index is about."""


class MalformedManifest(ValueError):
    """Bytes are not a manifest that can be copied."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a blob, or an index of a manifest.

    Attributes:
        size: bytes.
        platform: ``os/arch[/variant]``; empty where none is given, and for attestations.
        is_elsewhere: a layer with ``urls``, which is fetched from there and is in no registry.
        about: digest of the manifest that this attestation in the same index is about.
    """

    digest: str
    size: int
    media_type: str
    platform: str = ""
    is_elsewhere: bool = False
    about: str = ""


@dataclass(frozen=True)
class Manifest:
    """A manifest or index as a registry has it."""

    digest: str
    media_type: str
    body: bytes = field(repr=False)

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def size(self) -> int:
        return len(self.body)

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """Return its JSON; raise MalformedManifest when that is no object."""
        try:
            content = json.loads(self.body)
        except ValueError as error:
            raise MalformedManifest("not JSON") from error
        if not isinstance(content, dict):
            raise MalformedManifest("not a JSON object")
        return content

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """Return the manifests of an index, in its order."""
        return tuple(_parse_descriptor(entry) for entry in iter_entries(self.content, "manifests"))

    @cached_property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Return layers and config; each once, without those that are in no registry."""
        config = self.content.get("config")
        found = [
            *([config] if isinstance(config, dict) else []),
            *iter_entries(self.content, "layers"),
        ]
        unique = {str(entry.get("digest", "")): entry for entry in found}
        described = (_parse_descriptor(entry) for entry in unique.values())
        return tuple(blob for blob in described if not blob.is_elsewhere)

    @property
    def subject(self) -> str:
        """Return the digest of the manifest that this one (an SBOM) belongs to; or empty."""
        subject = self.content.get("subject")
        return str(subject.get("digest", "")) if isinstance(subject, dict) else ""

    @classmethod
    def parse(cls, body: bytes, media_type: str = "", algorithm: str = "sha256") -> Manifest:
        """Return the manifest with these bytes.

        Args:
            media_type: as the registry says; the content's counts where that is no manifest's.
            algorithm: of the digest.

        Raises:
            MalformedManifest: no JSON object, or Docker's schema 1.
        """
        digest = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
        found = cls(digest, media_type, body)
        content = found.content
        if content.get("schemaVersion") != 2:
            raise MalformedManifest("not of schema version 2")
        if media_type not in MANIFEST_TYPES:
            media_type = str(content.get("mediaType", ""))
        if media_type not in MANIFEST_TYPES:
            media_type = OCI_INDEX if "manifests" in content else OCI_MANIFEST
        return cls(digest, media_type, body)


@dataclass(frozen=True)
class ImageTree:
    """An image whole: its root and all manifests below it.

    Attributes:
        root: index, or the only manifest.
        manifests: all of them, children before the indexes that name them; the root is last.
    """

    root: Manifest
    manifests: tuple[Manifest, ...]

    @cached_property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Return all blobs of all platforms, each once."""
        found = {blob.digest: blob for manifest in self.manifests for blob in manifest.blobs}
        return tuple(found.values())

    @property
    def size(self) -> int:
        """Return the bytes of its blobs and manifests."""
        return sum(blob.size for blob in self.blobs) + sum(m.size for m in self.manifests)


def load_image_tree(root: Manifest, fetch: Callable[[Descriptor], Manifest]) -> ImageTree:
    """Return all manifests of an image.

    Args:
        fetch: returns the manifest that an index names; an exception of it ends this.

    Raises:
        MalformedManifest: indexes in indexes, deeper than `INDEX_DEPTH_MAX`.
    """
    found: dict[str, Manifest] = {}

    def visit_manifest(manifest: Manifest, depth: int) -> None:
        if depth > INDEX_DEPTH_MAX:
            raise MalformedManifest("indexes in indexes, without an end")
        for child in manifest.children if manifest.is_index else ():
            if child.digest not in found:
                visit_manifest(fetch(child), depth + 1)
        found[manifest.digest] = manifest

    visit_manifest(root, 0)
    return ImageTree(root, tuple(found.values()))


def select_platforms(index: Manifest, wanted: tuple[str, ...]) -> Manifest:
    """Return the index with only what these platforms need.

    What belongs to a manifest that stays (BuildKit's attestations) stays too. The bytes depend only
    on the index and the set of platforms: `lock` can name the digest, and `mirror` makes the same
    index again.

    Args:
        wanted: ``os/arch[/variant]``; without a variant, any variant matches.

    Raises:
        MalformedManifest: it has none of the platforms.
    """
    content = index.content
    described = [(entry, _parse_descriptor(entry)) for entry in iter_entries(content, "manifests")]
    kept = {d.digest for _, d in described if d.platform and matches_platform(d.platform, wanted)}
    if not kept:
        found = ", ".join(sorted({d.platform for _, d in described if d.platform})) or "none named"
        raise MalformedManifest(f"none of the platforms {', '.join(wanted)}; it has {found}")
    stays = [entry for entry, d in described if d.digest in kept or d.about in kept]
    if len(stays) == len(described):
        return index
    # Escaped, not as UTF-8: the same bytes whatever the JSON library of the day prefers.
    body = json.dumps({**content, "manifests": stays}, separators=(",", ":")).encode()
    return Manifest(f"sha256:{hashlib.sha256(body).hexdigest()}", index.media_type, body)


def matches_platform(platform: str, wanted: tuple[str, ...]) -> bool:
    """Return whether a platform is one of those wanted, or a variant of one."""
    return any(f"{platform}/".startswith(f"{name}/") for name in wanted)


def format_platform(platform: Mapping[str, Any]) -> str:
    """Return ``os/arch[/variant]``; empty for BuildKit's attestations, which are for no platform.

    Windows images differ by the system's version too, which is written as containerd writes it.
    """
    system, architecture = platform.get("os"), platform.get("architecture")
    if not system or not architecture or "unknown" in {system, architecture}:
        return ""
    version = platform.get("os.version")
    if system == "windows" and version:
        system = f"windows({version})"
    return "/".join(str(p) for p in (system, architecture, platform.get("variant")) if p)


def iter_entries(content: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list in a manifest's JSON; none where there is no such list."""
    value = content.get(key)
    return (e for e in value if isinstance(e, dict)) if isinstance(value, list) else iter(())


def _parse_descriptor(entry: Mapping[str, Any]) -> Descriptor:
    size = entry.get("size")
    platform = entry.get("platform")
    annotations = entry.get("annotations")
    return Descriptor(
        digest=str(entry.get("digest", "")),
        size=size if isinstance(size, int) and size > 0 else 0,
        media_type=str(entry.get("mediaType", "")),
        platform=format_platform(platform) if isinstance(platform, dict) else "",
        is_elsewhere=bool(entry.get("urls")),
        about=str(annotations.get(_ATTESTED, "")) if isinstance(annotations, dict) else "",
    )
