"""Scan one component's objects: the images at their sites, and those that only code names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from kfdeploy.catalogue import hidden_images
from kfdeploy.catalogue.facts import Catalogue, WorkloadProgram
from kfdeploy.errors import UserError, raise_all
from kfdeploy.images import mentions
from kfdeploy.images.inventory import ComponentScan, ImageUse, Replacement, ScanProblem
from kfdeploy.images.mentions import Mention
from kfdeploy.images.sites import Site, find_sites
from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.accessors import get_metadata
from kfdeploy.kubernetes.objects import Object, ObjectKey, Path, get_field, show_path
from kfdeploy.oci.reference import WrittenRef
from kfdeploy.upstream.build import RenderedComponent
from kfdeploy.upstream.provenance.chart import ChartIndex
from kfdeploy.upstream.provenance.kustomize import ProvenanceIndex

_SCHEMA_DEFAULT = re.compile(r"^ +default: [\"']?(?P<value>[^\s\"']+)", re.MULTILINE)
_UNRESOLVED = re.compile(r"\$\([\w.-]+\)")
_DEFAULT_NEED = {"config": "optional", "custom-resource": "optional", "assembled": "optional"}


def scan_objects(rendered: RenderedComponent, facts: Catalogue) -> ComponentScan:
    """Return the images that a component's objects name and that its programs pull.

    Raises:
        UserError: a rendered document is not valid YAML, or is named as no object can be. Names
            of objects become names of files and stand in templates: nothing later checks them.
    """
    name = rendered.component.name
    scanner = _Scanner(rendered, facts)
    raise_all(scanner.find_impossible_names())
    named = list(scanner.find_images())
    found = [
        *named,
        *hidden_images.find_hidden_images(name, scanner.objects, scanner.programs, named),
    ]
    scanner.problems += scanner.find_unresolved_names()
    return ComponentScan(
        tuple(found),
        tuple(scanner.problems),
        tuple(hidden_images.find_unknown_programs(name, scanner.programs)),
        tuple(sorted(hidden_images.find_unavailable_images(facts, found))),
    )


class _Scanner:
    """Scan the sites of one component's objects."""

    def __init__(self, rendered: RenderedComponent, facts: Catalogue) -> None:
        self.rendered = rendered
        self.facts = facts
        self.objects = [item for item in rendered.objects if not item.is_crd]
        self.problems = [
            problem
            for item in rendered.objects
            if item.is_crd
            for problem in _find_schema_defaults(item)
        ]
        self._index: ProvenanceIndex | ChartIndex | None = None

    @property
    def index(self) -> ProvenanceIndex | ChartIndex:
        if self._index is None:
            self._index = self.rendered.build_index()
        return self._index

    @cached_property
    def programs(self) -> tuple[WorkloadProgram, ...]:
        return self.facts.find_programs(self.objects)

    def find_impossible_names(self) -> list[UserError]:
        """Return an error for each object whose key no API server takes."""
        errors: list[UserError] = []
        for item in self.rendered.objects:
            if mistake := item.key.find_mistake():
                where = self._locate_identity(item, mistake)
                errors.append(
                    UserError(
                        f"{where}: {mistake}",
                        hint="mend the upstream, or leave the component out of kfdeploy.yaml",
                    )
                )
        return errors

    def _locate_identity(self, item: Object, mistake: str) -> str:
        """Return where the field of a mistake stands, else the object, else the component."""
        field = mistake.partition(":")[0].rpartition(".")[2]
        value = get_metadata(item.body).get(field, "")
        for path, text in ((("metadata", field), value), (("kind",), item.key.kind)):
            if isinstance(text, str) and text:
                place, _ = self.index.locate_value(item.key, item.body, path, text, at=0)
                if place:
                    return str(place)
        return f"component {self.rendered.component.name}"

    def find_unresolved_names(self) -> Iterator[ScanProblem]:
        """Yield a problem for each name with a `$(variable)` that no kustomization replaced."""
        for item in self.objects:
            for field in ("name", "namespace"):
                value = get_metadata(item.body).get(field)
                match = _UNRESOLVED.search(value) if isinstance(value, str) else None
                if match is None:
                    continue
                path = ("metadata", field)
                place, _ = self.index.locate_value(
                    item.key, item.body, path, match[0], at=match.start()
                )
                yield ScanProblem(
                    f"{item.key}: metadata.{field}: nothing has replaced {match[0]}, and an API"
                    " server refuses the name",
                    str(place) if place else f"component {self.rendered.component.name}",
                    "name",
                )

    def find_images(self) -> Iterator[ImageUse]:
        for item in self.objects:
            for site in find_sites(item.key, item.body):
                shared = _shared_tags(site)
                for mention in site.mentions:
                    by_tag = any(span.start in shared for span in mention.parts)
                    use = self._build_image_use(item, site, mention, "tag" if by_tag else "")
                    if use is not None:
                        yield use

    def _build_image_use(
        self, item: Object, site: Site, mention: Mention, pin: str
    ) -> ImageUse | None:
        first = mention.leading_span
        place, overridden = self.index.locate_value(
            item.key, item.body, site.path, first.text, at=first.start
        )
        ref, note = mention.ref, ""
        if mention.variables:
            text, note = self._resolve_tag(item, site, mention)
            resolved = WrittenRef.try_parse(text)
            if resolved is None:
                self._report_invalid_ref(item, site, text)
                return None
            ref = resolved
        field = show_path(item.body, site.path)
        line = _line_of(site.value, first.start)
        rule = self.facts.find_site_rule(item.key, field, line, ref.text, self.programs)
        return ImageUse(
            ref=ref,
            component=self.rendered.component.name,
            object=item.key,
            field=field,
            path=site.path,
            how=site.how,
            redirect=_describe_redirect(item, site, mention),
            place=place,
            overridden_by=overridden,
            pieces=tuple(
                Replacement(part.role, part.context or part.text, part.offset, part.text)
                for part in mention.parts
            ),
            is_whole_value=len(site.value) == len(mention.ref.text) and not mention.is_assembled,
            variables=mention.variables,
            need=rule.need if rule else _DEFAULT_NEED.get(site.how, "required"),
            note=note,
            pin=pin or (rule.pin if rule else None) or "",
        )

    def _resolve_tag(self, item: Object, site: Site, mention: Mention) -> tuple[str, str]:
        """Return a script's default image with the tag that its pods would use, and a note.

        The script joins the image and the tag from two variables, which containers that mount it
        may set.
        """
        image_variable, tag_variable = mention.variables
        environment = self._environment_of(item)
        name = environment.get(image_variable, mention.ref.text)
        tag = environment.get(tag_variable) or mentions.find_tag_default(site.value, tag_variable)
        if tag is None:
            versions = [
                environment[v] for v in mentions.version_variables(site.value) if v in environment
            ]
            tag = versions[0] if len(set(versions)) == 1 else None
        if tag is None:
            where = f"{item.key} {show_path(item.body, site.path)}"
            self.problems.append(
                ScanProblem(f"{mention.ref}: no tag found: {tag_variable} is not set", where)
            )
            return name, ""
        return f"{name}:{tag}", f"{image_variable}:{tag_variable}"

    def _report_invalid_ref(self, item: Object, site: Site, text: str) -> None:
        where = f"{item.key} {show_path(item.body, site.path)}"
        self.problems.append(
            ScanProblem(f"{text!r}, which a script pulls, is not an image reference", where)
        )

    def _environment_of(self, config: Object) -> dict[str, str]:
        """Return the environment variables of the containers whose pods mount a ConfigMap."""
        out: dict[str, str] = {}
        for container in self._containers_that_mount(config.key):
            for source in container.get("envFrom") or ():
                reference = source.get("configMapRef") or {}
                out.update(self._data_of(reference.get("name")))
            for variable in container.get("env") or ():
                value = variable.get("value")
                reference = (variable.get("valueFrom") or {}).get("configMapKeyRef")
                if value is None and reference:
                    value = self._data_of(reference.get("name")).get(reference.get("key", ""))
                if isinstance(value, str):
                    out[variable["name"]] = value
        return out

    def _containers_that_mount(self, key: ObjectKey) -> Iterator[dict[str, Any]]:
        for item in self.objects:
            if item.key.namespace == key.namespace and workload.mounts_config(item.body, key):
                yield from (container for _, container in workload.list_containers(item.body))

    def _data_of(self, name: str | None) -> dict[str, str]:
        for item in self.objects:
            if item.key.kind == "ConfigMap" and item.key.name == name:
                return {k: str(v) for k, v in (item.body.get("data") or {}).items()}
        return {}


def _find_schema_defaults(crd: Object) -> Iterator[ScanProblem]:
    """Yield a problem for each image that is a default in a schema: no patch reaches it."""
    for match in _SCHEMA_DEFAULT.finditer(crd.text):
        if mentions.is_strong(match["value"]):
            yield ScanProblem(f"{match['value']} is a default in a schema", str(crd.key))


def _shared_tags(site: Site) -> set[int]:
    """Return the offsets of tags that several images share: none of these can have a digest."""
    refs: dict[int, set[WrittenRef]] = {}
    for mention in site.mentions:
        for part in mention.parts:
            if part.role == "tag":
                refs.setdefault(part.start, set()).add(mention.ref)
    return {start for start, names in refs.items() if len(names) > 1}


def _line_of(value: str, at: int) -> str:
    start = value.rfind("\n", 0, at) + 1
    end = value.find("\n", at)
    return value[start : end if end >= 0 else len(value)]


def _describe_redirect(item: Object, site: Site, mention: Mention) -> str:
    if mention.variables:
        return f"env {mention.variables[0]}"
    if site.how == "env":
        variable = get_field(item.body, site.path[:-1])
        return f"env {variable.get('name', '')}"
    if site.how == "argument":
        return f"flag {_find_flag(item.body, site.path)}"
    if item.key.kind in ("ConfigMap", "Secret") and len(site.path) == 2:
        return f"config {site.path[1]}"
    return "patch"


def _find_flag(body: Any, path: Path) -> str:
    value: str = get_field(body, path)
    if value.startswith("-") and "=" in value:
        return value.split("=", 1)[0]
    index = path[-1]
    assert isinstance(index, int)
    before = get_field(body, (*path[:-1], index - 1)) if index else ""
    return before if isinstance(before, str) and before.startswith("-") else str(index)
