"""A kustomization's text as values: what it refers to, and where each of it stands.

Fields and their meaning: ``types/kustomization.go`` of kustomize's API
(sigs.k8s.io/kustomize/api@v0.21.1), which matches field names without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kfdeploy.upstream.kustomization.nodes import (
    FieldMapping,
    InvalidKustomization,
    LocatedText,
    compose_first_document,
    is_map,
    is_text,
    locate_text,
)
from kfdeploy.upstream.remote import Accepts

__all__ = [
    "DEFAULT_CHART_HOME",
    "FILE_NAMES",
    "ChartReference",
    "ImageOverride",
    "InvalidKustomization",
    "KeyValue",
    "Kustomization",
    "KustomizeGenerator",
    "KustomizePatch",
    "LocatedText",
    "Reference",
    "ScalarSpan",
    "parse_kustomization",
    "replace_references",
]

FILE_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
"""Names kustomize looks for; two of them in one folder are an error."""

DEFAULT_CHART_HOME = "charts"

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./@+=-]*(?:[:?&][A-Za-z0-9_./@+=-]+)*")
_INLINE = re.compile(r"\s*(?:[{\[]|[\w.-]+:(?:\s|$)|---)")


@dataclass(frozen=True, slots=True)
class ScalarSpan:
    """A scalar's place in the text, in characters, and its YAML style (``'``, ``"``, ``|``)."""

    start: int
    end: int
    style: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """A field that names a path or a URL.

    Attributes:
        field: ``resources[3]``, ``configMapGenerator[0].files[1]``.
        value: the path or URL.
        key: ``KEY=`` before the path, in a generator's ``files``; empty elsewhere.
        line: from 1.
        accepts: what kustomize takes here.
        role: the field's name, without indices (``resources``, ``patches``, ``files`` ...).
    """

    field: str
    value: str
    line: int
    span: ScalarSpan
    accepts: Accepts
    role: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class ImageOverride:
    """An entry of ``images:``; a field that isn't there is ``None``."""

    name: LocatedText
    new_name: LocatedText | None
    new_tag: LocatedText | None
    digest: LocatedText | None
    tag_suffix: LocatedText | None
    line: int


@dataclass(frozen=True, slots=True)
class KeyValue:
    key: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class KustomizeGenerator:
    """An entry of ``configMapGenerator`` or ``secretGenerator``.

    ``files`` has the key and the path of each; ``literals`` have their quotes removed.
    """

    kind: Literal["ConfigMap", "Secret"]
    name: str
    namespace: str
    behavior: str
    literals: tuple[KeyValue, ...]
    files: tuple[KeyValue, ...]
    envs: tuple[LocatedText, ...]
    line: int


@dataclass(frozen=True, slots=True)
class KustomizePatch:
    """An entry of ``patches``, ``patchesJson6902`` or ``patchesStrategicMerge``.

    Either ``path`` or ``inline`` is there. ``target`` has the selector's fields as strings.
    """

    field: str
    path: LocatedText | None
    inline: LocatedText | None
    target: Mapping[str, str]
    line: int


@dataclass(frozen=True, slots=True)
class ChartReference:
    """An entry of ``helmCharts``: ``name`` is looked for below the chart home."""

    field: str
    name: str
    version: str
    repo: str
    line: int

    def resolve_folder(self, home: str) -> str:
        """Where kustomize looks for the chart: a repository's chart lies in ``NAME-VERSION``."""
        if self.version and self.repo:
            return f"{home}/{self.name}-{self.version}/{self.name}"
        return f"{home}/{self.name}"


@dataclass(frozen=True, slots=True)
class Kustomization:
    """What kfdeploy needs to know of a kustomization. ``text`` is what spans count in."""

    text: str
    kind: str
    references: tuple[Reference, ...]
    images: tuple[ImageOverride, ...] = ()
    generators: tuple[KustomizeGenerator, ...] = ()
    patches: tuple[KustomizePatch, ...] = ()
    charts: tuple[ChartReference, ...] = ()
    chart_home: Reference | None = None
    namespace: str = ""
    name_prefix: str = ""
    name_suffix: str = ""
    inline_plugins: tuple[LocatedText, ...] = ()
    fields: Mapping[str, int] = field(default_factory=dict)
    """Each top-level field that has a value, and its line."""


def parse_kustomization(text: str) -> Kustomization:
    """Read a kustomization's first document.

    Raises:
        InvalidKustomization: YAML that can't be read, or no mapping; with the line.
    """
    text = text.removeprefix("\ufeff")
    top = FieldMapping.from_node(compose_first_document(text), text)
    home, charts = _parse_charts(top)
    references = [*_parse_references(top), *([home] if home else [])]
    return Kustomization(
        text=text,
        kind=top.get_text("kind") or "Kustomization",
        references=tuple(sorted(references, key=lambda r: r.span.start)),
        images=tuple(_parse_image_overrides(top)),
        generators=tuple(_parse_generators(top)),
        patches=tuple(_parse_patches(top)),
        charts=tuple(charts),
        inline_plugins=tuple(
            locate_text(node)
            for name in _PLUGINS
            for _, node in top.iter_items(name)
            if is_text(node) and is_inline(node.value)
        ),
        chart_home=home,
        namespace=top.get_text("namespace"),
        name_prefix=top.get_text("namePrefix"),
        name_suffix=top.get_text("nameSuffix"),
        fields=top.locate_filled_fields(),
    )


def replace_references(text: str, replacements: Mapping[Reference, str]) -> str:
    """The text with paths replaced in place; comments, order and layout stay.

    Args:
        replacements: reference to its new path; ``KEY=`` is kept.
    """
    by_span = {r.span: r.key + new for r, new in replacements.items()}
    for span in sorted(by_span, key=lambda s: s.start, reverse=True):
        value = by_span[span]
        tail = "\n" if text[span.start : span.end].endswith("\n") else ""
        text = text[: span.start] + _format_scalar(value, span.style) + tail + text[span.end :]
    return text


def _format_scalar(value: str, style: str) -> str:
    if style == '"' and not re.search(r'["\\\x00-\x1f]', value):
        return f'"{value}"'
    if style != "'" and _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("'", "''") + "'"


# -- fields -------------------------------------------------------------------------------------

_PATHS: tuple[tuple[str, Accepts], ...] = (
    ("resources", "any"),
    ("bases", "any"),
    ("components", "folder"),
    ("crds", "file"),
    ("configurations", "file"),
    ("generators", "any"),
    ("transformers", "any"),
    ("validators", "any"),
    ("patchesStrategicMerge", "file"),
)
_PLUGINS = ("generators", "transformers", "validators")
_MAY_BE_INLINE = {*_PLUGINS, "patchesStrategicMerge"}
_GENERATORS: tuple[tuple[str, Literal["ConfigMap", "Secret"]], ...] = (
    ("configMapGenerator", "ConfigMap"),
    ("secretGenerator", "Secret"),
)


def make_reference(node: Any, name: str, accepts: Accepts, role: str, key: str = "") -> Reference:
    """The reference that a scalar node is; ``key`` is the part before its path."""
    return Reference(
        field=name,
        value=node.value[len(key) :],
        line=node.start_mark.line + 1,
        span=ScalarSpan(node.start_mark.index, node.end_mark.index, node.style or ""),
        accepts=accepts,
        role=role,
        key=key,
    )


def _parse_references(top: FieldMapping) -> Iterator[Reference]:
    for name, accepts in _PATHS:
        for index, node in top.iter_items(name):
            if not is_text(node) or (name in _MAY_BE_INLINE and is_inline(node.value)):
                continue
            yield make_reference(node, f"{name}[{index}]", accepts, name)
    for name in ("patches", "patchesJson6902", "replacements"):
        for index, entry, _ in top.iter_mappings(name):
            node = entry.get("path")
            if node is not None and is_text(node) and node.value:
                yield make_reference(node, f"{name}[{index}].path", "file", name)
    for name, _kind in _GENERATORS:
        for index, entry, _ in top.iter_mappings(name):
            yield from _parse_generator_references(entry, f"{name}[{index}]")
    openapi = top.get("openapi")
    if openapi is not None and is_map(openapi):
        node = FieldMapping.from_node(openapi, top.source).get("path")
        if node is not None and is_text(node):
            yield make_reference(node, "openapi.path", "file", "openapi")
    yield from _parse_chart_values(top)


def _parse_generator_references(entry: FieldMapping, where: str) -> Iterator[Reference]:
    for index, node in entry.iter_items("files"):
        if is_text(node):
            key = node.value[: node.value.index("=") + 1] if "=" in node.value else ""
            yield make_reference(node, f"{where}.files[{index}]", "file", "files", key)
    for index, node in entry.iter_items("envs"):
        if is_text(node):
            yield make_reference(node, f"{where}.envs[{index}]", "file", "envs")
    node = entry.get("env")
    if node is not None and is_text(node) and node.value:
        yield make_reference(node, f"{where}.env", "file", "envs")


def _parse_chart_values(top: FieldMapping) -> Iterator[Reference]:
    for name, single in (("helmCharts", "valuesFile"), ("helmChartInflationGenerator", "values")):
        for index, entry, _ in top.iter_mappings(name):
            node = entry.get(single)
            if node is not None and is_text(node) and node.value:
                yield make_reference(node, f"{name}[{index}].{single}", "file", "values")
            for number, more in entry.iter_items("additionalValuesFiles"):
                if is_text(more):
                    where = f"{name}[{index}].additionalValuesFiles[{number}]"
                    yield make_reference(more, where, "file", "values")


def _parse_charts(top: FieldMapping) -> tuple[Reference | None, list[ChartReference]]:
    home: Reference | None = None
    charts: list[ChartReference] = []
    settings = top.get("helmGlobals")
    if settings is not None and is_map(settings):
        node = FieldMapping.from_node(settings, top.source).get("chartHome")
        if node is not None and is_text(node) and node.value:
            home = make_reference(node, "helmGlobals.chartHome", "folder", "chartHome")
    for name, fields in (
        ("helmCharts", ("name", "version", "repo")),
        ("helmChartInflationGenerator", ("chartName", "chartVersion", "chartRepoUrl")),
    ):
        for index, entry, node in top.iter_mappings(name):
            line = node.start_mark.line + 1
            chart, version, repo = (entry.get_text(f) for f in fields)
            charts.append(ChartReference(f"{name}[{index}]", chart, version, repo, line))
            older = entry.get("chartHome")
            if home is None and older is not None and is_text(older) and older.value:
                home = make_reference(older, f"{name}[{index}].chartHome", "folder", "chartHome")
    return home, charts


def is_inline(value: str) -> bool:
    """Whether a string that may be a path or YAML is YAML."""
    return "\n" in value.strip() or _INLINE.match(value) is not None


def _parse_image_overrides(top: FieldMapping) -> Iterator[ImageOverride]:
    for name in ("images", "imageTags"):
        for _, entry, node in top.iter_mappings(name):
            yield ImageOverride(
                name=entry.get_located_text("name") or LocatedText("", node.start_mark.line + 1),
                new_name=entry.get_located_text("newName"),
                new_tag=entry.get_located_text("newTag"),
                digest=entry.get_located_text("digest"),
                tag_suffix=entry.get_located_text("tagSuffix"),
                line=node.start_mark.line + 1,
            )


def _parse_generators(top: FieldMapping) -> Iterator[KustomizeGenerator]:
    for name, kind in _GENERATORS:
        for _, entry, node in top.iter_mappings(name):
            found = list(_parse_generator_references(entry, name))
            yield KustomizeGenerator(
                kind=kind,
                name=entry.get_text("name"),
                namespace=entry.get_text("namespace"),
                behavior=entry.get_text("behavior") or "create",
                literals=tuple(
                    _parse_literal(locate_text(literal))
                    for _, literal in entry.iter_items("literals")
                    if is_text(literal)
                ),
                files=tuple(
                    KeyValue(r.key[:-1] or r.value.rsplit("/", 1)[-1], r.value, r.line)
                    for r in found
                    if r.role == "files"
                ),
                envs=tuple(LocatedText(r.value, r.line) for r in found if r.role == "envs"),
                line=node.start_mark.line + 1,
            )


def _parse_literal(text: LocatedText) -> KeyValue:
    key, _, value = text.value.partition("=")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return KeyValue(key, value, text.line)


def _parse_patches(top: FieldMapping) -> Iterator[KustomizePatch]:
    for name in ("patches", "patchesJson6902"):
        for index, entry, node in top.iter_mappings(name):
            target = entry.get("target")
            selector = (
                FieldMapping.from_node(target, top.source).pairs
                if target is not None and is_map(target)
                else []
            )
            yield KustomizePatch(
                field=f"{name}[{index}]",
                path=entry.get_located_text("path"),
                inline=entry.get_located_text("patch"),
                target={k.value: v.value for k, v in selector if is_text(v)},
                line=node.start_mark.line + 1,
            )
    for index, node in top.iter_items("patchesStrategicMerge"):
        if is_text(node):
            text, inline = locate_text(node), is_inline(node.value)
            yield KustomizePatch(
                field=f"patchesStrategicMerge[{index}]",
                path=None if inline else text,
                inline=text if inline else None,
                target={},
                line=node.start_mark.line + 1,
            )
