"""Fill a component's patch files, and features' objects, for an environment without Helmfile."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfdeploy import go_template
from kfdeploy.errors import UserError, raise_all
from kfdeploy.files import read_text
from kfdeploy.kubernetes.objects import Object, get_field, split_objects
from kfdeploy.oci.reference import WrittenRef
from kfdeploy.oci.registry.ca import read_registry_ca
from kfdeploy.patch.values import ImageValues
from kfdeploy.patchfile import patch_file
from kfdeploy.patchfile.patch_file import Patch
from kfdeploy.programs import helmfile
from kfdeploy.upstream.build import RenderedComponent
from kfdeploy.workspace.settings import Environment, Workspace

_ORDER = {"json": 0, "merge": 1, "transformer": 2}
_BOUND = "[^A-Za-z0-9_./@:-]"
_SHARED = "mentions.gotmpl"


@dataclass(frozen=True)
class TemplateFiller:
    """Fill templates as Helmfile does.

    Attributes:
        root: the workspace.
        values: Helmfile's ``.Values`` and ``.Environment``.
    """

    root: Path
    values: Mapping[str, Any]

    def fill_patches(self, rendered: RenderedComponent) -> tuple[Patch, ...]:
        """Return a component's patches in the order in which Helmfile applies them.

        JSON patches first, then strategic merges, then transformers; of each, generated ones
        before people's.

        Raises:
            UserError: every file that can't be filled or read.
        """
        folder = self.root / "patches" / rendered.component.name
        errors: list[UserError] = []
        out: list[tuple[tuple[int, bool, str], Patch]] = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not path.is_file() or not path.name.endswith(patch_file.SUFFIXES):
                continue
            try:
                text = read_text(path)
                patch = self.fill_patch(path, text, rendered)
                out.append((patch_sort_key(patch, text), patch))
            except UserError as error:
                errors += error.list_errors()
        raise_all(errors)
        return tuple(patch for _, patch in sorted(out, key=lambda pair: pair[0]))

    def fill_patch(self, path: Path, text: str, rendered: RenderedComponent) -> Patch:
        """Return one patch file, filled.

        Raises:
            UserError: it can't be filled or read.
        """
        filled = self.fill_template(path, text, rendered) if path.suffix == ".gotmpl" else text
        return patch_file.parse_patch(path.relative_to(self.root).as_posix(), filled)

    def fill_objects(self, folder: Path) -> Iterator[Object]:
        """Yield the objects of a folder's files, one a file, in the order of their names.

        A file that is empty when it is filled gives none.

        Raises:
            UserError: every file that can't be filled or read.
        """
        errors: list[UserError] = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not path.is_file() or not path.name.endswith(patch_file.SUFFIXES):
                continue
            try:
                text = read_text(path)
                filled = self.fill_template(path, text) if path.suffix == ".gotmpl" else text
                for item in split_objects(filled, path.relative_to(self.root).as_posix()):
                    _ = item.key  # broken YAML is an error here, not in the cluster
                    yield item
            except UserError as error:
                errors += error.list_errors()
        raise_all(errors)

    def fill_template(
        self, path: Path, text: str, rendered: RenderedComponent | None = None
    ) -> str:
        """Return the text of one ``.gotmpl`` file, filled.

        Args:
            rendered: the component that it patches; None for an object of its own.

        Raises:
            UserError: the template fails; with the file, and the error as Helmfile has it.
        """
        name = path.relative_to(self.root).as_posix()

        def read_file(other: str) -> str:
            return read_text(path.parent / other)

        def render_template(template: str, context: Any) -> str:
            if rendered and isinstance(context, Mapping) and "mentions" in context:
                return _replace_mentions(context, rendered.objects)
            return go_template.render(template, context, functions)

        functions: dict[str, Callable[..., Any]] = {
            "readFile": read_file,
            "tpl": render_template,
            "print": lambda *parts: "".join(map(str, parts)),
        }
        try:
            return go_template.render(text, self.values, functions)
        except go_template.TemplateError as error:
            raise UserError(
                f"{name}: {error}",
                hint="`kfdeploy patch` writes the generated files anew for what upstream has now",
            ) from error
        except go_template.UnsupportedTemplate as error:
            if patch_file.is_generated(text) and not patch_file.is_edited(text):
                # Only a person's template may use all that Helmfile knows, programs included.
                raise UserError(
                    f"{name}: a generated file has a template that kfdeploy never writes: {error}",
                    hint="`kfdeploy patch` writes the generated files anew; look at what it read",
                ) from error
            # A person's own template may use all that Helmfile knows.
            return helmfile.fill_template(
                path, self.values["Values"], self.values["Environment"]["Name"]
            )


def patch_sort_key(patch: Patch, text: str) -> tuple[int, bool, str]:
    """Return a key that sorts a component's patches as Helmfile applies them.

    Args:
        text: the patch's file, not filled.
    """
    return _ORDER[patch.form], not patch_file.is_generated(text), patch.file


def environment_values(
    workspace: Workspace, root: Path, name: str, image_values: Mapping[WrittenRef, ImageValues]
) -> dict[str, Any]:
    """Return Helmfile's ``.Values`` and ``.Environment`` for an environment.

    ``templates/values.yaml.gotmpl`` makes the same values for plain Helmfile.

    Args:
        root: the folder that paths in kfdeploy.yaml are relative to.
        name: the environment.
    """
    environment = workspace.environments[name]
    feature_environment = workspace.describe_environment(name)
    return {
        "Values": {
            **{
                feature.name: feature.build_values(feature_environment)
                for feature in workspace.list_enabled_features()
            },
            "imagePullPolicy": environment.image_pull_policy or "",
            "imagePullSecrets": list(environment.image_pull_secrets),
            "registry": registry_name(workspace, environment),
            "registryCa": read_registry_ca(workspace.resolve_registry(environment), root),
            "images": {ref.text: values.to_values() for ref, values in image_values.items()},
        },
        "Environment": {"Name": name},
    }


def registry_name(workspace: Workspace, environment: Environment) -> str:
    """Return HOST[/PREFIX], which the references of all images begin with."""
    registry = workspace.resolve_registry(environment)
    return "/".join(part for part in (registry.host, registry.prefix) if part)


def _replace_mentions(call: Mapping[str, Any], objects: Sequence[Object]) -> str:
    """Return what ``mentions.gotmpl`` gives, from objects that are already rendered."""
    kind = re.compile(rf"^kind: [\"']?{call['kind']}[\"']?\s*$", re.MULTILINE)
    field = ".".join(map(str, call["field"]))
    found = [
        item
        for item in objects
        if kind.search(item.text)
        and item.key.namespace == call["namespace"]
        and re.fullmatch(call["name"], item.key.name)
    ]
    if len(found) != 1:
        raise go_template.TemplateError(
            f"{len(found)} objects {call['kind']} {call['name']} in what the component renders"
        )
    try:
        text = get_field(found[0].body, tuple(call["field"]))
    except KeyError as error:
        raise go_template.TemplateError(f"{found[0].key} has no field {field}") from error
    for old, new in call["mentions"]:
        pattern = re.compile(
            rf"(^|{_BOUND}){re.escape(old)}($|{_BOUND}|[.:](?:[^A-Za-z0-9_]|$))", re.ASCII
        )
        if not pattern.search(text):
            raise go_template.TemplateError(f"{found[0].key} {field} no longer mentions {old}")
        escaped = new.replace("\\", r"\\")
        for _ in range(2):  # neighbours share the one character between them
            text = pattern.sub(rf"\g<1>{escaped}\g<2>", text)
    return go_template.to_json(text)
