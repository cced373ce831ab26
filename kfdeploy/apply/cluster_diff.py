"""Compare two release sets, or a set and a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from kfdeploy.apply.divergence import ObjectDivergence, find_divergences
from kfdeploy.cache import Cache
from kfdeploy.kubernetes.cluster import bulk, helm_history
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.helm_history import ReleaseHistory
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset import body_cache
from kfdeploy.releaseset.diff.diff import SetDiff, compare_sets
from kfdeploy.releaseset.diff.sides import ReleaseObject, SetSide
from kfdeploy.releaseset.folder import SetFolder, open_set


def diff_sets(old: Path, new: Path, cache: Cache) -> SetDiff:
    """Compare the release sets in two folders.

    Raises:
        UserError: a folder is no release set, or has broken YAML.
    """
    first, second = _load_side(open_set(old), cache), _load_side(open_set(new), cache)
    _load_definitions(first, second, cache)
    return compare_sets(first, second)


def _load_side(content: SetFolder, cache: Cache) -> SetSide:
    placed: list[ReleaseObject] = []
    for release in content.releases:
        # One cache entry a release: a release that is equal in two sets is parsed once.
        body_cache.load_bodies(release.objects, cache)
        placed += (ReleaseObject(release.name, item) for item in (*release.crds, *release.objects))
    return SetSide(content.name, content.summary, tuple(placed))


def _load_definitions(old: SetSide, new: SetSide, cache: Cache) -> None:
    """Parse the definitions that differ. They are most of a set's bytes, and most do not change."""
    crds = [[one.object for one in side.objects if one.object.is_crd] for side in (old, new)]
    unchanged = {crd.text for crd in crds[0]} & {crd.text for crd in crds[1]}
    changed = (crd for crd in chain(*crds) if crd.text not in unchanged)
    body_cache.load_each_body(changed, cache)


# -- a set and a cluster ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """A release that Helm does not have as the set does.

    Attributes:
        state: ``not installed``, ``other`` (installed from another set), ``removed`` (the set no
            longer has it), or Helm's own status: ``failed``, ``pending-upgrade`` ...
        revision: Helm's newest revision; 0 if there is none.
    """

    name: str
    state: str
    revision: int = 0


@dataclass(frozen=True, slots=True)
class ClusterDiff:
    """What a cluster has otherwise than a set.

    Attributes:
        context: the kubeconfig's context; empty for the current one.
        version: the cluster's Kubernetes version.
        objects: number of the set's objects.
        releases: releases that Helm does not have as the set does.
        divergences: by release.
        leftovers: release and object of what Helm's records and the cluster have, and not the set.
    """

    set: str
    context: str
    version: str
    objects: int
    releases: tuple[ReleaseState, ...]
    divergences: Mapping[str, tuple[ObjectDivergence, ...]]
    leftovers: tuple[tuple[str, ObjectKey], ...]

    @property
    def is_empty(self) -> bool:
        return not (self.releases or self.divergences or self.leftovers)

    def to_json(self) -> dict[str, Any]:
        return {
            "set": self.set,
            "context": self.context,
            "kubernetes": self.version,
            "different": not self.is_empty,
            "objects": self.objects,
            "releases": self.releases,
            "drift": [*chain(*self.divergences.values())],
            "leftOver": [{"release": release, "object": key} for release, key in self.leftovers],
        }


def diff_cluster(cluster: Cluster, content: SetFolder, namespace: str, cache: Cache) -> ClusterDiff:
    """Return what a cluster has otherwise than a release set.

    Args:
        namespace: the namespace of Helm's records.

    Raises:
        UserError: the cluster does not answer, or the set has broken YAML.
    """
    cluster.kinds.refresh()
    histories = helm_history.read_histories(cluster, namespace)
    found = find_divergences(cluster, content.releases, cache=cache, namespace=namespace)
    return ClusterDiff(
        set=content.name,
        context=cluster.context,
        version=cluster.version,
        objects=sum(len(release.objects) + len(release.crds) for release in content.releases),
        releases=tuple(_find_release_states(content, histories)),
        divergences={name: tuple(divergences) for name, divergences in found.items()},
        leftovers=tuple(_find_leftovers(cluster, content, histories)),
    )


def _find_release_states(
    content: SetFolder, histories: Mapping[str, ReleaseHistory]
) -> Iterator[ReleaseState]:
    names = set()
    for release in content.releases:
        names.add(release.name)
        if (history := histories.get(release.name)) is None:
            yield ReleaseState(release.name, "not installed")
        elif history.newest.status != "deployed":
            yield ReleaseState(release.name, history.newest.status, history.newest.revision)
        elif history.newest.digest != release.digest:
            yield ReleaseState(release.name, "other", history.newest.revision)
    for name, history in histories.items():
        # A record without a digest is of a chart that kfdeploy has not rendered.
        if name not in names and history.newest.digest:
            yield ReleaseState(name, "removed", history.newest.revision)


def _find_leftovers(
    cluster: Cluster, content: SetFolder, histories: Mapping[str, ReleaseHistory]
) -> Iterator[tuple[str, ObjectKey]]:
    own = {item.key for release in content.releases for item in release.objects}
    had: dict[ObjectKey, str] = {}
    known = {release.name: release.digest for release in content.releases}
    for name, history in histories.items():
        record = history.deployed or history.newest
        if record.digest and record.digest != known.get(name):
            had |= {item.key: name for item in record.objects if item.key not in own}
    live = bulk.read_objects(cluster, had, metadata=True)
    yield from ((name, key) for key, name in sorted(had.items()) if key in live)
