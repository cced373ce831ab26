"""A comparison in sections, as text and as Markdown.

Both hold the same. Markdown folds long sections, so that a merge request begins with the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kfdeploy.wording import pluralize

DANGER: Final = "!"
NOTHING: Final = "no difference"
_FOLDED: Final = 12
"""Markdown folds a section of more lines."""


@dataclass(frozen=True, slots=True)
class SectionItem:
    """Hold one line, the lines below it, and lines of a unified diff."""

    sign: str
    text: str
    below: tuple[str, ...] = ()
    hunk: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportSection:
    """Hold a section.

    Attributes:
        note: a summary in one line.
        open: Markdown never folds it, and leaves out the words for the signs of its lines.
    """

    name: str
    title: str
    note: str
    items: tuple[SectionItem, ...]
    open: bool = False


def format_text(
    head: Sequence[str], sections: Sequence[ReportSection], nothing: str = NOTHING
) -> Iterator[str]:
    """Yield lines for a terminal; ``nothing`` where there is no section."""
    yield from head
    if not sections:
        yield nothing
    for section in sections:
        yield ""
        yield f"{section.title}: {section.note}"
        for item in section.items:
            yield f"  {item.sign} {item.text}"
            yield from (f"      {line}" for line in item.below)
            yield from (f"      {line}".rstrip() for line in item.hunk)


def format_markdown(
    head: Sequence[str], sections: Sequence[ReportSection], nothing: str = NOTHING
) -> Iterator[str]:
    """Yield Markdown for a merge request; the first line of the head is its heading."""
    title, *rest = head
    yield f"## {title}"
    yield ""
    yield from (f"{line.strip()}  " for line in rest)
    if not sections:
        yield f"{_capitalize_first(nothing)}."
    for section in sections:
        yield ""
        yield f"### {_capitalize_first(section.title)}"
        yield ""
        yield f"{_capitalize_first(section.note)}."
        yield from _format_items(section)


def _format_items(section: ReportSection) -> Iterator[str]:
    size = sum(1 + len(item.below) + len(item.hunk) for item in section.items)
    folded = size > _FOLDED and not section.open
    if folded:
        yield ""
        yield f"<details><summary>{pluralize(size, 'line')}</summary>"
    yield ""
    for item in section.items:
        mark = _MARKS[item.sign] if item.sign == DANGER or not section.open else ""
        yield f"- {mark}{_format_code_span(item.text)}"
        yield from (f"  - {_format_code_span(line)}" for line in item.below)
        if item.hunk:
            fence = "`" * max(3, 1 + _longest_backtick_run(item.hunk))
            yield ""
            yield f"  {fence}diff"
            yield from (f"  {line}".rstrip() for line in item.hunk)
            yield f"  {fence}"
    if folded:
        yield ""
        yield "</details>"


def _capitalize_first(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}"


_MARKS: Final = {
    DANGER: "\N{WARNING SIGN} ",
    "+": "added ",
    "-": "gone ",
    "=": "stays ",
    ">": "moved ",
    "~": "",
    "": "",
}


def _longest_backtick_run(lines: Iterable[str]) -> int:
    """Return the length of the longest run of backticks; a fence needs one more."""
    return max((len(run) for line in lines for run in _backtick_runs(line)), default=0)


def _backtick_runs(line: str) -> Iterator[str]:
    run = ""
    for letter in line:
        run = run + letter if letter == "`" else ""
        yield run


def _format_code_span(line: str) -> str:
    """Return a code span: no text of a set in it becomes markup, a mention or a link."""
    ticks = "`" * (1 + _longest_backtick_run([line]))
    return f"{ticks}{line}{ticks}" if len(ticks) == 1 else f"{ticks} {line} {ticks}"
