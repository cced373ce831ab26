"""What patches look up: each image's reference in an environment's private registry.

``templates/values.yaml.gotmpl`` follows the same rule in plain Helmfile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfdeploy.errors import UserError, raise_all
from kfdeploy.model.environment import Mirror
from kfdeploy.model.lockfile import Lock
from kfdeploy.model.sources import SourceImage
from kfdeploy.model.workspace import PrivateRegistry


@dataclass(frozen=True, slots=True)
class Look:
    """One image's mirror reference, whole and in parts.

    Attributes:
        repository: ``registry/prefix/path``.
        tag: as found; empty where only a digest is.
        digest: empty where the image isn't locked.
        covered: whether lock, mirror and verify answer for it.
        source: repository at digest that it is mirrored from; empty when unknown.
        keys: the normalised references that mean this image, where it is mirrored.
    """

    repository: str
    tag: str
    digest: str
    covered: bool
    source: str
    keys: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"

    @property
    def by_tag(self) -> str:
        """The reference for places where a digest breaks what is made of it."""
        return f"{self.repository}:{self.tag}" if self.tag else self.ref

    def to_values(self) -> dict[str, Any]:
        """As the template has it: ``tag`` carries the digest where a name is joined by ``:``."""
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


def look_ups(
    images: Sequence[SourceImage], lock: Lock, registry: PrivateRegistry, *, unpinned: bool
) -> dict[str, Look]:
    """The look-up of every image, by the reference as found.

    Raises:
        UserError: covered images that aren't locked (unless ``unpinned``), all of them; two
            images on one target.
    """
    mirror = Mirror(registry)
    mirror.targets(lock.images)
    errors: list[UserError] = []
    out: dict[str, Look] = {}
    for image in images:
        locked = lock.find(image.ref)
        digest = locked.digest if locked else image.digest
        if image.covered and not digest and not unpinned:
            errors.append(
                UserError(
                    f"{image.ref} is not locked",
                    hint="run `kfdeploy lock`; `kfdeploy render --unpinned` renders it by its tag",
                )
            )
        repository = f"{registry.host}/{mirror.path(image.path)}"
        source = str(locked.image) if locked else ""
        keys = image.keys(digest) if image.covered else ()
        out[image.ref] = Look(repository, image.tag, digest, image.covered, source, keys)
    raise_all(errors)
    return out
