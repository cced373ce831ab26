"""The result of locking: the lock, and what there is to say of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kfdeploy.errors import UserError
from kfdeploy.images.lockfile import Lock
from kfdeploy.oci.reference import WrittenRef


@dataclass(frozen=True, slots=True)
class LockFailure:
    """An image that could not be locked, or not for the platforms of all environments.

    Attributes:
        is_refused: what an earlier lock has of it must not be used either.
    """

    id: WrittenRef
    reason: str
    hint: str
    is_refused: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"ref": self.id, "reason": self.reason, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class MovedTag:
    """A tag that names another image than in the lock before; digests before and now."""

    id: WrittenRef
    before: str
    now: str

    def to_json(self) -> dict[str, Any]:
        return {"ref": self.id, "before": self.before, "now": self.now}


@dataclass(frozen=True, slots=True)
class LockNote:
    """An image that is locked, but not everything about it is known, or it lacks platforms."""

    id: WrittenRef
    reason: str
    about: Literal["size", "platforms", "attached", "signature"] = "size"

    def to_json(self) -> dict[str, Any]:
        return {"ref": self.id, "about": self.about, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Resolution:
    """The lock of all that could be resolved, and what could not; each part sorted by id."""

    lock: Lock
    failures: tuple[LockFailure, ...] = ()
    moved: tuple[MovedTag, ...] = ()
    notes: tuple[LockNote, ...] = ()
    warnings: tuple[str, ...] = ()

    def list_errors(self) -> list[UserError]:
        """Return an error for each failure."""
        return [UserError(f"{f.id}: {f.reason}", hint=f.hint or None) for f in self.failures]

    def to_json(self) -> dict[str, Any]:
        return {
            "locked": len(self.lock),
            "failures": self.failures,
            "moved": self.moved,
            "notes": self.notes,
            "warnings": self.warnings,
        }
