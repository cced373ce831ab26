"""The ConfigMap that says which set was applied last, beside Helm's records."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, Literal

from kfdeploy import __version__
from kfdeploy.kubernetes.accessors import Body, get_mapping, get_text
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset.folder import SetFolder

NAME: Final = "kfdeploy-set"
ApplyState = Literal["applying", "applied", "partly applied", "failed"]


def write_state(
    cluster: Cluster,
    namespace: str,
    release_set: SetFolder,
    state: ApplyState,
    controlled: Iterable[str] = (),
) -> None:
    """Write which set is being applied, or was, and how that ended.

    Args:
        controlled: fields that something in the cluster changes back after an apply, as
            `divergence.list_changed_fields` names them. Later applies leave them alone.
    """
    data = {
        "controlled": "\n".join(sorted(controlled)),
        "set": release_set.name,
        "digest": release_set.digest,
        "state": state,
        "environment": release_set.summary.environment,
        "upstream": release_set.summary.upstream,
        "waves": json.dumps(release_set.summary.waves),
        "kfdeploy": __version__,
    }
    meta = {"name": NAME, "namespace": namespace}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
    cluster.apply(body, force=True)


def read_state(cluster: Cluster, namespace: str) -> Body:
    """Return the ConfigMap's data; empty if no set was applied yet."""
    return get_mapping(cluster.get(ObjectKey("v1", "ConfigMap", namespace, NAME)), "data")


def read_controlled_fields(cluster: Cluster, namespace: str) -> frozenset[str]:
    """Return the fields that something in the cluster changed back after the last apply."""
    return frozenset(get_text(read_state(cluster, namespace), "controlled").splitlines())


def delete_state(cluster: Cluster, namespace: str) -> None:
    """Delete the ConfigMap."""
    cluster.delete(ObjectKey("v1", "ConfigMap", namespace, NAME))
