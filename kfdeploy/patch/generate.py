"""Inventory, features -> patches/ and helmfile.yaml.gotmpl.

Decides what the files are; the CLI writes them. A generated file is neutral: it names upstream
references, which the environment and images.lock turn into the private registry's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from kfdeploy.catalogue.facts import Catalogue
from kfdeploy.errors import UserError
from kfdeploy.features.feature import Feature, FeatureRelease
from kfdeploy.files import read_text
from kfdeploy.images.inventory import ImageUse, Inventory
from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.name_hash import strip_name_hash
from kfdeploy.kubernetes.objects import Object, ObjectKey, Path, get_field
from kfdeploy.patch import additions as patch_additions
from kfdeploy.patch import helmfile as workspace_helmfile
from kfdeploy.patch import registry_access
from kfdeploy.patch.drift import own_files
from kfdeploy.patch.helmfile import AddedRelease, WorkspaceRelease
from kfdeploy.patch.lookups import fill_references, list_replacements
from kfdeploy.patchfile import patch_file
from kfdeploy.patchfile.patch_file import format_operation, target_yaml
from kfdeploy.patchfile.writer import (
    describe_object,
    find_hooks,
    find_item_names,
    format_annotation_patch,
    name_files,
    path_sort_key,
    quote_go_string,
    quote_literal,
)
from kfdeploy.upstream.build import RenderedComponent
from kfdeploy.wording import pluralize
from kfdeploy.workspace.settings import Environment, Workspace
from kfdeploy.yamltext.emit import quote_scalar

SHARED = "_kfdeploy"
"""Below ``patches/``: the look-up values and templates that patches share."""
_OBJECTS = "objects"
"""The chart there that prints the objects of a feature."""
_TEMPLATES = FilePath(__file__).parent / "templates"
_KEPT = frozenset(("Namespace", "PersistentVolumeClaim", "PersistentVolume", "Profile"))
_NAMESPACED = workload.WORKLOADS | {
    *("ConfigMap", "Secret", "Service", "ServiceAccount", "Role", "RoleBinding", "Ingress"),
    *("PersistentVolumeClaim", "NetworkPolicy", "PodDisruptionBudget", "LimitRange"),
    *("ResourceQuota", "HorizontalPodAutoscaler", "Lease", "Endpoints", "EndpointSlice"),
}
"""Kubernetes' own kinds that live in a namespace (kubectl api-resources, 1.36)."""
_WITH_FILES = frozenset(("file", "ca", "namespaces"))
"""Purposes of patches that give a workload files, and so volumes."""
_KEEP = "helm.sh/resource-policy"
_CHECKSUM = "checksum.kfdeploy.io"


@dataclass(frozen=True)
class PatchOutput:
    """What `patch` generates: relative path to text."""

    files: Mapping[str, str]


def generate_patches(
    workspace: Workspace,
    root: FilePath,
    inventory: Inventory,
    rendered: Sequence[RenderedComponent],
    facts: Catalogue,
) -> PatchOutput:
    """All generated files of a workspace.

    Args:
        facts: the catalogue, for controllers that ask registries themselves.
        root: the workspace; people's own files in its ``patches/`` take part.

    Raises:
        UserError: a place that no patch can change, a person's file that can't be read.
    """
    out: dict[str, str] = {}
    people = {item.component.name: own_files(root, item.component.name) for item in rendered}
    places = _group_by_object(inventory)
    features = workspace.list_enabled_features()
    for item in rendered:
        maker = _PatchBuilder(workspace, item, facts, places.get(item.component.name, {}), features)
        for name, body in maker.build_files(people[item.component.name]):
            path = f"patches/{item.component.name}/{name}"
            out[path] = patch_file.mark_generated(body)
    added = [addition for feature in features for addition in feature.build_releases()]
    for addition in added:
        people[addition.release] = own_files(root, addition.release)
        for name, text in addition.objects.items():
            out[f"patches/{addition.release}/{name}"] = patch_file.mark_generated(
                text, is_template=True
            )
    out |= {
        f"patches/{SHARED}/{name}": text
        for name, text in build_shared_files(features, has_objects=bool(added))
    }
    helmfile = _build_helmfile(workspace, rendered, out, people, added)
    out["helmfile.yaml.gotmpl"] = patch_file.mark_generated(helmfile)
    return PatchOutput(dict(sorted(out.items())))


def build_shared_files(
    features: Sequence[Feature[Any]], *, has_objects: bool
) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file that patches and releases share.

    Args:
        features: those that the site has turned on.
        has_objects: whether one of them adds objects.
    """
    templates = {"mentions.gotmpl": True, "values.yaml.gotmpl": False}
    if has_objects:
        templates |= {f"{_OBJECTS}/Chart.yaml": False, f"{_OBJECTS}/templates/objects.yaml": True}
    for name, is_template in templates.items():
        text = (_TEMPLATES / name).read_text(encoding="utf-8")
        yield name, patch_file.mark_generated(text, is_template=is_template)
    yield "defaults.yaml", patch_file.mark_generated(_dump_defaults(features))
    for feature in features:
        text = feature.read_values_template()
        yield f"{feature.name}.values.gotmpl", patch_file.mark_generated(text, is_template=True)


def _dump_defaults(features: Sequence[Feature[Any]]) -> str:
    """Return what plain Helmfile takes where kfdeploy.yaml does not say: no value of a site."""
    defaults = {feature.name: feature.read_defaults() for feature in features}
    version = json.dumps(Environment().kube_version)
    lines = [
        "# What values.yaml.gotmpl takes where kfdeploy.yaml does not say; of features those on.",
        f"environment: {{kubeVersion: {version}}}",
        "features:" if defaults else "features: {}",
        *(f"  {name}: {json.dumps(value, sort_keys=True)}" for name, value in defaults.items()),
    ]
    return "\n".join(lines) + "\n"


def _group_by_object(
    inventory: Inventory,
) -> dict[str, dict[ObjectKey, list[tuple[str, ImageUse]]]]:
    out: dict[str, dict[ObjectKey, list[tuple[str, ImageUse]]]] = {}
    for image in inventory.images:
        for found in image.found:
            objects = out.setdefault(found.component, {})
            objects.setdefault(found.object, []).append((image.ref, found))
    return out


@dataclass
class _PatchBuilder:
    """The patches of one component."""

    workspace: Workspace
    rendered: RenderedComponent
    facts: Catalogue
    places: Mapping[ObjectKey, Sequence[tuple[str, ImageUse]]]
    features: Sequence[Feature[Any]]
    changed_config: dict[ObjectKey, list[str]] = field(default_factory=dict)

    def build_files(self, own: Sequence[str]) -> Iterator[tuple[str, str]]:
        """File name and body, objects in their order."""
        objects = [item for item in self.rendered.objects if not item.is_crd]
        self.names = name_files([item.key for item in objects])
        asks = list(self.facts.find_registry_readers(self.facts.find_programs(objects)))
        additions: dict[ObjectKey, list[tuple[str, str]]] = {}
        for key, purpose, body in patch_additions.build_additions(objects, self.places):
            additions.setdefault(key, []).append((purpose, body))
        for item in objects:
            yield from self._patch_images(item)
            for purpose, body in additions.get(item.key, ()):
                name = self._file_name(item.key, purpose)
                self._track_config(item.key, name)
                yield name, body
            yield from self._patch_pull_settings(item)
            reach = list(registry_access.build_access_patches(self.workspace, item, asks))
            with_files = [p for p, _ in (*additions.get(item.key, ()), *reach) if p in _WITH_FILES]
            if len(with_files) > 1 and not workload.pod_spec(item.body).get("volumes"):
                # Each would make the list of volumes, and the last one's would stand.
                raise UserError(
                    f"component {self.rendered.component.name}: {item.key} has no volumes, and"
                    f" {len(with_files)} patches would begin its list: {', '.join(with_files)}",
                    hint="take one of them out of catalogue/ and make it a patch of your own",
                )
            for purpose, body in reach:
                yield self._file_name(item.key, purpose), body
            if item.key.kind in _KEPT:
                yield self._file_name(item.key, "keep"), self._patch_keep_policy(item)
            if names := find_hooks(item):
                yield self._file_name(item.key, "hook"), self._remove_hooks(item, names)
            if not item.key.namespace and item.key.kind in _NAMESPACED:
                yield self._file_name(item.key, "namespace"), self._set_namespace(item)
            if item.key.kind == "ClusterRole" and item.body.get("aggregationRule"):
                yield from self._remove_aggregated_rules(item)
        yield from self._patch_for_features(objects)
        self._track_own_config(objects, own)
        for item in objects:
            yield from self._patch_checksums(item)

    def _file_name(self, key: ObjectKey, purpose: str) -> str:
        return f"{self.names[key]}.{purpose}.yaml.gotmpl"

    # -- images --------------------------------------------------------------------------------

    def _patch_images(self, item: Object) -> Iterator[tuple[str, str]]:
        by_path: dict[Path, list[tuple[str, ImageUse]]] = {}
        for ref, found in self.places.get(item.key, ()):
            if found.path:
                by_path.setdefault(found.path, []).append((ref, found))
        if not by_path:
            return
        name = self._file_name(item.key, "images")
        refs = {ref for found in by_path.values() for ref, _ in found}
        body = (
            f"# {describe_object(item.key)}: {pluralize(len(refs), 'image')} from"
            " the private registry\n"
        )
        body += target_yaml(item.key) + "patch:\n"
        seen: set[Path] = set()
        for path in sorted(by_path, key=path_sort_key):
            value = get_field(item.body, path)
            for guard, expected in find_item_names(item.body, path):
                if guard not in seen:
                    seen.add(guard)
                    body += format_operation("test", guard, quote_scalar(expected))
            if "\n" in value or any(
                not f.is_whole_value and f.how == "assembled" for _, f in by_path[path]
            ):
                body += self._replace_in_text(item, path, by_path[path], name)
            else:
                body += format_operation("test", path, quote_literal(value))
                body += format_operation("replace", path, fill_references(value, by_path[path]))
        self._track_config(item.key, name)
        yield name, body

    def _replace_in_text(
        self, item: Object, path: Path, found: Sequence[tuple[str, ImageUse]], name: str
    ) -> str:
        """The replacement of mentions in a long text, which the patch itself does not hold."""
        build = " ".join(json.dumps(word) for word in _build_command(self.rendered))
        keys = " ".join(json.dumps(step) for step in path)
        lines = [
            '{{ tpl (readFile "../' + SHARED + '/mentions.gotmpl") (dict',
            f'    "patch" "patches/{self.rendered.component.name}/{name}"',
            f'    "build" (list {build})',
            f'    "kind" {json.dumps(item.key.kind)}',
            f'    "namespace" {json.dumps(item.key.namespace)}',
            f'    "name" {json.dumps(patch_file.target_name(item.key))}',
            f'    "field" (list {keys})',
            '    "mentions" (list',
        ]
        for old, new in list_replacements(found):
            lines.append(f"      (list {quote_go_string(old)} {new})")
        lines.append("    )) }}")
        return format_operation("replace", path, "\n".join(lines))

    # -- pull secrets, keeping, rolling ------------------------------------------------------------

    def _patch_pull_settings(self, item: Object) -> Iterator[tuple[str, str]]:
        environments = self.workspace.environments.values()
        policy = any(e.image_pull_policy for e in environments)
        secrets = any(e.image_pull_secrets for e in environments)
        path = workload.template_path(item.key.kind)
        found = list(workload.list_containers(item.body))
        if path is None or not found or not (policy or secrets):
            return
        body = (
            f"# {describe_object(item.key)}: how its images are"
            f" pulled\n{target_yaml(item.key)}patch:\n"
        )
        for place, container in found:
            body += format_operation(
                "test", (*place, "name"), quote_scalar(str(container.get("name")))
            )
        if secrets:
            body += self._add_pull_secrets(item, (*path, "spec", "imagePullSecrets"))
        if policy:
            body += "{{- if .Values.imagePullPolicy }}\n"
            for place, _ in found:
                value = "{{ .Values.imagePullPolicy | toJson }}"
                body += format_operation("add", (*place, "imagePullPolicy"), value)
            body += "{{- end }}\n"
        yield self._file_name(item.key, "pull"), body

    def _add_pull_secrets(self, item: Object, path: Path) -> str:
        there = workload.pod_spec(item.body).get("imagePullSecrets")
        out = "{{- if .Values.imagePullSecrets }}\n"
        if not there:
            out += format_operation("add", path, "[]")
        out += "{{- range .Values.imagePullSecrets }}\n"
        out += format_operation("add", (*path, "-"), "{name: {{ toJson . }}}")
        return out + "{{- end }}\n{{- end }}\n"

    def _patch_keep_policy(self, item: Object) -> str:
        why = "its objects and data" if item.key.kind == "Namespace" else "its data"
        head = f"# {describe_object(item.key)}: stays, with {why}, when its release goes\n"
        return head + format_annotation_patch(item.key, (), {_KEEP: "keep"})

    def _remove_hooks(self, item: Object, hooks: Sequence[str]) -> str:
        body = (
            f"# {describe_object(item.key)}: an ordered object of its release, no"
            " longer a hook of Helm's\n"
        )
        body += target_yaml(item.key) + "patch:\n"
        annotations: Path = ("metadata", "annotations")
        return body + "".join(format_operation("remove", (*annotations, name)) for name in hooks)

    def _set_namespace(self, item: Object) -> str:
        body = (
            f"# {describe_object(item.key)}: names no namespace; kubectl would put"
            " it into default\n"
        )
        body += target_yaml(item.key) + "patch:\n"
        return body + format_operation("add", ("metadata", "namespace"), "default")

    def _remove_aggregated_rules(self, item: Object) -> Iterator[tuple[str, str]]:
        """The controller writes an aggregated role's rules, and Helm 4 can't write them, too."""
        if item.body.get("rules") == []:
            body = f"# {describe_object(item.key)}: its rules are what it gathers, and not Helm's\n"
            body += target_yaml(item.key) + "patch:\n"
            yield self._file_name(item.key, "rules"), body + format_operation("remove", ("rules",))

    def _patch_for_features(self, objects: Sequence[Object]) -> Iterator[tuple[str, str]]:
        for feature in self.features:
            for patch in feature.build_patches(self.rendered.component.name, objects):
                purpose = f"{feature.name}-{patch.purpose}" if patch.purpose else feature.name
                name = self._file_name(patch.object, purpose)
                self._track_config(patch.object, name)
                yield name, patch.body

    def _track_config(self, key: ObjectKey, name: str) -> None:
        """Remember a patch whose change of a ConfigMap or Secret makes the pods roll."""
        if key.kind in ("ConfigMap", "Secret"):
            self.changed_config.setdefault(key, []).append(name)

    def _track_own_config(self, objects: Sequence[Object], own: Sequence[str]) -> None:
        """A person's patch of a ConfigMap or Secret makes the pods roll as well."""
        folder = self.rendered.root.parent / "patches" / self.rendered.component.name
        for name in own:
            text = read_text(folder / name)
            for item in objects:
                if item.key.kind in ("ConfigMap", "Secret") and _mentions_object(text, item.key):
                    self.changed_config.setdefault(item.key, []).append(name)

    def _patch_checksums(self, item: Object) -> Iterator[tuple[str, str]]:
        path = workload.template_path(item.key.kind)
        if not path or item.key.kind in ("Job", "CronJob"):
            return
        sums: dict[str, str] = {}
        for key, names in sorted(self.changed_config.items()):
            if key.namespace == item.key.namespace and workload.reads_config(item.body, key):
                label = f"{_CHECKSUM}/{strip_name_hash(key)[:63].rstrip('.-_')}"
                parts = " ".join(f"({_content_expression(name)})" for name in names)
                sums[label] = f"{{{{ print {parts} | sha256sum }}}}"
        if sums:
            configs = ", ".join(label.partition("/")[2] for label in sums)
            head = f"# {describe_object(item.key)}: its pods roll when {configs} changes\n"
            yield (
                self._file_name(item.key, "roll"),
                head + format_annotation_patch(item.key, path, sums),
            )


def _content_expression(name: str) -> str:
    if name.endswith(".gotmpl"):
        return f"tpl (readFile {json.dumps(name)}) ."
    return f"readFile {json.dumps(name)}"


def _mentions_object(text: str, key: ObjectKey) -> bool:
    return f"kind: {key.kind}" in text and f"name: {strip_name_hash(key)}" in text


def _build_command(rendered: RenderedComponent) -> list[str]:
    """The program that prints a component's objects, run beside its patches."""
    folder = f"../../upstream/{rendered.folder}"
    if rendered.kind == "kustomization":
        return ["kustomize", "build", "--load-restrictor=LoadRestrictionsNone", folder]
    component = rendered.component
    values = [f"--values=../../{name}" for name in component.values]
    namespace = f"--namespace={component.namespace or 'default'}"
    return ["helm", "template", component.name, folder, namespace, *values]


def _build_helmfile(
    workspace: Workspace,
    rendered: Sequence[RenderedComponent],
    out: Mapping[str, str],
    people: Mapping[str, Iterable[str]],
    added: Sequence[FeatureRelease],
) -> str:
    releases = []
    for item in rendered:
        component = item.component
        is_chart = item.kind == "chart"
        patches: dict[patch_file.Form, list[str]] = {}
        for name, text in _list_patches(component.name, out, people[component.name], item):
            patches.setdefault(patch_file.detect_form(text), []).append(name)
        releases.append(
            WorkspaceRelease(
                name=component.name,
                chart=f"upstream/{item.folder}",
                namespace=(component.namespace or "default") if is_chart else "",
                values=component.values if is_chart else (),
                patches=patches,
            )
        )
    values = f"patches/{SHARED}/values.yaml.gotmpl"
    chart = f"patches/{SHARED}/{_OBJECTS}"
    more = [
        AddedRelease(
            addition.release,
            chart,
            [
                f"patches/{addition.release}/{name}"
                for name in sorted({*addition.objects, *people[addition.release]})
            ],
        )
        for addition in added
    ]
    return workspace_helmfile.format_helmfile(workspace.environments, values, releases, more)


def _list_patches(
    component: str, out: Mapping[str, str], own: Iterable[str], item: RenderedComponent
) -> Iterator[tuple[str, str]]:
    """Name and text: generated files first, then people's, each by name."""
    folder = f"patches/{component}/"
    yield from ((name, text) for name, text in sorted(out.items()) if name.startswith(folder))
    for name in own:
        yield folder + name, read_text(item.root.parent / folder / name)
