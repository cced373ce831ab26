"""Which images somebody means by a reference, however they write it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from kfdeploy.images.inventory import InventoryImage
from kfdeploy.images.lockfile import Lock
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.oci.reference import ImageRef, InvalidImageRef, host_qualified_path
from kfdeploy.workspace.settings import Images

_NEAR = 5
"""References that are offered for one that nothing names."""


@dataclass(frozen=True, slots=True)
class ImageAliases:
    """What images are called: in the workspace, in its lock and in the private registry."""

    lock: Lock
    settings: Images
    private_host: str
    mirror: MirrorNaming


def resolve_images(
    images: Sequence[InventoryImage], wanted: str, names: ImageAliases
) -> list[InventoryImage]:
    """The images that a reference, a digest or a part of a reference means; the best answer alone.

    In this order: the same reference, however it is written; the private registry's; a digest of
    the lock's; a substitute of an image; without a tag, the repository's; the text in references.
    """
    ref = try_parse_ref(wanted)
    if ref is not None:
        normal = ref.with_default_tag()
        instead = [
            old for old, new in names.settings.substitutes.items() if _is_same_ref(new, normal)
        ]
        ways: tuple[Callable[[InventoryImage], bool], ...] = (
            lambda image: image.ref == wanted or _is_same_ref(image.ref, normal),
            lambda image: _is_mirror_of(ref, image, names),
            lambda image: bool(ref.digest) and _has_digest(image, ref.digest, names.lock),
            lambda image: any(_is_same_ref(old, _normalize_ref(image.ref)) for old in instead),
            lambda image: not ref.tag and not ref.digest and _is_same_repository(image.ref, ref),
        )
        for fits in ways:
            if found := [image for image in images if fits(image)]:
                return found
    digest = wanted.removeprefix("@")
    if digest.startswith("sha256:"):
        return [image for image in images if _has_digest(image, digest, names.lock)]
    return [image for image in images if wanted in image.ref]


def suggest_refs(images: Iterable[InventoryImage], wanted: str) -> list[str]:
    """References that look like one that nothing names, the nearest first.

    Those of the same repository alone, where there are any.
    """
    refs = [image.ref for image in images]
    ref = try_parse_ref(wanted)
    if ref is None:
        return get_close_matches(wanted, refs, _NEAR)
    if same := [each for each in refs if _is_same_repository(each, ref)]:
        return sorted(same)
    by_name: dict[str, list[str]] = {}
    for each in refs:
        if other := try_parse_ref(each):
            by_name.setdefault(_last_element(other), []).append(each)
    close = get_close_matches(wanted, refs, _NEAR, cutoff=0.8)
    names = get_close_matches(_last_element(ref), by_name, _NEAR, cutoff=0.8)
    return list(dict.fromkeys((*close, *(each for name in names for each in by_name[name]))))[
        :_NEAR
    ]


def _last_element(ref: ImageRef) -> str:
    return ref.path.rpartition("/")[2]


def try_parse_ref(text: str) -> ImageRef | None:
    """The reference; None where it is none."""
    try:
        return ImageRef.parse(text)
    except InvalidImageRef:
        return None


def _normalize_ref(text: str) -> ImageRef | None:
    ref = try_parse_ref(text)
    return ref.with_default_tag() if ref else None


def _is_same_ref(text: str, normal: ImageRef | None) -> bool:
    return normal is not None and _normalize_ref(text) == normal


def _is_same_repository(text: str, ref: ImageRef) -> bool:
    other = try_parse_ref(text)
    return other is not None and other.repository == ref.repository


def _is_mirror_of(ref: ImageRef, image: InventoryImage, names: ImageAliases) -> bool:
    """Whether a reference of the private registry is an image's; its tag counts, its digest not."""
    there = try_parse_ref(image.ref)
    if there is None or ref.host != names.private_host:
        return False
    if names.mirror.repository_path(host_qualified_path(there)) != ref.path:
        return False
    tag = there.with_default_tag().tag
    if ref.digest and _has_digest(image, ref.digest, names.lock):
        return True
    return not ref.tag or ref.tag == tag or not tag


def _has_digest(image: InventoryImage, digest: str, lock: Lock) -> bool:
    locked = lock.find_image(image.ref)
    there = try_parse_ref(image.ref)
    if there is not None and there.digest == digest:
        return True
    if locked is None:
        return False
    return digest in (locked.digest, *locked.platforms.values(), *locked.reduced.values())
