"""What an audit found, as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from kfdeploy.cli.report import sections as show_sections
from kfdeploy.cli.report.sections import DANGER, Item, Section
from kfdeploy.terminal import counted

if TYPE_CHECKING:
    from kfdeploy.apply.audit import Audit
    from kfdeploy.apply.running_images import Running

_TITLES: Final = {
    "foreign": "from elsewhere than the private registry",
    "stale": "of the set, at another tag or digest",
    "unlocked": "in the private registry, and not of the set",
}
_OWNERS: Final = 5


def images(audit: Audit, form: str) -> Iterator[str]:
    """Lines: first what is wrong, each with the workloads that run it."""
    show = show_sections.markdown if form == "markdown" else show_sections.text
    locked = sum(one.state == "locked" for one in audit.images)
    head = [
        f"{audit.set}: {counted(audit.pods, 'pod')} of the set and its users",
        f"  {counted(locked, 'image')} as locked, {len(audit.unused)} of the set not running now",
    ]
    if audit.skipped:
        names = ", ".join(f"{name} ({number})" for name, number in audit.skipped.items())
        head.append(f"  not looked at, as they are not the set's: pods in {names}")
    sections = [section for state in _TITLES if (section := _section(audit, state))]
    yield from show(head, sections, "all that runs is of the lock")


def _section(audit: Audit, state: str) -> Section | None:
    found = [one for one in audit.images if one.state == state]
    if not found:
        return None
    items = tuple(_item(one) for one in found)
    return Section(state, _TITLES[state], counted(len(items), "image"), items, open=True)


def _item(one: Running) -> Item:
    lines = [one.why] if one.why else []
    shown = one.owners[:_OWNERS]
    lines += [str(owner) for owner in shown]
    if more := len(one.owners) - len(shown):
        lines.append(f"and {counted(more, 'more workload')}")
    sign = DANGER if one.is_different else "~"
    return Item(sign, f"{one.image} ({counted(one.pods, 'pod')})", tuple(lines))
