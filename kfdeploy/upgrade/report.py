"""The report of an upgrade: what changes, and what people have to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfdeploy.images.inventory import UnavailableReference, UnreviewedProgram
from kfdeploy.images.stale_settings import StaleSetting
from kfdeploy.lock.result import LockFailure
from kfdeploy.upgrade.components import ComponentChange
from kfdeploy.upgrade.images import ImageChanges, TransferEstimate
from kfdeploy.upgrade.patches import PatchCheck


@dataclass(frozen=True, slots=True)
class UpstreamRelease:
    """Name an upstream as ``kfdeploy.yaml`` does, with its version."""

    version: str
    source: str
    ref: str


@dataclass(frozen=True, slots=True)
class LeftoverObjects:
    """Describe what a dropped component leaves in a cluster.

    Attributes:
        objects: the number of its objects that no component renders any more.
        kept: those of them that `apply` never deletes unasked, as they hold users' data.
        elsewhere: components that render some of its objects now.
    """

    component: str
    objects: int
    kept: tuple[str, ...]
    elsewhere: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "component": self.component,
            "objects": self.objects,
            "stays": self.kept,
            "elsewhere": self.elsewhere,
        }


@dataclass(frozen=True, slots=True)
class GeneratedFileChanges:
    """Hold the generated files that nobody edited, by what becomes of them; sorted."""

    same: tuple[str, ...]
    changed: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileChanges:
    """Hold the files that are written; of those of ``upstream/`` only the numbers."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    upstream: Mapping[str, int]

    @property
    def is_empty(self) -> bool:
        return not (self.new or self.changed or self.removed or any(self.upstream.values()))


@dataclass(frozen=True, slots=True)
class LockReport:
    """Describe what became of ``images.lock``.

    Attributes:
        known: the number of references that keep the digest of an earlier lock.
        asked: the number of references that registries resolved.
    """

    known: int
    asked: int
    failures: tuple[LockFailure, ...]
    was_offline: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "known": self.known,
            "locked": self.asked,
            "failures": self.failures,
            "offline": self.was_offline,
        }


@dataclass(frozen=True)
class UpgradeReport:
    """Hold the whole report.

    Attributes:
        absent: components of the new example that a person removed before.
        edited: generated files that a person changed.
        own: patches that people wrote.
        lock: None where the workspace has no ``images.lock``.
        transfer: None where there is no lock, or two of its images have one target.
        unknown: programs at versions that nobody has reviewed, and that were not there before.
        lost: images that their source no longer has and that no setting substitutes.
        problems: pairs of what and where.
    """

    before: UpstreamRelease
    now: UpstreamRelease
    components: tuple[ComponentChange, ...]
    absent: tuple[str, ...]
    leftovers: tuple[LeftoverObjects, ...]
    generated: GeneratedFileChanges
    edited: tuple[PatchCheck, ...]
    own: tuple[PatchCheck, ...]
    images: ImageChanges
    lock: LockReport | None
    transfer: TransferEstimate | None
    unknown: tuple[UnreviewedProgram, ...]
    lost: tuple[UnavailableReference, ...]
    stale: tuple[StaleSetting, ...]
    problems: tuple[tuple[str, str], ...]
    files: FileChanges

    @property
    def conflicts(self) -> tuple[PatchCheck, ...]:
        """Patches that `render` would refuse, and edited ones that lack a generated change."""
        edited = (t for t in self.edited if t.state == "misfit" or t.generated != "same")
        return (*(trial for trial in self.own if trial.state == "misfit"), *edited)

    def to_json(self) -> dict[str, Any]:
        """Return the report as ``docs/upgrade.md`` describes it."""
        return {
            "from": self.before,
            "to": self.now,
            "components": self.components,
            "leftOut": self.absent,
            "leftBehind": self.leftovers,
            "patches": {
                "generated": self.generated,
                "edited": self.edited,
                "own": self.own,
            },
            "images": self.images,
            "lock": self.lock,
            "carry": self.transfer,
            "catalogue": {
                "notRead": self.unknown,
                "lost": self.lost,
            },
            "settings": self.stale,
            "problems": [{"what": what, "where": where} for what, where in self.problems],
            "files": self.files,
            "changed": not self.files.is_empty,
            "needsPerson": [trial.file for trial in self.conflicts],
        }
