"""Inventories as people read them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from kfdeploy.model.image import ImageRef, InvalidImageRef
from kfdeploy.model.inventory import Found, Image, Inventory

if TYPE_CHECKING:
    from kfdeploy.model.lockfile import LockedImage


class Failure(Protocol):
    """An image that could not be locked."""

    @property
    def id(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def hint(self) -> str: ...


_USES = 3
"""Places that are named of an image in an error; `kfdeploy why` names all."""


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


def not_locked(
    failures: Iterable[Failure], content: Inventory, kept: Mapping[str, LockedImage]
) -> Iterator[str]:
    """Each image that could not be locked, where it is used, and what next."""
    for failure in failures:
        yield f"error: {failure.id}: {failure.reason}"
        image = content.get(failure.id)
        for found in image.found[:_USES] if image else ():
            yield f"  used: {found.component}: {found.object} {found.field} ({_place(found)})"
        if failure.id in kept:
            yield f"  stays locked as before: {kept[failure.id].digest}"
        if failure.hint:
            yield f"  hint: {failure.hint}"
