"""The objects that dropped components leave in a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from kfdeploy.kubernetes.name_hash import strip_name_hash
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.upgrade.report import LeftoverObjects
from kfdeploy.upstream.build import RenderedComponent

_KEPT_KINDS = frozenset(
    ("CustomResourceDefinition", "Namespace", "PersistentVolumeClaim", "Profile")
)
"""Kinds that `apply` never deletes without ``--delete-data`` (the contract)."""


def find_leftovers(
    dropped: Sequence[str],
    before: Mapping[str, Sequence[Object]],
    rendered: Iterable[RenderedComponent],
) -> Iterator[LeftoverObjects]:
    """Yield, for each dropped component, the objects that no component renders any more.

    Args:
        dropped: names of components that are no longer listed.
        before: each component's objects at the release before.
        rendered: the components of the new release.
    """
    if not dropped:
        return
    owners: dict[tuple[str, ...], str] = {}
    for item in rendered:
        for each in item.objects:
            owners.setdefault(_identify(each.key), item.component.name)
    for name in dropped:
        keys = [each.key for each in before.get(name, ())]
        gone = [key for key in keys if _identify(key) not in owners]
        kept = sorted(str(key) for key in gone if key.kind in _KEPT_KINDS)
        others = {owners[_identify(key)] for key in keys if _identify(key) in owners}
        yield LeftoverObjects(name, len(gone), tuple(kept), tuple(sorted(others)))


def _identify(key: ObjectKey) -> tuple[str, ...]:
    return key.group, key.kind, key.namespace, strip_name_hash(key)
