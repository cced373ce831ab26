"""Read a kustomization's YAML as nodes that know their place in the text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError


class InvalidKustomization(ValueError):
    """The text is not a valid kustomization. ``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True)
class LocatedText:
    """A scalar and its first line; for a block scalar, the first line of its content."""

    value: str
    line: int


def compose_documents(text: str) -> list[Any]:
    """Return the text's YAML documents as nodes with marks.

    libyaml reads YAML 1.1, as kustomize does, but refuses a URL or an image in a flow mapping
    (``{repo: https://x}``), which Go's YAML accepts. So text that libyaml refuses is read again
    with ruamel's own parser, which is twenty times slower.

    Raises:
        InvalidKustomization: Neither parser can read the text. It has the line.
    """
    try:
        return list(YAML(typ="safe").compose_all(text))
    except YAMLError as error:
        refused = error
    try:
        return list(YAML(typ="safe", pure=True).compose_all(text))
    except YAMLError:
        raise _explain_error(refused, text) from refused


def _explain_error(error: YAMLError, text: str) -> InvalidKustomization:
    last = len(text.splitlines()) or 1
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        # The mark of an unclosed bracket or quote is behind the last line.
        return InvalidKustomization(min(line, last), f"broken YAML: {error.problem}")
    at = getattr(error, "position", 0)
    line = text.count("\n", 0, at if isinstance(at, int) else 0) + 1
    return InvalidKustomization(line, f"broken YAML: {str(error).splitlines()[0]}")


def compose_first_document(text: str) -> Any:
    """Return the first document, which is the one that kustomize reads.

    Raises:
        InvalidKustomization: The YAML is broken, or the first document is not a mapping.
    """
    node = next(iter(compose_documents(text)), None)
    if node is None:
        raise InvalidKustomization(1, "the file is empty")
    if not is_map(node):
        raise InvalidKustomization(node.start_mark.line + 1, "not a mapping of fields")
    return node


class FieldMapping:
    """A mapping node. Field names match in any case, as in kustomize; merge keys are followed."""

    def __init__(self, pairs: list[tuple[Any, Any]], text: str) -> None:
        self.pairs = pairs
        self.source = text

    @classmethod
    def from_node(cls, node: Any, text: str) -> FieldMapping:
        return cls(list(_flatten_pairs(node)), text)

    def get(self, name: str) -> Any:
        wanted = name.lower()
        found = None
        for key, value in self.pairs:
            if key.value.lower() == wanted:
                found = value
        return found

    def get_filled(self, name: str) -> Any:
        """Return the node of a field that is a text and not empty; else None."""
        node = self.get(name)
        return node if node is not None and is_text(node) and node.value else None

    def get_mapping(self, name: str) -> FieldMapping:
        """Return the field's mapping; an empty one if it is not a mapping."""
        node = self.get(name)
        if node is None or not is_map(node):
            return FieldMapping([], self.source)
        return FieldMapping.from_node(node, self.source)

    def get_text(self, name: str) -> str:
        node = self.get(name)
        return node.value if node is not None and is_text(node) else ""

    def iter_items(self, name: str) -> Iterator[tuple[int, Any]]:
        node = self.get(name)
        if node is not None and is_list(node):
            yield from enumerate(node.value)

    def iter_texts(self, name: str) -> Iterator[tuple[int, Any]]:
        """Yield index and node of each text in a field's list."""
        yield from ((index, node) for index, node in self.iter_items(name) if is_text(node))

    def iter_mappings(self, name: str) -> Iterator[tuple[int, FieldMapping, Any]]:
        for index, node in self.iter_items(name):
            if is_map(node):
                yield index, FieldMapping.from_node(node, self.source), node

    def get_located_text(self, name: str) -> LocatedText | None:
        node = self.get(name)
        return locate_text(node) if node is not None and is_text(node) else None

    def locate_filled_fields(self) -> dict[str, int]:
        return {
            key.value: key.start_mark.line + 1
            for key, value in self.pairs
            if is_text(key) and value.value and not is_null(value)
        }


def _flatten_pairs(node: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in node.value:
        if key.value == "<<":
            for merged in value.value if is_list(value) else [value]:
                if is_map(merged):
                    yield from _flatten_pairs(merged)
    yield from ((key, value) for key, value in node.value if is_text(key))


def is_text(node: Any) -> bool:
    return isinstance(node.value, str)


def is_null(node: Any) -> bool:
    return is_text(node) and not node.style and node.value in ("", "~", "null", "Null", "NULL")


def is_map(node: Any) -> bool:
    return str(node.id) == "mapping"


def is_list(node: Any) -> bool:
    return str(node.id) == "sequence"


def locate_text(node: Any) -> LocatedText:
    return LocatedText(node.value, node.start_mark.line + (2 if node.style in ("|", ">") else 1))
