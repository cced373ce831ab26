"""Entries of earlier locks that hold for a new one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.oci.reference import WrittenRef

if TYPE_CHECKING:
    from kfdeploy.workspace.settings import Images


def reuse_locked_images(ids: Iterable[WrittenRef], locks: Sequence[Lock], settings: Images) -> Lock:
    """Return a lock with the entries that earlier locks have, each from the first that has it.

    A digest stays good while its registry is down or a tag moves. An entry is not reused where
    the settings now substitute an image of another repository.

    Args:
        ids: the references of the manifests.
    """
    reused: list[LockedImage] = []
    for ref in ids:
        wanted = (settings.find_substitute(ref.parsed) or ref).parsed
        entries = (lock.find_image(ref) for lock in locks)
        image = next(
            (each for each in entries if each and each.image.repository == wanted.repository), None
        )
        if image is not None:
            reused.append(image)
    return Lock(reused)
