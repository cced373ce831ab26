"""Whose the objects are that a set has and that are there already.

Marks: Helm's annotations; Argo CD's tracking (annotation ``argocd.argoproj.io/tracking-id``, label
``argocd.argoproj.io/instance``); Flux's labels ``kustomize.toolkit.fluxcd.io`` and
``helm.toolkit.fluxcd.io``; the managers of fields.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from kfdeploy.apply.preflight.finding import PreflightFinding
from kfdeploy.kubernetes.helm_release import OWNER, OWNER_NAMESPACE, is_user_data
from kfdeploy.kubernetes.objects import ObjectKey

CHECK: Final = "conflict"
Body = Mapping[str, Any]
_ARGO_ID: Final = "argocd.argoproj.io/tracking-id"
_ARGO: Final = "argocd.argoproj.io/instance"
_FLUX: Final = (
    ("kustomize.toolkit.fluxcd.io", "Flux Kustomization"),
    ("helm.toolkit.fluxcd.io", "Flux HelmRelease"),
)


def check_ownership(
    live_objects: Mapping[ObjectKey, Body],
    releases: Collection[str],
    namespace: str,
    *,
    take_over: bool,
) -> Iterator[PreflightFinding]:
    """What somebody else may object to, by who that is.

    Args:
        there: metadata of the set's objects that exist.
        releases: names of the set's.
        namespace: of Helm's records; other releases in it are of an earlier set.
        take_over: objects that nobody's marks are on may be made Helm's.
    """
    heaps: dict[tuple[str, str], list[str]] = {}
    own = 0
    for key, body in sorted(live_objects.items(), key=lambda entry: entry[0]):
        why = _classify_conflict(key, body, releases, namespace)
        if why is None:
            own += 1
        else:
            maker = _find_field_manager(body.get("metadata") or {}) if why[0] == "unmarked" else ""
            heaps.setdefault(why, []).append(f"{key} (by {maker})" if maker else str(key))
    for (kind, who), names in sorted(heaps.items()):
        yield _make_finding(kind, who, tuple(names), take_over)
    if not live_objects:
        yield PreflightFinding(CHECK, "ok", "nothing of the set is there yet")
    elif own:
        yield PreflightFinding(CHECK, "ok", f"{own} of the set's objects are there, as its own")


def _classify_conflict(
    key: ObjectKey, body: Body, releases: Collection[str], namespace: str
) -> tuple[str, str] | None:
    """What kind of conflict, and with whom."""
    meta = body.get("metadata") or {}
    notes = meta.get("annotations") or {}
    name, where = str(notes.get(OWNER, "")), str(notes.get(OWNER_NAMESPACE, ""))
    if meta.get("deletionTimestamp"):
        # One of ours that an apply was about to make anew when it was stopped: it is waited for.
        ours = where == namespace and name in releases and not is_user_data(key)
        return None if ours else ("going", "")
    if who := _find_gitops_owner(meta):
        return "gitops", who
    if name and where == namespace:
        return None if name in releases else ("earlier", name)
    if name:
        return "release", f"{name} in {where or 'no namespace'}"
    if key.kind == "CustomResourceDefinition":
        return None  # of no release, by design: applied by kfdeploy itself
    for one in meta.get("ownerReferences") or ():
        if one.get("controller"):
            return "owner", f"{one.get('kind')} {one.get('name')}"
    if key.kind == "Namespace":
        return "namespace", ""
    return "unmarked", ""


def _find_gitops_owner(meta: Body) -> str:
    notes, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    if tracked := str(notes.get(_ARGO_ID, "")):
        return f"the Argo CD application {tracked.partition(':')[0]}"
    if name := labels.get(_ARGO) or notes.get(_ARGO):
        return f"the Argo CD application {name}"
    for group, what in _FLUX:
        if name := labels.get(f"{group}/name"):
            return f"the {what} {labels.get(f'{group}/namespace', '')}/{name}"
    return ""


def _find_field_manager(meta: Body) -> str:
    """Who wrote it: the manager of its fields but for status, one that applies before others."""
    found = sorted(
        (entry.get("operation") != "Apply", str(entry.get("manager", "")))
        for entry in meta.get("managedFields") or ()
        if not entry.get("subresource") and entry.get("manager")
    )
    return found[0][1] if found else ""


def _make_finding(kind: str, who: str, where: tuple[str, ...], take_over: bool) -> PreflightFinding:
    count = "an object of the set is" if len(where) == 1 else f"{len(where)} objects of the set are"
    if kind == "going":
        return PreflightFinding(
            CHECK,
            "error",
            f"{count} being deleted",
            where,
            "wait until they are gone; `kubectl get ... -o yaml` shows the finalizers that hold"
            " them",
        )
    if kind == "gitops":
        return PreflightFinding(
            CHECK,
            "error",
            f"{count} of {who}, which would undo what apply changes",
            where,
            "take them out of it first, without pruning, or leave the component out of"
            " kfdeploy.yaml",
        )
    if kind == "release":
        return PreflightFinding(
            CHECK,
            "error",
            f"{count} of another Helm release, {who}",
            where,
            "uninstall that release first (its data may go with it), or leave the component out"
            " of kfdeploy.yaml",
        )
    if kind == "owner":
        return PreflightFinding(
            CHECK,
            "error",
            f"{count} controlled by {who}, which would undo what apply changes",
            where,
            "delete what controls them, or leave them out of the set by a patch",
        )
    if kind == "earlier":
        text = f"{count} of the release {who}, which the set does not have: they change hands"
        return PreflightFinding(CHECK, "warning", text, where)
    if kind == "namespace":
        text = f"{count} a namespace already: it becomes Helm's, and is never deleted"
        return PreflightFinding(CHECK, "ok", text, where)
    what = f"{count} there already, made without Helm"
    if take_over:
        return PreflightFinding(CHECK, "ok", f"{what}: taken over", where)
    return PreflightFinding(
        CHECK, "error", what, where, "`kfdeploy apply --take-over` makes them the releases' own"
    )
