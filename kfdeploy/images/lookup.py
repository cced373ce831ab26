"""Find the images that somebody means by a reference, however it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from kfdeploy.images.inventory import InventoryImage
from kfdeploy.images.lockfile import Lock, tag_of
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.oci.reference import ImageRef, WrittenRef, host_qualified_path
from kfdeploy.workspace.settings import Images

_NEAR = 5
"""How many references are suggested for one that nothing names."""


@dataclass(frozen=True, slots=True)
class ImageAliases:
    """The names that images have in the workspace, in its lock and in the private registry."""

    lock: Lock
    settings: Images
    private_host: str
    mirror: MirrorNaming


def resolve_images(
    images: Sequence[InventoryImage], wanted: str, names: ImageAliases
) -> list[InventoryImage]:
    """Return the images that a reference, a digest or a part of a reference means.

    The first of these that means any image decides: the same reference, however it is written; the
    private registry's; a digest of the lock's; a substitute of an image; without a tag, the
    repository's; the text in references.
    """
    ref = ImageRef.try_parse(wanted)
    if ref is not None:
        for is_meant in _list_meanings(ref, names):
            if found := [image for image in images if is_meant(image)]:
                return found
    digest = wanted.removeprefix("@")
    if digest.startswith("sha256:"):
        return [image for image in images if _has_digest(image, digest, names.lock)]
    return [image for image in images if wanted in image.ref.text]


def _list_meanings(
    ref: ImageRef, names: ImageAliases
) -> tuple[Callable[[InventoryImage], bool], ...]:
    """Return the tests for whether a reference means an image, the strictest first."""
    normal = ref.with_default_tag()
    substituted = names.settings.find_substituted(ref)
    return (
        lambda image: image.ref.parsed.with_default_tag() == normal,
        lambda image: _is_mirror_of(ref, image, names),
        lambda image: bool(ref.digest) and _has_digest(image, ref.digest, names.lock),
        lambda image: image.ref.parsed.with_default_tag() in substituted,
        lambda image: not (ref.tag or ref.digest) and image.ref.parsed.repository == ref.repository,
    )


def suggest_refs(images: Iterable[InventoryImage], wanted: str) -> list[WrittenRef]:
    """Return references that look like one that nothing names, the nearest first.

    Where there are references of the same repository, only those.
    """
    refs = {image.ref.text: image.ref for image in images}
    ref = ImageRef.try_parse(wanted)
    if ref is None:
        return [refs[text] for text in get_close_matches(wanted, refs, _NEAR)]
    if same := [each for each in refs.values() if each.parsed.repository == ref.repository]:
        return sorted(same)
    by_name: dict[str, list[WrittenRef]] = {}
    for each in refs.values():
        by_name.setdefault(_last_element(each.parsed), []).append(each)
    alike = [refs[text] for text in get_close_matches(wanted, refs, _NEAR, cutoff=0.8)]
    names = get_close_matches(_last_element(ref), by_name, _NEAR, cutoff=0.8)
    namesakes = [each for name in names for each in by_name[name]]
    return list(dict.fromkeys(alike + namesakes))[:_NEAR]


def _last_element(ref: ImageRef) -> str:
    return ref.path.rpartition("/")[2]


def _is_mirror_of(ref: ImageRef, image: InventoryImage, names: ImageAliases) -> bool:
    """Return whether a reference of the private registry is an image's.

    Its tag has to be the image's; its digest need not be.
    """
    found = image.ref.parsed
    if ref.host != names.private_host:
        return False
    if names.mirror.repository_path(host_qualified_path(found)) != ref.path:
        return False
    if ref.digest and _has_digest(image, ref.digest, names.lock):
        return True
    tag = tag_of(found)
    return not ref.tag or ref.tag == tag or not tag


def _has_digest(image: InventoryImage, digest: str, lock: Lock) -> bool:
    if image.ref.parsed.digest == digest:
        return True
    locked = lock.find_image(image.ref)
    if locked is None:
        return False
    return digest in (locked.digest, *locked.platforms.values(), *locked.reduced.values())
