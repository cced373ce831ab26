"""Kubernetes objects as kustomize and Helm print them: a stream of YAML documents.

A document keeps its bytes: Python reads it and never writes it back. Kubernetes' Go tools read YAML
1.1 and ruamel reads 1.2, so `0644` would change its meaning on the way.
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
from kfdeploy.kubernetes.accessors import Body, get_metadata, get_text
from kfdeploy.yamltext import nodes

_SEPARATOR = re.compile(r"^---[ \t]*(?:#.*)?\r?\n", re.MULTILINE)
_CONTENT = re.compile(r"^[^\S\n]*[^\s#]", re.MULTILINE)
_LIST = re.compile(r"kind: *[\"']?\w*List\b")
_JSON_LIST = re.compile(r"\"kind\": *\"\w*List\"")
_CRD = re.compile(r"^kind: ([\"']?)CustomResourceDefinition\1\s*$", re.MULTILINE)
_NAME = re.compile(r"^  name: [\"']?([^\"'\s]+)[\"']?\s*$", re.MULTILINE)
_API = re.compile(r"^apiVersion: [\"']?([^\"'\s]+)[\"']?\s*$", re.MULTILINE)

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_API_VERSION = re.compile(r"[A-Za-z0-9.-]+(?:/[A-Za-z0-9.-]+)?")
_IDENTITY = re.compile(r"[A-Za-z0-9._:$()@+~#=,;&!*-]*")
"""What a name may hold before variables in it are replaced. An API server takes less: DNS names,
and for RBAC any path segment (apimachinery pkg/api/validation/path)."""
_NAME_MAX = 253

Path = tuple[str | int, ...]
"""The path of a field in an object: keys and list indexes."""


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """The identity of an object."""

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

    def find_mistake(self) -> str:
        """Return why no API server takes an object of this key, empty if one may.

        A name that passes can stand in a file's name, a comment and an argument: it has no
        slash, space, quote, brace or control character, and nothing outside ASCII.
        """
        if not _KIND.fullmatch(self.kind):
            return f"{self.kind!a} is no kind"
        if not _API_VERSION.fullmatch(self.api_version):
            return f"{self.api_version!a} is no apiVersion"
        for key, value in (("name", self.name), ("namespace", self.namespace)):
            if value in (".", "..") or not _IDENTITY.fullmatch(value):
                return f"metadata.{key}: {value!a} is no name that Kubernetes takes"
            if len(value) > _NAME_MAX:
                return f"metadata.{key}: {value[:40]}... is longer than {_NAME_MAX} characters"
        return ""

    def to_json(self) -> dict[str, str]:
        """Return the key as ``scan --format json`` has it; without a namespace if it is empty."""
        out = {"apiVersion": self.api_version, "kind": self.kind}
        if self.namespace:
            out["namespace"] = self.namespace
        return {**out, "name": self.name}

    @classmethod
    def from_body(cls, body: Body) -> ObjectKey:
        metadata = get_metadata(body)
        return cls(
            get_text(body, "apiVersion"),
            get_text(body, "kind"),
            get_text(metadata, "namespace"),
            get_text(metadata, "name") or get_text(metadata, "generateName"),
        )

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


@dataclass(frozen=True)
class Object:
    """One document: its text and, parsed on demand, its body."""

    text: str
    origin: str = field(default="", compare=False)

    @cached_property
    def is_crd(self) -> bool:
        """Whether this is a CustomResourceDefinition, found without parsing the text.

        CRDs are over 90 % of the bytes of a Kubeflow build.
        """
        return bool(_CRD.search(self.text))

    @cached_property
    def body(self) -> dict[str, Any]:
        """The parsed document.

        Raises:
            UserError: the YAML is broken (the message has origin and line), or has no ``kind``.
        """
        try:
            body = nodes.load_document(self.text)
        except MarkedYAMLError as error:
            mark = error.problem_mark
            line = f":{mark.line + 1}" if mark else ""
            raise UserError(f"{self.origin}{line}: {error.problem or 'broken YAML'}") from error
        if not isinstance(body, dict) or not body.get("kind"):
            raise UserError(f"{self.origin}: a document is not a Kubernetes object: it has no kind")
        return body

    @cached_property
    def key(self) -> ObjectKey:
        if self.is_crd and (name := _NAME.search(self.text)) and (api := _API.search(self.text)):
            return ObjectKey(api[1], "CustomResourceDefinition", "", name[1])
        return ObjectKey.from_body(self.body)


def split_objects(text: str, origin: str = "") -> Iterator[Object]:
    """Yield the objects of a YAML stream, in order.

    Documents that are empty, or comments only, are left out. A List yields its items, as kustomize
    does.
    """
    for part in _SEPARATOR.split(text):
        if not _CONTENT.search(part):
            continue
        document = part if part.endswith("\n") else part + "\n"
        items = list(_split_list(document)) if _is_list(document) else []
        yield from (Object(text, origin) for text in items or [document])


def _is_list(text: str) -> bool:
    """Return whether a document is a List, by its own first ``kind``.

    It is not parsed: most documents are long CRDs, and no List.
    """
    if text.lstrip().startswith("{"):
        return _JSON_LIST.search(text) is not None
    kind = 0 if text.startswith("kind:") else text.find("\nkind:") + 1
    return _LIST.match(text, kind) is not None


def _split_list(text: str) -> Iterator[str]:
    """Yield the items of a List as documents, with the bytes that they have in it."""
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
    """Return the objects as one YAML stream."""
    return "---\n".join(item.text for item in objects)


def show_path(body: Any, path: Path) -> str:
    """Return a field's name for people: ``spec.containers[name=x].image``, ``data[a.yaml]``."""
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
    """Return a path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def parse_pointer(pointer: str) -> tuple[str, ...]:
    """Return the steps of a JSON Pointer (RFC 6901)."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def get_field(body: Any, path: Path) -> Any:
    """Return the value at ``path``.

    Raises:
        KeyError: the object has no such field.
    """
    node = body
    for step in path:
        try:
            node = node[int(step) if isinstance(node, list) else step]
        except (LookupError, TypeError, ValueError) as error:
            raise KeyError(step) from error
    return node
