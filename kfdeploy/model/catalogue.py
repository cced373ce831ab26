"""What we know of an operator that its manifests do not say, and what its sites mean.

One file a component in ``kfdeploy/catalog/``; each fact with its source, ``repo@tag:path:line``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from kfdeploy.model.image import is_reference
from kfdeploy.model.objects import ObjectKey

FOLDER = Path(__file__).parent.parent / "catalog"
_NEEDS = ("required", "optional", "user-choice")


@dataclass(frozen=True, slots=True)
class Redirect:
    """How an image that no manifest names is led elsewhere: a flag or a variable to be added."""

    kind: str
    name: str
    container: str
    env: str = ""
    flag: str = ""

    def __str__(self) -> str:
        return f"env {self.env}" if self.env else f"flag {self.flag}"


@dataclass(frozen=True, slots=True)
class HiddenImage:
    """An image that an operator creates objects with, by a default in its code."""

    ref: str
    need: str
    when: str
    source: str
    redirect: Redirect | None
    upstream: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SiteRule:
    """What the images of certain sites are needed for."""

    kind: str
    name: str
    field: str
    need: str
    source: str
    line: str = ""
    ref: str = ""

    def matches(self, key: ObjectKey, where: str, line: str, ref: str) -> bool:
        return (
            fnmatchcase(key.kind, self.kind)
            and (
                fnmatchcase(key.name, self.name) or fnmatchcase(key.name, f"{self.name}-??????????")
            )
            and fnmatchcase(where, self.field)
            and (not self.line or bool(re.search(self.line, line)))
            and (not self.ref or fnmatchcase(ref, self.ref))
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A component's facts."""

    component: str
    objects: tuple[tuple[str, str], ...]
    sites: tuple[SiteRule, ...] = ()
    images: tuple[HiddenImage, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Catalogue:
    entries: tuple[Entry, ...]

    def need(self, key: ObjectKey, where: str, line: str, ref: str, default: str) -> str:
        """What an image at a site is needed for; the first rule that fits decides."""
        for entry in self.entries:
            for rule in entry.sites:
                if rule.matches(key, where, line, ref):
                    return rule.need
        return default

    def hidden(self, objects: Sequence[ObjectKey], version: str) -> Iterator[HiddenImage]:
        """The images without a site that the operators among these objects pull."""
        there = {(key.kind, key.name) for key in objects}
        for entry in self.entries:
            if entry.objects and set(entry.objects) <= there:
                for image in entry.images:
                    if any(fnmatchcase(version, pattern) for pattern in image.upstream):
                        yield image


class BadCatalogue(ValueError):
    """A catalogue file that does not fit the format; names file and key."""


@lru_cache(maxsize=4)
def load(folder: Path = FOLDER) -> Catalogue:
    """Read all of a folder's entries.

    Raises:
        BadCatalogue: names file and key.
    """
    entries = []
    for path in sorted(folder.glob("*.yaml")):
        data = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        entries.append(_entry(path.name, data))
    return Catalogue(tuple(entries))


def _entry(name: str, data: Any) -> Entry:
    _keys(name, data, {"component"}, {"objects", "sites", "images"})
    return Entry(
        component=data["component"],
        objects=tuple((item["kind"], item["name"]) for item in data.get("objects", ())),
        sites=tuple(_rule(f"{name}: sites[{i}]", r) for i, r in enumerate(data.get("sites", ()))),
        images=tuple(
            _image(f"{name}: images[{i}]", r) for i, r in enumerate(data.get("images", ()))
        ),
    )


def _rule(where: str, data: Any) -> SiteRule:
    _keys(where, data, {"kind", "name", "need", "source"}, {"field", "line", "ref"})
    _need(where, data["need"])
    return SiteRule(
        data["kind"],
        data["name"],
        data.get("field", "*"),
        data["need"],
        data["source"],
        data.get("line", ""),
        data.get("ref", ""),
    )


def _image(where: str, data: Any) -> HiddenImage:
    _keys(where, data, {"ref", "need", "when", "source", "upstream"}, {"redirect"})
    _need(where, data["need"])
    if not is_reference(data["ref"]):
        raise BadCatalogue(f"{where}.ref: {data['ref']!r} is no image reference")
    redirect = None
    if data.get("redirect"):
        _keys(f"{where}.redirect", data["redirect"], {"kind", "name", "container"}, {"env", "flag"})
        redirect = Redirect(**data["redirect"])
    return HiddenImage(
        data["ref"], data["need"], data["when"], data["source"], redirect, tuple(data["upstream"])
    )


def _keys(where: str, data: Any, required: set[str], optional: set[str]) -> None:
    if not isinstance(data, dict):
        raise BadCatalogue(f"{where}: not a mapping")
    if missing := required - set(data):
        raise BadCatalogue(f"{where}: lacks {', '.join(sorted(missing))}")
    if unknown := set(data) - required - optional:
        raise BadCatalogue(f"{where}: unknown {', '.join(sorted(unknown))}")


def _need(where: str, need: str) -> None:
    if need not in _NEEDS:
        raise BadCatalogue(f"{where}.need: {need!r} is none of {', '.join(_NEEDS)}")
