"""The cluster's version and APIs against those that a set uses."""

from __future__ import annotations

from collections.abc import Iterator

from kfdeploy.apply.preflight.api_versions import (
    KindLookup,
    find_api_removal,
    find_first_version,
    is_builtin,
    parse_minor_version,
)
from kfdeploy.apply.preflight.finding import PreflightFinding
from kfdeploy.features.registry import find_unserved_hint
from kfdeploy.releaseset.order.contents import SetContents, SetObject
from kfdeploy.releaseset.summary import SetSummary


def check_version(cluster_version: str, rendered_for: str) -> PreflightFinding:
    """A cluster's version against the one that a set was rendered for."""
    wanted, found = parse_minor_version(rendered_for), parse_minor_version(cluster_version)
    if (0, 0) in (wanted, found) or found == wanted:
        return PreflightFinding("version", "ok", f"Kubernetes {cluster_version}")
    shown = f"{wanted[0]}.{wanted[1]}"
    if found < wanted:
        return PreflightFinding(
            "version",
            "error",
            f"the cluster is Kubernetes {cluster_version}, and the set was rendered for {shown}",
            hint="set the environment's kubeVersion in kfdeploy.yaml to the cluster's and run"
            " `kfdeploy render`, or upgrade the cluster",
        )
    return PreflightFinding(
        "version",
        "warning",
        f"the cluster is Kubernetes {cluster_version}, newer than {shown} that the"
        " set was rendered for",
        hint="set the environment's kubeVersion in kfdeploy.yaml to the cluster's and run"
        " `kfdeploy render`",
    )


def check_apis(
    contents: SetContents, kinds: KindLookup, cluster_version: str
) -> Iterator[PreflightFinding]:
    """Kinds that nobody will serve, and versions of them that go soon."""
    users: dict[tuple[str, str], list[SetObject]] = {}
    for item in contents.items:
        users.setdefault((item.key.api_version, item.key.kind), []).append(item)
    good = 0
    for (api_version, kind), items in sorted(users.items()):
        finding = _check_kind(contents, kinds, cluster_version, api_version, kind, items)
        if finding is None:
            good += 1
        else:
            yield finding
    if good == len(users):
        yield PreflightFinding("api", "ok", f"{good} kinds are served, or come with the set")


def _check_kind(
    contents: SetContents,
    kinds: KindLookup,
    cluster_version: str,
    api_version: str,
    kind: str,
    items: list[SetObject],
) -> PreflightFinding | None:
    where = tuple(f"{item.component}: {item}" for item in items)
    what = f"{api_version} {kind}"
    crd = contents.crd_of(items[0])
    if crd is not None:
        brought = {str(v.get("name")): v for v in crd.spec.get("versions") or ()}
        own = brought.get(api_version.rpartition("/")[2], {})
        if own.get("served"):
            return None
        serves = ", ".join(name for name, v in brought.items() if v.get("served"))
        return PreflightFinding(
            "api",
            "error",
            f"{what}: {crd} of the set serves {serves or 'nothing'}",
            where,
            "render these objects in a version that is served, by a patch",
        )
    gone = find_api_removal(api_version, kind)
    instead = f"; {gone.instead} is there instead" if gone and gone.instead else ""
    if kinds.of(api_version, kind) is not None:
        if gone is None or parse_minor_version(cluster_version) >= gone.at:
            return None
        return PreflightFinding(
            "api",
            "warning",
            f"{what} is not served from Kubernetes {gone.at[0]}.{gone.at[1]} on{instead}",
            where,
            "before the cluster is upgraded, change the objects' apiVersion by a patch",
        )
    if gone is not None:
        text = f"{what} is not served: Kubernetes {gone.at[0]}.{gone.at[1]} removed it{instead}"
        return PreflightFinding(
            "api", "error", text, where, "change the objects' apiVersion and fields by a patch"
        )
    if (first := find_first_version(api_version, kind)) is not None and parse_minor_version(
        cluster_version
    ) < first:
        text = (
            f"{what} is served from Kubernetes {first[0]}.{first[1]} on; the"
            f" cluster is {cluster_version}"
        )
        return PreflightFinding("api", "error", text, where, find_unserved_hint(kind))
    if hint := find_unserved_hint(kind):
        return PreflightFinding("api", "error", f"{what} is not served", where, hint)
    hint = (
        "the API server has it turned off: --runtime-config and --feature-gates say which"
        if is_builtin(api_version)
        else "install what brings it (its CRD) first, or leave the component out"
    )
    return PreflightFinding(
        "api", "error", f"{what} is not served, and the set does not bring it", where, hint
    )


def check_record_sizes(summary: SetSummary, most: int, good: int) -> Iterator[PreflightFinding]:
    """Releases that Helm's record has no room for."""
    largest = max((release.stored_bytes for release in summary.releases), default=0)
    for release in summary.releases:
        stored = release.stored_bytes
        if stored > good:
            over = stored > most
            yield PreflightFinding(
                "size",
                "error" if over else "warning",
                f"{release.name}: Helm's record of it takes {stored // 1024} KiB, and a Secret"
                f" holds {most // 1024}",
                hint="" if not over else "leave parts of the component out, or split it in two",
            )
    if largest <= good:
        text = f"Helm's records take {-(-largest // 1024)} KiB each at most, and {most // 1024} fit"
        yield PreflightFinding("size", "ok", text)
