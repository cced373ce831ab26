"""The platforms that environments want of an image, against those that it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kfdeploy.images.lockfile import LockedImage
from kfdeploy.lock.result import LockFailure, LockNote
from kfdeploy.oci.manifest import matches_platform

_AGAIN: Final = "run `kfdeploy lock` again where its source can be reached"


def check_platforms(
    image: LockedImage, unread: str, environments: Mapping[tuple[str, ...], Sequence[str]]
) -> Iterator[LockFailure | LockNote]:
    """Yield what environments want of an image and it does not have.

    Args:
        unread: why its index could not be read; empty where it could.
        environments: each list of platforms, with the environments that name it.
    """
    for platforms, names in environments.items():
        if finding := _check_demand(image, unread, _PlatformDemand(platforms, names)):
            yield finding


@dataclass(frozen=True, slots=True)
class _PlatformDemand:
    """A list of platforms, and the environments that want it."""

    platforms: tuple[str, ...]
    environments: Sequence[str]

    def list_lacking(self, there: Sequence[str]) -> list[str]:
        """Return what is wanted and is none of these platforms."""
        return [p for p in self.platforms if not any(matches_platform(t, (p,)) for t in there)]

    def __str__(self) -> str:
        names, platforms = " and ".join(self.environments), ", ".join(self.platforms)
        if len(self.environments) > 1:
            return f"the environments {names} want {platforms}"
        return f"the environment {names} wants {platforms}"


def _check_demand(
    image: LockedImage, unread: str, demand: _PlatformDemand
) -> LockFailure | LockNote | None:
    there = sorted(image.platforms)
    lacking = demand.list_lacking(there)
    has_some = len(lacking) < len(demand.platforms)
    if image.digest_for(demand.platforms):
        if not there:
            return LockNote(image.id, f"{demand}, and nothing says what it has", "platforms")
        if lacking:
            reason = f"{demand}, and it has no {', '.join(lacking)}, but {', '.join(there)}"
            return LockNote(image.id, reason, "platforms")
        return None
    if unread and (has_some or not there):
        return LockFailure(image.id, f"{demand}; its index can't be read: {unread}", _AGAIN)
    known = ", ".join(there) or "none that its index names"
    if has_some:
        # Only the outer index is reduced: what a nested one has can't be picked out of it.
        known += ", in an index within its index"
    return LockFailure(image.id, f"{demand}, and the image has {known}", _mend_hint(image, demand))


def _mend_hint(image: LockedImage, demand: _PlatformDemand) -> str:
    keys = " and ".join(f"environments.{name}.platforms" for name in demand.environments)
    return (
        f"name another image in images.substitutes[{image.id.text!r}] of kfdeploy.yaml, leave it"
        f" out by images.exclude, or change {keys}"
    )
