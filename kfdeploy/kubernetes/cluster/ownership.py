"""Whose an object is: Helm's marks on it, and the managers of its fields."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from kfdeploy.kubernetes.cluster.client import MANAGER, Cluster
from kfdeploy.kubernetes.cluster.errors import ApiError
from kfdeploy.kubernetes.helm_release import OWNER, OWNER_NAMESPACE, POLICY
from kfdeploy.kubernetes.objects import ObjectKey

_LABEL: Final = "app.kubernetes.io/managed-by"
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_HELM: Final = "helm"
"""Helm 4's field manager: the name of its program (pkg/kube/client.go getManagedFieldsManager)."""
_BY_HAND: Final = ("kubectl", "kubectl-client-side-apply", "kubectl-create", "before-first-apply")


def transfer_ownership(
    cluster: Cluster, keys: Iterable[ObjectKey], release: str, namespace: str
) -> None:
    """Make objects of another release, or of none, a release's own.

    They are kept when a release that had them lets go: Helm looks for its policy on the object as
    the cluster has it. `settle` takes that off again.
    """
    for key in keys:
        notes = {OWNER: release, OWNER_NAMESPACE: namespace, POLICY: "keep"}
        with _ignore_not_found():
            cluster.patch(key, {"metadata": {"annotations": notes, "labels": {_LABEL: "Helm"}}})


def finish_transfer(cluster: Cluster, keys: Iterable[ObjectKey]) -> None:
    """End what `hand_over` began, once the releases that had the objects have let go."""
    for key in keys:
        with _ignore_not_found():
            cluster.patch(key, {"metadata": {"annotations": {POLICY: None}}})


def is_in_transfer(body: Mapping[str, Any]) -> bool:
    """Whether `hand_over` has been at an object, and no `settle` since."""
    meta = body.get("metadata") or {}
    if (meta.get("annotations") or {}).get(POLICY) != "keep":
        return False
    path = ("f:metadata", "f:annotations", f"f:{POLICY}")  # who wrote it: people may, too
    for entry in meta.get("managedFields") or ():
        fields: Any = entry.get("fieldsV1") or {}
        for name in path:
            fields = fields.get(name) if isinstance(fields, Mapping) else None
        if fields is not None and entry.get("manager") == MANAGER:
            return True
    return False


def adopt_objects(
    cluster: Cluster, keys: Iterable[ObjectKey], release: str, namespace: str
) -> None:
    """Make objects that ``kubectl apply`` made a release's own, with their fields.

    Fields that kubectl has owned become Helm's, so that those which the set does not have go away.
    """
    for key in keys:
        while (body := cluster.get(key)) is not None:
            notes = {OWNER: release, OWNER_NAMESPACE: namespace, _LAST_APPLIED: None}
            change: dict[str, Any] = {"annotations": notes, "labels": {_LABEL: "Helm"}}
            fields = body["metadata"].get("managedFields") or []
            if any(_is_kubectl_entry(entry) for entry in fields):
                change["managedFields"] = list(_merge_managers(fields))
                # Fields change hands only if nobody has changed the object meanwhile.
                change["resourceVersion"] = body["metadata"]["resourceVersion"]
            try:
                cluster.patch(key, {"metadata": change})
                break
            except ApiError as error:
                if error.status not in (404, 409):  # another by now: look again
                    raise


def _merge_managers(fields: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The managers' entries, with those of kubectl as one of Helm's."""
    mine: dict[str, Any] | None = None
    for entry in fields:
        helms = entry.get("manager") == _HELM and entry.get("operation") == "Apply"
        if entry.get("subresource") or not (helms or _is_kubectl_entry(entry)):
            yield entry
        elif mine is None:
            mine = {**entry, "manager": _HELM, "operation": "Apply"}
        else:
            mine["fieldsV1"] = _merge_fields(
                mine.get("fieldsV1") or {}, entry.get("fieldsV1") or {}
            )
    if mine is not None:
        yield mine


def _is_kubectl_entry(entry: Mapping[str, Any]) -> bool:
    return entry.get("manager") in _BY_HAND and not entry.get("subresource")


def _merge_fields(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(one)
    for name, below in other.items():
        out[name] = _merge_fields(out.get(name) or {}, below or {})
    return out


def is_kept(body: Mapping[str, Any]) -> bool:
    """Whether Helm is told to leave an object when its release goes."""
    notes = (body.get("metadata") or {}).get("annotations") or {}
    return notes.get(POLICY) == "keep" and not is_in_transfer(body)


@contextlib.contextmanager
def _ignore_not_found() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.status != 404:
            raise
