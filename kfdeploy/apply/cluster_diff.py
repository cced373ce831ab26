"""Two release sets, or one and a cluster -> what differs between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfdeploy.apply import divergence
from kfdeploy.apply.divergence import ObjectDivergence
from kfdeploy.cache import Cache
from kfdeploy.kubernetes.cluster import bulk, helm_history
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.helm_history import ReleaseHistory
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset import body_cache
from kfdeploy.releaseset.diff import diff as setdiff
from kfdeploy.releaseset.diff.diff import SetDiff
from kfdeploy.releaseset.diff.sides import ReleaseObject, SetSide
from kfdeploy.releaseset.folder import SetFolder, open_set


def diff_sets(old: Path, new: Path, cache: Cache) -> SetDiff:
    """What differs between the release sets in two folders.

    Raises:
        UserError: one is no release set, or has broken YAML.
    """
    first, second = _load_side(open_set(old), cache), _load_side(open_set(new), cache)
    _load_definitions(first, second, cache)
    return setdiff.compare_sets(first, second)


def _load_side(content: SetFolder, cache: Cache) -> SetSide:
    placed: list[ReleaseObject] = []
    for release in content.releases:
        # One entry a release: what did not change between two sets is read once.
        body_cache.load_bodies(release.objects, cache)
        placed += (ReleaseObject(release.name, item) for item in (*release.crds, *release.objects))
    return SetSide(content.name, content.summary, tuple(placed))


def _load_definitions(old: SetSide, new: SetSide, cache: Cache) -> None:
    """Read those that differ; they are most of a set's bytes, and most stay as they are."""
    texts = [{one.object.text for one in side.objects if one.object.is_crd} for side in (old, new)]
    alike = texts[0] & texts[1]
    body_cache.load_each_body(
        (
            one.object
            for side in (old, new)
            for one in side.objects
            if one.object.is_crd and one.object.text not in alike
        ),
        cache,
    )


# -- a set and a cluster ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """A release that Helm does not have as the set has it.

    Attributes:
        state: ``not installed``, ``other`` (installed from another set), ``removed`` (the set no
            longer has it), or Helm's own word: ``failed``, ``pending-upgrade`` ...
        revision: Helm's; 0 where there is none.
    """

    name: str
    state: str
    revision: int = 0


@dataclass(frozen=True, slots=True)
class ClusterDiff:
    """What a cluster has otherwise than a set.

    Attributes:
        left: objects that Helm's records have, the set does not, and the cluster still does.
        objects: how many the set has.
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
            "drift": [one for found in self.divergences.values() for one in found],
            "leftOver": [{"release": release, "object": key} for release, key in self.leftovers],
        }


def diff_cluster(cluster: Cluster, content: SetFolder, namespace: str, cache: Cache) -> ClusterDiff:
    """Return what a cluster has otherwise than a release set.

    Args:
        namespace: of Helm's records.

    Raises:
        UserError: the cluster can't be asked.
    """
    cluster.kinds.refresh()
    histories = helm_history.read_histories(cluster, namespace)
    found = divergence.find_divergences(cluster, content.releases, cache=cache, namespace=namespace)
    return ClusterDiff(
        set=content.name,
        context=cluster.context,
        version=cluster.version,
        objects=sum(len(one.objects) + len(one.crds) for one in content.releases),
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
        # Charts that are not of a set are somebody else's, though in the same namespace.
        if name not in names and history.newest.digest:
            yield ReleaseState(name, "removed", history.newest.revision)


def _find_leftovers(
    cluster: Cluster, content: SetFolder, histories: Mapping[str, ReleaseHistory]
) -> Iterator[tuple[str, ObjectKey]]:
    ours = {item.key for release in content.releases for item in release.objects}
    had: dict[ObjectKey, str] = {}
    known = {release.name: release.digest for release in content.releases}
    for name, history in histories.items():
        record = history.deployed or history.newest
        if record.digest and record.digest != known.get(name):
            had |= {item.key: name for item in record.objects if item.key not in ours}
    there = bulk.read_objects(cluster, had, metadata=True)
    yield from ((name, key) for key, name in sorted(had.items()) if key in there)
