"""The file ``images.sources.yaml``: the places of each image, its redirect, whether it counts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kfdeploy.errors import UserError
from kfdeploy.images.inventory import ImageUse, Inventory, InventoryImage
from kfdeploy.images.lockfile import tag_of
from kfdeploy.oci.reference import ImageRef, InvalidImageRef, WrittenRef, host_qualified_path
from kfdeploy.workspace.settings import Images

NAME = "images.sources.yaml"
CHOICE = "user-choice"


@dataclass(frozen=True, slots=True)
class SourceUse:
    """One place that names an image; ``location`` is FILE:LINE, or empty where there is no line."""

    component: str
    object: str
    field: str
    location: str = ""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of the file.

    Attributes:
        ref: as found, as the cluster would ask for it.
        covered: whether lock, mirror and verify answer for it (`images` in kfdeploy.yaml).
        why_not: the reason where it is not.
        redirects: what leads its places to the private registry; only those that need it, where
            it is not the users' choice everywhere.
        by_tag: whether a place must have it by its tag, without a digest.
        is_loose: whether users may name it in a place that nothing redirects.
        is_copied: whether a program copies it itself, from where its code says.
        found: all its places, in the file's order.
    """

    ref: WrittenRef
    need: str
    covered: bool
    why_not: str = ""
    redirects: tuple[str, ...] = ()
    by_tag: bool = False
    is_loose: bool = False
    is_copied: bool = False
    found: tuple[SourceUse, ...] = ()

    @property
    def path(self) -> str:
        """HOST/PATH, a legal repository path."""
        return host_qualified_path(self.ref.parsed)

    @property
    def tag(self) -> str:
        """The tag that a runtime asks for; empty where the reference names only a digest."""
        return tag_of(self.ref.parsed)

    @property
    def digest(self) -> str:
        """The reference's own digest; empty where it names none."""
        return self.ref.parsed.digest

    def list_aliases(self, digest: str) -> tuple[ImageRef, ...]:
        """Return the normalised references that mean this image: by its tag, and by digest.

        Args:
            digest: the lock's; another than the reference's own where a substitute took its place.
        """
        repository = replace(self.ref.parsed, tag="", digest="")
        tags = [replace(repository, tag=self.tag)] if self.tag else []
        digests = [replace(repository, digest=each) for each in (digest, self.digest) if each]
        return tuple(dict.fromkeys(tags + digests))

    @property
    def lacks_redirect(self) -> bool:
        """Whether pods can ask for it at its source, and a person has to decide about that."""
        return "none" in self.redirects and self.covered and self.need != CHOICE


@dataclass(frozen=True, slots=True)
class _UseRedirect:
    """What leads one place to the private registry."""

    need: str
    redirect: str
    pin: str
    pulled_by: str
    where: SourceUse


def collect_source_images(inventory: Inventory, settings: Images) -> tuple[SourceImage, ...]:
    """Return the images of an inventory and those that kfdeploy.yaml adds, sorted by reference."""
    extra = {WrittenRef.parse(text) for text in settings.extra}
    found = {image.ref: image for image in inventory.images}
    images = []
    for ref in sorted({*found, *extra}):
        need = "required" if ref in extra else found[ref].need
        uses = found[ref].found if ref in found else ()
        images.append(_build_image(ref, need, [_redirect_of(use) for use in uses], settings))
    return tuple(images)


def _build_image(
    ref: WrittenRef, need: str, uses: Sequence[_UseRedirect], settings: Images
) -> SourceImage:
    why_not = _explain_exclusion(ref, need, settings)
    return _with_uses(SourceImage(ref, need, covered=not why_not, why_not=why_not), uses)


def _redirect_of(use: ImageUse) -> _UseRedirect:
    location = str(use.place) if use.place else ""
    where = SourceUse(use.component, str(use.object), use.field, location)
    return _UseRedirect(use.need, use.redirect, use.pin, use.pulled_by, where)


def _with_uses(image: SourceImage, uses: Sequence[_UseRedirect]) -> SourceImage:
    needed = [use for use in uses if use.need != CHOICE]
    chosen = [use for use in uses if use.need == CHOICE]
    decisive = needed or chosen
    return replace(
        image,
        redirects=tuple(sorted({use.redirect for use in decisive})),
        by_tag=any(use.pin == "tag" for use in uses),
        is_loose=any(use.redirect == "none" for use in chosen),
        is_copied=any(use.pulled_by for use in decisive),
        found=tuple(use.where for use in uses),
    )


def _explain_exclusion(ref: WrittenRef, need: str, settings: Images) -> str:
    for exclusion in settings.exclude:
        if fnmatchcase(ref.text, exclusion.ref):
            return f"excluded: {exclusion.reason}"
    if need not in settings.needs and ref.text not in settings.extra:
        return f"{need}: not among images.needs"
    return ""


def dump_sources(inventory: Inventory, images: Sequence[SourceImage]) -> str:
    """Return the file's text, an entry for each image in their order."""
    found = {image.ref: image for image in inventory.images}
    lines = [
        "# Written by `kfdeploy lock`: where each image was found and what redirects it.",
        "images:" if images else "images: []",
    ]
    for image in images:
        lines += [
            f"- ref: {json.dumps(image.ref.text)}",
            f"  need: {image.need}",
            f"  path: {json.dumps(image.path)}",
        ]
        if (repository := image.ref.parsed.repository) != image.path:
            lines.append(f"  repository: {json.dumps(repository)}")
        if image.tag:
            lines.append(f"  tag: {json.dumps(image.tag)}")
        if image.digest:
            lines.append(f"  digest: {json.dumps(image.digest)}")
        lines.append(f"  covered: {json.dumps(image.covered)}")
        if image.why_not:
            lines.append(f"  reason: {json.dumps(image.why_not)}")
        lines += _dump_uses(found.get(image.ref))
    return "\n".join(lines) + "\n"


def _dump_uses(image: InventoryImage | None) -> Iterator[str]:
    if image is None:
        yield "  found: []"
        return
    yield "  found:"
    for use in image.found:
        yield f"  - component: {use.component}"
        yield f"    object: {json.dumps(str(use.object))}"
        yield f"    field: {json.dumps(use.field)}"
        if use.place:
            yield f"    at: {json.dumps(str(use.place))}"
        if use.overridden_by:
            yield f"    overriddenBy: {json.dumps([str(p) for p in use.overridden_by])}"
        yield f"    need: {use.need}"
        yield f"    how: {use.how}"
        yield f"    redirect: {json.dumps(use.redirect)}"
        if use.pin:
            yield f"    pin: {use.pin}"
        if use.pulled_by:
            yield f"    pulledBy: {use.pulled_by}"
        if use.note:
            yield f"    note: {json.dumps(use.note)}"
        if use.source:
            yield f"    source: {json.dumps(use.source)}"


def parse_sources(text: str) -> tuple[SourceImage, ...]:
    """Return the images of the file; of their places, what `SourceImage` has.

    Raises:
        UserError: ``text`` is not what `lock` writes.
    """
    hint = "`kfdeploy lock` writes the file anew"
    try:
        data: Any = YAML(typ="safe").load(text)
        return tuple(_parse_image(item) for item in data["images"])
    except YAMLError as error:
        raise UserError(f"{NAME}: {str(error).splitlines()[0]}", hint=hint) from error
    except (KeyError, TypeError, AttributeError, InvalidImageRef) as error:
        raise UserError(f"{NAME}: not a list of images as `lock` writes it", hint=hint) from error


def _parse_image(item: Mapping[str, Any]) -> SourceImage:
    image = SourceImage(
        WrittenRef.parse(item["ref"]), item["need"], item["covered"], item.get("reason", "")
    )
    return _with_uses(image, [_parse_use(use) for use in item["found"]])


def _parse_use(use: Mapping[str, Any]) -> _UseRedirect:
    where = SourceUse(use["component"], use["object"], use["field"], use.get("at", ""))
    return _UseRedirect(
        use["need"], use["redirect"], use.get("pin", ""), use.get("pulledBy", ""), where
    )
