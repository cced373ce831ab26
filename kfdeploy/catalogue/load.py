"""The catalogue's files: YAML, one a component, read into `catalogue.Entry` and checked."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from kfdeploy.catalogue.facts import (
    Catalogue,
    CatalogueEntry,
    EgressFact,
    FalsePositive,
    HiddenImage,
    RegistryReader,
    ReviewedVersions,
    SiteRule,
    SiteSelector,
    UnavailableImage,
)
from kfdeploy.catalogue.versions import Version, VersionRange
from kfdeploy.errors import UserError
from kfdeploy.files import read_text, sha256_hex
from kfdeploy.images.inventory import NEEDS
from kfdeploy.images.redirect import Redirect
from kfdeploy.oci.reference import is_image_ref

FOLDER = Path(__file__).parent / "data"
SCHEMA = FOLDER.parent / "schema.json"
"""The same format as a JSON Schema, for editors: `kfdeploy schema --catalogue`."""
EGRESS_KINDS = (
    *("package-install", "model", "dataset", "web-asset", "webhook", "schema", "identity"),
    *("telemetry", "git", "other"),
)
_SOURCE = re.compile(
    r"[\w.-]+/[\w.-]+(?:@[^\s:;]+(?::[^\s;:]+:\d+(?:-\d+)?(?:,\s*\d+(?:-\d+)?)*)?|#\d+)"
)
_NO_TEXT = frozenset(
    (
        *("programs", "aliases", "read", "images", "unused", "sites", "asks", "lost", "egress"),
        *("refs", "of", "objects", "redirect", "digest", "versions"),
    )
)
"""Keys whose values are more than a text."""
_Value = Any


class InvalidCatalogue(UserError):
    """A catalogue file that does not fit the format; names file and key."""


class CatalogueLoader:
    """The catalogue, read when something asks for it: what is cached needs it not."""

    def __init__(self, own: Path | None = None, folder: Path = FOLDER) -> None:
        """Take a site's own folder; its entries come first and so decide.

        Raises:
            UserError: an entry of the site's own that is damaged, at once.
        """
        self._folder = folder
        paths = sorted(own.glob("*.yaml")) if own is not None and own.is_dir() else []
        self._texts = [(f"{path.parent.name}/{path.name}", read_text(path)) for path in paths]
        self._lock = threading.Lock()
        self._catalogue: Catalogue | None = None
        if paths:
            self.load()

    @property
    def own_digest(self) -> str:
        """A sum of what the site's own files hold; empty where there are none."""
        texts = [part for named in self._texts for part in named]
        return sha256_hex("\0".join(texts).encode()) if texts else ""

    def load(self) -> Catalogue:
        """All entries, each file checked.

        Raises:
            BadCatalogue: names file and key.
        """
        with self._lock:
            if self._catalogue is None:
                built_in = load_catalogue(self._folder)
                mine = tuple(_parse_text(name, text) for name, text in self._texts)
                self._catalogue = Catalogue((*mine, *built_in.entries))
            return self._catalogue


@lru_cache(maxsize=4)
def load_catalogue(folder: Path = FOLDER) -> Catalogue:
    """All entries of a folder.

    Raises:
        BadCatalogue: names file and key.
    """
    return Catalogue(
        tuple(_parse_text(path.name, read_text(path)) for path in sorted(folder.glob("*.yaml")))
    )


def _parse_text(name: str, text: str) -> CatalogueEntry:
    try:
        return parse_entry(name, YAML(typ="safe").load(text))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidCatalogue(f"{name}:{line}: broken YAML: {error.problem}") from error


def parse_entry(file: str, data: _Value) -> CatalogueEntry:
    """The entry that a file holds.

    Raises:
        BadCatalogue: names file and key.
    """
    sections: dict[str, Callable[[str, _Value], _Value]] = {
        "read": _parse_review,
        "images": _parse_image,
        "unused": _parse_false_positive,
        "sites": _parse_site_rule,
        "asks": _parse_registry_reader,
        "lost": _parse_unavailable,
        "egress": _parse_egress,
    }
    _check_keys(file, data, {"component"}, {"programs", "aliases", *sections})
    fields = {
        name: tuple(
            read(f"{file}: {name}[{index}]", item)
            for index, item in enumerate(_check_list(f"{file}: {name}", data.get(name)))
        )
        for name, read in sections.items()
    }
    aliases = data.get("aliases") or {}
    if not isinstance(aliases, dict):
        raise InvalidCatalogue(f"{file}: aliases: not a mapping")
    for alias, version in aliases.items():
        if not isinstance(version, str) or Version.parse(version) is None:
            raise InvalidCatalogue(f"{file}: aliases.{alias}: {version!r} is no version")
    return CatalogueEntry(
        component=data["component"],
        programs=_parse_words(f"{file}: programs", data.get("programs")),
        aliases=tuple((str(alias), version) for alias, version in aliases.items()),
        file=file,
        **fields,
    )


def _parse_review(where: str, data: _Value) -> ReviewedVersions:
    _check_keys(where, data, {"versions", "source"}, {"note"})
    _check_sources(where, data["source"])
    return ReviewedVersions(
        _parse_version_range(f"{where}.versions", data["versions"]),
        data["source"],
        data.get("note", ""),
    )


def _parse_image(where: str, data: _Value) -> HiddenImage:
    optional = {"ref", "refs", "of", "suffix", "versions", "digest", "objects", "redirect"}
    optional |= {"outside", "pulled_by"}
    _check_keys(where, data, {"need", "when", "source"}, optional)
    _check_need(where, data["need"])
    _check_sources(where, data["source"])
    if sum(name in data for name in ("ref", "refs", "of")) != 1:
        raise InvalidCatalogue(f"{where}: needs one of ref, refs and of")
    refs = _parse_words(f"{where}.refs", data.get("refs")) or tuple(filter(None, [data.get("ref")]))
    for ref in refs:
        if not is_image_ref(ref):
            raise InvalidCatalogue(f"{where}.ref: {ref!r} is no image reference")
    if not isinstance(data.get("digest", True), bool):
        raise InvalidCatalogue(f"{where}.digest: {data['digest']!r} is neither true nor false")
    of = None
    if "of" in data:
        _check_keys(f"{where}.of", data["of"], {"kind", "name", "field"}, set())
        of = SiteSelector(**data["of"])
    if data.get("pulled_by", "program") != "program":
        raise InvalidCatalogue(f"{where}.pulled_by: {data['pulled_by']!r} is not program")
    if bool(of) != ("suffix" in data):
        raise InvalidCatalogue(f"{where}: of and suffix belong together")
    for index, item in enumerate(_check_list(f"{where}.objects", data.get("objects"))):
        _check_keys(f"{where}.objects[{index}]", item, {"kind", "name"}, set())
    return HiddenImage(
        refs=refs,
        need=data["need"],
        when=data["when"],
        source=data["source"],
        redirect=_parse_redirect(f"{where}.redirect", data["redirect"])
        if "redirect" in data
        else None,
        versions=_parse_version_ranges(where, data),
        digest=data.get("digest", True),
        objects=tuple((item["kind"], item["name"]) for item in data.get("objects") or ()),
        of=of,
        suffix=data.get("suffix", ""),
        outside=data.get("outside", ""),
        pulled_by=data.get("pulled_by", ""),
    )


def _parse_redirect(where: str, data: _Value) -> Redirect:
    ways = {"flag", "env", "key", "field", "file"}
    _check_keys(where, data, {"kind", "name"}, {"container", "content", "value", "source", *ways})
    if len(ways & set(data)) != 1:
        raise InvalidCatalogue(f"{where}: needs one of {', '.join(sorted(ways))}")
    in_container = {"flag", "env", "file"} & set(data)
    if bool(in_container) != ("container" in data):
        raise InvalidCatalogue(f"{where}: flag, env and file need a container, and only they")
    if ("file" in data) != ("content" in data):
        raise InvalidCatalogue(f"{where}: file and content belong together")
    if data.get("value", "{ref}") not in ("{ref}", "{repository}", "{tag}"):
        raise InvalidCatalogue(f"{where}.value: {{ref}}, {{repository}} or {{tag}}")
    if "source" in data:
        _check_sources(where, data["source"])
    return Redirect(**{name: str(value) for name, value in data.items()})


def _parse_site_rule(where: str, data: _Value) -> SiteRule:
    optional = {"field", "line", "ref", "pin", "why", "versions"}
    _check_keys(where, data, {"kind", "name", "need", "source"}, optional)
    _check_need(where, data["need"])
    _check_sources(where, data["source"])
    if data.get("pin", "tag") != "tag":
        raise InvalidCatalogue(f"{where}.pin: {data['pin']!r} is not tag")
    if "pin" in data and not data.get("why"):
        raise InvalidCatalogue(f"{where}: pin needs a why")
    return SiteRule(
        kind=data["kind"],
        name=data["name"],
        field=data.get("field", "*"),
        need=data["need"],
        source=data["source"],
        line=data.get("line", ""),
        ref=data.get("ref", ""),
        pin=data.get("pin", ""),
        why=data.get("why", ""),
        versions=_parse_version_ranges(where, data),
    )


def _parse_false_positive(where: str, data: _Value) -> FalsePositive:
    _check_keys(where, data, {"ref", "why", "source"}, set())
    _check_sources(where, data["source"])
    return FalsePositive(**data)


def _parse_registry_reader(where: str, data: _Value) -> RegistryReader:
    optional = {"spared_by", "ca", "credentials", "role", "versions"}
    _check_keys(where, data, {"kind", "name", "container", "what", "source"}, optional)
    _check_sources(where, data["source"])
    return RegistryReader(**{**data, "versions": _parse_version_ranges(where, data)})


def _parse_unavailable(where: str, data: _Value) -> UnavailableImage:
    _check_keys(where, data, {"ref", "why", "source"}, {"substitute"})
    _check_sources(where, data["source"])
    substitute = data.get("substitute")
    if substitute and not is_image_ref(str(substitute).replace("{tag}", "1")):
        raise InvalidCatalogue(f"{where}.substitute: {data['substitute']!r} is no image reference")
    return UnavailableImage(**data)


def _parse_egress(where: str, data: _Value) -> EgressFact:
    required = {"what", "target", "when", "way_out", "need", "source"}
    _check_keys(where, data, required, {"versions"})
    _check_need(where, data["need"])
    _check_sources(where, data["source"])
    if data["what"] not in EGRESS_KINDS:
        raise InvalidCatalogue(
            f"{where}.what: {data['what']!r} is none of {', '.join(EGRESS_KINDS)}"
        )
    return EgressFact(**{**data, "versions": _parse_version_ranges(where, data)})


# --- checks ---------------------------------------------------------------------------------------


def _check_keys(where: str, data: _Value, required: set[str], optional: set[str]) -> None:
    if not isinstance(data, dict):
        raise InvalidCatalogue(f"{where}: not a mapping")
    if missing := required - set(data):
        raise InvalidCatalogue(f"{where}: lacks {', '.join(sorted(missing))}")
    if unknown := set(data) - required - optional:
        raise InvalidCatalogue(f"{where}: unknown {', '.join(sorted(map(str, unknown)))}")
    for key in data.keys() - _NO_TEXT:
        if not isinstance(data[key], str) or not (data[key] or key == "content"):
            at = f"{where}.{key}" if ": " in where else f"{where}: {key}"
            raise InvalidCatalogue(f"{at}: {data[key]!r} is no text")


def _check_list(where: str, data: _Value) -> Sequence[_Value]:
    if data is None:
        return ()
    if not isinstance(data, list):
        raise InvalidCatalogue(f"{where}: not a list")
    return data


def _parse_words(where: str, data: _Value) -> tuple[str, ...]:
    items = _check_list(where, data)
    if not all(isinstance(item, str) and item for item in items):
        raise InvalidCatalogue(f"{where}: not a list of words")
    return tuple(items)


def _check_need(where: str, need: _Value) -> None:
    if need not in NEEDS:
        raise InvalidCatalogue(f"{where}.need: {need!r} is none of {', '.join(NEEDS)}")


def _check_sources(where: str, source: _Value) -> None:
    """``OWNER/REPO@TAG[:path:line]`` or ``OWNER/REPO#ISSUE``, several divided by ``; ``."""
    for one in str(source).split("; "):
        if not _SOURCE.fullmatch(one):
            raise InvalidCatalogue(f"{where}.source: {one!r} is not OWNER/REPO@TAG:path:line")


def _parse_version_ranges(where: str, data: Mapping[str, _Value]) -> tuple[VersionRange, ...]:
    given = data.get("versions")
    if given is None:
        return ()
    items = given if isinstance(given, list) else [given]
    return tuple(_parse_version_range(f"{where}.versions", item) for item in items)


def _parse_version_range(where: str, text: _Value) -> VersionRange:
    if not isinstance(text, str):
        # 1.10 without quotes is the number 1.1.
        raise InvalidCatalogue(f"{where}: {text!r} is no text: put the version in quotes")
    try:
        return VersionRange.parse(text)
    except ValueError as error:
        raise InvalidCatalogue(f"{where}: {error}") from error
