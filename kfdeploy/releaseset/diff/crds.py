"""Custom resource definitions that come, go or change, and what that means for users' objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kfdeploy.kubernetes.accessors import get_text, list_mappings
from kfdeploy.releaseset.diff.sides import Pair


@dataclass(frozen=True, slots=True)
class KindChange:
    """A definition that is not what it was.

    Attributes:
        what: ``added``, ``dropped`` (kept with its objects) or ``changed``.
        name: the definition's, ``PLURAL.GROUP``.
        notes: sentences about its versions.
        blocks: what the API server refuses while objects are stored in a version that goes.
    """

    what: str
    name: str
    kind: str
    notes: tuple[str, ...]
    blocks: tuple[str, ...] = ()


def compare_crd(pair: Pair) -> KindChange | None:
    """Return what a definition's change means; None where its versions stay."""
    old, new = pair
    some = new or old
    if some is None:
        return None
    name, kind = some.key.name, get_text(some.body, "spec", "names", "kind")
    if old is None:
        return KindChange("added", name, kind, (_served_note(some.body),))
    if new is None:
        note = "the definition stays, and so do all objects of this kind; nothing acts on them"
        return KindChange("dropped", name, kind, (note,))
    before, after = _versions_by_name(old.body), _versions_by_name(new.body)
    notes = (
        *_version_notes(before, after),
        *_storage_notes(before, after),
        *_conversion_notes(old.body, new.body),
    )
    blocks = tuple(_find_blockers(before, after))
    return KindChange("changed", name, kind, notes, blocks) if notes or blocks else None


_Versions = Mapping[str, Mapping[str, Any]]


def _versions_by_name(body: Mapping[str, Any]) -> _Versions:
    return {get_text(v, "name"): v for v in list_mappings(body, "spec", "versions")}


def _served_note(body: Mapping[str, Any]) -> str:
    served = [name for name, version in _versions_by_name(body).items() if version.get("served")]
    return f"served: {', '.join(served)}"


def _storage_version(versions: _Versions) -> str:
    return next((name for name, version in versions.items() if version.get("storage")), "")


def _version_notes(before: _Versions, after: _Versions) -> Iterator[str]:
    yield from (f"version {name} is new" for name in after if name not in before)
    for name, version in before.items():
        if name not in after:
            yield f"version {name} is gone: whoever asks for it gets an error"
        elif version.get("served") and not after[name].get("served"):
            yield f"version {name} is no longer served: whoever asks for it gets an error"
        elif not version.get("deprecated") and after[name].get("deprecated"):
            yield f"version {name} is deprecated"


def _storage_notes(before: _Versions, after: _Versions) -> Iterator[str]:
    old, new = _storage_version(before), _storage_version(after)
    if old != new:
        yield f"objects are stored as {new}, and no longer as {old}, from their next write on"


def _conversion_notes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, after = _conversion_strategy(old), _conversion_strategy(new)
    if before != after:
        yield f"versions are converted by {after}, and no longer by {before}"


def _conversion_strategy(body: Mapping[str, Any]) -> str:
    return get_text(body, "spec", "conversion", "strategy") or "None"


def _find_blockers(before: _Versions, after: _Versions) -> Iterator[str]:
    stored = _storage_version(before)
    if stored and stored not in after:
        yield (
            f"the API server refuses to drop {stored} as long as status.storedVersions names it:"
            " write every object anew in another version first"
        )
