"""What a cluster has otherwise than a release set, as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from kfdeploy.cli.report import sections
from kfdeploy.cli.report.sections import DANGER, Item, Section
from kfdeploy.kubernetes.diff import hunks
from kfdeploy.terminal import counted

if TYPE_CHECKING:
    from kfdeploy.apply.cluster_diff import ClusterDiff
    from kfdeploy.apply.drift import Drift, Drifted

_STATES: Final = {
    "not installed": "not installed",
    "other": "installed from another set",
    "removed": "no longer in the set",
}
_TITLES: Final = {
    "missing": "missing",
    "changed": "otherwise than in the set (+ is what the set has)",
    "owner": "not the set's own",
}


def text(diff: ClusterDiff) -> Iterator[str]:
    """Lines for a terminal."""
    yield from sections.text(_head(diff), _sections(diff))


def markdown(diff: ClusterDiff) -> Iterator[str]:
    """The same for a merge request or a ticket."""
    yield from sections.markdown(_head(diff), _sections(diff))


def _head(diff: ClusterDiff) -> list[str]:
    where = f"the context {diff.context}" if diff.context else "the current context"
    return [
        f"{diff.set} -> the cluster of {where}",
        f"  Kubernetes {diff.version}, {counted(diff.objects, 'object')} in the set",
    ]


def _sections(diff: ClusterDiff) -> list[Section]:
    releases = tuple(
        Item(
            "-" if one.state == "not installed" else "~",
            f"{one.name}: {_STATES.get(one.state, one.state)}"
            + (f" (revision {one.revision})" if one.revision else ""),
        )
        for one in diff.releases
    )
    made = [
        Section(
            "releases",
            "releases",
            f"{len(releases)} {'is' if len(releases) == 1 else 'are'} not as in the set",
            releases,
            open=True,
        )
    ]
    drifts = [one for found in diff.drift.values() for one in found]
    for what, title in _TITLES.items():
        items = tuple(_item(one) for one in drifts if one.what == what)
        made.append(Section(what, title, counted(len(items), "object"), items, open=True))
    left = tuple(Item("+", f"{key} ({release})") for release, key in diff.left)
    note = f"{counted(len(left), 'object')} of Helm's records that the set does not have"
    made.append(Section("left", "left over", note, left, open=True))
    return [one for one in made if one.items]


def _item(one: Drift) -> Item:
    name = f"{one.key} ({one.release})"
    if one.what == "missing":
        return Item("-", name)
    if one.what == "owner":
        owner = f"of the Helm release {one.owner}" if one.owner else "of no Helm release"
        return Item(DANGER, f"{name}: {owner}")
    below: list[str] = []
    hunk: list[str] = []
    if one.schema:
        below.append(f"{counted(one.schema, 'field')} of its schemas and columns")
    for field in one.fields:
        if field.is_schema:
            continue
        difference = field.difference
        if field.is_one_line:
            below.append(str(field))
        else:
            hunk.append(f"@@ {difference.field}{_by(field)}")
            hunk += hunks.hunk(difference.was, difference.becomes)
    if one.unconfirmed:
        below.append(f"not tried by the API server: {one.unconfirmed}")
    return Item("~", name, tuple(below), tuple(hunk))


def _by(field: Drifted) -> str:
    return f" (by {', '.join(map(str, field.managers))})" if field.managers else ""
