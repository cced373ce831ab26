"""What we know of an operator that its manifests do not say, and what its sites mean.

The facts are data, one file a component in ``kfdeploy/catalogue/data/`` (``load`` reads them),
and a site's own in its workspace. An entry belongs to the programs whose images it names, and holds
for the versions at which somebody has read the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from kfdeploy.catalogue.versions import Version, VersionRange, closest_version
from kfdeploy.images.redirect import Redirect, is_same_name
from kfdeploy.images.sites import find_sites
from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.objects import Object, ObjectKey, show_path
from kfdeploy.oci.reference import ImageRef, InvalidImageRef

_LABELS = ("app.kubernetes.io/version", "serving.knative.dev/release", "app.kubernetes.io/release")
"""Labels that hold a program's version, where its image is named by digest."""


@dataclass(frozen=True, slots=True)
class SiteSelector:
    """A site of the manifests that an image is derived from at run time."""

    kind: str
    name: str
    field: str

    def matches(self, key: ObjectKey, where: str) -> bool:
        return (
            key.kind == self.kind
            and is_same_name(key.name, self.name)
            and fnmatchcase(where, self.field)
        )


@dataclass(frozen=True, slots=True)
class HiddenImage:
    """An image that an operator creates objects with, or offers, by a default in its code.

    ``refs`` are as the code has them. Where ``of`` is set they are empty, and the reference is that
    site's with ``suffix`` behind its tag. ``outside`` is the namespace of the pods that pull it,
    where that is none of a user's: admission rewrites nothing there.
    ``pulled_by`` is ``program`` where no kubelet pulls it: a program copies it itself, past
    admission policies and a node's mirror; else empty.
    """

    refs: tuple[str, ...]
    need: str
    when: str
    source: str
    redirect: Redirect | None = None
    versions: tuple[VersionRange, ...] = ()
    digest: bool = True
    objects: tuple[tuple[str, str], ...] = ()
    of: SiteSelector | None = None
    suffix: str = ""
    outside: str = ""
    pulled_by: str = ""


@dataclass(frozen=True, slots=True)
class SiteRule:
    """What the images of certain sites are needed for, and whether a digest may stand there."""

    kind: str
    name: str
    field: str
    need: str
    source: str
    line: str = ""
    ref: str = ""
    pin: str = ""
    why: str = ""
    versions: tuple[VersionRange, ...] = ()

    def matches(self, key: ObjectKey, where: str, line: str, ref: str) -> bool:
        return (
            fnmatchcase(key.kind, self.kind)
            and is_same_name(key.name, self.name)
            and fnmatchcase(where, self.field)
            and (not self.line or bool(re.search(self.line, line)))
            and (not self.ref or fnmatchcase(ref, self.ref))
        )


@dataclass(frozen=True, slots=True)
class FalsePositive:
    """A string in a program that looks like an image and that nothing pulls."""

    ref: str
    why: str
    source: str


@dataclass(frozen=True, slots=True)
class RegistryReader:
    """A controller that asks an image registry itself, as the kubelet does.

    ``role`` is its ClusterRole, where that does not let it read the pull secrets it signs in with.
    """

    kind: str
    name: str
    container: str
    what: str
    source: str
    spared_by: str = ""
    ca: str = ""
    credentials: str = ""
    role: str = ""
    versions: tuple[VersionRange, ...] = ()


@dataclass(frozen=True, slots=True)
class UnavailableImage:
    """Images that are gone from their source; ``substitute`` is for a person to confirm.

    ``{tag}`` in it is the tag of the image that is gone.
    """

    ref: str
    why: str
    source: str
    substitute: str = ""

    def matches(self, ref: str) -> bool:
        return fnmatchcase(ref, self.ref) or fnmatchcase(_repository_of(ref), self.ref)

    def substitute_for(self, ref: str) -> str:
        """The substitute of one of them; empty where none is known, or an image has no tag."""
        if "{tag}" not in self.substitute:
            return self.substitute
        tag = ImageRef.parse(ref).with_default_tag().tag
        return self.substitute.replace("{tag}", tag) if tag else ""


@dataclass(frozen=True, slots=True)
class EgressFact:
    """What a program, or its users' code, reaches for besides images."""

    what: str
    target: str
    need: str
    when: str
    way_out: str
    source: str
    versions: tuple[VersionRange, ...] = ()


@dataclass(frozen=True, slots=True)
class ReviewedVersions:
    """The versions at which the source was read, and what was read."""

    versions: VersionRange
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A component's facts."""

    component: str
    programs: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    read: tuple[ReviewedVersions, ...] = ()
    images: tuple[HiddenImage, ...] = ()
    unused: tuple[FalsePositive, ...] = ()
    sites: tuple[SiteRule, ...] = ()
    asks: tuple[RegistryReader, ...] = ()
    lost: tuple[UnavailableImage, ...] = ()
    egress: tuple[EgressFact, ...] = ()
    file: str = field(default="", compare=False)

    def owns_repository(self, repository: str) -> bool:
        """Whether a program of this repository (HOST/PATH) is the component's."""
        return any(fnmatchcase(repository, pattern) for pattern in self.programs)

    def is_reviewed(self, version: Version | None) -> bool:
        """Whether somebody has read the source at this version."""
        return any(version in read.versions for read in self.read)

    def nearest_reviewed(self, version: Version | None) -> Version | None:
        """The version read that is closest to one that nobody has read; the latest for none."""
        ends = [end for read in self.read for end in (read.versions.first, read.versions.last)]
        return closest_version(version, (end for end in ends if end is not None))

    def images_at(self, version: Version | None) -> Iterator[HiddenImage]:
        """The hidden images of a version; records without versions hold for all."""
        yield from (image for image in self.images if _covers_version(image.versions, version))


@dataclass(frozen=True, slots=True)
class WorkloadProgram:
    """A container of a rendered workload, and what the catalogue has of its image."""

    object: ObjectKey
    container: str
    image: str
    version: Version | None
    entry: CatalogueEntry | None

    @property
    def is_known(self) -> bool:
        return self.entry is not None and self.entry.is_reviewed(self.version)

    @property
    def unread(self) -> str:
        """What to call it where nobody has read it at the version that runs; empty where it is."""
        if self.entry is None:
            return self.image
        return "" if self.is_known else f"{self.entry.component} {self.version or self.image}"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All entries, a site's own first."""

    entries: tuple[CatalogueEntry, ...]

    def find_programs(self, objects: Iterable[Object]) -> tuple[WorkloadProgram, ...]:
        """Every program that the workloads among these objects run, in their order."""
        out = []
        for item in objects:
            if item.key.kind not in workload.WORKLOADS:
                continue
            for _, container in workload.list_containers(item.body):
                image = container.get("image")
                if isinstance(image, str):
                    name = str(container.get("name", ""))
                    out.append(self._identify_program(item, name, image))
        return tuple(out)

    def find_named_programs(self, objects: Iterable[Object]) -> Iterator[WorkloadProgram]:
        """Programs with facts of what they reach for that other objects name: a runtime's server.

        They run in pods that operators make. ``container`` is the field that names one.
        """
        entries = [entry for entry in self.entries if entry.egress]
        words = {_literal_segment(pattern) for entry in entries for pattern in entry.programs}
        for item in objects:
            if item.is_crd or not any(word in item.text for word in words):
                continue
            if item.key.kind in workload.WORKLOADS:
                continue
            for found in find_sites(item.key, item.body):
                for mention in found.mentions:
                    program = self._identify_program(
                        item, show_path(item.body, found.path), mention.ref
                    )
                    if program.entry in entries:
                        yield program

    def _identify_program(self, item: Object, container: str, image: str) -> WorkloadProgram:
        repository = _repository_of(image)
        entry = next((one for one in self.entries if one.owns_repository(repository)), None)
        return WorkloadProgram(
            item.key, container, image, _detect_version(item.body, image, entry), entry
        )

    def find_site_rule(
        self,
        key: ObjectKey,
        where: str,
        line: str,
        ref: str,
        programs: Sequence[WorkloadProgram] = (),
    ) -> SiteRule | None:
        """What is known of an image at a site; the first rule that fits decides.

        Args:
            where: the field, as it is shown.
            line: the line of a longer text that has the image.
            programs: what runs beside it, for rules that hold for certain versions only.
        """
        for entry in self.entries:
            for rule in entry.sites:
                if rule.matches(key, where, line, ref) and _rule_applies(rule, entry, programs):
                    return rule
        return None

    def find_unavailable(self, ref: str) -> UnavailableImage | None:
        """What is known of an image that can't be had from its source."""
        for entry in self.entries:
            for lost in entry.lost:
                if lost.matches(ref):
                    return lost
        return None

    def find_registry_readers(
        self, programs: Iterable[WorkloadProgram]
    ) -> Iterator[tuple[WorkloadProgram, RegistryReader]]:
        """The controllers among these programs that ask registries."""
        for program in programs:
            for asks in program.entry.asks if program.entry else ():
                if (
                    program.object.kind == asks.kind
                    and is_same_name(program.object.name, asks.name)
                    and program.container == asks.container
                    and _covers_version(asks.versions, program.version)
                ):
                    yield program, asks

    def find_egress_facts(
        self, programs: Iterable[WorkloadProgram]
    ) -> Iterator[tuple[WorkloadProgram, EgressFact]]:
        """What these programs reach for besides images, each fact once, by its first program."""
        seen: set[EgressFact] = set()
        for program in programs:
            for egress in program.entry.egress if program.entry else ():
                if egress not in seen and _covers_version(egress.versions, program.version):
                    seen.add(egress)
                    yield program, egress


def _literal_segment(pattern: str) -> str:
    """What stands in every reference that a pattern of repositories fits, as it is written."""
    return next((part for part in reversed(pattern.split("/")) if "*" not in part), "")


def _rule_applies(
    rule: SiteRule, entry: CatalogueEntry, programs: Sequence[WorkloadProgram]
) -> bool:
    if not rule.versions:
        return True
    return any(
        program.entry is not None
        and program.entry.component == entry.component
        and program.version is not None
        and _covers_version(rule.versions, program.version)
        for program in programs
    )


def _covers_version(versions: Sequence[VersionRange], version: Version | None) -> bool:
    return not versions or any(version in one for one in versions)


def _detect_version(
    body: dict[str, Any], image: str, entry: CatalogueEntry | None
) -> Version | None:
    """A program's version: its alias, its image's tag, or a label of its workload.

    The alias ``""`` is that of an image with neither tag nor digest.
    """
    try:
        ref = ImageRef.parse(image)
    except InvalidImageRef:
        return None
    aliases = dict(entry.aliases) if entry else {}
    for word in [word for word in (ref.tag, ref.digest) if word] or [""]:
        if word in aliases:
            return Version.parse(aliases[word])
    if version := Version.parse(ref.tag):
        return version
    labels = (body.get("metadata") or {}).get("labels") or {}
    for label in _LABELS:
        if version := Version.parse(str(labels.get(label, ""))):
            return version
    return None


@lru_cache(maxsize=4096)
def _repository_of(image: str) -> str:
    try:
        return ImageRef.parse(image).repository
    except InvalidImageRef:
        return image
