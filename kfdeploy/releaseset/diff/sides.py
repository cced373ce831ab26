"""Pair the objects of two release sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kfdeploy.kubernetes.name_hash import strip_name_hash
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.releaseset.summary import ReleaseSummary, SetSummary

Identity = tuple[str, str, str, str]
"""Group, kind, namespace and name: an object stays itself in another version of its kind."""


def identity_of(key: ObjectKey) -> Identity:
    return (key.group, key.kind, key.namespace, key.name)


@dataclass(frozen=True, eq=False)
class ReleaseObject:
    """An object and the release that has it."""

    release: str
    object: Object

    @property
    def key(self) -> ObjectKey:
        return self.object.key

    @property
    def body(self) -> Mapping[str, Any]:
        return self.object.body


@dataclass(frozen=True, eq=False)
class SetSide:
    """One of the two release sets.

    Attributes:
        objects: all its objects, CRDs among them, in the set's order.
    """

    name: str
    summary: SetSummary
    objects: tuple[ReleaseObject, ...]

    @cached_property
    def by_identity(self) -> Mapping[Identity, ReleaseObject]:
        """The objects by identity; of several with the same one the first."""
        objects: dict[Identity, ReleaseObject] = {}
        for placed in self.objects:
            objects.setdefault(identity_of(placed.key), placed)
        return objects

    @property
    def releases(self) -> Mapping[str, ReleaseSummary]:
        """The releases by name."""
        return {release.name: release for release in self.summary.releases}

    def of_kind(self, *kinds: str) -> Iterator[ReleaseObject]:
        return (placed for placed in self.objects if placed.key.kind in kinds)


Pair = tuple[ReleaseObject | None, ReleaseObject | None]
"""An object of the old set and of the new one; None on the side that does not have it."""


def describe_change(pair: Pair) -> str:
    """Return what happened to an object: ``added``, ``removed`` or ``changed``."""
    old, new = pair
    if old is None:
        return "added"
    return "removed" if new is None else "changed"


def pair_objects(old: SetSide, new: SetSide) -> Iterator[Pair]:
    """Yield each object of both sets, with its counterpart in the other.

    A ConfigMap or Secret whose name ends in a hash of its content is the same under another hash.
    """
    first, second = old.by_identity, new.by_identity
    gone = [placed for identity, placed in first.items() if identity not in second]
    come = [placed for identity, placed in second.items() if identity not in first]
    renamed = _match_renamed(gone, come)
    for identity, placed in second.items():
        yield first.get(identity) or renamed.get(identity), placed
    matched = {id(placed) for placed in renamed.values()}
    yield from ((placed, None) for placed in gone if id(placed) not in matched)


def _match_renamed(
    gone: Iterable[ReleaseObject], come: Iterable[ReleaseObject]
) -> dict[Identity, ReleaseObject]:
    """Return new identity to the old object that it replaces, where only one of each fits."""
    before, after = _group_hashed(gone), _group_hashed(come)
    return {
        identity_of(after[stem][0].key): before[stem][0]
        for stem in before.keys() & after.keys()
        if len(before[stem]) == len(after[stem]) == 1
    }


def _group_hashed(objects: Iterable[ReleaseObject]) -> dict[Identity, list[ReleaseObject]]:
    """Return objects with a content hash in their names, by identity without the hash."""
    groups: defaultdict[Identity, list[ReleaseObject]] = defaultdict(list)
    for placed in objects:
        group, kind, namespace, name = identity_of(placed.key)
        stem = strip_name_hash(placed.key)
        if stem != name:
            groups[group, kind, namespace, stem].append(placed)
    return groups
