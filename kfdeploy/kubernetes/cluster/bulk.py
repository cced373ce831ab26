"""Objects as a cluster has them now, many at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from kfdeploy import parallel
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.objects import ObjectKey

JOBS: Final = 8
_ONE_BY_ONE: Final = 3
"""More objects than that of a kind in a namespace are listed, with whatever else there is."""


def read_objects(
    cluster: Cluster, keys: Iterable[ObjectKey], *, metadata: bool = False
) -> dict[ObjectKey, dict[str, Any]]:
    """Those of some objects that are there.

    Lists are asked for by namespace, so that users' namespaces cost nothing; Secrets one by one, so
    that nobody has to be allowed to read all of them.

    Args:
        metadata: metadata is enough where a list is asked for.
    """
    heaps: dict[tuple[str, str, str], list[ObjectKey]] = {}
    for key in sorted(set(keys)):
        heaps.setdefault((key.api_version, key.kind, key.namespace), []).append(key)
    _ = cluster.kinds.of("v1", "Namespace")  # asked for once, before there are several threads

    def is_namespaced(key: ObjectKey) -> bool:
        kind = cluster.kinds.of(key.api_version, key.kind)
        return kind is not None and kind.namespaced

    def read_group(
        heap: tuple[tuple[str, str, str], list[ObjectKey]],
    ) -> dict[ObjectKey, dict[str, Any]]:
        (api_version, kind, namespace), wanted = heap
        if len(wanted) <= _ONE_BY_ONE or kind == "Secret":
            return {key: body for key in wanted if (body := cluster.get(key)) is not None}
        # kustomize puts a namespace on objects of kinds that it does not know to be in none.
        where = {(key.name, namespace if is_namespaced(key) else ""): key for key in wanted}
        listed = cluster.list(api_version, kind, namespace=namespace, metadata=metadata)
        found = ((ObjectKey.from_body(body), body) for body in listed)
        return {
            where[at]: body for key, body in found if (at := (key.name, key.namespace)) in where
        }

    out: dict[ObjectKey, dict[str, Any]] = {}
    for part in parallel.map_in_threads(read_group, heaps.items(), JOBS):
        out |= part
    return out
