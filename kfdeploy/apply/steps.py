"""The plan of an apply, and its result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from kfdeploy.kubernetes.objects import ObjectKey

Action = Literal["install", "upgrade", "repair", "finish", "keep"]
Outcome = Literal["done", "unchanged", "failed", "rolled back", "not reached"]
_KEYS_SHOWN: Final = 5
_DONE: Final = {
    "install": "installed",
    "upgrade": "upgraded",
    "repair": "repaired",
    "finish": "finished",
}


@dataclass(frozen=True, slots=True)
class ObjectRecreation:
    """An object that cannot be changed to what the set has, and is deleted first."""

    key: ObjectKey
    why: str

    def to_json(self) -> dict[str, Any]:
        return {**self.key.to_json(), "why": self.why}


@dataclass(frozen=True, slots=True)
class ApplyStep:
    """What an apply does with one release.

    Attributes:
        action: ``install``: Helm has no such release; ``upgrade``: Helm has another than the
            set's; ``repair``: Helm has the set's, but the cluster differs; ``finish``: the last
            revision was interrupted or failed; ``keep``: nothing is to do.
        why: the reasons for the action, for people.
        recreate: objects that are deleted just before.
        transferred: objects of other releases, which must not delete them.
        adopted: objects that were created without Helm.
        terminating: objects that are being deleted already.
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
    """A release that is removed.

    Attributes:
        deleted: objects that are deleted with it.
        kept: objects that stay: users' data, and objects that are not the release's own (any more).
    """

    release: str
    deleted: tuple[ObjectKey, ...]
    kept: tuple[ObjectKey, ...]


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """The plan of an apply.

    Attributes:
        unsettled_transfers: objects whose transfer to another release an earlier run has begun
            and, because it was stopped, not finished.
    """

    steps: tuple[ApplyStep, ...]
    removals: tuple[ReleaseRemoval, ...] = ()
    unsettled_transfers: tuple[ObjectKey, ...] = ()

    @property
    def waves(self) -> list[list[ApplyStep]]:
        """The steps by wave; a wave may be empty."""
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
        """Yield the plan for people: each release that is changed, and what is deleted."""
        for number, wave in enumerate(self.waves, 1):
            for step in wave:
                if step.has_changes:
                    yield f"wave {number}: {step.action} {step.release}{_format_reasons(step.why)}"
                for recreation in step.recreate:
                    yield f"  recreates {recreation.key}: {recreation.why}"
                if step.transferred:
                    yield f"  takes from other releases: {_summarize_keys(step.transferred)}"
                if step.adopted:
                    yield f"  takes over, made without Helm: {_summarize_keys(step.adopted)}"
        for removal in self.removals:
            yield f"remove {removal.release}: {format_count(len(removal.deleted))}"
            if removal.kept:
                yield f"  keeps {_summarize_keys(removal.kept)}"
        if unchanged := sum(not step.has_changes for step in self.steps):
            yield f"{unchanged} of {len(self.steps)} releases are as the set has them"


def _format_reasons(reasons: Sequence[str]) -> str:
    if not reasons:
        return ""
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return f": {reasons[0]}{more}"


def _summarize_keys(keys: Sequence[ObjectKey]) -> str:
    shown = ", ".join(map(str, keys[:_KEYS_SHOWN]))
    return f"{shown} and {len(keys) - _KEYS_SHOWN} more" if len(keys) > _KEYS_SHOWN else shown


def format_count(count: int) -> str:
    """Return a number of objects, for people."""
    return f"{count} object" if count == 1 else f"{count} objects"


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """The result of one release's step.

    Attributes:
        revision: Helm's, after the step; 0 if there is none.
        seconds: time that its wave took.
        why: Helm's words, and what is not ready, if it failed.
    """

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
    """The result of an apply.

    Attributes:
        removed: names of the releases that were removed.
        not_ready: workloads that are not ready at the end, each with its cause.
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
