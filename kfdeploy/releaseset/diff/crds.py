"""Kinds that come, go or change, and what becomes of the objects that users have of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kfdeploy.releaseset.diff.sides import Pair


@dataclass(frozen=True, slots=True)
class KindChange:
    """A kind's definition that is not what it was.

    Attributes:
        what: ``added``, ``dropped`` (kept with its objects) or ``changed``.
        name: of the definition: ``PLURAL.GROUP``.
        notes: what changed of its versions, for people.
        blocks: what the API server refuses while objects are stored in a version that goes.
    """

    what: str
    name: str
    kind: str
    notes: tuple[str, ...]
    blocks: tuple[str, ...] = ()


def compare_crd(pair: Pair) -> KindChange | None:
    """What a definition's change means; None where its versions stay."""
    old, new = pair
    some = new or old
    if some is None:
        return None
    kind = str(((some.body.get("spec") or {}).get("names") or {}).get("kind", ""))
    if old is None:
        return KindChange("added", some.key.name, kind, tuple(_served_note(some.body)))
    if new is None:
        note = "the definition stays, and so do all objects of this kind; nothing acts on them"
        return KindChange("dropped", some.key.name, kind, (note,))
    notes, blocks = (
        tuple(_version_notes(old.body, new.body)),
        tuple(_find_blockers(old.body, new.body)),
    )
    return KindChange("changed", some.key.name, kind, notes, blocks) if notes or blocks else None


def _versions_by_name(body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(v["name"]): v for v in (body.get("spec") or {}).get("versions") or ()}


def _served_note(body: Mapping[str, Any]) -> Iterator[str]:
    served = [name for name, version in _versions_by_name(body).items() if version.get("served")]
    yield f"served: {', '.join(served)}"


def _storage_version(versions: Mapping[str, Mapping[str, Any]]) -> str:
    return next((name for name, version in versions.items() if version.get("storage")), "")


def _version_notes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, after = _versions_by_name(old), _versions_by_name(new)
    for name in after:
        if name not in before:
            yield f"version {name} is new"
    for name, version in before.items():
        if name not in after:
            yield f"version {name} is gone: whoever asks for it gets an error"
        elif version.get("served") and not after[name].get("served"):
            yield f"version {name} is no longer served: whoever asks for it gets an error"
        elif not version.get("deprecated") and after[name].get("deprecated"):
            yield f"version {name} is deprecated"
    was, becomes = _storage_version(before), _storage_version(after)
    if was != becomes:
        yield f"objects are stored as {becomes}, and no longer as {was}, from their next write on"
    conversions = [(b.get("spec") or {}).get("conversion") or {} for b in (old, new)]
    strategies = [str(one.get("strategy") or "None") for one in conversions]
    if strategies[0] != strategies[1]:
        yield f"versions are converted by {strategies[1]}, and no longer by {strategies[0]}"


def _find_blockers(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, after = _versions_by_name(old), _versions_by_name(new)
    stored = _storage_version(before)
    if stored and stored not in after:
        yield (
            f"the API server refuses to drop {stored} as long as status.storedVersions names it:"
            " write every object anew in another version first"
        )
