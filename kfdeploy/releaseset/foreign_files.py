"""References in the files of a release set that lead elsewhere than to the private registry.

`foreign_references` finds them in any text. Here are the files, and the places that a search of the
text cannot judge: containers, the values of Secrets, charts, and objects of features.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from kfdeploy.checksums import SUMS_FILE
from kfdeploy.features.registry import collect_upstream_namers
from kfdeploy.files import read_text
from kfdeploy.kubernetes.accessors import get_mapping
from kfdeploy.kubernetes.objects import Object, split_objects
from kfdeploy.kubernetes.workload import CONTAINERS, WORKLOADS
from kfdeploy.oci.reference import DEFAULT_HOST
from kfdeploy.releaseset.foreign_references import ForeignReference, find_foreign_references
from kfdeploy.releaseset.summary import SUMMARY_FILE, SetSummary

_LISTS_UPSTREAM: Final = frozenset((SUMS_FILE, SUMMARY_FILE, "images.lock"))
"""Files that name upstream's references on purpose; nothing is installed from them."""
_OWN_TEMPLATE: Final = '{{ .Files.Get "objects.yaml" }}\n'
_KIND: Final = re.compile(r"^kind: (\w+)", re.MULTILINE)
_FROM_OUTSIDE: Final = re.compile(
    r"^\s*(?:- )?(?P<key>chart|url|repository): *[\"']?(?!\./)(?P<value>[^\s\"']+)"
    r"|^(?P<section>repositories|dependencies|bases|helmfiles):"
)


def find_foreign_in_set(
    folder: Path, summary: SetSummary, uncovered: Container[str]
) -> Iterator[ForeignReference]:
    """Yield references that lead elsewhere, file by file, each once.

    Args:
        uncovered: images that a person accepted without a redirect.
    """
    expected = _ExpectedReferences.of_set(summary, uncovered)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in _LISTS_UPSTREAM:
            yield from _find_in_file(SetFile(name, read_text(path)), expected)


@dataclass(frozen=True)
class _ExpectedReferences:
    """References that a set may have, and those that it may not.

    Attributes:
        registry: HOST[/PREFIX] that references must begin with.
        upstream: references as upstream names them, also without their tag.
        mirror: references of the set's images in the private registry.
        accepted: further images that containers may have.
    """

    registry: str
    upstream: frozenset[str]
    mirror: frozenset[str]
    accepted: Container[str]

    @classmethod
    def of_set(cls, summary: SetSummary, uncovered: Container[str]) -> _ExpectedReferences:
        upstream: set[str] = set()
        for ref, image in summary.images.items():
            upstream |= {ref.text, str(image.upstream)}
            # Without a host a repository's name is any word: `mysql`, `redis`.
            if image.upstream.host != DEFAULT_HOST:
                upstream.add(image.upstream.repository)
        mirror = {str(ref) for image in summary.images.values() for ref in image.mirror_refs}
        return cls(summary.registry, frozenset(upstream), frozenset(mirror), uncovered)

    def allows_container_image(self, image: str) -> bool:
        return image in self.mirror or image in self.accepted


@dataclass(frozen=True)
class NumberedObject:
    """An object in a file, and how many lines are before it."""

    object: Object
    lines_before: int

    @cached_property
    def kind(self) -> str:
        """The kind, read without parsing; empty for an object in JSON."""
        match = _KIND.search(self.object.text)
        return match[1] if match else ""

    @property
    def line_range(self) -> range:
        first = self.lines_before + 1
        return range(first, first + self.object.text.count("\n") + 1)

    def line_of(self, text: str) -> int:
        """Return the line that has a text; the object's first where it is written otherwise."""
        before, found, _ = self.object.text.partition(text)
        return self.lines_before + (before.count("\n") + 1 if found else 1)


@dataclass(frozen=True)
class SetFile:
    """A file of a set: its path below the set, and its text."""

    name: str
    text: str

    @property
    def has_objects(self) -> bool:
        """True for a release's manifests."""
        return self.name.endswith("objects.yaml")

    @cached_property
    def objects(self) -> tuple[NumberedObject, ...]:
        """The objects of its manifests; none where it is another file."""
        return tuple(self._number_objects()) if self.has_objects else ()

    def _number_objects(self) -> Iterator[NumberedObject]:
        at = 0
        for item in split_objects(self.text, self.name):
            at = self.text.index(item.text.rstrip("\n"), at)
            yield NumberedObject(item, self.text.count("\n", 0, at))


def _find_in_file(file: SetFile, expected: _ExpectedReferences) -> Iterator[ForeignReference]:
    let_through = list(_lines_of_upstream_namers(file))
    seen: set[ForeignReference] = set()
    for search in _SEARCHES:
        for found in search(file, expected):
            if found not in seen and not any(found.line in lines for lines in let_through):
                seen.add(found)
                yield found


def _lines_of_upstream_namers(file: SetFile) -> Iterator[range]:
    """Yield the lines of objects that name upstream's references so as to rewrite them."""
    kinds = collect_upstream_namers()
    if any(kind in file.text for kind in kinds):
        yield from (item.line_range for item in file.objects if item.kind in kinds)


def _search_text(file: SetFile, expected: _ExpectedReferences) -> Iterator[ForeignReference]:
    return find_foreign_references(
        file.name,
        file.text,
        known=expected.upstream,
        registry=expected.registry,
        is_crd=file.name.startswith("crds/"),
    )


def _search_containers(file: SetFile, expected: _ExpectedReferences) -> Iterator[ForeignReference]:
    """Yield images of containers that are not exactly one of the set's.

    A search of the text misses a name of Docker Hub that could be another word, a tag that was not
    locked, and an image that is not mirrored.
    """
    for item in file.objects:
        if item.kind in WORKLOADS:
            for image in _container_images(item.object.body):
                if not expected.allows_container_image(image):
                    yield ForeignReference(file.name, item.line_of(image), image)


def _container_images(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for value in node:
            yield from _container_images(value)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in CONTAINERS and isinstance(value, list):
                images = (each.get("image") for each in value if isinstance(each, dict))
                yield from (image for image in images if isinstance(image, str))
            yield from _container_images(value)


def _search_secrets(file: SetFile, expected: _ExpectedReferences) -> Iterator[ForeignReference]:
    """Yield references in the values of Secrets, which are base64 and hide them from a search."""
    for item in file.objects:
        if item.kind != "Secret":
            continue
        for key, value in get_mapping(item.object.body, "data").items():
            for found in find_foreign_references(
                file.name,
                _decode_base64(str(value)),
                known=expected.upstream,
                registry=expected.registry,
            ):
                yield ForeignReference(file.name, item.line_of(f"{key}:"), found.reference)


def _decode_base64(value: str) -> str:
    """Return the text of a Secret's value; empty where it is not a text."""
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except ValueError:
        return ""


def _search_charts(file: SetFile, _: _ExpectedReferences) -> Iterator[ForeignReference]:
    """Yield charts, repositories and templates that Helm or Helmfile would take from elsewhere."""
    if "/templates/" in file.name:
        if file.text != _OWN_TEMPLATE:
            reason = "a template that `kfdeploy render` does not write"
            yield ForeignReference(file.name, 1, reason)
    elif file.name.rpartition("/")[2] in ("helmfile.yaml", "Chart.yaml"):
        for number, line in enumerate(file.text.splitlines(), 1):
            if match := _FROM_OUTSIDE.match(line):
                found = match["value"] or f"{match['section']}:"
                yield ForeignReference(file.name, number, found)


_Search = Callable[[SetFile, _ExpectedReferences], Iterator[ForeignReference]]
_SEARCHES: Final[tuple[_Search, ...]] = (
    _search_text,
    _search_containers,
    _search_secrets,
    _search_charts,
)
