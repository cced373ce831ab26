"""Know what belongs to an image without being in it: signatures, attestations, SBOMs.

Two conventions say what belongs to a manifest. Cosign's older one is tags made from its digest:
``sha256-HEX.sig``, ``.att`` and ``.sbom``. OCI 1.1's is manifests that name it as their
``subject``: a registry lists them as its referrers. Where a registry can't, whoever pushes one adds
it to an index under the fallback tag ``sha256-HEX`` (distribution specification, "Referrers Tag
Schema").
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from kfdeploy.oci.manifest import OCI_INDEX, Manifest, iter_entries
from kfdeploy.oci.reference import ImageRef, is_digest

COSIGN_SUFFIXES: Final = ("sig", "att", "sbom")
UNKNOWN_ARTIFACT_TYPE: Final = "unknown"
"""The artifact type of a referrer that says none, or something that is no media type."""
_TAG_MAX: Final = 128
_TAG: Final = re.compile(r"[A-Za-z0-9_][\w.-]{0,127}", re.ASCII)
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_TYPE: Final = re.compile(rf"{_NAME}/{_NAME}|{UNKNOWN_ARTIFACT_TYPE}")

AttachmentKind = Literal["tag", "referrer"]


@dataclass(frozen=True, slots=True, order=True)
class Attachment:
    """One manifest that belongs to another of the same repository.

    Attributes:
        subject: digest of the index or manifest that it belongs to.
        name: the tag; for a referrer its artifact type, or ``unknown``.
        digest: its own.
    """

    subject: str
    kind: AttachmentKind
    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.subject} {self.kind} {self.name} {self.digest}"

    @property
    def tag(self) -> str:
        """Return the tag it must have wherever it is copied to; empty for a referrer."""
        return self.name if self.kind == "tag" else ""

    def ref_in(self, repository: ImageRef) -> ImageRef:
        """Return its reference, by digest, in the repository of ``repository``."""
        return ImageRef(repository.host, repository.path, "", self.digest)

    @classmethod
    def parse(cls, line: str) -> Attachment:
        """Return the attachment that `__str__` wrote.

        Raises:
            ValueError: the line has another form.
        """
        parts = line.split(" ")
        if len(parts) == 4:
            subject, kind, name, digest = parts
            if is_digest(subject) and is_digest(digest):
                if kind == "tag" and _TAG.fullmatch(name):
                    return cls(subject, "tag", name, digest)
                if kind == "referrer" and _TYPE.fullmatch(name):
                    return cls(subject, "referrer", name, digest)
        raise ValueError(f"{line!r} is not SUBJECT tag|referrer NAME DIGEST")


def normalize_artifact_type(text: object) -> str:
    """Return an artifact type as the lock keeps it: ``unknown`` for what is no media type."""
    return text if isinstance(text, str) and _TYPE.fullmatch(text) else UNKNOWN_ARTIFACT_TYPE


def cosign_tags(digest: str) -> tuple[str, ...]:
    """Return the tags that cosign would give to what belongs to ``digest``."""
    tags = (f"{digest.replace(':', '-', 1)}.{suffix}" for suffix in COSIGN_SUFFIXES)
    return tuple(tag for tag in tags if len(tag) <= _TAG_MAX)


def fallback_tag(digest: str) -> str:
    """Return the tag of the index of referrers, for registries that do not list them themselves."""
    algorithm, _, value = digest.partition(":")
    return f"{algorithm[:32]}-{value[:64]}"


def build_fallback_index(referrers: Iterable[Manifest], before: Manifest | None = None) -> Manifest:
    """Return the index to put under the fallback tag of the referrers' subject.

    Args:
        before: what is under the tag now; its other entries stay, in front.

    Raises:
        MalformedManifest: a referrer or ``before`` is no manifest.
    """
    new = {manifest.digest: _describe_manifest(manifest) for manifest in referrers}
    content: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    if before is not None:
        kept = iter_entries(before.content, "manifests")
        content["manifests"] = [entry for entry in kept if entry.get("digest") not in new]
    content["manifests"] += [new[digest] for digest in sorted(new)]
    body = json.dumps(content, separators=(",", ":")).encode()
    return Manifest(f"sha256:{hashlib.sha256(body).hexdigest()}", OCI_INDEX, body)


def _describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return a manifest's entry in an index of referrers.

    By the specification: type and annotations of the manifest, and the config's type where it has
    none of its own.
    """
    content = manifest.content
    config = content.get("config")
    kind = content.get("artifactType")
    if not kind and isinstance(config, dict):
        kind = config.get("mediaType")
    described = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.size,
        "artifactType": kind,
        "annotations": content.get("annotations"),
    }
    return {key: value for key, value in described.items() if value}
