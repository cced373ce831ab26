"""Changes that features make to an inventory: images of their own, and redirects of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kfdeploy.features.feature import Feature, FeatureImage
from kfdeploy.images.inventory import NEEDS, ImageUse, Inventory, InventoryImage
from kfdeploy.oci.reference import WrittenRef


def add_features(content: Inventory, features: Sequence[Feature[Any]]) -> Inventory:
    """Return an inventory with the images of features, and what they redirect by default.

    Args:
        features: those that the site has turned on.
    """
    added = [image for feature in features for image in feature.list_images()]
    if added:
        content = replace(content, images=_merge_images(content.images, added))
    for feature in features:
        if feature.default_redirect:
            content = set_default_redirect(content, feature.default_redirect)
    return content


def set_default_redirect(content: Inventory, redirect: str) -> Inventory:
    """Return an inventory in which ``redirect`` leads what nothing else does.

    It sees what pods name: what a program copies itself stays as it is.
    """

    def redirect_use(use: ImageUse) -> ImageUse:
        if use.redirect != "none" or use.outside or use.pulled_by:
            return use
        return replace(use, redirect=redirect)

    images = [replace(i, found=tuple(map(redirect_use, i.found))) for i in content.images]
    return replace(content, images=tuple(images))


def _merge_images(
    images: Sequence[InventoryImage], added: Sequence[FeatureImage]
) -> tuple[InventoryImage, ...]:
    by_ref = {image.ref: image for image in images}
    for use in map(_make_use, added):
        known = by_ref.get(use.ref)
        uses = (*(known.found if known else ()), use)
        need = min((each.need for each in uses), key=NEEDS.index)
        by_ref[use.ref] = InventoryImage(use.ref, need, uses)
    return tuple(by_ref[ref] for ref in sorted(by_ref))


def _make_use(image: FeatureImage) -> ImageUse:
    return ImageUse(
        ref=WrittenRef.parse(image.ref),
        component=image.release,
        object=image.object,
        field=image.field,
        path=(),
        how="pod-spec",
        redirect="patch",
    )
