"""Kubernetes objects as kustomize and Helm print them: a stream of YAML documents.

A document keeps its bytes: it is read, never written back through Python (Kubernetes' Go tools read
YAML 1.1, ruamel reads 1.2, and `0644` would change its meaning on the way).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import Node, SequenceNode

from kfdeploy.errors import UserError
from kfdeploy.yamltext import nodes

_SEPARATOR = re.compile(r"^---[ \t]*(?:#.*)?\r?\n", re.MULTILINE)
_CONTENT = re.compile(r"^[^\S\n]*[^\s#]", re.MULTILINE)
_LIST = re.compile(r"kind: *[\"']?\w*List\b")
_JSON_LIST = re.compile(r"\"kind\": *\"\w*List\"")
_CRD = re.compile(r"^kind: ([\"']?)CustomResourceDefinition\1\s*$", re.MULTILINE)
_NAME = re.compile(r"^  name: [\"']?([^\"'\s]+)[\"']?\s*$", re.MULTILINE)
_API = re.compile(r"^apiVersion: [\"']?([^\"'\s]+)[\"']?\s*$", re.MULTILINE)

Path = tuple[str | int, ...]
"""Where a field stands in an object: keys and list indexes."""


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """What makes an object the one it is."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    def to_json(self) -> dict[str, str]:
        """As in ``scan --format json``; a cluster-scoped object has no namespace."""
        out = {"apiVersion": self.api_version, "kind": self.kind}
        if self.namespace:
            out["namespace"] = self.namespace
        return {**out, "name": self.name}

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> ObjectKey:
        meta = body.get("metadata") or {}
        return cls(
            str(body.get("apiVersion", "")),
            str(body.get("kind", "")),
            str(meta.get("namespace") or ""),
            str(meta.get("name") or meta.get("generateName") or ""),
        )

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


@dataclass(frozen=True)
class Object:
    """One document: its text and, read on demand, its body."""

    text: str
    origin: str = field(default="", compare=False)

    @cached_property
    def is_crd(self) -> bool:
        """Told without parsing: CRDs are over 90 % of a Kubeflow build's bytes."""
        return bool(_CRD.search(self.text))

    @cached_property
    def body(self) -> dict[str, Any]:
        """The parsed document.

        Raises:
            UserError: broken YAML, with the origin and the line.
        """
        try:
            body = nodes.load_document(self.text)
        except MarkedYAMLError as error:
            mark = error.problem_mark
            line = f":{mark.line + 1}" if mark else ""
            raise UserError(f"{self.origin}{line}: {error.problem or 'broken YAML'}") from error
        if not isinstance(body, dict) or not body.get("kind"):
            raise UserError(f"{self.origin}: a document that is no Kubernetes object")
        return body

    @cached_property
    def key(self) -> ObjectKey:
        if self.is_crd and (name := _NAME.search(self.text)) and (api := _API.search(self.text)):
            return ObjectKey(api[1], "CustomResourceDefinition", "", name[1])
        return ObjectKey.from_body(self.body)


def split_objects(text: str, origin: str = "") -> Iterator[Object]:
    """The objects of a YAML stream, in order; empty documents and comments alone are left out.

    A List gives its items, as kustomize has them.
    """
    for part in _SEPARATOR.split(text):
        if _CONTENT.search(part):
            whole = part if part.endswith("\n") else part + "\n"
            items = list(_split_list(whole)) if _is_list(whole) else []
            for item in items or [whole]:
                yield Object(item, origin)


def _is_list(text: str) -> bool:
    """Told by the first ``kind`` of its own: most documents are long CRDs that are none."""
    if text.lstrip().startswith("{"):
        return _JSON_LIST.search(text) is not None
    return (
        _LIST.match(text, 0 if text.startswith("kind:") else text.find("\nkind:") + 1) is not None
    )


def _split_list(text: str) -> Iterator[str]:
    """The items of a List as documents of their own, with the bytes they have in it."""
    for root in nodes.compose_documents(text):
        kind, items = nodes.get_child(root, "kind"), nodes.get_child(root, "items")
        if kind is None or not str(kind.value).endswith("List"):
            continue
        found = items.value if isinstance(items, SequenceNode) else []
        if all(nodes.get_child(item, "kind") is not None for item in found):
            yield from (_extract_item(text, item) for item in found)


def _extract_item(text: str, item: Node) -> str:
    indent = " " * item.start_mark.column
    lines = text[item.start_mark.index : item.end_mark.index].rstrip().splitlines()
    return "\n".join(line.removeprefix(indent) for line in lines) + "\n"


def join_objects(objects: list[Object]) -> str:
    """The objects as one YAML stream."""
    return "---\n".join(item.text for item in objects)


def show_path(body: Any, path: Path) -> str:
    """A field's name for people: ``spec.containers[name=x].image``, ``data[a.yaml]``."""
    out: list[str] = []
    node = body
    for step in path:
        child = node[step]
        if isinstance(step, int):
            name = child.get("name") if isinstance(child, dict) else None
            out.append(f"[name={name}]" if isinstance(name, str) else f"[{step}]")
        elif re.fullmatch(r"[\w-]+", step):
            out.append(f".{step}" if out else step)
        else:
            out.append(f"[{step}]")
        node = child
    return "".join(out)


def format_pointer(path: Path) -> str:
    """RFC 6901."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def parse_pointer(pointer: str) -> tuple[str, ...]:
    """The steps of an RFC 6901 pointer."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def get_field(body: Any, path: Path) -> Any:
    """The value at ``path``.

    Raises:
        KeyError: nothing is there.
    """
    node = body
    for step in path:
        try:
            node = node[int(step) if isinstance(node, list) else step]
        except (LookupError, TypeError, ValueError) as error:
            raise KeyError(step) from error
    return node
