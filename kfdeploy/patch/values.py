"""Compute what patches look up of images: their references in an environment's private registry.

``templates/values.yaml.gotmpl`` has the same rule for plain Helmfile (docs/decisions/018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kfdeploy.errors import UserError, raise_all
from kfdeploy.images.lockfile import Lock
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.images.sources_file import SourceImage
from kfdeploy.oci.reference import ImageRef, WrittenRef


@dataclass(frozen=True, slots=True)
class ImageValues:
    """What patches look up of one image.

    Attributes:
        mirror: its reference in an environment's private registry. It has no digest where the image
            isn't locked, or not for the environment's platforms.
        covered: whether lock, mirror and verify answer for it.
        source: repository at digest that it is mirrored from; None when unknown.
        aliases: the normalised references that mean this image, where it is mirrored.
    """

    mirror: ImageRef
    covered: bool
    source: ImageRef | None
    aliases: tuple[ImageRef, ...] = ()

    @property
    def by_tag(self) -> ImageRef:
        """The reference for places where a digest breaks what is made of it."""
        return replace(self.mirror, digest="") if self.mirror.tag else self.mirror

    def to_values(self) -> dict[str, Any]:
        """Return what templates read.

        ``tag`` carries the digest, for names that are joined by ``:``.
        """
        digest = f"@{self.mirror.digest}" if self.mirror.digest else ""
        repository = self.mirror.repository
        return {
            "ref": str(self.mirror),
            "byTag": str(self.by_tag),
            "repository": repository,
            "parent": repository.rpartition("/")[0],
            "tag": f"{self.mirror.tag}{digest}",
            "plainTag": self.mirror.tag,
            "keys": [str(alias) for alias in self.aliases],
        }


def build_image_values(
    images: Sequence[SourceImage], lock: Lock, mirror: MirrorNaming, *, unpinned: bool
) -> dict[WrittenRef, ImageValues]:
    """Return what patches look up of every image, by the reference as found.

    Raises:
        UserError: covered images that aren't locked, or not for the environment's platforms
            (unless ``unpinned``), all of them; two images on one target.
    """
    mirror.mirror_refs(image for image in lock.images if mirror.expected_digest(image))
    errors: list[UserError] = []
    out: dict[WrittenRef, ImageValues] = {}
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
        # Who names the upstream image by digest names its whole index.
        whole = locked.digest if locked else image.digest
        out[image.ref] = ImageValues(
            replace(mirror.repository_ref(image.path), tag=image.tag, digest=digest),
            image.covered,
            locked.image if locked else None,
            image.list_aliases(whole) if image.covered else (),
        )
    raise_all(errors)
    return out
