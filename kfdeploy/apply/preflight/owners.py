"""Check whose the objects of a set are that exist already.

Owners are known by their marks: Helm's annotations, Argo CD's tracking (the annotation
``argocd.argoproj.io/tracking-id``, the label ``argocd.argoproj.io/instance``), Flux's labels
(``kustomize.toolkit.fluxcd.io``, ``helm.toolkit.fluxcd.io``) and the managers of fields.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

from kfdeploy.apply.preflight.finding import PreflightFinding, Severity
from kfdeploy.kubernetes.accessors import (
    Body,
    find_controller_reference,
    get_annotations,
    get_labels,
    get_text,
    is_being_deleted,
    list_managed_fields,
)
from kfdeploy.kubernetes.helm_release import get_release_owner, is_user_data
from kfdeploy.kubernetes.objects import ObjectKey

CHECK: Final = "conflict"
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
    """Return findings about objects that others own, by owner.

    Args:
        live_objects: metadata of the set's objects that exist.
        releases: names of the set's releases.
        namespace: the namespace of Helm's records; other releases in it are of an earlier set.
        take_over: objects without anybody's marks may become Helm's.
    """
    conflicts: dict[_Conflict, list[str]] = {}
    own = 0
    for key, body in sorted(live_objects.items(), key=lambda entry: entry[0]):
        conflict = _classify_conflict(key, body, releases, namespace)
        if conflict is None:
            own += 1
            continue
        manager = _find_field_manager(body) if conflict.kind == "unmarked" else ""
        name = f"{key} (by {manager})" if manager else str(key)
        conflicts.setdefault(conflict, []).append(name)
    for conflict in sorted(conflicts, key=lambda one: (_KINDS.index(one.kind), one.who)):
        yield _make_finding(conflict, tuple(conflicts[conflict]), take_over)
    if not live_objects:
        yield PreflightFinding(CHECK, "ok", "no object of the set exists yet")
    elif own:
        yield PreflightFinding(CHECK, "ok", f"{own} of the set's objects exist, as its own")


_ConflictKind = Literal[
    "earlier", "gitops", "terminating", "namespace", "owner", "release", "unmarked"
]
_KINDS: Final = get_args(_ConflictKind)
"""The order of the findings."""


class _Conflict(NamedTuple):
    """Why an object that exists is not simply the set's.

    Attributes:
        who: what owns it; empty for nobody.
    """

    kind: _ConflictKind
    who: str = ""


def _classify_conflict(
    key: ObjectKey, body: Body, releases: Collection[str], namespace: str
) -> _Conflict | None:
    """Return the conflict over an object; None if it is the set's own."""
    owner = get_release_owner(body)
    is_in_namespace = owner.namespace == namespace
    is_own = is_in_namespace and owner.release in releases
    if is_being_deleted(body):
        # An apply that was stopped may have deleted it to recreate it: the next one waits for it.
        return None if is_own and not is_user_data(key) else _Conflict("terminating")
    if manager := _find_gitops_owner(body):
        return _Conflict("gitops", manager)
    if is_own:
        return None
    if owner.release:
        return (
            _Conflict("earlier", owner.release)
            if is_in_namespace
            else _Conflict("release", f"{owner.release} in {owner.namespace or 'no namespace'}")
        )
    return _classify_unowned(key, body)


def _classify_unowned(key: ObjectKey, body: Body) -> _Conflict | None:
    """Return the conflict over an object that no Helm release owns."""
    if key.kind == "CustomResourceDefinition":
        return None  # kfdeploy applies definitions itself; they are of no release
    if (controller := find_controller_reference(body)) is not None:
        return _Conflict("owner", f"{controller.get('kind')} {controller.get('name')}")
    return _Conflict("namespace" if key.kind == "Namespace" else "unmarked")


def _find_gitops_owner(body: Body) -> str:
    notes, labels = get_annotations(body), get_labels(body)
    if tracked := get_text(notes, _ARGO_ID):
        return f"the Argo CD application {tracked.partition(':')[0]}"
    if name := labels.get(_ARGO) or notes.get(_ARGO):
        return f"the Argo CD application {name}"
    for group, what in _FLUX:
        if name := labels.get(f"{group}/name"):
            return f"the {what} {labels.get(f'{group}/namespace', '')}/{name}"
    return ""


def _find_field_manager(body: Body) -> str:
    """Return who wrote an object: the manager of its fields, first one that applies server-side.

    Managers of its status do not count.
    """
    found = sorted(
        (entry.get("operation") != "Apply", get_text(entry, "manager"))
        for entry in list_managed_fields(body)
        if not entry.get("subresource") and entry.get("manager")
    )
    return found[0][1] if found else ""


@dataclass(frozen=True, slots=True)
class _ConflictText:
    """What a finding says of a kind of conflict; ``{who}`` stands for the other owner.

    Attributes:
        what: follows "an object of the set is" or "N objects of the set are".
    """

    severity: Severity
    what: str
    hint: str = ""


_ADOPTED: Final = _ConflictText("ok", "there already, made without Helm: taken over")
_TEXTS: Final[Mapping[_ConflictKind, _ConflictText]] = {
    "terminating": _ConflictText(
        "error",
        "being deleted",
        "wait until they are gone; `kubectl get ... -o yaml` shows the finalizers that hold them",
    ),
    "gitops": _ConflictText(
        "error",
        "managed by {who}, which would undo what apply changes",
        "take them out of it first, without pruning, or leave the component out of kfdeploy.yaml",
    ),
    "release": _ConflictText(
        "error",
        "of another Helm release, {who}",
        "uninstall that release first (its data may go with it), or leave the component out of"
        " kfdeploy.yaml",
    ),
    "owner": _ConflictText(
        "error",
        "controlled by {who}, which would undo what apply changes",
        "delete what controls them, or leave them out of the set by a patch",
    ),
    "earlier": _ConflictText(
        "warning",
        "of the release {who}, which the set does not have: they move to releases of the set",
    ),
    "namespace": _ConflictText(
        "ok", "a namespace that exists already: it becomes Helm's, and is never deleted"
    ),
    "unmarked": _ConflictText(
        "error",
        "there already, made without Helm",
        "`kfdeploy apply --take-over` makes them the releases' own",
    ),
}


def _make_finding(conflict: _Conflict, where: tuple[str, ...], take_over: bool) -> PreflightFinding:
    is_adopted = conflict.kind == "unmarked" and take_over
    text = _ADOPTED if is_adopted else _TEXTS[conflict.kind]
    count = "an object of the set is" if len(where) == 1 else f"{len(where)} objects of the set are"
    what = text.what.format(who=conflict.who)
    return PreflightFinding(CHECK, text.severity, f"{count} {what}", where, text.hint)
