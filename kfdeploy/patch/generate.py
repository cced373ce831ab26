"""Generate `patches/` and `helmfile.yaml.gotmpl` from the inventory, the catalogue and features.

Decides what the files are; the caller writes them. Patches are neutral: they name upstream's
references, which an environment and `images.lock` turn into the private registry's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kfdeploy.catalogue.facts import Catalogue
from kfdeploy.features.feature import Feature, FeatureRelease
from kfdeploy.files import read_text
from kfdeploy.images.inventory import ImageUse, Inventory
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.patch.component_patches import ComponentPatches
from kfdeploy.patch.drift import own_files
from kfdeploy.patch.helmfile import AddedRelease, WorkspaceRelease, format_helmfile
from kfdeploy.patch.lookups import SHARED
from kfdeploy.patchfile.patch_file import Form, detect_form, mark_generated
from kfdeploy.upstream.build import RenderedComponent
from kfdeploy.workspace.settings import Environment, Workspace

_OBJECTS: Final = "objects"
"""The chart below `SHARED` that prints the objects of a feature."""
_TEMPLATES: Final = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class PatchOutput:
    """The generated files: relative path to text, sorted."""

    files: Mapping[str, str]


def generate_patches(
    workspace: Workspace,
    root: Path,
    inventory: Inventory,
    rendered: Sequence[RenderedComponent],
    facts: Catalogue,
) -> PatchOutput:
    """Return all generated files of a workspace.

    Args:
        root: the workspace; people's own files in its ``patches/`` take part.
        facts: the catalogue, for controllers that ask registries themselves.

    Raises:
        UserError: a place that no patch can change, a person's file that can't be read.
    """
    features = workspace.list_enabled_features()
    added = [addition for feature in features for addition in feature.build_releases()]
    folders = [*(item.component.name for item in rendered), *(part.release for part in added)]
    own = {folder: own_files(root, folder) for folder in folders}
    uses = _group_uses(inventory)
    files: dict[str, str] = {}
    for item in rendered:
        name = item.component.name
        patches = ComponentPatches(
            workspace, root, item, facts, uses.get(name, {}), features, own[name]
        )
        for file, body in patches.build_files():
            files[f"patches/{name}/{file}"] = mark_generated(body)
    for part in added:
        for file, text in part.objects.items():
            files[f"patches/{part.release}/{file}"] = mark_generated(text, is_template=True)
    for file, text in build_shared_files(features, has_objects=bool(added)):
        files[f"patches/{SHARED}/{file}"] = text
    helmfile = format_helmfile(
        workspace.environments,
        f"patches/{SHARED}/values.yaml.gotmpl",
        [_make_release(item, root, files, own[item.component.name]) for item in rendered],
        [_make_added_release(part, own[part.release]) for part in added],
    )
    files["helmfile.yaml.gotmpl"] = mark_generated(helmfile)
    return PatchOutput(dict(sorted(files.items())))


def _group_uses(inventory: Inventory) -> dict[str, dict[ObjectKey, list[ImageUse]]]:
    """Return what names images, by component and object."""
    out: dict[str, dict[ObjectKey, list[ImageUse]]] = {}
    for image in inventory.images:
        for use in image.found:
            objects = out.setdefault(use.component, {})
            objects.setdefault(use.object, []).append(use)
    return out


# -- what patches share ----------------------------------------------------------------------------


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
        yield name, mark_generated(text, is_template=is_template)
    yield "defaults.yaml", mark_generated(_dump_defaults(features))
    for feature in features:
        text = feature.read_values_template()
        yield f"{feature.name}.values.gotmpl", mark_generated(text, is_template=True)


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


# -- releases --------------------------------------------------------------------------------------


def _make_release(
    item: RenderedComponent, root: Path, files: Mapping[str, str], own: Sequence[str]
) -> WorkspaceRelease:
    component = item.component
    folder = f"patches/{component.name}/"
    texts = {name: text for name, text in sorted(files.items()) if name.startswith(folder)}
    texts |= {folder + name: read_text(root / folder / name) for name in own}
    patches: dict[Form, list[str]] = {}
    for name, text in texts.items():
        patches.setdefault(detect_form(text), []).append(name)
    is_chart = item.kind == "chart"
    return WorkspaceRelease(
        name=component.name,
        chart=f"upstream/{item.folder}",
        namespace=(component.namespace or "default") if is_chart else "",
        values=component.values if is_chart else (),
        patches=patches,
    )


def _make_added_release(part: FeatureRelease, own: Sequence[str]) -> AddedRelease:
    names = sorted({*part.objects, *own})
    return AddedRelease(
        part.release,
        f"patches/{SHARED}/{_OBJECTS}",
        [f"patches/{part.release}/{name}" for name in names],
    )
