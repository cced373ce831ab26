"""What we know of an operator that its manifests do not say, and what its sites mean.

The facts are data, one file a component in ``kfdeploy/catalogue/data/`` (``load`` reads them),
and a site's own in its workspace. An entry belongs to the programs whose images it names, and holds
for the versions at which somebody has read the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kfdeploy.catalogue.records import (
    CatalogueEntry,
    EgressFact,
    RegistryReader,
    SiteRule,
    UnavailableImage,
    covers_version,
    repository_of,
)
from kfdeploy.catalogue.versions import Version
from kfdeploy.images.redirect import is_same_name
from kfdeploy.images.sites import find_sites
from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.accessors import get_labels
from kfdeploy.kubernetes.objects import Object, ObjectKey, show_path
from kfdeploy.oci.reference import ImageRef, InvalidImageRef

_LABELS = ("app.kubernetes.io/version", "serving.knative.dev/release", "app.kubernetes.io/release")
"""Labels that hold a program's version, where its image is named by digest."""


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
        repository = repository_of(image)
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
                    and covers_version(asks.versions, program.version)
                ):
                    yield program, asks

    def find_egress_facts(
        self, programs: Iterable[WorkloadProgram]
    ) -> Iterator[tuple[WorkloadProgram, EgressFact]]:
        """What these programs reach for besides images, each fact once, by its first program."""
        seen: set[EgressFact] = set()
        for program in programs:
            for egress in program.entry.egress if program.entry else ():
                if egress not in seen and covers_version(egress.versions, program.version):
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
        and covers_version(rule.versions, program.version)
        for program in programs
    )


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
    aliases = entry.aliases if entry else {}
    for word in [word for word in (ref.tag, ref.digest) if word] or [""]:
        if word in aliases:
            return aliases[word]
    if version := Version.parse(ref.tag):
        return version
    labels = get_labels(body)
    for label in _LABELS:
        if version := Version.parse(str(labels.get(label, ""))):
            return version
    return None
