"""Two release sets side by side: which object of one is which of the other."""

from __future__ import annotations

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
    """One release set.

    Attributes:
        summary: of its ``summary.json``.
        placed: all its objects, CRDs among them, in the set's order.
    """

    name: str
    summary: SetSummary
    objects: tuple[ReleaseObject, ...]

    @cached_property
    def by_identity(self) -> Mapping[Identity, ReleaseObject]:
        out: dict[Identity, ReleaseObject] = {}
        for one in self.objects:
            out.setdefault(identity_of(one.key), one)
        return out

    @property
    def releases(self) -> Mapping[str, ReleaseSummary]:
        """The releases by name."""
        return {release.name: release for release in self.summary.releases}

    def of_kind(self, *kinds: str) -> Iterator[ReleaseObject]:
        for one in self.objects:
            if one.key.kind in kinds:
                yield one


Pair = tuple[ReleaseObject | None, ReleaseObject | None]


def pair_objects(old: SetSide, new: SetSide) -> Iterator[Pair]:
    """Each object of both: the old one and the new one, either of which may not be there.

    A ConfigMap or Secret whose name ends in a sum of its content is the same under another sum.
    """
    first, second = old.by_identity, new.by_identity
    gone = [one for key, one in first.items() if key not in second]
    come = [one for key, one in second.items() if key not in first]
    renamed = _match_renamed(gone, come)
    for key, one in second.items():
        yield first.get(key) or renamed.get(key), one
    taken = {id(one) for one in renamed.values()}
    yield from ((one, None) for one in gone if id(one) not in taken)


def _match_renamed(
    gone: Iterable[ReleaseObject], come: Iterable[ReleaseObject]
) -> dict[Identity, ReleaseObject]:
    """New identity to the old object that it replaces, where there is exactly one of each."""
    before, after = _group_hashed(gone), _group_hashed(come)
    return {
        identity_of(after[stem][0].key): before[stem][0]
        for stem in before.keys() & after.keys()
        if len(before[stem]) == len(after[stem]) == 1
    }


def _group_hashed(placed: Iterable[ReleaseObject]) -> dict[Identity, list[ReleaseObject]]:
    out: dict[Identity, list[ReleaseObject]] = {}
    for one in placed:
        if (name := strip_name_hash(one.key)) != one.key.name:
            group, kind, namespace, _ = identity_of(one.key)
            out.setdefault((group, kind, namespace, name), []).append(one)
    return out
