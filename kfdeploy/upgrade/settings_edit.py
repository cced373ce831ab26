"""Changes of ``kfdeploy.yaml`` in place: the text around a change keeps its bytes.

A round trip through a YAML library would indent lists and wrap long lines anew. People who read
the diff in git should see what was changed, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kfdeploy.yamltext.emit import quote_scalar
from kfdeploy.yamltext.nodes import get_child

_PLAIN = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./@+=-]*[A-Za-z0-9_/]")
"""A path or version that needs no quotes, unless YAML reads it as a number or a date."""


@dataclass(frozen=True, slots=True)
class ListedComponent:
    """Describe a component as the changed file lists it.

    Attributes:
        index: its place in the unchanged file; None for a new component.
    """

    index: int | None
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class SettingsChanges:
    """Hold the changes.

    Attributes:
        source: the new ``upstream.source``.
        ref: the new ``upstream.ref``; None leaves it as it is.
        components: all components, in their order.
        remotes: entries of ``upstream.remotes`` to set; others stay.
    """

    source: str
    ref: str | None
    components: Sequence[ListedComponent]
    remotes: Mapping[str, str] = field(default_factory=dict)


def edit_settings(text: str, changes: SettingsChanges) -> str:
    """Return the file's text with the changes made.

    Args:
        text: a valid ``kfdeploy.yaml``.
    """
    return _SettingsEditor(text).apply_changes(changes)


class _SettingsEditor:
    def __init__(self, text: str) -> None:
        self.text = text if text.endswith("\n") else f"{text}\n"
        # As `settings_file` reads it: libyaml, and ruamel's own parser for what libyaml refuses.
        try:
            self.top: Node = YAML(typ="safe").compose(self.text)
        except YAMLError:
            self.top = YAML(typ="safe", pure=True).compose(self.text)
        self.lines = self.text.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))
        self.edits: list[tuple[int, int, str]] = []

    def apply_changes(self, changes: SettingsChanges) -> str:
        upstream = get_child(self.top, "upstream")
        assert isinstance(upstream, MappingNode)
        self._edit_upstream(upstream, changes)
        components = get_child(self.top, "components")
        assert isinstance(components, SequenceNode)
        if [*range(len(components.value))] == [e.index for e in changes.components]:
            for item, entry in zip(components.value, changes.components, strict=True):
                self.edits += self._edit_path(item, entry.path)
        elif components.flow_style:
            self._edit_flow_list(components, changes.components)
        else:
            self._edit_block_list(components, changes.components)
        text = self.text
        for start, end, new in sorted(self.edits, reverse=True):
            text = text[:start] + new + text[end:]
        return text

    # -- upstream ------------------------------------------------------------------------------

    def _edit_upstream(self, upstream: MappingNode, changes: SettingsChanges) -> None:
        source = get_child(upstream, "source")
        assert isinstance(source, ScalarNode)
        self._set_scalar(source, changes.source)
        ref, remotes = get_child(upstream, "ref"), get_child(upstream, "remotes")
        missing: list[str] = []
        if changes.ref is not None:
            if isinstance(ref, ScalarNode):
                self._set_scalar(ref, changes.ref)
            else:
                missing.append(f"ref: {quote_scalar(changes.ref)}")
        new = dict(changes.remotes)
        for key, value in remotes.value if isinstance(remotes, MappingNode) else ():
            if key.value in new:
                self._set_scalar(value, new.pop(key.value))
        # Quoted within braces: libyaml, as Go's YAML before it, fails on a plain URL there.
        braces = ", ".join(
            f"{json.dumps(key)}: {quote_scalar(value)}" for key, value in new.items()
        )
        if new and isinstance(remotes, MappingNode) and remotes.value:
            last = remotes.value[-1][1]
            pairs = [
                f"{quote_scalar(key)}: {_quote_scalar(value, None)}" for key, value in new.items()
            ]
            self._insert_after(remotes, last, [braces] if remotes.flow_style else pairs)
        elif new and remotes is not None:
            self.edits.append((remotes.start_mark.index, remotes.end_mark.index, f"{{{braces}}}"))
        elif new:
            missing.append(f"remotes: {{{braces}}}")
        if missing:
            self._insert_after(upstream, source, missing)

    def _set_scalar(self, node: ScalarNode, value: str) -> None:
        if node.value != value:
            new = _quote_scalar(value, node.style)
            self.edits.append((node.start_mark.index, node.end_mark.index, new))

    def _insert_after(self, mapping: MappingNode, node: Node, pairs: Sequence[str]) -> None:
        """Insert pairs into a mapping, behind one of its values."""
        if mapping.flow_style:
            at = node.end_mark.index
            self.edits.append((at, at, "".join(f", {pair}" for pair in pairs)))
            return
        indent = " " * mapping.value[0][0].start_mark.column
        at = self.starts[_last_line(node) + 1]
        self.edits.append((at, at, "".join(f"{indent}{pair}\n" for pair in pairs)))

    # -- components ----------------------------------------------------------------------------

    def _edit_path(self, item: Node, path: str) -> list[tuple[int, int, str]]:
        node = get_child(item, "path")
        assert isinstance(node, ScalarNode)
        if node.value.rstrip("/") == path:
            return []
        return [(node.start_mark.index, node.end_mark.index, _quote_scalar(path, node.style))]

    def _slice_item(self, start: int, end: int, item: Node, path: str) -> str:
        """Return a piece of the text with the item's path replaced."""
        piece = self.text[start:end]
        for first, last, new in self._edit_path(item, path):
            piece = piece[: first - start] + new + piece[last - start :]
        return piece

    def _edit_flow_list(self, components: SequenceNode, entries: Sequence[ListedComponent]) -> None:
        items = components.value
        pieces = []
        for entry in entries:
            if entry.index is None:
                pieces.append(
                    f"{{name: {quote_scalar(entry.name)}, path: {quote_scalar(entry.path)}}}"
                )
            else:
                item = items[entry.index]
                ends = item.start_mark.index, item.end_mark.index
                pieces.append(self._slice_item(*ends, item, entry.path))
        lines = {item.start_mark.line for item in items}
        between = ", "
        if len(lines) > 1:
            between = ",\n" + " " * items[1].start_mark.column
        self.edits.append(
            (items[0].start_mark.index, items[-1].end_mark.index, between.join(pieces))
        )

    def _edit_block_list(
        self, components: SequenceNode, entries: Sequence[ListedComponent]
    ) -> None:
        items = components.value
        first = [self._find_dash_line(item) for item in items]
        last = [_last_line(item) for item in items]
        kept = {entry.index for entry in entries}
        leads: list[list[str]] = [[]]
        leads += [self.lines[last[i - 1] + 1 : first[i]] for i in range(1, len(items))]
        for index in range(len(items)):
            if index not in kept:
                # Remove the comment right above it as well, and keep what stands further up.
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
                out.append(f"{' ' * dash}-{pad}name: {quote_scalar(entry.name)}\n")
                out.append(f"{' ' * keys}path: {quote_scalar(entry.path)}\n")
            else:
                at = entry.index
                out += leads[at]
                start, end = self.starts[first[at]], self.starts[last[at] + 1]
                out.append(self._slice_item(start, end, items[at], entry.path))
        self.edits.append((self.starts[first[0]], self.starts[last[-1] + 1], "".join(out)))

    def _find_dash_line(self, item: Node) -> int:
        """Return the number of the line that has the item's dash."""
        line: int = item.start_mark.line
        while not self.lines[line].lstrip().startswith("-"):
            line -= 1
        return line


def _last_line(node: Node) -> int:
    """Return the last line that holds a part of a node; a block's end mark is behind comments."""
    if isinstance(node, ScalarNode) or getattr(node, "flow_style", False):
        mark = node.end_mark
        is_behind = mark.column == 0 and mark.line > node.start_mark.line
        line: int = mark.line - 1 if is_behind else mark.line
        return line
    return max(
        (_last_line(below) for below in _iter_children(node)), default=int(node.start_mark.line)
    )


def _iter_children(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, SequenceNode):
        yield from node.value


def _quote_scalar(value: str, style: str | None) -> str:
    if style == '"':
        return json.dumps(value, ensure_ascii=False)
    if style == "'":
        return "'" + value.replace("'", "''") + "'"
    if _PLAIN.fullmatch(value) and YAML(typ="safe").load(value) == value:
        return value
    return quote_scalar(value)
