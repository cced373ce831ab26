"""Compute what patches look up of images: their references in an environment's private registry.

``templates/values.yaml.gotmpl`` has the same rule for plain Helmfile (docs/decisions/018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfdeploy.errors import UserError, raise_all
from kfdeploy.images.lockfile import Lock
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.images.sources_file import SourceImage


@dataclass(frozen=True, slots=True)
class ImageValues:
    """One image's mirror reference, whole and in parts.

    Attributes:
        repository: ``registry/prefix/path``.
        tag: as found; empty where only a digest is.
        digest: the digest in the mirror; empty where the image isn't locked, or not for the
            environment's platforms.
        covered: whether lock, mirror and verify cover it.
        source: repository at digest that it is mirrored from; empty when unknown.
        keys: the normalised references that mean this image; empty where it is not mirrored.
    """

    repository: str
    tag: str
    digest: str
    covered: bool
    source: str
    keys: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        """The whole reference: ``REPOSITORY[:TAG][@DIGEST]``."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"

    @property
    def by_tag(self) -> str:
        """The reference for places where a digest breaks what is made of it."""
        return f"{self.repository}:{self.tag}" if self.tag else self.ref

    def to_values(self) -> dict[str, Any]:
        """Return the image's entry in ``.Values.images``.

        ``tag`` has the digest behind it, for places that join it to a name by ``:``.
        """
        digest = f"@{self.digest}" if self.digest else ""
        return {
            "ref": self.ref,
            "byTag": self.by_tag,
            "repository": self.repository,
            "parent": self.repository.rpartition("/")[0],
            "tag": f"{self.tag}{digest}",
            "plainTag": self.tag,
            "keys": list(self.keys),
        }


def build_image_values(
    images: Sequence[SourceImage], lock: Lock, mirror: MirrorNaming, *, unpinned: bool
) -> dict[str, ImageValues]:
    """Return the values of every image, by the reference as found.

    Raises:
        UserError: covered images that aren't locked, or not for the environment's platforms
            (unless ``unpinned``), all of them; two images on one target.
    """
    mirror.mirror_refs(image for image in lock.images if mirror.expected_digest(image))
    errors: list[UserError] = []
    out: dict[str, ImageValues] = {}
    for image in images:
        locked = lock.find_image(image.ref)
        digest = mirror.expected_digest(locked) if locked else image.digest
        if image.covered and not digest and not unpinned:
            lacks = f" for {', '.join(mirror.platforms)}" if locked else ""
            errors.append(
                UserError(
                    f"{image.ref} is not locked{lacks}",
                    hint="run `kfdeploy lock`; `kfdeploy render --unpinned` renders it by its tag",
                )
            )
        repository = f"{mirror.host}/{mirror.repository_path(image.path)}"
        source = str(locked.image) if locked else ""
        # Who names the upstream image by digest names its whole index.
        keys = (
            image.reference_keys(locked.digest if locked else image.digest) if image.covered else ()
        )
        out[image.ref] = ImageValues(repository, image.tag, digest, image.covered, source, keys)
    raise_all(errors)
    return out
