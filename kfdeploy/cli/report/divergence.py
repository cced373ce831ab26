"""The differences between a cluster and a release set, as people read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from kfdeploy.cli.report import sections
from kfdeploy.cli.report.sections import DANGER, ReportSection, SectionItem
from kfdeploy.kubernetes.diff import hunks
from kfdeploy.wording import pluralize

if TYPE_CHECKING:
    from kfdeploy.apply.cluster_diff import ClusterDiff
    from kfdeploy.apply.divergence import FieldDivergence, ObjectDivergence

_STATES: Final = {
    "not installed": "not installed",
    "other": "installed from another set",
    "removed": "no longer in the set",
}
_TITLES: Final = {
    "missing": "missing",
    "changed": "different in the cluster (+ is what the set has)",
    "owner": "owned by somebody else",
}


def format_text(diff: ClusterDiff) -> Iterator[str]:
    """Yield lines for a terminal."""
    yield from sections.format_text(_format_head(diff), _build_sections(diff))


def format_markdown(diff: ClusterDiff) -> Iterator[str]:
    """Yield Markdown for a merge request or a ticket."""
    yield from sections.format_markdown(_format_head(diff), _build_sections(diff))


def _format_head(diff: ClusterDiff) -> list[str]:
    where = f"the context {diff.context}" if diff.context else "the current context"
    return [
        f"{diff.set} -> the cluster of {where}",
        f"  Kubernetes {diff.version}, {pluralize(diff.objects, 'object')} in the set",
    ]


def _build_sections(diff: ClusterDiff) -> list[ReportSection]:
    releases = tuple(
        SectionItem(
            "-" if one.state == "not installed" else "~",
            f"{one.name}: {_STATES.get(one.state, one.state)}"
            + (f" (revision {one.revision})" if one.revision else ""),
        )
        for one in diff.releases
    )
    made = [
        ReportSection(
            "releases",
            "releases",
            f"{len(releases)} not as in the set",
            releases,
            open=True,
        )
    ]
    divergences = [one for found in diff.divergences.values() for one in found]
    for what, title in _TITLES.items():
        items = tuple(_build_item(one) for one in divergences if one.what == what)
        made.append(ReportSection(what, title, pluralize(len(items), "object"), items, open=True))
    left = tuple(SectionItem("+", f"{key} ({release})") for release, key in diff.leftovers)
    note = f"{pluralize(len(left), 'object')} in Helm's records that the set does not have"
    made.append(ReportSection("left", "left over", note, left, open=True))
    return [one for one in made if one.items]


def _build_item(one: ObjectDivergence) -> SectionItem:
    name = f"{one.key} ({one.release})"
    if one.what == "missing":
        return SectionItem("-", name)
    if one.what == "owner":
        owner = (
            f"owned by the Helm release {one.owner}" if one.owner else "owned by no Helm release"
        )
        return SectionItem(DANGER, f"{name}: {owner}")
    below: list[str] = []
    hunk: list[str] = []
    if one.schema_field_count:
        below.append(f"{pluralize(one.schema_field_count, 'field')} of its schemas and columns")
    for field in one.fields:
        if field.is_schema:
            continue
        difference = field.difference
        if field.is_one_line:
            below.append(str(field))
        else:
            hunk.append(f"@@ {difference.field}{_format_managers(field)}")
            hunk += hunks.diff_lines(difference.was, difference.becomes)
    if one.unconfirmed:
        below.append(f"not confirmed by the API server: {one.unconfirmed}")
    return SectionItem("~", name, tuple(below), tuple(hunk))


def _format_managers(field: FieldDivergence) -> str:
    return f" (by {', '.join(map(str, field.managers))})" if field.managers else ""
