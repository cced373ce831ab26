"""Inventories as people read them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from kfdeploy.model.image import ImageRef, InvalidImageRef
from kfdeploy.model.inventory import Found, Image, Inventory


def inventory(content: Inventory, form: str) -> Iterator[str]:
    """Lines of a table, CSV, or the references alone."""
    if form == "refs":
        yield from (image.ref for image in content.images)
    elif form == "csv":
        yield from _csv(content)
    else:
        width = max((len(image.ref) for image in content.images), default=0)
        for image in content.images:
            first = image.found[0]
            more = f" (+{len(image.found) - 1})" if len(image.found) > 1 else ""
            where = first.place or first.note.partition(": ")[0]
            yield f"{image.ref:{width}}  {image.need:11}  {first.component}: {where}{more}"
        yield f"{len(content.images)} images"


def _csv(content: Inventory) -> Iterator[str]:
    header = ("ref", "need", "component", "object", "field", "file", "line", "how", "redirect")
    yield _row(header)
    for image in content.images:
        for found in image.found:
            place = found.place
            yield _row(
                (
                    image.ref,
                    found.need,
                    found.component,
                    str(found.object),
                    found.field,
                    place.file if place else "",
                    str(place.line) if place else "",
                    found.how,
                    found.redirect,
                )
            )


def _row(values: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(values)
    return out.getvalue()


def matching(content: Inventory, wanted: str) -> list[Image]:
    """The image of a reference, however it is written; else those that have the text in them."""
    try:
        normal = ImageRef.parse(wanted).with_default_tag()
    except InvalidImageRef:
        normal = None
    same = [
        image
        for image in content.images
        if image.ref == wanted or ImageRef.parse(image.ref).with_default_tag() == normal
    ]
    return same or [image for image in content.images if wanted in image.ref]


def why(images: Sequence[Image]) -> Iterator[str]:
    """Each image, its places, and what redirects each."""
    for image in images:
        yield f"{image.ref} ({image.need})"
        for found in image.found:
            yield f"  {found.component}: {found.object}"
            yield f"    {found.field}"
            yield f"    {_place(found)}"
            yield from (f"    overridden by {place}" for place in found.overridden_by)
            yield f"    {found.how}, redirected by: {found.redirect}"


def _place(found: Found) -> str:
    if found.place:
        return str(found.place)
    return found.note or "no file of the component holds the value as it is rendered"
