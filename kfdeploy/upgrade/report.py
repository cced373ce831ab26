"""What moving a workspace to another release changes, and what a person has to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfdeploy.images.inventory import UnavailableReference, UnreviewedProgram
from kfdeploy.images.stale_settings import StaleSetting
from kfdeploy.upgrade.components import ComponentChange
from kfdeploy.upgrade.images import ImageChanges, TransferEstimate
from kfdeploy.upgrade.patches import PatchCheck


@dataclass(frozen=True, slots=True)
class UpstreamRelease:
    """An upstream as ``kfdeploy.yaml`` names it, and the version it has."""

    version: str
    source: str
    ref: str


@dataclass(frozen=True, slots=True)
class LeftoverObjects:
    """What a dropped component has in a cluster.

    Attributes:
        objects: how many of its objects nothing renders any more.
        stays: of these, what is never deleted without being asked to, as users' data is in it.
        elsewhere: components that render others of its objects now.
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
    """Generated files that nobody edited, by what becomes of them; sorted."""

    same: tuple[str, ...]
    changed: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileChanges:
    """What is written: files of the workspace, and how many of ``upstream/`` change."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    upstream: Mapping[str, int]

    @property
    def is_empty(self) -> bool:
        return not (self.new or self.changed or self.removed or any(self.upstream.values()))


@dataclass(frozen=True, slots=True)
class LockReport:
    """What became of ``images.lock``.

    Attributes:
        known: references that an earlier lock of the workspace had, and that keep their digest.
        asked: those that a registry was asked for.
        failures: reference, reason and hint of each that could not be locked.
    """

    known: int
    asked: int
    failures: tuple[Mapping[str, str], ...]
    was_offline: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "known": self.known,
            "locked": self.asked,
            "failures": [dict(failure) for failure in self.failures],
            "offline": self.was_offline,
        }


@dataclass(frozen=True)
class UpgradeReport:
    """The whole of it.

    Attributes:
        absent: what the new example lists and a person has taken out before.
        edited: generated files that a person changed.
        own: people's own patches.
        lock: None where the workspace has no ``images.lock``.
        carry: None where there is no lock, or its images can't have places in the registry.
        unknown: programs at versions that nobody has looked into, which were not there before.
        lost: images that are gone from their source, and that nothing substitutes.
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
        """People's patches, and edited ones, that `render` would refuse or that miss a change."""
        edited = (t for t in self.edited if t.state == "misfit" or t.generated != "same")
        return (*(trial for trial in self.own if trial.state == "misfit"), *edited)

    def to_json(self) -> dict[str, Any]:
        """As ``docs/upgrade.md`` has it."""
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
