"""``summary.json``: what a release set says of itself, as one value that is written and read here.

Sets of every earlier kfdeploy can be read: keys that came later have a default. Keys that this
kfdeploy does not know are ignored. A change that an older reader would misunderstand raises
`FORMAT` (docs/decisions/017-the-summary-of-a-set.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from kfdeploy.images.inventory import UnreviewedGroup
from kfdeploy.json_object import JsonObject, parse_json_object
from kfdeploy.oci.reference import ImageRef, InvalidImageRef, WrittenRef

SUMMARY_FILE: Final = "summary.json"
FORMAT: Final = 1
"""The only format so far; it is not written, and a file without the key has it."""
REDIRECTS: Final = ("patch", "env", "flag", "config", "admission", "none")
"""First words of what leads an image to the private registry; the strongest comes first."""
_RELEASE_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSummary:
    """One image of a set.

    Attributes:
        ref: the reference as upstream names it; the id that ``images.lock`` has.
        mirror: the reference in the private registry that the set's objects have.
        source: repository at the digest that is mirrored; None where the image is not locked.
        need: ``required``, ``optional`` or ``user-choice``; empty in a set that does not say.
        redirects: what leads its places to the private registry: one of `REDIRECTS` and a name.
        by_tag: the reference of places where a digest would break what is made of it.
        is_loose: users may name it in a place that nothing redirects.
        is_copied: a program copies it itself, from where its code says.
        is_unpinned: it is rendered by its tag, because it is not locked.
        lacks_redirect: nothing leads a place of it to the private registry.
        why_not_mirrored: the reason why the private registry need not have it; None where it must.
    """

    ref: WrittenRef
    mirror: ImageRef
    source: ImageRef | None = None
    need: str = ""
    redirects: tuple[str, ...] = ()
    by_tag: ImageRef | None = None
    is_loose: bool = False
    is_copied: bool = False
    is_unpinned: bool = False
    lacks_redirect: bool = False
    why_not_mirrored: str | None = None

    @property
    def upstream(self) -> ImageRef:
        """The reference as upstream names it, normalised."""
        return self.ref.parsed

    @property
    def is_mirrored(self) -> bool:
        """True if the private registry must have it."""
        return self.why_not_mirrored is None

    @property
    def digest(self) -> str:
        """The mirror's digest, else the locked one; empty for an image that goes by its tag."""
        return self.mirror.digest or (self.source.digest if self.source else "")

    @property
    def mirror_refs(self) -> tuple[ImageRef, ...]:
        """All references to it in the set's objects."""
        return (self.mirror, self.by_tag) if self.by_tag else (self.mirror,)

    def to_json(self) -> dict[str, Any]:
        """Return the value of its key in ``images``."""
        return {
            "mirror": str(self.mirror),
            "source": str(self.source or ""),
            "need": self.need,
            "redirects": list(self.redirects),
            **({"loose": True} if self.is_loose else {}),
            **({"copied": True} if self.is_copied else {}),
            **({"byTag": str(self.by_tag)} if self.by_tag else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSummary:
    """One Helm release of a set.

    Attributes:
        needs: names of releases that come before it.
        wait: it is done only when its workloads are ready.
        trusts: ``KIND/NAME`` of webhook configurations that must have their CA before it.
        object_count: its objects without CRDs.
        stored_bytes: what Helm's record of it takes, estimated.
    """

    name: str
    component: str
    needs: tuple[str, ...] = ()
    wait: bool = False
    trusts: tuple[str, ...] = ()
    object_count: int = 0
    crd_count: int = 0
    stored_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return its entry in ``releases``."""
        return {
            "name": self.name,
            "component": self.component,
            "needs": list(self.needs),
            "wait": self.wait,
            "trusts": list(self.trusts),
            "objects": self.object_count,
            "crds": self.crd_count,
            "storedBytes": self.stored_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class SetSummary:
    """A release set without its manifests.

    Attributes:
        kfdeploy: the version that rendered it.
        upstream: Kubeflow's version.
        registry: HOST[/PREFIX] of the private registry.
        platforms: that the environment names; empty for all that an image has.
        images: all of them, by `ImageSummary.ref`.
        releases: in an order in which they can be installed.
        waves: names of releases; each needs only what earlier waves have. Empty in a set of an
            early kfdeploy.
        unreviewed: programs that may pull images which nobody knows.
    """

    environment: str
    kfdeploy: str
    upstream: str
    registry: str
    kube_version: str
    platforms: tuple[str, ...] = ()
    images: Mapping[WrittenRef, ImageSummary]
    releases: tuple[ReleaseSummary, ...]
    waves: tuple[tuple[str, ...], ...] = ()
    unreviewed: tuple[UnreviewedGroup, ...] = ()

    @property
    def unpinned(self) -> list[str]:
        """References of images that are rendered by their tag."""
        return sorted(image.ref.text for image in self.images.values() if image.is_unpinned)

    @property
    def not_mirrored(self) -> dict[str, str]:
        """Images that the private registry need not have, and why."""
        return {
            ref.text: image.why_not_mirrored
            for ref, image in sorted(self.images.items())
            if image.why_not_mirrored is not None
        }

    @cached_property
    def wave_of(self) -> Mapping[str, int]:
        """Release to its wave."""
        return {name: number for number, names in enumerate(self.waves) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Return the file's content."""
        return {
            "environment": self.environment,
            "kfdeploy": self.kfdeploy,
            "upstream": self.upstream,
            "registry": self.registry,
            "kubeVersion": self.kube_version,
            "platforms": list(self.platforms),
            "unpinned": self.unpinned,
            "notMirrored": self.not_mirrored,
            "notRead": [
                {"program": group.program, "version": group.version, "images": list(group.images)}
                for group in self.unreviewed
            ],
            "noRedirect": sorted(i.ref.text for i in self.images.values() if i.lacks_redirect),
            "images": {ref.text: image.to_json() for ref, image in self.images.items()},
            "releases": [release.to_json() for release in self.releases],
            "waves": [list(wave) for wave in self.waves],
        }


def dump_summary(summary: SetSummary) -> bytes:
    """Return the file's bytes, with sorted keys."""
    return (json.dumps(summary.to_json(), indent=2, sort_keys=True) + "\n").encode()


def parse_summary(text: str) -> SetSummary:
    """Read the file.

    Raises:
        InvalidJson: it is not what any kfdeploy up to this one writes; the message names the key.
    """
    top = parse_json_object(text)
    version = top.get_number("format", default=FORMAT)
    if version != FORMAT:
        raise top.error("format", f"{version} is not known here, only {FORMAT}: a later kfdeploy's")
    releases = tuple(_parse_releases(top))
    return SetSummary(
        environment=top.get_text("environment"),
        kfdeploy=top.get_text("kfdeploy"),
        upstream=top.get_text("upstream"),
        registry=top.get_text("registry"),
        kube_version=top.get_text("kubeVersion"),
        platforms=top.get_texts("platforms", default=()),
        images={image.ref: image for image in _parse_images(top)},
        releases=releases,
        waves=tuple(_parse_waves(top, {release.name for release in releases})),
        unreviewed=tuple(map(_parse_group, top.get_objects("notRead", default=()))),
    )


def _parse_images(top: JsonObject) -> Iterator[ImageSummary]:
    images = top.get_object("images")
    unpinned = top.get_texts("unpinned", default=())
    no_redirect = top.get_texts("noRedirect", default=())
    not_mirrored = top.get_text_map("notMirrored", default={})
    for key, refs in (
        ("unpinned", unpinned),
        ("noRedirect", no_redirect),
        ("notMirrored", not_mirrored),
    ):
        _check_names(top, key, refs, images.content, "images")
    for text, image in images.iter_objects():
        yield ImageSummary(
            ref=WrittenRef(text, _parse_ref(images, text, text)),
            mirror=_get_ref(image, "mirror"),
            source=_get_ref(image, "source") if image.content.get("source") else None,
            need=image.get_text("need", default=""),
            redirects=_get_redirects(image),
            by_tag=_get_ref(image, "byTag") if "byTag" in image else None,
            is_loose=image.get_flag("loose", default=False),
            is_copied=image.get_flag("copied", default=False),
            is_unpinned=text in unpinned,
            lacks_redirect=text in no_redirect,
            why_not_mirrored=not_mirrored.get(text),
        )


def _parse_releases(top: JsonObject) -> Iterator[ReleaseSummary]:
    before: set[str] = set()
    for entry in top.get_objects("releases"):
        name = entry.get_text("name", _RELEASE_NAME)
        if name in before:
            raise entry.error("name", f"{name} is there twice")
        needs = entry.get_texts("needs", default=())
        # This also rules out releases that need each other.
        _check_names(entry, "needs", needs, before, "the releases before it")
        before.add(name)
        yield ReleaseSummary(
            name=name,
            component=entry.get_text("component", default=name),
            needs=needs,
            wait=entry.get_flag("wait", default=False),
            trusts=entry.get_texts("trusts", default=()),
            object_count=entry.get_number("objects"),
            crd_count=entry.get_number("crds"),
            stored_bytes=entry.get_number("storedBytes"),
        )


def _parse_waves(top: JsonObject, releases: Container[str]) -> Iterator[tuple[str, ...]]:
    for wave in top.get_text_lists("waves", default=()):
        _check_names(top, "waves", wave, releases, "releases")
        yield wave


def _parse_group(entry: JsonObject) -> UnreviewedGroup:
    images = entry.get_texts("images")
    if not images:
        raise entry.error("images", "empty")
    return UnreviewedGroup(entry.get_text("program"), entry.get_text("version"), images)


def _get_redirects(image: JsonObject) -> tuple[str, ...]:
    redirects = image.get_texts("redirects", default=())
    for redirect in redirects:
        if redirect.partition(" ")[0] not in REDIRECTS:
            raise image.error("redirects", f"{redirect!r} is no redirect")
    return redirects


def _get_ref(image: JsonObject, key: str) -> ImageRef:
    return _parse_ref(image, key, image.get_text(key))


def _parse_ref(place: JsonObject, key: str, text: str) -> ImageRef:
    try:
        return ImageRef.parse(text)
    except InvalidImageRef as error:
        raise place.error(key, str(error)) from error


def _check_names(
    place: JsonObject, key: str, names: Iterable[str], known: Container[str], group: str
) -> None:
    for name in names:
        if name not in known:
            raise place.error(key, f"{name} is not among {group}")
