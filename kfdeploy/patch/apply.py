"""Apply patches by kustomize itself, so that they have the same effect as in plain Helmfile."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kfdeploy.cache import Cache, make_cache_key, program_digest
from kfdeploy.errors import UserError, raise_all
from kfdeploy.kubernetes.objects import Object, ObjectKey, join_objects, split_objects
from kfdeploy.patch import conflicts
from kfdeploy.patchfile.patch_file import Patch
from kfdeploy.programs.process import ProgramFailed, run_program
from kfdeploy.upstream.build import RenderedComponent
from kfdeploy.upstream.kustomization import build

_TIMEOUT = 120.0


def apply_patches(
    rendered: RenderedComponent, patches: Sequence[Patch], cache: Cache
) -> tuple[Object, ...]:
    """Return a component's objects with its patches applied, in the order they were rendered.

    Objects that no patch selects keep their bytes.

    Raises:
        UserError: patches that don't fit, with file, object and field; or kustomize's own error.
    """
    if not patches:
        return rendered.objects
    version = ".".join(map(str, build.get_version()))
    parts = [part for patch in patches for part in (patch.file, patch.form, patch.text)]
    key = make_cache_key("patched", rendered.key, version, program_digest(), *parts)
    if (kept := cache.get(key)) is not None:
        return tuple(split_objects(kept.decode(), f"component {rendered.component.name}"))
    candidates = _exclude_crds(rendered.objects, patches)
    raise_all(list(conflicts.find_patch_errors(patches, candidates)))
    selected = _select_objects(candidates, patches)
    changed = {item.key: item for item in _run_kustomize(rendered, selected, patches)}
    result = []
    chosen = {id(item) for item in selected}
    for item in rendered.objects:
        if id(item) in chosen:
            # A patch may give the object another namespace, so that its key is another one.
            new = changed.pop(item.key, None) or _pop_moved(item, changed)
            if new is not None:
                result.append(new)
        else:
            result.append(item)
    result += changed.values()
    cache.put(key, join_objects(result).encode())
    return tuple(result)


def _exclude_crds(objects: Sequence[Object], patches: Sequence[Patch]) -> tuple[Object, ...]:
    """Leave out CRDs, which are most of a build's bytes, unless a patch is for one."""
    kinds = {patch.target.get("kind") for patch in patches}
    if "CustomResourceDefinition" in kinds or None in kinds:
        return tuple(objects)
    return tuple(item for item in objects if not item.is_crd)


def _select_objects(objects: Sequence[Object], patches: Sequence[Patch]) -> list[Object]:
    if any(p.form == "transformer" or "labelSelector" in p.target for p in patches):
        return list(objects)
    return [item for item in objects if any(patch.selects_object(item.key) for patch in patches)]


def _pop_moved(item: Object, changed: dict[ObjectKey, Object]) -> Object | None:
    for key, new in changed.items():
        if (new.key.kind, new.key.name) == (item.key.kind, item.key.name):
            return changed.pop(key)
    return None


def _run_kustomize(
    rendered: RenderedComponent, objects: Sequence[Object], patches: Sequence[Patch]
) -> Sequence[Object]:
    name = rendered.component.name
    with tempfile.TemporaryDirectory(prefix="kfdeploy-") as folder:
        root = Path(folder)
        (root / "objects.yaml").write_text(join_objects(list(objects)), encoding="utf-8")
        (root / "kustomization.yaml").write_text(
            _write_kustomization(root, patches), encoding="utf-8"
        )
        try:
            out = run_program(
                ["kustomize", "build", folder],
                env=build.build_environment(),
                timeout=_TIMEOUT,
                what=f"patches of component {name}",
            ).stdout
        except ProgramFailed as error:
            message = error.message
            for number, patch in enumerate(patches):
                message = message.replace(f"patch-{number:03d}.yaml", patch.file)
            raise UserError(message.replace(f"{folder}/", "")) from error
    return list(split_objects(out.decode("utf-8"), f"component {name}"))


def _write_kustomization(root: Path, patches: Sequence[Patch]) -> str:
    """Write the patches and return a kustomization in chartify's order.

    JSON patches come first, then merges, then transformers.
    """
    lines = ["resources: [objects.yaml]"]
    listed: dict[str, list[str]] = {"patches": [], "transformers": []}
    for number, patch in enumerate(patches):
        file = f"patch-{number:03d}.yaml"
        if patch.form == "json":
            text = patch.operations_text
            listed["patches"].append(f"- {json.dumps({'target': patch.target, 'path': file})}")
        else:
            text = patch.text
            entry = f"- path: {file}" if patch.form == "merge" else f"- {file}"
            listed["patches" if patch.form == "merge" else "transformers"].append(entry)
        (root / file).write_text(text, encoding="utf-8")
    for title, entries in listed.items():
        if entries:
            lines += [f"{title}:", *entries]
    return "\n".join(lines) + "\n"
