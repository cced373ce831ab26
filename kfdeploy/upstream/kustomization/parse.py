"""Read a kustomization's text: its references, overrides and patches, each with its line.

Source of the fields and their meaning: ``types/kustomization.go`` of kustomize's API
(sigs.k8s.io/kustomize/api@v0.21.1). It matches field names in any case.
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
"""File names that kustomize looks for. Two of them in one folder are an error."""

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
        value: The path or URL.
        line: Counts from 1.
        span: The place of the scalar, with ``key``.
        accepts: What kustomize accepts in the field.
        role: The field's name without indices (``resources``, ``patches``, ``files`` ...).
        key: ``KEY=`` before the path in a generator's ``files``; empty elsewhere.
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
    """An entry of ``images:``. A field that is not set is ``None``."""

    name: LocatedText
    new_name: LocatedText | None
    new_tag: LocatedText | None
    digest: LocatedText | None
    tag_suffix: LocatedText | None
    line: int


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A literal or file of a generator. ``line`` counts from 1."""

    key: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class KustomizeGenerator:
    """An entry of ``configMapGenerator`` or ``secretGenerator``.

    ``files`` has the key and path of each file; ``literals`` have their quotes removed.
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

    Either ``path`` or ``inline`` is set. ``target`` has the selector's fields as strings.
    """

    field: str
    path: LocatedText | None
    inline: LocatedText | None
    target: Mapping[str, str]
    line: int


@dataclass(frozen=True, slots=True)
class ChartReference:
    """An entry of ``helmCharts``. Kustomize looks for ``name`` below the chart home."""

    field: str
    name: str
    version: str
    repo: str
    line: int

    def resolve_folder(self, home: str) -> str:
        """Return the folder where kustomize looks for the chart.

        A chart with a repository and a version is in ``NAME-VERSION/NAME``, any other in ``NAME``.
        """
        if self.version and self.repo:
            return f"{home}/{self.name}-{self.version}/{self.name}"
        return f"{home}/{self.name}"


@dataclass(frozen=True, slots=True)
class Kustomization:
    """The content of a kustomization. Spans of its references count in ``text``."""

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
    """Name of each top-level field that has a value, to its line."""


def parse_kustomization(text: str) -> Kustomization:
    """Read a kustomization's first document.

    Raises:
        InvalidKustomization: The YAML is broken or is not a mapping. It has the line.
    """
    text = text.removeprefix("\ufeff")
    top = FieldMapping.from_node(compose_first_document(text), text)
    home = _parse_chart_home(top)
    references = [*_parse_references(top), *([home] if home else [])]
    return Kustomization(
        text=text,
        kind=top.get_text("kind") or "Kustomization",
        references=tuple(sorted(references, key=lambda r: r.span.start)),
        images=tuple(_parse_image_overrides(top)),
        generators=tuple(_parse_generators(top)),
        patches=tuple(_parse_patches(top)),
        charts=tuple(_parse_charts(top)),
        inline_plugins=tuple(
            locate_text(node)
            for name in _PLUGINS
            for _, node in top.iter_texts(name)
            if is_inline(node.value)
        ),
        chart_home=home,
        namespace=top.get_text("namespace"),
        name_prefix=top.get_text("namePrefix"),
        name_suffix=top.get_text("nameSuffix"),
        fields=top.locate_filled_fields(),
    )


def replace_references(text: str, replacements: Mapping[Reference, str]) -> str:
    """Return the text with paths replaced in place. Comments, order and layout stay.

    Args:
        text: The text that the references were read from.
        replacements: Reference to its new path. A ``KEY=`` before the path is kept.
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
_GENERATORS: Mapping[str, Literal["ConfigMap", "Secret"]] = {
    "configMapGenerator": "ConfigMap",
    "secretGenerator": "Secret",
}


@dataclass(frozen=True, slots=True)
class _ChartFields:
    """The names of a chart entry's fields, which differ in kustomize's older form."""

    name: str
    version: str
    repo: str
    values: str


_CHARTS: Mapping[str, _ChartFields] = {
    "helmCharts": _ChartFields("name", "version", "repo", "valuesFile"),
    "helmChartInflationGenerator": _ChartFields(
        "chartName", "chartVersion", "chartRepoUrl", "values"
    ),
}


def make_reference(node: Any, name: str, accepts: Accepts, role: str, key: str = "") -> Reference:
    """Return the reference in a scalar node. ``key`` is the part of its text before the path."""
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
        for index, node in top.iter_texts(name):
            if name not in _MAY_BE_INLINE or not is_inline(node.value):
                yield make_reference(node, f"{name}[{index}]", accepts, name)
    for name in ("patches", "patchesJson6902", "replacements"):
        for index, entry, _ in top.iter_mappings(name):
            if (node := entry.get_filled("path")) is not None:
                yield make_reference(node, f"{name}[{index}].path", "file", name)
    for name in _GENERATORS:
        for index, entry, _ in top.iter_mappings(name):
            yield from _parse_generator_references(entry, f"{name}[{index}]")
    if (node := top.get_mapping("openapi").get("path")) is not None and is_text(node):
        yield make_reference(node, "openapi.path", "file", "openapi")
    yield from _parse_chart_values(top)


def _parse_generator_references(entry: FieldMapping, where: str) -> Iterator[Reference]:
    for index, node in entry.iter_texts("files"):
        key = split_key(node.value)
        yield make_reference(node, f"{where}.files[{index}]", "file", "files", key)
    for index, node in entry.iter_texts("envs"):
        yield make_reference(node, f"{where}.envs[{index}]", "file", "envs")
    if (node := entry.get_filled("env")) is not None:
        yield make_reference(node, f"{where}.env", "file", "envs")


def _parse_chart_values(top: FieldMapping) -> Iterator[Reference]:
    for name, field_names in _CHARTS.items():
        for index, entry, _ in top.iter_mappings(name):
            if (node := entry.get_filled(field_names.values)) is not None:
                where = f"{name}[{index}].{field_names.values}"
                yield make_reference(node, where, "file", "values")
            for number, node in entry.iter_texts("additionalValuesFiles"):
                where = f"{name}[{index}].additionalValuesFiles[{number}]"
                yield make_reference(node, where, "file", "values")


def _parse_chart_home(top: FieldMapping) -> Reference | None:
    """Return the first chart home: that of ``helmGlobals``, else of an entry, as in old files."""
    if (node := top.get_mapping("helmGlobals").get_filled("chartHome")) is not None:
        return make_reference(node, "helmGlobals.chartHome", "folder", "chartHome")
    for name in _CHARTS:
        for index, entry, _ in top.iter_mappings(name):
            if (node := entry.get_filled("chartHome")) is not None:
                return make_reference(node, f"{name}[{index}].chartHome", "folder", "chartHome")
    return None


def _parse_charts(top: FieldMapping) -> Iterator[ChartReference]:
    for name, field_names in _CHARTS.items():
        for index, entry, node in top.iter_mappings(name):
            yield ChartReference(
                field=f"{name}[{index}]",
                name=entry.get_text(field_names.name),
                version=entry.get_text(field_names.version),
                repo=entry.get_text(field_names.repo),
                line=node.start_mark.line + 1,
            )


def split_key(value: str) -> str:
    """Return the ``KEY=`` that a generator's ``files`` entry starts with; empty without one."""
    key, equals, _ = value.partition("=")
    return key + equals if equals else ""


def is_inline(value: str) -> bool:
    """Return whether a string that may be a path or YAML is YAML."""
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
    for name, kind in _GENERATORS.items():
        for _, entry, node in top.iter_mappings(name):
            found = list(_parse_generator_references(entry, name))
            yield KustomizeGenerator(
                kind=kind,
                name=entry.get_text("name"),
                namespace=entry.get_text("namespace"),
                behavior=entry.get_text("behavior") or "create",
                literals=tuple(
                    _parse_literal(locate_text(literal))
                    for _, literal in entry.iter_texts("literals")
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
            selector = entry.get_mapping("target").pairs
            yield KustomizePatch(
                field=f"{name}[{index}]",
                path=entry.get_located_text("path"),
                inline=entry.get_located_text("patch"),
                target={k.value: v.value for k, v in selector if is_text(v)},
                line=node.start_mark.line + 1,
            )
    for index, node in top.iter_texts("patchesStrategicMerge"):
        text, inline = locate_text(node), is_inline(node.value)
        yield KustomizePatch(
            field=f"patchesStrategicMerge[{index}]",
            path=None if inline else text,
            inline=text if inline else None,
            target={},
            line=node.start_mark.line + 1,
        )
