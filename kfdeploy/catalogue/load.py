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
    Asks,
    Catalogue,
    Egress,
    Entry,
    HiddenImage,
    Lost,
    Read,
    SiteOf,
    SiteRule,
    Unused,
)
from kfdeploy.catalogue.versions import Version, Versions
from kfdeploy.errors import UserError
from kfdeploy.files import read_text, sha256
from kfdeploy.images.inventory import NEEDS
from kfdeploy.images.redirect import Redirect
from kfdeploy.oci.reference import is_reference

FOLDER = Path(__file__).parent / "data"
SCHEMA = FOLDER.parent / "schema.json"
"""The same format as a JSON Schema, for editors: `kfdeploy schema --catalogue`."""
EGRESS = (
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


class BadCatalogue(UserError):
    """A catalogue file that does not fit the format; names file and key."""


class Facts:
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
            self.catalogue()

    @property
    def own(self) -> str:
        """A sum of what the site's own files hold; empty where there are none."""
        texts = [part for named in self._texts for part in named]
        return sha256("\0".join(texts).encode()) if texts else ""

    def catalogue(self) -> Catalogue:
        """All entries, each file checked.

        Raises:
            BadCatalogue: names file and key.
        """
        with self._lock:
            if self._catalogue is None:
                built_in = load(self._folder)
                mine = tuple(_parse(name, text) for name, text in self._texts)
                self._catalogue = Catalogue((*mine, *built_in.entries))
            return self._catalogue


@lru_cache(maxsize=4)
def load(folder: Path = FOLDER) -> Catalogue:
    """All entries of a folder.

    Raises:
        BadCatalogue: names file and key.
    """
    return Catalogue(
        tuple(_parse(path.name, read_text(path)) for path in sorted(folder.glob("*.yaml")))
    )


def _parse(name: str, text: str) -> Entry:
    try:
        return entry(name, YAML(typ="safe").load(text))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadCatalogue(f"{name}:{line}: broken YAML: {error.problem}") from error


def entry(file: str, data: _Value) -> Entry:
    """The entry that a file holds.

    Raises:
        BadCatalogue: names file and key.
    """
    sections: dict[str, Callable[[str, _Value], _Value]] = {
        "read": _read,
        "images": _image,
        "unused": _unused,
        "sites": _rule,
        "asks": _asks,
        "lost": _lost,
        "egress": _egress,
    }
    _keys(file, data, {"component"}, {"programs", "aliases", *sections})
    fields = {
        name: tuple(
            read(f"{file}: {name}[{index}]", item)
            for index, item in enumerate(_list(f"{file}: {name}", data.get(name)))
        )
        for name, read in sections.items()
    }
    aliases = data.get("aliases") or {}
    if not isinstance(aliases, dict):
        raise BadCatalogue(f"{file}: aliases: not a mapping")
    for alias, version in aliases.items():
        if not isinstance(version, str) or Version.parse(version) is None:
            raise BadCatalogue(f"{file}: aliases.{alias}: {version!r} is no version")
    return Entry(
        component=data["component"],
        programs=_words(f"{file}: programs", data.get("programs")),
        aliases=tuple((str(alias), version) for alias, version in aliases.items()),
        file=file,
        **fields,
    )


def _read(where: str, data: _Value) -> Read:
    _keys(where, data, {"versions", "source"}, {"note"})
    _sources(where, data["source"])
    return Read(_range(f"{where}.versions", data["versions"]), data["source"], data.get("note", ""))


def _image(where: str, data: _Value) -> HiddenImage:
    optional = {"ref", "refs", "of", "suffix", "versions", "digest", "objects", "redirect"}
    optional |= {"outside", "pulled_by"}
    _keys(where, data, {"need", "when", "source"}, optional)
    _need(where, data["need"])
    _sources(where, data["source"])
    if sum(name in data for name in ("ref", "refs", "of")) != 1:
        raise BadCatalogue(f"{where}: needs one of ref, refs and of")
    refs = _words(f"{where}.refs", data.get("refs")) or tuple(filter(None, [data.get("ref")]))
    for ref in refs:
        if not is_reference(ref):
            raise BadCatalogue(f"{where}.ref: {ref!r} is no image reference")
    if not isinstance(data.get("digest", True), bool):
        raise BadCatalogue(f"{where}.digest: {data['digest']!r} is neither true nor false")
    of = None
    if "of" in data:
        _keys(f"{where}.of", data["of"], {"kind", "name", "field"}, set())
        of = SiteOf(**data["of"])
    if data.get("pulled_by", "program") != "program":
        raise BadCatalogue(f"{where}.pulled_by: {data['pulled_by']!r} is not program")
    if bool(of) != ("suffix" in data):
        raise BadCatalogue(f"{where}: of and suffix belong together")
    for index, item in enumerate(_list(f"{where}.objects", data.get("objects"))):
        _keys(f"{where}.objects[{index}]", item, {"kind", "name"}, set())
    return HiddenImage(
        refs=refs,
        need=data["need"],
        when=data["when"],
        source=data["source"],
        redirect=_redirect(f"{where}.redirect", data["redirect"]) if "redirect" in data else None,
        versions=_ranges(where, data),
        digest=data.get("digest", True),
        objects=tuple((item["kind"], item["name"]) for item in data.get("objects") or ()),
        of=of,
        suffix=data.get("suffix", ""),
        outside=data.get("outside", ""),
        pulled_by=data.get("pulled_by", ""),
    )


def _redirect(where: str, data: _Value) -> Redirect:
    ways = {"flag", "env", "key", "field", "file"}
    _keys(where, data, {"kind", "name"}, {"container", "content", "value", "source", *ways})
    if len(ways & set(data)) != 1:
        raise BadCatalogue(f"{where}: needs one of {', '.join(sorted(ways))}")
    in_container = {"flag", "env", "file"} & set(data)
    if bool(in_container) != ("container" in data):
        raise BadCatalogue(f"{where}: flag, env and file need a container, and only they")
    if ("file" in data) != ("content" in data):
        raise BadCatalogue(f"{where}: file and content belong together")
    if data.get("value", "{ref}") not in ("{ref}", "{repository}", "{tag}"):
        raise BadCatalogue(f"{where}.value: {{ref}}, {{repository}} or {{tag}}")
    if "source" in data:
        _sources(where, data["source"])
    return Redirect(**{name: str(value) for name, value in data.items()})


def _rule(where: str, data: _Value) -> SiteRule:
    optional = {"field", "line", "ref", "pin", "why", "versions"}
    _keys(where, data, {"kind", "name", "need", "source"}, optional)
    _need(where, data["need"])
    _sources(where, data["source"])
    if data.get("pin", "tag") != "tag":
        raise BadCatalogue(f"{where}.pin: {data['pin']!r} is not tag")
    if "pin" in data and not data.get("why"):
        raise BadCatalogue(f"{where}: pin needs a why")
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
        versions=_ranges(where, data),
    )


def _unused(where: str, data: _Value) -> Unused:
    _keys(where, data, {"ref", "why", "source"}, set())
    _sources(where, data["source"])
    return Unused(**data)


def _asks(where: str, data: _Value) -> Asks:
    optional = {"spared_by", "ca", "credentials", "role", "versions"}
    _keys(where, data, {"kind", "name", "container", "what", "source"}, optional)
    _sources(where, data["source"])
    return Asks(**{**data, "versions": _ranges(where, data)})


def _lost(where: str, data: _Value) -> Lost:
    _keys(where, data, {"ref", "why", "source"}, {"substitute"})
    _sources(where, data["source"])
    substitute = data.get("substitute")
    if substitute and not is_reference(str(substitute).replace("{tag}", "1")):
        raise BadCatalogue(f"{where}.substitute: {data['substitute']!r} is no image reference")
    return Lost(**data)


def _egress(where: str, data: _Value) -> Egress:
    required = {"what", "target", "when", "way_out", "need", "source"}
    _keys(where, data, required, {"versions"})
    _need(where, data["need"])
    _sources(where, data["source"])
    if data["what"] not in EGRESS:
        raise BadCatalogue(f"{where}.what: {data['what']!r} is none of {', '.join(EGRESS)}")
    return Egress(**{**data, "versions": _ranges(where, data)})


# --- checks ---------------------------------------------------------------------------------------


def _keys(where: str, data: _Value, required: set[str], optional: set[str]) -> None:
    if not isinstance(data, dict):
        raise BadCatalogue(f"{where}: not a mapping")
    if missing := required - set(data):
        raise BadCatalogue(f"{where}: lacks {', '.join(sorted(missing))}")
    if unknown := set(data) - required - optional:
        raise BadCatalogue(f"{where}: unknown {', '.join(sorted(map(str, unknown)))}")
    for key in data.keys() - _NO_TEXT:
        if not isinstance(data[key], str) or not (data[key] or key == "content"):
            at = f"{where}.{key}" if ": " in where else f"{where}: {key}"
            raise BadCatalogue(f"{at}: {data[key]!r} is no text")


def _list(where: str, data: _Value) -> Sequence[_Value]:
    if data is None:
        return ()
    if not isinstance(data, list):
        raise BadCatalogue(f"{where}: not a list")
    return data


def _words(where: str, data: _Value) -> tuple[str, ...]:
    items = _list(where, data)
    if not all(isinstance(item, str) and item for item in items):
        raise BadCatalogue(f"{where}: not a list of words")
    return tuple(items)


def _need(where: str, need: _Value) -> None:
    if need not in NEEDS:
        raise BadCatalogue(f"{where}.need: {need!r} is none of {', '.join(NEEDS)}")


def _sources(where: str, source: _Value) -> None:
    """``OWNER/REPO@TAG[:path:line]`` or ``OWNER/REPO#ISSUE``, several divided by ``; ``."""
    for one in str(source).split("; "):
        if not _SOURCE.fullmatch(one):
            raise BadCatalogue(f"{where}.source: {one!r} is not OWNER/REPO@TAG:path:line")


def _ranges(where: str, data: Mapping[str, _Value]) -> tuple[Versions, ...]:
    given = data.get("versions")
    if given is None:
        return ()
    items = given if isinstance(given, list) else [given]
    return tuple(_range(f"{where}.versions", item) for item in items)


def _range(where: str, text: _Value) -> Versions:
    if not isinstance(text, str):
        # 1.10 without quotes is the number 1.1.
        raise BadCatalogue(f"{where}: {text!r} is no text: put the version in quotes")
    try:
        return Versions.parse(text)
    except ValueError as error:
        raise BadCatalogue(f"{where}: {error}") from error
