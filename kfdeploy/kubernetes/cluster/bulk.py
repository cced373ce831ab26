"""Read many objects of a cluster at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from kfdeploy import parallel
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.objects import ObjectKey

JOBS: Final = 8
"""Requests at a time."""
_ONE_BY_ONE_MAX: Final = 3
"""More objects than that of one kind and namespace are read by a list, which may have others."""


class _Collection(NamedTuple):
    """The objects of one kind in one namespace."""

    api_version: str
    kind: str
    namespace: str


def read_objects(
    cluster: Cluster, keys: Iterable[ObjectKey], *, metadata: bool = False
) -> dict[ObjectKey, dict[str, Any]]:
    """Return the objects that exist, by their keys.

    Lists are read by namespace, so that users' namespaces cost nothing. Secrets are read one by
    one, so that nobody needs the right to list them.

    Args:
        metadata: a list may return metadata only.
    """
    groups: dict[_Collection, list[ObjectKey]] = {}
    for key in sorted(set(keys)):
        groups.setdefault(_Collection(key.api_version, key.kind, key.namespace), []).append(key)
    _ = cluster.kinds.of("v1", "Namespace")  # discovery runs once, before there are threads

    def read_group(group: tuple[_Collection, list[ObjectKey]]) -> dict[ObjectKey, dict[str, Any]]:
        collection, wanted = group
        if len(wanted) <= _ONE_BY_ONE_MAX or collection.kind == "Secret":
            return {key: body for key in wanted if (body := cluster.get(key)) is not None}
        return _read_from_list(cluster, collection, wanted, metadata)

    out: dict[ObjectKey, dict[str, Any]] = {}
    for found in parallel.map_in_threads(read_group, groups.items(), JOBS):
        out |= found
    return out


def _read_from_list(
    cluster: Cluster, collection: _Collection, wanted: list[ObjectKey], metadata: bool
) -> dict[ObjectKey, dict[str, Any]]:
    api_version, kind, namespace = collection
    served = cluster.kinds.of(api_version, kind)
    # kustomize writes a namespace on objects of cluster-scoped kinds that it does not know.
    listed_namespace = namespace if served is not None and served.namespaced else ""
    by_name = {key.name: key for key in wanted}
    out: dict[ObjectKey, dict[str, Any]] = {}
    for body in cluster.list(api_version, kind, namespace=namespace, metadata=metadata):
        found = ObjectKey.from_body(body)
        if found.namespace == listed_namespace and found.name in by_name:
            out[by_name[found.name]] = body
    return out
