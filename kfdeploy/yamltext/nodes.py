"""YAML as nodes with their places in the text, and as values, without what ruamel does besides.

Neither looks for plug-ins on the disk, which took a tenth of a scan; nodes are not told apart into
strings, numbers and dates, which took a third.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.resolver import VersionedResolver

_PURE_MAX = 64 * 1024
"""Characters that ruamel's own parser is given; it takes about 7 ms a kilobyte."""
_NO_TEXT = frozenset(("", "~", "null", "Null", "NULL", "true", "false"))


class _Resolver(VersionedResolver):
    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is ScalarNode:
            return self.DEFAULT_SCALAR_TAG
        return self.DEFAULT_SEQUENCE_TAG if kind is SequenceNode else self.DEFAULT_MAPPING_TAG


class _Constructor(SafeConstructor):
    """Takes a lone ``=`` for the text it is: YAML 1.1 has a type of its own for it, which Go's YAML
    does not know (kustomize's ``delimiter: =``, the operators that a CRD lists)."""


_Constructor.add_constructor("tag:yaml.org,2002:value", SafeConstructor.construct_yaml_str)


class _Yaml(YAML):
    def __init__(self, *, pure: bool = False) -> None:
        super().__init__(typ="safe", pure=pure)
        self.Constructor = _Constructor

    def official_plug_ins(self) -> Any:
        return []


def load_document(text: str) -> Any:
    """The value of a single YAML document.

    libyaml refuses an image in a flow mapping (``{image: a/b:1}``), which Go's YAML takes; what it
    refuses is read again by ruamel's own parser.

    Raises:
        YAMLError: broken YAML, or several documents; in libyaml's words.
    """
    return _load_with_fallback(text, lambda yaml: yaml.load(text))


def load_documents(text: str) -> list[Any]:
    """The values of all documents of a text.

    Raises:
        YAMLError: broken YAML; in libyaml's words.
    """
    found: list[Any] = _load_with_fallback(text, lambda yaml: list(yaml.load_all(text)))
    return found


def _load_with_fallback(text: str, load: Callable[[_Yaml], Any]) -> Any:
    try:
        return load(_Yaml())
    except YAMLError:
        if len(text) > _PURE_MAX:
            raise
        with contextlib.suppress(YAMLError):
            return load(_Yaml(pure=True))
        raise


def compose_documents(text: str) -> list[Node]:
    """The documents of a text as nodes; none where it is no YAML.

    libyaml is fast and reads YAML 1.1, which has no ``[a:1, b:2]``; ruamel's own parser reads it,
    twenty times slower, so that it is only asked for texts up to 64 KB.
    """
    for pure in (False, True) if len(text) <= _PURE_MAX else (False,):
        yaml = _Yaml(pure=pure)
        yaml.Resolver = _Resolver
        try:
            return [node for node in yaml.compose_all(text) if node is not None]
        except (YAMLError, ValueError, RecursionError):
            continue
    return []


def is_text_scalar(node: Node) -> bool:
    """A scalar on one line with something in it."""
    if not isinstance(node, ScalarNode) or "\n" in node.value.rstrip("\n"):
        return False
    return bool(node.style) or node.value not in _NO_TEXT


def get_child(node: Node | None, name: str | int) -> Node | None:
    """The value of a mapping's key; None where there is neither."""
    if not isinstance(node, MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)
