"""Changing ``kfdeploy.yaml`` in place: the text around a change keeps its bytes.

A round trip through a YAML library would indent lists and break long lines anew; a person who reads
the difference in git is to see what was changed, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kfdeploy.patch.patch_file import scalar
from kfdeploy.yamltext.nodes import child

_PLAIN = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./@+=-]*[A-Za-z0-9_/]")
"""A path or version; one that YAML reads as a number or a date is quoted all the same."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A component as the changed file lists it.

    Attributes:
        index: where the file has it now; None for a new one.
    """

    index: int | None
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be changed.

    Attributes:
        source: ``upstream.source``.
        ref: ``upstream.ref``; None leaves what is there, or nothing.
        components: all of them, in their order.
        remotes: entries of ``upstream.remotes`` to set; others stay.
    """

    source: str
    ref: str | None
    components: Sequence[Entry]
    remotes: Mapping[str, str] = field(default_factory=dict)


def changed(text: str, changes: Changes) -> str:
    """The file's text with the changes made.

    Args:
        text: a valid ``kfdeploy.yaml``.
    """
    return _Editor(text).changed(changes)


class _Editor:
    def __init__(self, text: str) -> None:
        self.text = text if text.endswith("\n") else f"{text}\n"
        # As `workspace_file` reads it: libyaml, and ruamel's own parser for what that refuses.
        try:
            self.top: Node = YAML(typ="safe").compose(self.text)
        except YAMLError:
            self.top = YAML(typ="safe", pure=True).compose(self.text)
        self.lines = self.text.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))
        self.edits: list[tuple[int, int, str]] = []

    def changed(self, changes: Changes) -> str:
        upstream = child(self.top, "upstream")
        assert isinstance(upstream, MappingNode)
        self._upstream(upstream, changes)
        components = child(self.top, "components")
        assert isinstance(components, SequenceNode)
        if [*range(len(components.value))] == [e.index for e in changes.components]:
            for item, entry in zip(components.value, changes.components, strict=True):
                self.edits += self._path(item, entry.path)
        elif components.flow_style:
            self._flow(components, changes.components)
        else:
            self._block(components, changes.components)
        text = self.text
        for start, end, new in sorted(self.edits, reverse=True):
            text = text[:start] + new + text[end:]
        return text

    # -- upstream ------------------------------------------------------------------------------

    def _upstream(self, upstream: MappingNode, changes: Changes) -> None:
        source = child(upstream, "source")
        assert isinstance(source, ScalarNode)
        self._set(source, changes.source)
        ref, remotes = child(upstream, "ref"), child(upstream, "remotes")
        missing: list[str] = []
        if changes.ref is not None:
            if isinstance(ref, ScalarNode):
                self._set(ref, changes.ref)
            else:
                missing.append(f"ref: {scalar(changes.ref)}")
        new = dict(changes.remotes)
        for key, value in remotes.value if isinstance(remotes, MappingNode) else ():
            if key.value in new:
                self._set(value, new.pop(key.value))
        # In quotes within braces: libyaml, as Go's YAML before it, has trouble with a URL there.
        braces = ", ".join(f"{json.dumps(key)}: {scalar(value)}" for key, value in new.items())
        if new and isinstance(remotes, MappingNode) and remotes.value:
            last = remotes.value[-1][1]
            pairs = [f"{scalar(key)}: {_quoted(value, None)}" for key, value in new.items()]
            self._after(remotes, last, [braces] if remotes.flow_style else pairs)
        elif new and remotes is not None:
            self.edits.append((remotes.start_mark.index, remotes.end_mark.index, f"{{{braces}}}"))
        elif new:
            missing.append(f"remotes: {{{braces}}}")
        if missing:
            self._after(upstream, source, missing)

    def _set(self, node: ScalarNode, value: str) -> None:
        if node.value != value:
            new = _quoted(value, node.style)
            self.edits.append((node.start_mark.index, node.end_mark.index, new))

    def _after(self, mapping: MappingNode, node: Node, pairs: Sequence[str]) -> None:
        """Put pairs into a mapping, behind one of its values."""
        if mapping.flow_style:
            at = node.end_mark.index
            self.edits.append((at, at, "".join(f", {pair}" for pair in pairs)))
            return
        indent = " " * mapping.value[0][0].start_mark.column
        at = self.starts[_last_line(node) + 1]
        self.edits.append((at, at, "".join(f"{indent}{pair}\n" for pair in pairs)))

    # -- components ----------------------------------------------------------------------------

    def _path(self, item: Node, path: str) -> list[tuple[int, int, str]]:
        node = child(item, "path")
        assert isinstance(node, ScalarNode)
        if node.value.rstrip("/") == path:
            return []
        return [(node.start_mark.index, node.end_mark.index, _quoted(path, node.style))]

    def _slice(self, start: int, end: int, item: Node, path: str) -> str:
        """A piece of the text, with the item's path in it replaced."""
        piece = self.text[start:end]
        for first, last, new in self._path(item, path):
            piece = piece[: first - start] + new + piece[last - start :]
        return piece

    def _flow(self, components: SequenceNode, entries: Sequence[Entry]) -> None:
        items = components.value
        pieces = []
        for entry in entries:
            if entry.index is None:
                pieces.append(f"{{name: {scalar(entry.name)}, path: {scalar(entry.path)}}}")
            else:
                item = items[entry.index]
                ends = item.start_mark.index, item.end_mark.index
                pieces.append(self._slice(*ends, item, entry.path))
        lines = {item.start_mark.line for item in items}
        between = ", "
        if len(lines) > 1:
            between = ",\n" + " " * items[1].start_mark.column
        self.edits.append(
            (items[0].start_mark.index, items[-1].end_mark.index, between.join(pieces))
        )

    def _block(self, components: SequenceNode, entries: Sequence[Entry]) -> None:
        items = components.value
        first = [self._dash(item) for item in items]
        last = [_last_line(item) for item in items]
        kept = {entry.index for entry in entries}
        leads: list[list[str]] = [[]]
        leads += [self.lines[last[i - 1] + 1 : first[i]] for i in range(1, len(items))]
        for index in range(len(items)):
            if index not in kept:
                # The comment right above it goes with it; what stands further up does not.
                lead = leads[index]
                while lead and lead[-1].lstrip().startswith("#"):
                    lead.pop()
                if index + 1 < len(items):
                    leads[index + 1] = lead + leads[index + 1]
        dash = self.lines[first[0]].index("-")
        keys = items[0].start_mark.column if not items[0].flow_style else dash + 2
        out = []
        for entry in entries:
            if entry.index is None:
                pad = " " * (keys - dash - 1)
                out.append(f"{' ' * dash}-{pad}name: {scalar(entry.name)}\n")
                out.append(f"{' ' * keys}path: {scalar(entry.path)}\n")
            else:
                at = entry.index
                out += leads[at]
                start, end = self.starts[first[at]], self.starts[last[at] + 1]
                out.append(self._slice(start, end, items[at], entry.path))
        self.edits.append((self.starts[first[0]], self.starts[last[-1] + 1], "".join(out)))

    def _dash(self, item: Node) -> int:
        """The line of the item's dash."""
        line: int = item.start_mark.line
        while not self.lines[line].lstrip().startswith("-"):
            line -= 1
        return line


def _last_line(node: Node) -> int:
    """The last line that holds something of a node; a block's own end mark is behind comments."""
    if isinstance(node, ScalarNode) or getattr(node, "flow_style", False):
        mark = node.end_mark
        is_behind = mark.column == 0 and mark.line > node.start_mark.line
        line: int = mark.line - 1 if is_behind else mark.line
        return line
    return max((_last_line(below) for below in _below(node)), default=int(node.start_mark.line))


def _below(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, SequenceNode):
        yield from node.value


def _quoted(value: str, style: str | None) -> str:
    if style == '"':
        return json.dumps(value, ensure_ascii=False)
    if style == "'":
        return "'" + value.replace("'", "''") + "'"
    if _PLAIN.fullmatch(value) and YAML(typ="safe").load(value) == value:
        return value
    return scalar(value)
