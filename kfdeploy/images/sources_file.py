"""`images.sources.yaml`: where each image was found, what redirects it, whether it is covered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kfdeploy.errors import UserError
from kfdeploy.images.inventory import ImageUse, Inventory, InventoryImage
from kfdeploy.images.lockfile import tag_of
from kfdeploy.oci.reference import ImageRef, host_qualified_path
from kfdeploy.workspace.settings import Images

NAME = "images.sources.yaml"
CHOICE = "user-choice"


@dataclass(frozen=True, slots=True)
class SourceUse:
    """One place that names an image; ``at`` is FILE:LINE, or empty where there is no line."""

    component: str
    object: str
    field: str
    location: str = ""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of the file.

    Attributes:
        path: HOST/PATH, a legal repository path.
        tag: empty where the reference names only a digest.
        digest: the reference's own; empty where it names none.
        covered: whether lock, mirror and verify answer for it (`images` in kfdeploy.yaml).
        why_not: the reason where it is not.
        redirects: what leads its places to the private registry; only those that need it, where
            it is not the users' choice everywhere.
        is_loose: whether users may name it in a place that nothing redirects.
        is_copied: whether a program copies it itself, from where its code says.
        by_tag: whether a place must have it by its tag, without a digest.
        found: all its places, in the file's order.
    """

    ref: str
    need: str
    path: str
    tag: str
    digest: str
    covered: bool
    why_not: str = ""
    redirects: tuple[str, ...] = ()
    by_tag: bool = False
    is_loose: bool = False
    is_copied: bool = False
    found: tuple[SourceUse, ...] = ()

    def reference_keys(self, digest: str) -> tuple[str, ...]:
        """The normalised references that mean this image: by its tag, and by digest.

        Args:
            digest: the lock's; another than the reference's own where a substitute took its place.
        """
        repository = ImageRef.parse(self.ref).repository
        tag = [f"{repository}:{self.tag}"] if self.tag else []
        digests = [f"{repository}@{each}" for each in (digest, self.digest) if each]
        return tuple(dict.fromkeys(tag + digests))

    @property
    def lacks_redirect(self) -> bool:
        """Whether pods can ask for it at its source, and a person has to decide about that."""
        return "none" in self.redirects and self.covered and self.need != CHOICE


def collect_source_images(inventory: Inventory, settings: Images) -> tuple[SourceImage, ...]:
    """The images of an inventory and those that kfdeploy.yaml adds, by reference."""
    needs = {image.ref: image.need for image in inventory.images}
    places = {
        image.ref: [
            _UseRedirect(found.need, found.redirect, found.pin, found.pulled_by, _locate_use(found))
            for found in image.found
        ]
        for image in inventory.images
    }
    for ref in settings.extra:
        needs[ref] = "required"
    out = []
    for ref in sorted(needs):
        parsed = ImageRef.parse(ref)
        why_not = _explain_exclusion(ref, needs[ref], settings)
        out.append(
            SourceImage(
                ref,
                needs[ref],
                host_qualified_path(parsed),
                tag_of(parsed),
                parsed.digest,
                not why_not,
                why_not,
                **_summarize_redirects(places.get(ref, ())),
            )
        )
    return tuple(out)


@dataclass(frozen=True, slots=True)
class _UseRedirect:
    """What leads one place."""

    need: str
    redirect: str
    pin: str
    pulled_by: str
    where: SourceUse


def _locate_use(found: ImageUse) -> SourceUse:
    at = str(found.place) if found.place else ""
    return SourceUse(found.component, str(found.object), found.field, at)


def _summarize_redirects(places: Sequence[_UseRedirect]) -> dict[str, Any]:
    needed = [place for place in places if place.need != CHOICE]
    chosen = [place for place in places if place.need == CHOICE]
    return {
        "redirects": tuple(sorted({place.redirect for place in needed or chosen})),
        "by_tag": any(place.pin == "tag" for place in places),
        "is_loose": any(place.redirect == "none" for place in chosen),
        "is_copied": any(place.pulled_by for place in needed or chosen),
        "found": tuple(place.where for place in places),
    }


def _explain_exclusion(ref: str, need: str, settings: Images) -> str:
    for exclusion in settings.exclude:
        if fnmatchcase(ref, exclusion.ref):
            return f"excluded: {exclusion.reason}"
    if need not in settings.needs and ref not in settings.extra:
        return f"{need}: not among images.needs"
    return ""


def dump_sources(inventory: Inventory, images: Sequence[SourceImage]) -> str:
    """The file's text: sorted, a list a reference."""
    found = {image.ref: image for image in inventory.images}
    lines = [
        "# Written by `kfdeploy lock`: where each image was found and what redirects it.",
        "images:" if images else "images: []",
    ]
    for image in images:
        lines += [
            f"- ref: {json.dumps(image.ref)}",
            f"  need: {image.need}",
            f"  path: {json.dumps(image.path)}",
        ]
        if (repository := ImageRef.parse(image.ref).repository) != image.path:
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


def _dump_uses(image: InventoryImage | None) -> Iterable[str]:
    if image is None:
        yield "  found: []"
        return
    yield "  found:"
    for place in image.found:
        yield f"  - component: {place.component}"
        yield f"    object: {json.dumps(str(place.object))}"
        yield f"    field: {json.dumps(place.field)}"
        if place.place:
            yield f"    at: {json.dumps(str(place.place))}"
        if place.overridden_by:
            yield f"    overriddenBy: {json.dumps([str(p) for p in place.overridden_by])}"
        yield f"    need: {place.need}"
        yield f"    how: {place.how}"
        yield f"    redirect: {json.dumps(place.redirect)}"
        if place.pin:
            yield f"    pin: {place.pin}"
        if place.pulled_by:
            yield f"    pulledBy: {place.pulled_by}"
        if place.note:
            yield f"    note: {json.dumps(place.note)}"
        if place.source:
            yield f"    source: {json.dumps(place.source)}"


def parse_sources(text: str) -> tuple[SourceImage, ...]:
    """The images of the file; of their places, what `SourceImage` has.

    Raises:
        UserError: not what `lock` writes.
    """
    hint = "`kfdeploy lock` writes the file anew"
    try:
        data: Any = YAML(typ="safe").load(text)
        return tuple(
            SourceImage(
                item["ref"],
                item["need"],
                item["path"],
                item.get("tag", ""),
                item.get("digest", ""),
                item["covered"],
                item.get("reason", ""),
                **_summarize_redirects(
                    [
                        _UseRedirect(
                            place["need"],
                            place["redirect"],
                            place.get("pin", ""),
                            place.get("pulledBy", ""),
                            SourceUse(
                                place["component"],
                                place["object"],
                                place["field"],
                                place.get("at", ""),
                            ),
                        )
                        for place in item["found"]
                    ]
                ),
            )
            for item in data["images"]
        )
    except YAMLError as error:
        raise UserError(f"{NAME}: {str(error).splitlines()[0]}", hint=hint) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{NAME}: not a list of images as `lock` writes it", hint=hint) from error
