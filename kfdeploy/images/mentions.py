"""Images named inside a longer string: YAML, JSON, INI, scripts, Go templates.

The string is never parsed and dumped again. A mention is a span of it: a patch replaces that span,
and the rest keeps its comments and layout.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kfdeploy.kubernetes.workload import CONTAINERS
from kfdeploy.oci.reference import ImageRef, WrittenRef, is_image_ref
from kfdeploy.yamltext.nodes import compose_documents, is_text_scalar

_LEFT = r"(?:(?<![\w./@:$%{}\]\\-])|(?<=[A-Za-z_]:)|(?<=:-)|(?<=\\[bfnrt]))"
"""Characters that may come before a reference; ``\\n`` is a line end inside a JSON string."""
_RIGHT = r"(?<![.-])(?![\w/@{$%]|[.-][\w{$%]|:\S)"
_KEYED_RIGHT = r"(?<![.-])(?![\w/@:{$%]|[.-][\w{$%])"
_PATH = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
_DOTTED = r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}(?::\d{1,5})?"
_LOCAL = r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}"
_TAG = r":[A-Za-z0-9_][\w.-]{0,127}"
_DIGEST = r"@sha256:[0-9a-f]{64}"
_REF = rf"(?:(?:{_DOTTED}|{_LOCAL})/)?{_PATH}(?:{_TAG})?(?:{_DIGEST})?"
_STRONG = re.compile(
    rf"{_LEFT}(?:{_DOTTED}|{_LOCAL})/{_PATH}(?:{_TAG}(?:{_DIGEST})?|{_DIGEST}){_RIGHT}", re.ASCII
)
# The reference is only looked at, so that in `x: image=a/b:1` the word "image" can be a key again.
_KEYED = re.compile(
    r"(?<![\w.-])-{0,2}(?P<key>[A-Za-z_][\w.-]*)[\\\"'\]})]*[ \t]*(?::-|:=|\?=|[:=,])\s*"
    rf"(?=\\?[\"']?(?P<ref>{_REF}){_KEYED_RIGHT})",
    re.ASCII,
)
_FLAG = re.compile(
    r"(?<![\w.-])--?(?P<key>[A-Za-z][\w.-]*)[ \t]+"
    rf"(?=[\"']?(?P<ref>{_REF}){_KEYED_RIGHT})",
    re.ASCII,
)
_MORE = re.compile(rf",[ \t]*(?P<ref>{_REF}){_KEYED_RIGHT}", re.ASCII)
_HOST_PORT = re.compile(r"[a-z0-9-]+:\d{4,5}|[a-z0-9-]+(?:\.[a-z0-9-]+)+:\d{2,5}", re.ASCII)
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
_NO_REGISTRY = re.compile(
    r"(?!registry\.|docker\.|images?\.)(?:[a-z0-9-]+\.)*"
    r"(?:kubernetes\.io|x-k8s\.io|istio\.io|knative\.dev|kubeflow\.org|kserve\.io|cert-manager\.io)/"
    r"|(?:github|gitlab|bitbucket)\.(?:com|org)/"
)
"""Hosts of label keys, API groups and source repositories."""
_DOCSTRING = re.compile(r"^[ \t]*(\"{3}|'{3}).*?\1", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"\s*(?:#(?!!)|//|;)")
_TRAILING = re.compile(
    r"(?:[^\"'#\\\n]|\\.|\"(?:[^\"\\\n]|\\.)*+\"|'[^'\n]*+'|(?<=\S)#)*+(?P<comment>(?<=\s)#)"
)
_NOT_IMAGE = re.compile(r"pull|secret|polic|version|tag|type|size|count|hash|digest|hide|allow")
_VERSION_KEYS = ("defaultImageVersion", "imageVersion", "imageTag", "tag", "version")
_MORE_VERSION_KEYS = ("defaultGpuImageVersion",)
"""Versions of the same image that are taken besides (KServe up to 0.8)."""
_RUN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./@:-")
"""Characters that may not stand beside what a patch looks for (``mentions.gotmpl``)."""
_END = re.compile(r"\Z|[^A-Za-z0-9_./@:-]|[.:](?:[^A-Za-z0-9_]|\Z)", re.ASCII)


@dataclass(frozen=True, slots=True)
class MentionSpan:
    """A piece of a string that a reference is joined from.

    Attributes:
        role: ``reference``; or ``hub``, ``name`` or ``tag`` of a reference that is joined.
        context: the shortest text around the piece that tells it apart (a key and its value).
        offset: of the piece in ``context``.
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

    Attributes:
        ref: the reference as the cluster would ask for it, nothing added.
        parts: one with the role ``reference``, or several that are joined at run time.
        variables: the environment variables that a script reads before its own default.
        anchor: the image's own name, if it is none of the parts.
    """

    ref: WrittenRef
    parts: tuple[MentionSpan, ...]
    variables: tuple[str, ...] = ()
    anchor: MentionSpan | None = None

    @classmethod
    def from_value(cls, ref: WrittenRef) -> Mention:
        """Return the mention of a value that is nothing but a reference."""
        return cls(ref, (MentionSpan("reference", 0, len(ref.text), ref.text),))

    @classmethod
    def from_span(cls, value: str, start: int, end: int, *, key: int | None = None) -> Mention:
        """Return the mention of a span that is a reference.

        Args:
            key: where the key of the value starts. A name without tag or digest is told apart by
                it, because the same word may stand elsewhere and mean something else.
        """
        text = value[start:end]
        begin = start
        if key is not None and is_untagged(text) and not set("\r\n") & set(value[key:start]):
            begin = key
        context, offset = _widen_span(value, begin, end)
        ref = WrittenRef.parse(text)
        if context == text:
            return cls(ref, (MentionSpan("reference", start, end, text),))
        return cls(
            ref, (MentionSpan("reference", start, end, text, context, offset + start - begin),)
        )

    @property
    def is_assembled(self) -> bool:
        return self.parts[0].role != "reference"

    @property
    def leading_span(self) -> MentionSpan:
        """The part whose place in the string is the mention's."""
        return self.anchor or self.parts[0]


def _widen_span(value: str, start: int, end: int) -> tuple[str, int]:
    """Return a longer text that no other text runs on from, and the span's offset in it."""
    begin = start
    while begin and value[begin - 1] in _RUN:
        begin -= 1
    if not _END.match(value, end):
        while end < len(value) and value[end] in _RUN:
            end += 1
    return value[begin:end], start - begin


def is_strong(value: str) -> bool:
    """Return whether a value is a reference by its form: host, path, and a tag or a digest."""
    return bool(_STRONG.fullmatch(value)) and _may_be_image(value)


def is_plausible(value: str) -> bool:
    """Return whether a value can be a reference if its key names an image.

    It has a path of several elements, a tag or a digest.
    """
    ref = ImageRef.try_parse(value)
    if ref is None or _HOST_PORT.fullmatch(value) or _IMAGE_ID.fullmatch(value):
        return False
    return "/" in value or bool(ref.tag or ref.digest)


def is_untagged(ref: str) -> bool:
    return ":" not in ref.rsplit("/", 1)[-1] and "@" not in ref


def _may_be_image(ref: str) -> bool:
    return is_image_ref(ref) and not _NO_REGISTRY.match(ref)


def find_mentions(value: str) -> tuple[Mention, ...]:
    """Return the mentions in a string, in order of their place.

    Comments are left out: they name images only as examples. So are URLs (``oci://``,
    ``https://``): a reference never follows a slash.
    """
    if ":" not in value and "/" not in value:
        return ()
    lowered = value.lower()
    roots = _compose_roots(value) if "image" in lowered else []
    joins = "hub" in lowered or "version" in lowered or "tag" in lowered
    joined = tuple(_find_assembled(value, roots)) if joins else ()
    parts = [(part.start, part.end) for mention in joined for part in mention.parts]
    taken = TextSpans([*parts, *comment_spans(value)])
    found: dict[tuple[int, int], Mention] = {}
    for start, end, key in _find_spans(value, roots):
        if (start, end) not in found and not taken.has_overlap(start, end):
            found[start, end] = Mention.from_span(value, start, end, key=key)
    found.update(_script_defaults(value, found))
    plain = [found[span] for span in sorted(found)]
    return (*plain, *joined)


class TextSpans:
    """Spans of a text that can be searched for an overlap with another span."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        for start, end in sorted(spans):
            if self.ends and start <= self.ends[-1]:
                self.ends[-1] = max(end, self.ends[-1])
            else:
                self.starts.append(start)
                self.ends.append(end)

    def has_overlap(self, start: int, end: int) -> bool:
        at = bisect_right(self.starts, end - 1) - 1
        return at >= 0 and self.ends[at] > start


def comment_spans(value: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each comment, and of each docstring of a script."""
    if "\n" not in value:
        return
    for match in _DOCSTRING.finditer(value):
        yield match.span()
    offset = 0
    for line in value.splitlines(keepends=True):
        if _COMMENT.match(line):
            yield offset, offset + len(line)
        elif "#" in line and (trailing := _TRAILING.match(line)):
            yield offset + trailing.start("comment"), offset + len(line)
        offset += len(line)


def _find_spans(value: str, roots: Sequence[Node]) -> Iterator[tuple[int, int, int | None]]:
    """Yield start and end of each reference, and the start of its key if it has one."""
    for match in _STRONG.finditer(value):
        if _may_be_image(match[0]):
            yield *match.span(), None
    for pattern in (_KEYED, _FLAG):
        for match in pattern.finditer(value):
            yield from _after_key(value, match)
    for root in roots:
        yield from _ImageKeyWalk(value).find_spans(root, None, in_image=False, in_containers=False)


def _after_key(value: str, match: re.Match[str]) -> Iterator[tuple[int, int, int | None]]:
    key, ref = match["key"], match["ref"]
    if not _is_image_key(key) or not is_plausible(ref):
        return
    if is_untagged(ref) and "." not in ref.split("/")[0]:
        return
    yield *match.span("ref"), match.start("key")
    more = _MORE.match(value, match.end("ref"))
    while more and is_plausible(more["ref"]) and not is_untagged(more["ref"]):
        yield *more.span("ref"), None
        more = _MORE.match(value, more.end())


def _is_image_key(key: str) -> bool:
    """Return whether a key names an image: ``cacheImage``, ``images``, not ``imagePullPolicy``."""
    _, image, after = key.rsplit(".", 1)[-1].lower().partition("image")
    return bool(image) and not _NOT_IMAGE.search(after)


# --- YAML and JSON -------------------------------------------------------------------------------


def _compose_roots(value: str) -> list[Node]:
    """Return the documents of YAML or JSON text that are mappings or lists."""
    if "\n" not in value and not value.lstrip().startswith(("{", "[")):
        return []
    if value.startswith("\ufeff"):  # libyaml does not count it
        return []
    return [node for node in compose_documents(value) if not isinstance(node, ScalarNode)]


class _ImageKeyWalk:
    """A search for scalars below a key that names an image: ``image: {options: [a/b:1]}``."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.seen: set[tuple[int, bool, bool]] = set()
        """Nodes that were searched: an alias leads to its anchor's node again, or to itself."""

    def find_spans(
        self, node: Node, key: Node | None, *, in_image: bool, in_containers: bool
    ) -> Iterator[tuple[int, int, int | None]]:
        if (id(node), in_image, in_containers) in self.seen:
            return
        self.seen.add((id(node), in_image, in_containers))
        if isinstance(node, MappingNode):
            for name, child in node.value:
                text = str(name.value)
                image = _is_image_key(text) or (in_image and not _NOT_IMAGE.search(text.lower()))
                pods = text in CONTAINERS or (in_containers and text == "image")
                yield from self.find_spans(child, name, in_image=image, in_containers=pods)
        elif isinstance(node, SequenceNode):
            for child in node.value:
                in_list = in_containers and isinstance(child, MappingNode)
                yield from self.find_spans(child, key, in_image=in_image, in_containers=in_list)
        elif in_image and isinstance(node, ScalarNode) and is_text_scalar(node):
            yield from self._match_scalar(node, key, in_pod=in_containers)

    def _match_scalar(
        self, node: ScalarNode, key: Node | None, *, in_pod: bool
    ) -> Iterator[tuple[int, int, int | None]]:
        text = node.value.rstrip("\n")
        if in_pod:
            # Whatever stands here is an image, `image: mysql` too.
            if not is_image_ref(text):
                return
        elif not is_plausible(text) or (is_untagged(text) and (not key or key.value != "image")):
            return
        start = self.value.find(text, node.start_mark.index, node.end_mark.index)
        if start >= 0:
            is_below = key is not None and key.end_mark.index <= start
            yield start, start + len(text), key.start_mark.index if key and is_below else None


# --- joined at run time --------------------------------------------------------------------------


def _find_assembled(value: str, roots: Sequence[Node]) -> Iterator[Mention]:
    """Yield references that JSON or YAML text has in parts: hub, name and tag, or name and tag."""
    seen: set[int] = set()
    for root in roots:
        yield from _find_joins(value, root, "", seen)


def _find_joins(value: str, node: Node, name: str, seen: set[int]) -> Iterator[Mention]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, SequenceNode):
        for child in node.value:
            yield from _find_joins(value, child, name, seen)
        return
    if not isinstance(node, MappingNode):
        return
    fields: dict[str, tuple[Node, Node]] = {str(k.value): (k, v) for k, v in node.value}
    hub, tag = fields.get("hub"), fields.get("tag")
    if hub and tag and _is_filled(hub[1]) and _is_filled(tag[1]):
        yield from _join_with_hub(value, node, hub, tag)
        return
    yield from _join_with_version(value, fields, name)
    for key, (_, child) in fields.items():
        yield from _find_joins(value, child, key, seen)


def _join_with_hub(
    value: str, node: Node, hub: tuple[Node, Node], tag: tuple[Node, Node]
) -> Iterator[Mention]:
    seen: set[WrittenRef] = set()
    for key, image in _image_names(node):
        ref = WrittenRef.try_parse(f"{hub[1].value}/{image.value}:{tag[1].value}")
        if ref and ref not in seen:
            seen.add(ref)
            parts = (_make_span("hub", value, *hub), _make_span("tag", value, *tag))
            yield Mention(ref, parts, anchor=_make_span("name", value, key, image))


def _join_with_version(
    value: str, fields: dict[str, tuple[Node, Node]], name: str
) -> Iterator[Mention]:
    """Yield ``image`` joined with a version key; below ``image:``, ``repository`` with ``tag``."""
    image = fields.get("image")
    if image is None and _is_image_key(name) and not _has_text(fields.get("registry")):
        image = fields.get("repository")
    if image is None or not _is_filled(image[1]):
        return
    text = image[1].value
    if "/" not in text or not is_untagged(text):
        return
    given = [fields[key] for key in _VERSION_KEYS if key in fields and _is_filled(fields[key][1])]
    given = given[:1] + [fields[key] for key in _MORE_VERSION_KEYS if key in fields]
    for version in given:
        ref = WrittenRef.try_parse(f"{text}:{version[1].value}")
        if ref:
            yield Mention(
                ref, (_make_span("name", value, *image), _make_span("tag", value, *version))
            )


def _has_text(field: tuple[Node, Node] | None) -> bool:
    return field is not None and _is_filled(field[1])


def _is_filled(node: Node) -> bool:
    return is_text_scalar(node) and bool(node.value) and "\n" not in node.value


def _image_names(node: Node) -> Iterator[tuple[Node, ScalarNode]]:
    """Yield the image names below a mapping that has a hub.

    A name with a slash is none of them: it is used without the hub.
    """
    if isinstance(node, MappingNode):
        for name, child in node.value:
            if name.value == "image" and _is_filled(child) and "/" not in child.value:
                yield name, child
            else:
                yield from _image_names(child)


def _make_span(role: str, value: str, key: Node, scalar: Node) -> MentionSpan:
    start = value.find(scalar.value, scalar.start_mark.index, scalar.end_mark.index)
    text: str = scalar.value
    begin, stop = key.start_mark.index, scalar.end_mark.index
    return MentionSpan(role, start, start + len(text), text, value[begin:stop], start - begin)


# --- scripts -------------------------------------------------------------------------------------

_DEFAULT = re.compile(
    r"[\"'{(](?P<variable>[A-Z][A-Z0-9_]{0,127})[\"']?\s*(?:,|:-|:=)\s*[\"']?"
    rf"(?P<ref>(?:{_DOTTED}|{_LOCAL})/{_PATH}|{_PATH}/{_PATH})(?P<tag>{_TAG})?(?:{_DIGEST})?{_RIGHT}",
    re.ASCII,
)


def _script_defaults(
    value: str, found: dict[tuple[int, int], Mention]
) -> dict[tuple[int, int], Mention]:
    """Return mentions in defaults of variables that a script joins with a tag.

    ``os.environ.get("X_IMAGE", "host/x")`` and ``${X_IMAGE:-host/x}`` are such defaults, if the
    script reads ``X_TAG`` too.

    Args:
        found: what was found already; a default's plain mention is removed from it.
    """
    out: dict[tuple[int, int], Mention] = {}
    reads: dict[str, bool] = {}
    for match in _DEFAULT.finditer(value):
        variable = match["variable"]
        if match["tag"] or "IMAGE" not in variable:
            continue
        tag = variable.replace("IMAGE", "TAG")
        if tag not in reads:
            reads[tag] = bool(re.search(rf"\b{tag}\b", value))
        if not reads[tag]:
            continue
        ref = WrittenRef.try_parse(match["ref"])
        if ref is None:
            continue
        start, end = match.span("ref")
        found.pop((start, end), None)
        out[start, end] = Mention(
            ref, (MentionSpan("name", start, end, ref.text),), (variable, tag)
        )
    return out


def find_tag_default(value: str, variable: str) -> str | None:
    """Return the tag that a script falls back to: ``"X_TAG", "v1"`` or ``${X_TAG:-v1}``."""
    match = re.search(
        rf"\b{variable}[\"']?\s*(?:,|:-|:=)\s*[\"']?(?P<tag>[A-Za-z0-9_][\w.-]{{0,127}})[\"')}}]",
        value,
    )
    return match["tag"] if match else None


def version_variables(value: str) -> tuple[str, ...]:
    """Return other variables that may hold the tag, such as ``KFP_VERSION``, sorted."""
    names = re.findall(r"[\"'{$]([A-Z][A-Z0-9_]*VERSION[A-Z0-9_]*)\b", value)
    return tuple(sorted(set(names)))
