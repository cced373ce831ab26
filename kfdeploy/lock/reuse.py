"""Entries of earlier locks that hold for a new one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.oci.reference import ImageRef


def reuse_locked_images(
    ids: Iterable[str], locks: Sequence[Lock], substitutes: Mapping[str, str]
) -> Lock:
    """Return a lock with the entries that earlier locks have, each from the first that has it.

    A digest stays good while its registry is down or a tag moves. An entry is not reused where
    the settings now substitute an image of another repository.

    Args:
        ids: the references of the manifests.
        substitutes: ``images.substitutes`` of kfdeploy.yaml.
    """
    replaced_by = {
        ImageRef.parse(old).with_default_tag(): ImageRef.parse(new)
        for old, new in substitutes.items()
    }
    reused: list[LockedImage] = []
    for ref in ids:
        named = ImageRef.parse(ref).with_default_tag()
        repository = replaced_by.get(named, named).repository
        entries = (lock.find_image(ref) for lock in locks)
        image = next(
            (each for each in entries if each and each.image.repository == repository), None
        )
        if image is not None:
            reused.append(image)
    return Lock(reused)
