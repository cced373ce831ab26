"""What `apply` is going to do, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kfdeploy.kubernetes.objects import ObjectKey

Action = Literal["install", "upgrade", "repair", "finish", "keep"]
Outcome = Literal["done", "unchanged", "failed", "rolled back", "not reached"]
_DONE = {"install": "installed", "upgrade": "upgraded", "repair": "repaired", "finish": "finished"}


@dataclass(frozen=True, slots=True)
class ObjectRecreation:
    """An object that can't become what the set wants, and is deleted first."""

    key: ObjectKey
    why: str

    def to_json(self) -> dict[str, Any]:
        return {**self.key.to_json(), "why": self.why}


@dataclass(frozen=True, slots=True)
class ApplyStep:
    """What one release needs.

    Attributes:
        action: ``install``: Helm has none; ``upgrade``: another than the set's; ``repair``: the
            set's, but the cluster differs; ``finish``: it was interrupted, or had failed;
            ``keep``: all is as the set has it.
        why: of it, for people.
        recreate: what is deleted just before.
        moved: objects that other releases have had, which must not delete them.
        taken: objects that were made without Helm.
        going: objects that are being deleted already.
    """

    release: str
    wave: int
    action: Action
    why: tuple[str, ...] = ()
    recreate: tuple[ObjectRecreation, ...] = ()
    transferred: tuple[ObjectKey, ...] = ()
    adopted: tuple[ObjectKey, ...] = ()
    terminating: tuple[ObjectKey, ...] = ()

    @property
    def has_changes(self) -> bool:
        return self.action != "keep"

    def to_json(self) -> dict[str, Any]:
        return {
            "release": self.release,
            "wave": self.wave,
            "action": self.action,
            "why": self.why,
            "recreate": self.recreate,
            "moved": self.transferred,
            "taken": self.adopted,
        }


@dataclass(frozen=True, slots=True)
class ReleaseRemoval:
    """A release that the set no longer has.

    Attributes:
        deleted: what goes with it.
        kept: what stays: data, what other releases have now, and objects that are not its own.
    """

    release: str
    deleted: tuple[ObjectKey, ...]
    kept: tuple[ObjectKey, ...]


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """The plan of an apply.

    Attributes:
        handed: objects that an earlier run has handed to another release, and was stopped before
            it could end that.
    """

    steps: tuple[ApplyStep, ...]
    removals: tuple[ReleaseRemoval, ...] = ()
    unsettled_transfers: tuple[ObjectKey, ...] = ()

    @property
    def waves(self) -> list[list[ApplyStep]]:
        out: list[list[ApplyStep]] = []
        for step in self.steps:
            out += [[] for _ in range(step.wave + 1 - len(out))]
            out[step.wave].append(step)
        return out

    @property
    def has_changes(self) -> bool:
        return bool(self.removals or self.unsettled_transfers) or any(
            step.has_changes for step in self.steps
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "removals": self.removals,
        }

    def format_lines(self) -> Iterator[str]:
        """For people: a line a release that is not left as it is, and what is lost by it."""
        for number, wave in enumerate(self.waves, 1):
            for step in wave:
                if step.has_changes:
                    why = f": {step.why[0]}" if step.why else ""
                    more = f" (and {len(step.why) - 1} more)" if len(step.why) > 1 else ""
                    yield f"wave {number}: {step.action} {step.release}{why}{more}"
                for one in step.recreate:
                    yield f"  recreates {one.key}: {one.why}"
                if step.transferred:
                    yield f"  takes from other releases: {summarize_keys(step.transferred)}"
                if step.adopted:
                    yield f"  takes over, made without Helm: {summarize_keys(step.adopted)}"
        for removal in self.removals:
            count = len(removal.deleted)
            yield f"remove {removal.release}: {count} object{'' if count == 1 else 's'}"
            if removal.kept:
                yield f"  keeps {summarize_keys(removal.kept)}"
        if same := sum(not step.has_changes for step in self.steps):
            yield f"{same} of {len(self.steps)} releases are as the set has them"


def summarize_keys(keys: Sequence[ObjectKey], most: int = 5) -> str:
    """Some objects by name, and how many more."""
    shown = ", ".join(map(str, keys[:most]))
    return f"{shown} and {len(keys) - most} more" if len(keys) > most else shown


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """What became of one release."""

    release: str
    outcome: Outcome
    action: Action = "keep"
    revision: int = 0
    seconds: float = 0.0
    why: tuple[str, ...] = ()

    @property
    def outcome_text(self) -> str:
        return _DONE[self.action] if self.outcome == "done" else self.outcome

    def to_json(self) -> dict[str, Any]:
        out = {
            "release": self.release,
            "outcome": self.outcome_text,
            "seconds": round(self.seconds, 3),
        }
        if self.revision:
            out["revision"] = self.revision
        return {**out, "why": self.why} if self.why else out


@dataclass
class ApplyResult:
    """What an apply has come to.

    Attributes:
        not_ready: workloads that are not, with the reason of each.
    """

    results: list[ReleaseResult] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    not_ready: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.not_ready and all(
            result.outcome in ("done", "unchanged") for result in self.results
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "done": self.is_good,
            "releases": self.results,
            "removed": self.removed,
            "notReady": self.not_ready,
            "seconds": round(self.seconds, 3),
        }
