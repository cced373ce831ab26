"""Images named inside a longer string: YAML, JSON, INI, scripts, Go templates.

The string is never parsed and dumped again: a mention is a span of it, so that what is replaced is
the mention and the rest keeps its comments and layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kfdeploy.model.image import ImageRef, is_reference

_LEFT = r"(?<![\w./@:$%{}\[\]-])"
_RIGHT = r"(?<![.-])(?![\w/@:{}]|[.-]\w)"
_PATH = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
_DOTTED = r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}(?::\d{1,5})?"
_LOCAL = r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}"
_TAG = r":[A-Za-z0-9_][\w.-]{0,127}"
_DIGEST = r"@sha256:[0-9a-f]{64}"
_STRONG = re.compile(
    rf"{_LEFT}(?:{_DOTTED}|{_LOCAL})/{_PATH}(?:{_TAG}(?:{_DIGEST})?|{_DIGEST}){_RIGHT}", re.ASCII
)
_KEYED = re.compile(
    r"(?<![\w-])(?P<key>[A-Za-z_][\w.-]*)[\"'\]})]*\s*(?:[:=,]|:-|:=|\?=)\s*[\"']?"
    rf"(?P<ref>(?:(?:{_DOTTED}|{_LOCAL})/)?{_PATH}(?:{_TAG})?(?:{_DIGEST})?){_RIGHT}",
    re.ASCII,
)
_HOST_PORT = re.compile(r"[a-z0-9.-]+:\d{2,5}", re.ASCII)
_DOCSTRING = re.compile(r"^[ \t]*(\"{3}|'{3}).*?\1", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^\s*(?:#(?!!)|//|;)")
_NOT_IMAGE_KEY = re.compile(r"(?i)pull|secret|policy|version|tag|type|size|hide|allow|count")
_VERSION_KEYS = ("defaultImageVersion", "imageVersion", "imageTag", "tag", "version")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a string that a reference is joined from.

    ``context`` is the shortest text around the piece that tells it apart (a key and its value);
    it holds the piece at ``offset``.
    """

    role: str
    start: int
    end: int
    text: str
    context: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Mention:
    """The part of a string that names one image.

    ``ref`` is the reference as the cluster would ask for it, nothing added. One part with the role
    ``reference``, or several that are joined at run time: ``hub``, ``name``, ``tag``.
    ``variables`` are the environment variables that a script reads ahead of its own default.
    """

    ref: str
    parts: tuple[Part, ...]
    variables: tuple[str, ...] = ()

    @classmethod
    def whole(cls, value: str) -> Mention:
        return cls(value, (Part("reference", 0, len(value), value),))

    @classmethod
    def at(cls, value: str, start: int, end: int) -> Mention:
        text = value[start:end]
        return cls(text, (Part("reference", start, end, text),))

    @property
    def is_assembled(self) -> bool:
        return self.parts[0].role != "reference"


def is_strong(value: str) -> bool:
    """A reference by its form alone: a registry host, a path, and a tag or a digest."""
    return bool(_STRONG.fullmatch(value)) and is_reference(value)


def is_plausible(value: str) -> bool:
    """Under a key that names an image: a reference with a path, a tag or a digest."""
    if not is_reference(value) or (_HOST_PORT.fullmatch(value) and ":0" not in value):
        return bool(re.fullmatch(r"[a-z0-9._/-]+:\d+", value)) and "/" in value
    ref = ImageRef.parse(value)
    return "/" in value or bool(ref.tag or ref.digest)


def in_text(value: str, *, name: str = "") -> tuple[Mention, ...]:
    """The mentions in a string, in order of their place.

    Comments name images only as examples and are passed over, and so are URLs (``oci://``,
    ``https://``), whose left neighbour is a slash.
    """
    if ":" not in value and "/" not in value:
        return ()
    found: dict[tuple[int, int], Mention] = {}
    taken: list[tuple[int, int]] = []
    joined = tuple(_assembled(value))
    for mention in joined:
        taken += [(part.start, part.end) for part in mention.parts]
    comments = _comment_spans(value)
    for start, end in _spans(value):
        if any(start < stop and end > begin for begin, stop in (*taken, *comments)):
            continue
        if (start, end) not in found:
            found[start, end] = Mention.at(value, start, end)
    script = _script_defaults(value, found)
    found.update(script)
    plain = [found[span] for span in sorted(found)]
    return (*plain, *joined)


def _comment_spans(value: str) -> list[tuple[int, int]]:
    """Comment lines, and a script's docstrings: strings that nothing takes."""
    if "\n" not in value:
        return []
    spans = [match.span() for match in _DOCSTRING.finditer(value)]
    offset = 0
    for line in value.splitlines(keepends=True):
        if _COMMENT.match(line):
            spans.append((offset, offset + len(line)))
        offset += len(line)
    return spans


def _spans(value: str) -> Iterator[tuple[int, int]]:
    for match in _STRONG.finditer(value):
        if is_reference(match[0]):
            yield match.span()
    for match in _KEYED.finditer(value):
        key, ref = match["key"], match["ref"]
        if not _is_image_key(key) or not is_plausible(ref):
            continue
        if _is_untagged_word(ref) and "." not in ref.split("/")[0]:
            continue
        yield match.span("ref")
    yield from _structured(value)


def _is_untagged_word(ref: str) -> bool:
    return ":" not in ref.rsplit("/", 1)[-1] and "@" not in ref


def _is_image_key(key: str) -> bool:
    key = key.rsplit(".", 1)[-1]
    return "image" in key.lower() and not _NOT_IMAGE_KEY.search(key)


# --- YAML and JSON -------------------------------------------------------------------------------


def _compose(value: str) -> Node | None:
    """The node tree of YAML or JSON text with at least one mapping, else nothing."""
    if "\n" not in value and not value.lstrip().startswith(("{", "[")):
        return None
    node = None
    # libyaml is fast and reads YAML 1.1, which has no `[a:1, b:2]`; ruamel's own parser reads it.
    for pure in (False, True):
        try:
            node = YAML(typ="safe", pure=pure).compose(value)
            break
        except (YAMLError, ValueError):
            continue
    return node if isinstance(node, MappingNode | SequenceNode) else None


def _structured(value: str) -> Iterator[tuple[int, int]]:
    """Scalars below a key that names an image, also in lists: ``image: {options: [a/b:1]}``."""
    if "image" not in value.lower():
        return
    root = _compose(value)
    if root is None:
        return
    yield from _below(value, root, "", in_image=False)


def _below(value: str, node: Node, key: str, *, in_image: bool) -> Iterator[tuple[int, int]]:
    if isinstance(node, MappingNode):
        for name, child in node.value:
            text = str(name.value)
            image = _is_image_key(text) or (in_image and not _NOT_IMAGE_KEY.search(text))
            yield from _below(value, child, text, in_image=image)
    elif isinstance(node, SequenceNode):
        for child in node.value:
            yield from _below(value, child, key, in_image=in_image)
    elif in_image and isinstance(node, ScalarNode) and str(node.tag).endswith(":str"):
        text = node.value
        if "\n" in text or not is_plausible(text) or (_is_untagged_word(text) and key != "image"):
            return
        start = value.find(text, node.start_mark.index, node.end_mark.index)
        if start >= 0:
            yield start, start + len(text)


# --- joined at run time --------------------------------------------------------------------------


def _assembled(value: str) -> Iterator[Mention]:
    """``hub`` + ``image`` + ``tag``, and ``image`` + a version key, in JSON or YAML text."""
    lowered = value.lower()
    if "image" not in lowered or not ("hub" in lowered or "version" in lowered or "tag" in lowered):
        return
    root = _compose(value)
    if root is not None:
        yield from _joins(value, root)


def _joins(value: str, node: Node) -> Iterator[Mention]:
    if isinstance(node, SequenceNode):
        for child in node.value:
            yield from _joins(value, child)
        return
    if not isinstance(node, MappingNode):
        return
    fields: dict[str, Any] = {str(k.value): (k, v) for k, v in node.value}
    hub, tag = fields.get("hub"), fields.get("tag")
    if hub and tag and _is_text(hub[1]) and _is_text(tag[1]) and hub[1].value:
        seen: set[str] = set()
        for image in _image_names(node):
            ref = f"{hub[1].value}/{image.value}:{tag[1].value}"
            if ref not in seen and is_reference(ref):
                seen.add(ref)
                parts = (_part("hub", value, *hub), _part("tag", value, *tag))
                yield Mention(ref, parts)
        return
    image_field = fields.get("image")
    if image_field and _is_text(image_field[1]):
        for name in _VERSION_KEYS:
            version = fields.get(name)
            text = image_field[1].value
            if version and _is_text(version[1]) and _is_untagged_word(text):
                ref = f"{text}:{version[1].value}"
                if is_reference(ref) and "/" in text:
                    parts = (_part("name", value, *image_field), _part("tag", value, *version))
                    yield Mention(ref, parts)
                    break
    for _, child in fields.values():
        yield from _joins(value, child)


def _is_text(node: Node) -> bool:
    return isinstance(node, ScalarNode) and bool(node.value) and "\n" not in node.value


def _image_names(node: Node) -> Iterator[ScalarNode]:
    """Bare image names below a mapping that has a hub; a name with a slash is used verbatim."""
    if isinstance(node, MappingNode):
        for name, child in node.value:
            if name.value == "image" and _is_text(child) and "/" not in child.value:
                yield child
            else:
                yield from _image_names(child)


def _part(role: str, value: str, key: Node, scalar: ScalarNode) -> Part:
    start = value.find(scalar.value, scalar.start_mark.index, scalar.end_mark.index)
    begin, stop = key.start_mark.index, scalar.end_mark.index
    text: str = scalar.value
    return Part(role, start, start + len(text), text, value[begin:stop], start - begin)


# --- scripts -------------------------------------------------------------------------------------

_DEFAULT = re.compile(
    r"[\"'{(](?P<variable>[A-Z][A-Z0-9_]*IMAGE[A-Z0-9_]*)[\"']?\s*(?:,|:-|:=)\s*[\"']?"
    rf"(?P<ref>(?:{_DOTTED}|{_LOCAL})/{_PATH}|{_PATH}/{_PATH})(?P<tag>{_TAG})?(?:{_DIGEST})?{_RIGHT}",
    re.ASCII,
)


def _script_defaults(
    value: str, found: dict[tuple[int, int], Mention]
) -> dict[tuple[int, int], Mention]:
    """Defaults of variables: ``os.environ.get("X_IMAGE", "host/x")``, ``${X_IMAGE:-host/x}``.

    Where the script reads ``X_TAG`` too, the reference is joined from both.
    """
    out: dict[tuple[int, int], Mention] = {}
    for match in _DEFAULT.finditer(value):
        if match["tag"]:
            continue
        variable = match["variable"]
        tag = variable.replace("IMAGE", "TAG")
        if not re.search(rf"\b{tag}\b", value):
            continue
        start, end = match.span("ref")
        found.pop((start, end), None)
        part = Part("name", start, end, match["ref"])
        out[start, end] = Mention(match["ref"], (part,), (variable, tag))
    return out


def tag_default(value: str, variable: str) -> str | None:
    """The tag a script falls back to: ``"X_TAG", "v1"`` or ``${X_TAG:-v1}``."""
    match = re.search(
        rf"\b{variable}[\"']?\s*(?:,|:-|:=)\s*[\"']?(?P<tag>[A-Za-z0-9_][\w.-]{{0,127}})[\"')}}]",
        value,
    )
    return match["tag"] if match else None


def version_variables(value: str) -> tuple[str, ...]:
    """Other variables a script reads that may hold the tag, sorted: ``KFP_VERSION``."""
    names = re.findall(r"[\"'{$]([A-Z][A-Z0-9_]*VERSION[A-Z0-9_]*)\b", value)
    return tuple(sorted(set(names)))
