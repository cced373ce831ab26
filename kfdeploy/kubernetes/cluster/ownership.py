"""Change whose an object is: Helm's marks on it, and the managers of its fields."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

from kfdeploy.kubernetes.accessors import (
    Body,
    as_mapping,
    get_annotations,
    get_mapping,
    get_metadata,
    get_value,
    list_managed_fields,
)
from kfdeploy.kubernetes.cluster.client import MANAGER, Cluster
from kfdeploy.kubernetes.cluster.errors import ApiError
from kfdeploy.kubernetes.helm_release import OWNER, OWNER_NAMESPACE, POLICY
from kfdeploy.kubernetes.objects import ObjectKey

_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_HELM: Final = "helm"
"""Helm 4's field manager: the name of its program (pkg/kube/client.go getManagedFieldsManager)."""
_KUBECTL_MANAGERS: Final = (
    "kubectl",
    "kubectl-client-side-apply",
    "kubectl-create",
    "before-first-apply",
)


def transfer_ownership(
    cluster: Cluster, keys: Iterable[ObjectKey], release: str, namespace: str
) -> None:
    """Make objects of another release, or of none, a release's own.

    They get Helm's policy ``keep``, which Helm reads from the live object, so that the release that
    had them does not delete them. `finish_transfer` takes the policy off again.
    """
    for key in keys:
        notes = {OWNER: release, OWNER_NAMESPACE: namespace, POLICY: "keep"}
        with _ignore_not_found():
            cluster.patch(
                key, {"metadata": {"annotations": notes, "labels": {_MANAGED_BY: "Helm"}}}
            )


def finish_transfer(cluster: Cluster, keys: Iterable[ObjectKey]) -> None:
    """End `transfer_ownership`, when the releases that had the objects no longer do."""
    for key in keys:
        with _ignore_not_found():
            cluster.patch(key, {"metadata": {"annotations": {POLICY: None}}})


def is_in_transfer(body: Body) -> bool:
    """Return whether a transfer of an object was begun and not finished."""
    if get_annotations(body).get(POLICY) != "keep":
        return False
    # People may write the policy too. Then it stays.
    path = ("fieldsV1", "f:metadata", "f:annotations", f"f:{POLICY}")
    return any(
        entry.get("manager") == MANAGER and get_value(entry, *path) is not None
        for entry in list_managed_fields(body)
    )


def adopt_objects(
    cluster: Cluster, keys: Iterable[ObjectKey], release: str, namespace: str
) -> None:
    """Make objects that kubectl created a release's own, with their fields.

    Fields that kubectl owned become Helm's, so that Helm removes those which the set does not have.
    """
    for key in keys:
        while (body := cluster.get(key)) is not None:
            notes = {OWNER: release, OWNER_NAMESPACE: namespace, _LAST_APPLIED: None}
            change: dict[str, Any] = {"annotations": notes, "labels": {_MANAGED_BY: "Helm"}}
            entries = list_managed_fields(body)
            if any(_is_kubectl_entry(entry) for entry in entries):
                change["managedFields"] = list(_merge_managers(entries))
                # The API server refuses this with 409 if the object has changed meanwhile.
                change["resourceVersion"] = get_metadata(body)["resourceVersion"]
            try:
                cluster.patch(key, {"metadata": change})
                break
            except ApiError as error:
                if error.status not in (404, 409):  # it has changed meanwhile: look again
                    raise


def _merge_managers(entries: Iterable[Body]) -> Iterator[Body]:
    """Yield the managers' entries, those of kubectl and Helm merged into one of Helm's."""
    merged: dict[str, Any] | None = None
    for entry in entries:
        if not (_is_helm_entry(entry) or _is_kubectl_entry(entry)):
            yield entry
        elif merged is None:
            merged = {**entry, "manager": _HELM, "operation": "Apply"}
        else:
            fields = get_mapping(merged, "fieldsV1"), get_mapping(entry, "fieldsV1")
            merged["fieldsV1"] = _merge_fields(*fields)
    if merged is not None:
        yield merged


def _is_helm_entry(entry: Body) -> bool:
    is_apply = entry.get("manager") == _HELM and entry.get("operation") == "Apply"
    return is_apply and not entry.get("subresource")


def _is_kubectl_entry(entry: Body) -> bool:
    return entry.get("manager") in _KUBECTL_MANAGERS and not entry.get("subresource")


def _merge_fields(first: Body, second: Body) -> dict[str, Any]:
    out = dict(first)
    for name, below in second.items():
        out[name] = _merge_fields(as_mapping(out.get(name)), as_mapping(below))
    return out


def is_kept(body: Body) -> bool:
    """Return whether Helm's policy says that an object outlives its release."""
    return get_annotations(body).get(POLICY) == "keep" and not is_in_transfer(body)


@contextlib.contextmanager
def _ignore_not_found() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.status != 404:
            raise
