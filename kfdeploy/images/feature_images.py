"""What features change in an inventory: images of their own, and what leads the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kfdeploy.features.feature import Feature, FeatureImage
from kfdeploy.images.inventory import NEEDS, ImageUse, Inventory, InventoryImage


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
    images = [
        replace(
            image,
            found=tuple(
                replace(use, redirect=redirect)
                if use.redirect == "none" and not (use.outside or use.pulled_by)
                else use
                for use in image.found
            ),
        )
        for image in content.images
    ]
    return replace(content, images=tuple(images))


def _merge_images(
    images: Sequence[InventoryImage], added: Sequence[FeatureImage]
) -> tuple[InventoryImage, ...]:
    by_ref = {image.ref: image for image in images}
    for image in added:
        known = by_ref.get(image.ref)
        uses = (*(known.found if known else ()), _make_use(image))
        need = min((use.need for use in uses), key=NEEDS.index)
        by_ref[image.ref] = InventoryImage(image.ref, need, uses)
    return tuple(by_ref[ref] for ref in sorted(by_ref))


def _make_use(image: FeatureImage) -> ImageUse:
    return ImageUse(
        component=image.release,
        object=image.object,
        field=image.field,
        path=(),
        how="pod-spec",
        redirect="patch",
    )
