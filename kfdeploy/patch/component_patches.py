"""Generate the patches of one component: of its images, of each object, and of what reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from kfdeploy.catalogue.facts import Catalogue, WorkloadProgram
from kfdeploy.catalogue.records import RegistryReader
from kfdeploy.errors import UserError
from kfdeploy.features.feature import Feature
from kfdeploy.files import read_text
from kfdeploy.images.inventory import ImageUse
from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.name_hash import strip_name_hash
from kfdeploy.kubernetes.objects import Object, ObjectKey, get_field
from kfdeploy.kubernetes.objects import Path as FieldPath
from kfdeploy.patch import object_patches
from kfdeploy.patch.additions import build_additions
from kfdeploy.patch.lookups import SHARED, fill_references, list_replacements
from kfdeploy.patch.registry_access import build_access_patches
from kfdeploy.patchfile.patch_file import target_name
from kfdeploy.patchfile.quoting import quote_go_string, quote_literal
from kfdeploy.patchfile.writer import (
    JsonPatchText,
    ObjectPatch,
    describe_object,
    find_item_names,
    format_annotation_patch,
    name_files,
    path_sort_key,
)
from kfdeploy.upstream.build import RenderedComponent
from kfdeploy.wording import pluralize
from kfdeploy.workspace.settings import Workspace

_CONFIG_KINDS: Final = ("ConfigMap", "Secret")
_CONTENT_PURPOSES: Final = ("images", "env", "config", "file")
"""Patches that change what a ConfigMap or Secret says, besides those of features."""
_VOLUME_PURPOSES: Final = ("file", "ca", "namespaces")
"""Patches that give a workload files, and so volumes."""
_CHECKSUM: Final = "checksum.kfdeploy.io"
_BY_OBJECT: Final[tuple[Callable[[Object], Iterator[ObjectPatch]], ...]] = (
    object_patches.build_keep_patch,
    object_patches.build_hook_patch,
    object_patches.build_namespace_patch,
    object_patches.build_rules_patch,
)


@dataclass(frozen=True)
class ComponentPatches:
    """The patches of one component.

    Attributes:
        root: the workspace's folder.
        uses: what names images, by object.
        features: those that the site has turned on.
        own_files: names of people's patches.
    """

    workspace: Workspace
    root: Path
    rendered: RenderedComponent
    facts: Catalogue
    uses: Mapping[ObjectKey, Sequence[ImageUse]]
    features: Sequence[Feature[Any]]
    own_files: Sequence[str]

    def build_files(self) -> Iterator[tuple[str, str]]:
        """Yield name and text of each file.

        Raises:
            UserError: patches that can't be made, or not together.
        """
        changed: dict[ObjectKey, list[str]] = {}
        for patch in self._build_patches():
            name = self._name_file(patch.object, patch.purpose)
            if self._changes_config(patch):
                changed.setdefault(patch.object, []).append(name)
            yield name, patch.body
        for key, name in self._find_own_config_patches():
            changed.setdefault(key, []).append(name)
        for item in self._objects:
            for patch in _build_roll_patch(item, changed):
                yield self._name_file(patch.object, patch.purpose), patch.body

    @cached_property
    def _objects(self) -> Sequence[Object]:
        return [item for item in self.rendered.objects if not item.is_crd]

    @cached_property
    def _names(self) -> Mapping[ObjectKey, str]:
        return name_files([item.key for item in self._objects])

    def _name_file(self, key: ObjectKey, purpose: str) -> str:
        return f"{self._names[key]}.{purpose}.yaml.gotmpl"

    def _build_patches(self) -> Iterator[ObjectPatch]:
        programs = self.facts.find_programs(self._objects)
        readers = list(self.facts.find_registry_readers(programs))
        additions: dict[ObjectKey, list[ObjectPatch]] = {}
        for patch in build_additions(self._objects, self.uses):
            additions.setdefault(patch.object, []).append(patch)
        for item in self._objects:
            patches = self._build_object_patches(item, additions.get(item.key, ()), readers)
            yield from self._check_volumes(item, list(patches))
        for feature in self.features:
            for change in feature.build_patches(self.rendered.component.name, self._objects):
                purpose = f"{feature.name}-{change.purpose}" if change.purpose else feature.name
                yield ObjectPatch(change.object, purpose, change.body)

    def _build_object_patches(
        self,
        item: Object,
        additions: Iterable[ObjectPatch],
        readers: Sequence[tuple[WorkloadProgram, RegistryReader]],
    ) -> Iterator[ObjectPatch]:
        yield from self._build_image_patch(item)
        yield from additions
        yield from object_patches.build_pull_patch(item, self.workspace.environments.values())
        yield from build_access_patches(self.workspace, item, readers)
        for build in _BY_OBJECT:
            yield from build(item)

    def _check_volumes(self, item: Object, patches: Sequence[ObjectPatch]) -> Sequence[ObjectPatch]:
        """Return the patches, unless two of them would begin the workload's list of volumes.

        Each would write the whole list, and only the last one's would stay.
        """
        adding = [patch.purpose for patch in patches if patch.purpose in _VOLUME_PURPOSES]
        if len(adding) > 1 and not workload.pod_spec(item.body).get("volumes"):
            raise UserError(
                f"component {self.rendered.component.name}: {item.key} has no volumes, and"
                f" {len(adding)} patches would begin its list: {', '.join(adding)}",
                hint="take one of them out of catalogue/ and make it a patch of your own",
            )
        return patches

    # -- images ------------------------------------------------------------------------------------

    def _build_image_patch(self, item: Object) -> Iterator[ObjectPatch]:
        by_path: dict[FieldPath, list[ImageUse]] = {}
        for use in self.uses.get(item.key, ()):
            if use.path:
                by_path.setdefault(use.path, []).append(use)
        if not by_path:
            return
        count = len({use.ref for uses in by_path.values() for use in uses})
        text = JsonPatchText(item.key, f"{pluralize(count, 'image')} from the private registry")
        guarded: set[FieldPath] = set()
        for path in sorted(by_path, key=path_sort_key):
            for guard, name in find_item_names(item.body, path):
                if guard not in guarded:
                    guarded.add(guard)
                    text.test_text(guard, name)
            value = get_field(item.body, path)
            if _is_long_text(value, by_path[path]):
                text.replace(path, self._format_mentions(item, path, by_path[path]))
            else:
                text.test(path, quote_literal(value))
                text.replace(path, fill_references(value, by_path[path]))
        yield ObjectPatch(item.key, "images", str(text))

    def _format_mentions(self, item: Object, path: FieldPath, uses: Sequence[ImageUse]) -> str:
        """Return the template that replaces mentions in a text, which the patch does not hold."""
        name = self._name_file(item.key, "images")
        build = " ".join(json.dumps(word) for word in _build_command(self.rendered))
        keys = " ".join(json.dumps(step) for step in path)
        lines = [
            f'{{{{ tpl (readFile "../{SHARED}/mentions.gotmpl") (dict',
            f'    "patch" "patches/{self.rendered.component.name}/{name}"',
            f'    "build" (list {build})',
            f'    "kind" {json.dumps(item.key.kind)}',
            f'    "namespace" {json.dumps(item.key.namespace)}',
            f'    "name" {json.dumps(target_name(item.key))}',
            f'    "field" (list {keys})',
            '    "mentions" (list',
            *(f"      (list {quote_go_string(old)} {new})" for old, new in list_replacements(uses)),
            "    )) }}",
        ]
        return "\n".join(lines)

    # -- pods that roll ----------------------------------------------------------------------------

    def _changes_config(self, patch: ObjectPatch) -> bool:
        purposes = (*_CONTENT_PURPOSES, *(feature.name for feature in self.features))
        return patch.object.kind in _CONFIG_KINDS and patch.purpose.partition("-")[0] in purposes

    def _find_own_config_patches(self) -> Iterator[tuple[ObjectKey, str]]:
        """Yield each ConfigMap or Secret that a person's patch names, and the patch."""
        folder = self.root / "patches" / self.rendered.component.name
        for name in self.own_files:
            text = read_text(folder / name)
            for item in self._objects:
                if item.key.kind in _CONFIG_KINDS and _mentions_object(text, item.key):
                    yield item.key, name


def _build_roll_patch(
    item: Object, changed: Mapping[ObjectKey, Sequence[str]]
) -> Iterator[ObjectPatch]:
    """Yield the patch that replaces a workload's pods when what they read changes.

    Args:
        changed: ConfigMaps and Secrets, and the patches that change each.
    """
    template = workload.template_path(item.key.kind)
    if not template or item.key.kind in ("Job", "CronJob"):
        return
    sums: dict[str, str] = {}
    for key, names in sorted(changed.items()):
        if key.namespace == item.key.namespace and workload.reads_config(item.body, key):
            label = f"{_CHECKSUM}/{strip_name_hash(key)[:63].rstrip('.-_')}"
            parts = " ".join(f"({_format_content(name)})" for name in names)
            sums[label] = f"{{{{ print {parts} | sha256sum }}}}"
    if sums:
        configs = ", ".join(label.partition("/")[2] for label in sums)
        head = f"# {describe_object(item.key)}: its pods roll when {configs} changes\n"
        yield ObjectPatch(
            item.key, "roll", head + format_annotation_patch(item.key, template, sums)
        )


def _format_content(name: str) -> str:
    """Return the template expression of a patch's text, filled."""
    if name.endswith(".gotmpl"):
        return f"tpl (readFile {json.dumps(name)}) ."
    return f"readFile {json.dumps(name)}"


def _mentions_object(text: str, key: ObjectKey) -> bool:
    return f"kind: {key.kind}" in text and f"name: {strip_name_hash(key)}" in text


def _is_long_text(value: str, uses: Sequence[ImageUse]) -> bool:
    """Return whether a field is patched by its mentions: the patch must not hold all of it."""
    return "\n" in value or any(not use.is_whole_value and use.how == "assembled" for use in uses)


def _build_command(rendered: RenderedComponent) -> list[str]:
    """Return the command that prints a component's objects, run beside its patches."""
    folder = f"../../upstream/{rendered.folder}"
    if rendered.kind == "kustomization":
        return ["kustomize", "build", "--load-restrictor=LoadRestrictionsNone", folder]
    component = rendered.component
    values = [f"--values=../../{name}" for name in component.values]
    namespace = f"--namespace={component.namespace or 'default'}"
    return ["helm", "template", component.name, folder, namespace, *values]
