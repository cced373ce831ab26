"""The result of an audit as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from kfdeploy.cli.report import sections
from kfdeploy.cli.report.sections import DANGER, ReportSection, SectionItem
from kfdeploy.wording import pluralize

if TYPE_CHECKING:
    from kfdeploy.apply.audit import ImageAudit
    from kfdeploy.apply.running_images import RunningImage

_TITLES: Final = {
    "foreign": "not from the private registry",
    "stale": "images of the set at another tag or digest",
    "unlocked": "from the private registry, but not in the set",
}
_OWNERS: Final = 5


def format_audit(audit: ImageAudit, form: str) -> Iterator[str]:
    """Yield lines: a summary, then each image that is wrong, with the workloads that run it."""
    show = sections.format_markdown if form == "markdown" else sections.format_text
    locked = sum(image.state == "locked" for image in audit.images)
    head = [
        f"{audit.set}: {pluralize(audit.pods, 'pod')} of the set and its users",
        f"  {pluralize(locked, 'image')} as locked, {len(audit.unused)} of the set not running now",
    ]
    if audit.skipped:
        names = ", ".join(f"{name} ({number})" for name, number in audit.skipped.items())
        head.append(f"  not checked, as they do not belong to the set: pods in {names}")
    found = [section for state in _TITLES if (section := _build_section(audit, state))]
    yield from show(head, found, "all running images are in the lock")


def _build_section(audit: ImageAudit, state: str) -> ReportSection | None:
    found = [image for image in audit.images if image.state == state]
    if not found:
        return None
    items = tuple(_build_item(image) for image in found)
    return ReportSection(state, _TITLES[state], pluralize(len(items), "image"), items, open=True)


def _build_item(one: RunningImage) -> SectionItem:
    lines = [one.why] if one.why else []
    shown = one.owners[:_OWNERS]
    lines += [str(owner) for owner in shown]
    if more := len(one.owners) - len(shown):
        lines.append(f"and {pluralize(more, 'more workload')}")
    sign = DANGER if one.is_different else "~"
    return SectionItem(sign, f"{one.image} ({pluralize(one.pods, 'pod')})", tuple(lines))
