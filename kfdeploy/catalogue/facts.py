"""Look up the catalogue's facts for rendered objects and for references.

`load` reads the files, and `records` describes their content. An entry applies to the programs
whose images it names, at the versions whose source somebody has read.
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
from kfdeploy.oci.reference import ImageRef, WrittenRef

_LABELS = ("app.kubernetes.io/version", "serving.knative.dev/release", "app.kubernetes.io/release")
"""Labels that hold a program's version. They matter where its image is named by digest."""


@dataclass(frozen=True, slots=True)
class WorkloadProgram:
    """A container of a rendered workload, and the catalogue's entry for its image.

    `container` is the container's name; for an object that is not a workload it is the field that
    names the image.
    """

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
        """Return a name for a program that nobody has reviewed at its version; empty otherwise."""
        if self.entry is None:
            return self.image
        return "" if self.is_known else f"{self.entry.component} {self.version or self.image}"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All entries, a site's own first. The first entry that matches applies."""

    entries: tuple[CatalogueEntry, ...]

    def find_programs(self, objects: Iterable[Object]) -> tuple[WorkloadProgram, ...]:
        """Return the programs that the workloads among these objects run, in document order."""
        programs = []
        for item in objects:
            if item.key.kind not in workload.WORKLOADS:
                continue
            for _, container in workload.list_containers(item.body):
                image = container.get("image")
                if isinstance(image, str):
                    name = str(container.get("name", ""))
                    programs.append(self._identify_program(item, name, image))
        return tuple(programs)

    def find_named_programs(self, objects: Iterable[Object]) -> Iterator[WorkloadProgram]:
        """Yield programs with egress facts that objects other than workloads name.

        An operator creates their pods: the server of a model runtime, for example.
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
                        item, show_path(item.body, found.path), mention.ref.text
                    )
                    if program.entry in entries:
                        yield program

    def _identify_program(self, item: Object, container: str, image: str) -> WorkloadProgram:
        repository = repository_of(image)
        entry = next((entry for entry in self.entries if entry.owns_repository(repository)), None)
        return WorkloadProgram(
            item.key, container, image, _detect_version(item.body, image, entry), entry
        )

    def find_site_rule(
        self,
        key: ObjectKey,
        field: str,
        line: str,
        ref: str,
        programs: Sequence[WorkloadProgram] = (),
    ) -> SiteRule | None:
        """Return the first rule that matches an image at a site, or None.

        Args:
            field: the path of the field, as `show_path` writes it.
            line: the line with the image, where the field has several.
            programs: programs of the component, for rules that are limited to versions.
        """
        for entry in self.entries:
            for rule in entry.sites:
                if rule.matches(key, field, line, ref) and _rule_applies(rule, entry, programs):
                    return rule
        return None

    def find_unavailable(self, ref: WrittenRef) -> UnavailableImage | None:
        """Return the record of an image that its source no longer has, or None."""
        for entry in self.entries:
            for lost in entry.lost:
                if lost.matches(ref):
                    return lost
        return None

    def find_registry_readers(
        self, programs: Iterable[WorkloadProgram]
    ) -> Iterator[tuple[WorkloadProgram, RegistryReader]]:
        """Yield the programs that connect to registries themselves, with their records."""
        for program in programs:
            for reader in program.entry.asks if program.entry else ():
                if (
                    program.object.kind == reader.kind
                    and is_same_name(program.object.name, reader.name)
                    and program.container == reader.container
                    and covers_version(reader.versions, program.version)
                ):
                    yield program, reader

    def find_egress_facts(
        self, programs: Iterable[WorkloadProgram]
    ) -> Iterator[tuple[WorkloadProgram, EgressFact]]:
        """Yield what these programs connect to besides image registries.

        Each fact comes once, with the first program it applies to.
        """
        seen: set[EgressFact] = set()
        for program in programs:
            for fact in program.entry.egress if program.entry else ():
                if fact not in seen and covers_version(fact.versions, program.version):
                    seen.add(fact)
                    yield program, fact


def _literal_segment(pattern: str) -> str:
    """Return the last path segment without wildcards: each matching reference has it."""
    return next((segment for segment in reversed(pattern.split("/")) if "*" not in segment), "")


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
    """Return a program's version from its alias, its image's tag or a label of its workload.

    The alias ``""`` is for an image with neither tag nor digest.
    """
    ref = ImageRef.try_parse(image)
    if ref is None:
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
