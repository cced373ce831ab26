"""Check the cluster's version and APIs against those that a set uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kfdeploy.apply.preflight.api_versions import (
    ApiRemoval,
    KindLookup,
    Version,
    find_api_removal,
    find_first_version,
    is_builtin,
    parse_minor_version,
)
from kfdeploy.apply.preflight.finding import PreflightFinding, Severity
from kfdeploy.features.registry import find_unserved_hint
from kfdeploy.kubernetes.accessors import get_text, list_mappings
from kfdeploy.releaseset.order.contents import SetContents, SetObject
from kfdeploy.releaseset.summary import SetSummary

_RENDER_HINT: Final = (
    "set the environment's kubeVersion in kfdeploy.yaml to the cluster's version and run"
    " `kfdeploy render`"
)


def check_version(cluster_version: str, rendered_for: str) -> PreflightFinding:
    """Compare a cluster's version with the one that a set was rendered for."""
    wanted, found = parse_minor_version(rendered_for), parse_minor_version(cluster_version)
    if (0, 0) in (wanted, found) or found == wanted:
        return PreflightFinding("version", "ok", f"Kubernetes {cluster_version}")
    shown = f"{wanted[0]}.{wanted[1]}"
    if found < wanted:
        return PreflightFinding(
            "version",
            "error",
            f"the cluster is Kubernetes {cluster_version}, and the set was rendered for {shown}",
            hint=f"{_RENDER_HINT}, or upgrade the cluster",
        )
    return PreflightFinding(
        "version",
        "warning",
        f"the cluster is Kubernetes {cluster_version}, newer than {shown}, which the set was"
        " rendered for",
        hint=_RENDER_HINT,
    )


def check_apis(
    contents: SetContents, kinds: KindLookup, cluster_version: str
) -> Iterator[PreflightFinding]:
    """Find kinds that the cluster will not serve, and versions of them that are removed soon."""
    users: dict[tuple[str, str], list[SetObject]] = {}
    for item in contents.items:
        users.setdefault((item.key.api_version, item.key.kind), []).append(item)
    is_good = True
    for (api_version, kind), items in sorted(users.items()):
        used = _UsedKind(api_version, kind, items)
        crd = contents.crd_of(items[0])
        is_served = kinds.of(api_version, kind) is not None
        if crd is not None:
            finding = _check_brought_kind(used, crd)
        elif is_served:
            finding = _check_served_kind(used, cluster_version)
        else:
            finding = _explain_unserved_kind(used, cluster_version)
        if finding is not None:
            is_good = False
            yield finding
    if is_good:
        yield PreflightFinding("api", "ok", f"{len(users)} kinds are served, or come with the set")


@dataclass(frozen=True, slots=True)
class _UsedKind:
    """A kind in one version, and the set's objects of it."""

    api_version: str
    kind: str
    items: Sequence[SetObject]

    def __str__(self) -> str:
        return f"{self.api_version} {self.kind}"

    def make_finding(self, severity: Severity, what: str, hint: str) -> PreflightFinding:
        where = tuple(f"{item.component}: {item}" for item in self.items)
        return PreflightFinding("api", severity, what, where, hint)


def _check_brought_kind(used: _UsedKind, crd: SetObject) -> PreflightFinding | None:
    """Check a kind that a definition of the set brings."""
    versions = list_mappings(crd.spec, "versions")
    served = [get_text(version, "name") for version in versions if version.get("served")]
    if used.api_version.rpartition("/")[2] in served:
        return None
    return used.make_finding(
        "error",
        f"{used}: {crd} of the set serves {', '.join(served) or 'nothing'}",
        "render these objects in a version that is served, by a patch",
    )


def _check_served_kind(used: _UsedKind, cluster_version: str) -> PreflightFinding | None:
    """Warn of a kind that a later release of Kubernetes does not serve."""
    removal = find_api_removal(used.api_version, used.kind)
    if removal is None or parse_minor_version(cluster_version) >= removal.at:
        return None
    return used.make_finding(
        "warning",
        f"{used} is not served from Kubernetes {_format_version(removal.at)} on"
        f"{_format_replacement(removal)}",
        "before the cluster is upgraded, change the objects' apiVersion by a patch",
    )


def _explain_unserved_kind(used: _UsedKind, cluster_version: str) -> PreflightFinding:
    """Explain why a kind is not served, and what helps."""
    if (removal := find_api_removal(used.api_version, used.kind)) is not None:
        return used.make_finding(
            "error",
            f"{used} is not served: Kubernetes {_format_version(removal.at)} removed it"
            f"{_format_replacement(removal)}",
            "change the objects' apiVersion and fields by a patch",
        )
    feature_hint = find_unserved_hint(used.kind)
    first = find_first_version(used.api_version, used.kind)
    if first is not None and parse_minor_version(cluster_version) < first:
        return used.make_finding(
            "error",
            f"{used} is served from Kubernetes {_format_version(first)} on; the cluster is"
            f" {cluster_version}",
            feature_hint,
        )
    if feature_hint:
        return used.make_finding("error", f"{used} is not served", feature_hint)
    return used.make_finding(
        "error",
        f"{used} is not served, and the set does not bring it",
        "the API server has it turned off: see its --runtime-config and --feature-gates"
        if is_builtin(used.api_version)
        else "install what brings it (its CRD) first, or leave the component out",
    )


def _format_version(version: Version) -> str:
    return ".".join(map(str, version))


def _format_replacement(removal: ApiRemoval) -> str:
    return f"; use {removal.instead} instead" if removal.instead else ""


def check_record_sizes(summary: SetSummary, most: int, good: int) -> Iterator[PreflightFinding]:
    """Find releases whose Helm record is too large for a Secret, or nearly.

    Args:
        most: bytes that a Secret holds.
        good: bytes above which a record is worth a warning.
    """
    for release in summary.releases:
        size = release.stored_bytes
        if size > good:
            is_too_large = size > most
            yield PreflightFinding(
                "size",
                "error" if is_too_large else "warning",
                f"{release.name}: Helm's record takes {size // 1024} KiB, and a Secret holds"
                f" {most // 1024} KiB",
                hint="leave parts of the component out, or split it in two" if is_too_large else "",
            )
    largest = max((release.stored_bytes for release in summary.releases), default=0)
    if largest <= good:
        text = f"Helm's records take at most {-(-largest // 1024)} KiB each; {most // 1024} KiB fit"
        yield PreflightFinding("size", "ok", text)
