"""The inventory of images as people read it."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from kfdeploy.images.inventory import (
    ImageUse,
    Inventory,
    InventoryImage,
    UnavailableReference,
    UnreviewedProgram,
)
from kfdeploy.images.stale_settings import find_unused_substitutes
from kfdeploy.oci.reference import WrittenRef

if TYPE_CHECKING:
    from kfdeploy.images.lockfile import LockedImage
    from kfdeploy.workspace.settings import Images


class ReportedFailure(Protocol):
    """An image that could not be locked."""

    @property
    def id(self) -> WrittenRef: ...
    @property
    def reason(self) -> str: ...
    @property
    def hint(self) -> str: ...


_USES = 3
"""The number of places that an error names of an image; `kfdeploy why` names all."""


def format_inventory(content: Inventory, form: str) -> Iterator[str]:
    """Yield a table, CSV, or the references alone."""
    if form == "refs":
        yield from (image.ref.text for image in content.images)
    elif form == "csv":
        yield from _format_csv(content)
    else:
        width = max((len(image.ref.text) for image in content.images), default=0)
        for image in content.images:
            first = image.found[0]
            more = f" (+{len(image.found) - 1})" if len(image.found) > 1 else ""
            where = first.place or first.source
            yield f"{image.ref.text:{width}}  {image.need:11}  {first.component}: {where}{more}"
        yield f"{len(content.images)} images"


def _format_csv(content: Inventory) -> Iterator[str]:
    header = ("ref", "need", "component", "object", "field", "file", "line", "how", "redirect")
    yield _format_csv_row(header)
    for image in content.images:
        for found in image.found:
            place = found.place
            yield _format_csv_row(
                (
                    image.ref.text,
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


def _format_csv_row(values: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(values)
    return out.getvalue()


def explain_images(
    images: Sequence[InventoryImage], content: Inventory, settings: Images
) -> Iterator[str]:
    """Yield each image, the places that name it, and what redirects each place."""
    lost_by_ref = {image.ref: image for image in content.lost}
    for image in images:
        yield f"{image.ref} ({image.need})"
        substitute = settings.find_substitute(image.ref.parsed)
        if substitute:
            yield f"  replaced by {substitute}: images.substitutes of kfdeploy.yaml"
        elif lost := lost_by_ref.get(image.ref):
            yield f"  no longer at its source: {lost.why} ({lost.source})"
            yield f"  {_suggest_substitute(lost)}"
        for found in image.found:
            yield f"  {found.component}: {found.object}"
            if found.how == "catalogue":
                yield f"    {found.need}: {found.note}"
                if found.place:
                    yield f"    derived from {found.place}"
                yield from (f"    read in {source}" for source in found.source.split("; "))
            else:
                yield f"    {found.field}"
                yield f"    {_describe_location(found)}"
            yield from (f"    overridden by {place}" for place in found.overridden_by)
            yield f"    {found.how}, redirected by: {_describe_redirect(found)}"


def _describe_redirect(found: ImageUse) -> str:
    adds = found.adds
    if found.pulled_by:
        return f"{found.redirect} (a program pulls it itself, not the nodes)"
    if adds is None:
        return found.redirect
    where = f" of container {adds.container}" if adds.container else ""
    return f"{found.redirect}{where} of {adds.kind} {adds.name}, which a patch adds"


def _describe_location(found: ImageUse) -> str:
    if found.place:
        return str(found.place)
    return found.source or "no file of the component holds the rendered value"


def format_unreviewed(content: Inventory) -> Iterator[str]:
    """Yield notes on programs whose version nobody has reviewed, with the command that searches."""
    groups: dict[tuple[str, str], list[UnreviewedProgram]] = {}
    for program in content.unknown:
        key = (program.entry, program.version if program.entry else program.image)
        groups.setdefault(key, []).append(program)
    for programs in groups.values():
        first = programs[0]
        more = f" and {len(programs) - 1} more" if len(programs) > 1 else ""
        yield f"note: {_describe_unreviewed(first)}"
        yield f"  runs as: {first.component}: {first.object} ({first.image}){more}"
        yield f"  to search: {first.scan_command}"


def _describe_unreviewed(program: UnreviewedProgram) -> str:
    if not program.entry:
        return (
            "a program that the catalogue does not know; it may pull images that no manifest names"
        )
    text = f"nobody has reviewed {program.entry} {program.version or 'of this tag'}"
    images = ", ".join(program.images) or "none"
    return f"{text} for hidden images; known for {program.nearest or 'others'}: {images}"


def format_unavailable(content: Inventory, images: Images) -> Iterator[str]:
    """Yield notes on images that their source no longer has and no setting substitutes."""
    for image in content.lost:
        if not images.find_substitute(image.ref.parsed):
            yield f"note: {image.ref}: {image.why} ({image.source})"
            yield f"  {_suggest_substitute(image)}"


def _suggest_substitute(lost: UnavailableReference) -> str:
    if not lost.substitute:
        return "no substitute is known: name one in images.substitutes, or use images.exclude"
    return (
        f"to use it, add to images.substitutes of kfdeploy.yaml: {{{lost.ref}: {lost.substitute}}}"
    )


def format_unused_substitutes(images: Images, refs: Collection[WrittenRef]) -> Iterator[str]:
    """Yield notes on substitutes of images that nothing names: typing errors, or old settings."""
    for setting in find_unused_substitutes(images, refs):
        near = f"; similar: {', '.join(map(str, setting.near))}" if setting.near else ""
        yield f"note: kfdeploy.yaml: {setting.key}: no component names this image{near}"


def format_lock_failures(
    failures: Iterable[ReportedFailure],
    content: Inventory,
    kept: Mapping[WrittenRef, LockedImage],
) -> Iterator[str]:
    """Yield an error for each image that could not be locked, with its places and a hint."""
    lost = {image.ref: image for image in content.lost}
    for failure in failures:
        yield f"error: {failure.id}: {failure.reason}"
        image = content.find_image(failure.id)
        for found in image.found[:_USES] if image else ():
            yield (
                f"  used: {found.component}: {found.object} {found.field}"
                f" ({_describe_location(found)})"
            )
        if failure.id in kept:
            yield f"  stays locked as before: {kept[failure.id].digest}"
        if known := lost.get(failure.id):
            yield f"  known: {known.why} ({known.source})"
            yield f"  hint: {_suggest_substitute(known)}"
        elif failure.hint:
            yield f"  hint: {failure.hint}"
