"""Parse YAML into nodes with their lines, and into values, faster than ruamel does by default.

ruamel looks for plug-ins on the disk, which took a tenth of a scan, and tells strings, numbers and
dates apart in nodes, which took a third. Neither is done here.
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
    """Reads a lone ``=`` as text. YAML 1.1 has a type for it, which Go's YAML does not know;
    kustomize's ``delimiter: =`` and the operators in CRDs need it.
    """


_Constructor.add_constructor("tag:yaml.org,2002:value", SafeConstructor.construct_yaml_str)


class _Yaml(YAML):
    def __init__(self, *, pure: bool = False) -> None:
        super().__init__(typ="safe", pure=pure)
        self.Constructor = _Constructor

    def official_plug_ins(self) -> Any:
        return []


def load_document(text: str) -> Any:
    """Return the value of a single YAML document.

    libyaml refuses an image in a flow mapping (``{image: a/b:1}``), which Go's YAML accepts. Text
    that libyaml refuses is read again by ruamel's own parser.

    Raises:
        YAMLError: broken YAML, or several documents; with libyaml's message.
    """
    return _load_with_fallback(text, lambda yaml: yaml.load(text))


def load_documents(text: str) -> list[Any]:
    """Return the values of all documents of a text.

    Raises:
        YAMLError: broken YAML; with libyaml's message.
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
    """Return the documents of a text as nodes; none where it is not YAML.

    libyaml is fast and reads YAML 1.1, which has no ``[a:1, b:2]``. ruamel's own parser reads that,
    but is twenty times slower, so it is only used for texts up to 64 KiB.
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
    """Return whether a node is a scalar on one line that is not empty."""
    if not isinstance(node, ScalarNode) or "\n" in node.value.rstrip("\n"):
        return False
    return bool(node.style) or node.value not in _NO_TEXT


def get_child(node: Node | None, name: str | int) -> Node | None:
    """Return the value of a mapping's key; None where there is no such key, or no mapping."""
    if not isinstance(node, MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)
