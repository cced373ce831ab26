"""Hauler's ``Images`` manifests: one for each path that the mirror puts before the sources' own.

Facts from hauler-dev/hauler v2.0.3, pkg/apis/hauler.cattle.io/v1/image.go: ``hauler store copy
registry://HOST/PATH`` keeps the path of a source and drops its host, so images of different hosts
need different stores. ``rewrite`` looks for REPOSITORY:DIGEST in a store that has
REPOSITORY@DIGEST (cmd/hauler/cli/store/add.go): it can rename only an image pulled by tag.
"""

from __future__ import annotations

import json
from typing import Final

from kfdeploy.export.format import ExportedFiles, ExportFormat, NoOptions
from kfdeploy.export.mirror_material import (
    TAGS,
    ImageCopy,
    MirrorMaterial,
    gather_mirror,
    header_line,
    join_path,
    path_prefix,
    tags_file,
    unreduced_copies,
)

NAME: Final = "hauler"
_TOP: Final = "hauler"
_FILE: Final = "images.yaml"


def export(material: MirrorMaterial) -> ExportedFiles:
    """Return ``hauler/PATH/images.yaml``, and the list of tags that Hauler does not set."""
    groups: dict[str, list[str]] = {}
    untagged: list[ImageCopy] = []
    by_tag = 0
    notes = []
    for copy in unreduced_copies(material, NAME):
        folder = path_prefix(copy.path, copy.source.path)
        source = copy.source
        if folder is not None:
            groups.setdefault(folder, []).append(f"  - name: {json.dumps(str(source))}")
            untagged.append(copy)
        elif copy.tag:
            by_tag += 1
            groups.setdefault("", []).extend(
                [
                    f"  - name: {json.dumps(f'{source.repository}:{copy.tag}')}",
                    f"    # is to be {source.digest}",
                    f"    rewrite: {json.dumps(str(copy.target.reference))}",
                ]
            )
        else:
            notes.append(
                f"{copy.ids[0]} is left out: {NAME} can't rename an image that it pulls by digest,"
                f" and it has no tag; copy {source} to {copy.target.reference} by other means"
            )
    files = {
        join_path(_TOP, folder, _FILE): _images_manifest(folder, images, material)
        for folder, images in sorted(groups.items())
    }
    if untagged:
        files[f"{_TOP}/{TAGS}"] = tags_file(NAME, material, untagged)
        notes.append(
            f"{NAME} sets no tag on images that it pulls by digest: set those of {_TOP}/{TAGS}"
        )
    if by_tag:
        notes.append(
            f"{by_tag} images are pulled by tag, as {NAME} can't rename them by digest:"
            " `kfdeploy verify` says whether they have the digests of the lock"
        )
    return ExportedFiles(files, (f"{_TOP}/**/{_FILE}", f"{_TOP}/{TAGS}"), tuple(notes))


def _images_manifest(folder: str, images: list[str], material: MirrorMaterial) -> str:
    name = join_path("kubeflow", folder).replace("/", "-").replace("_", "-")
    where = join_path(material.registry.host, folder)
    options = " --plain-http" if material.is_plain else ""
    options += " --insecure" if material.skips_verify else ""
    lines = [
        f"# hauler store sync --store {name} --filename {_FILE}",
        f"# hauler store copy --store {name}{options} registry://{where}",
        "apiVersion: content.hauler.cattle.io/v1",
        "kind: Images",
        "metadata:",
        f"  name: {name}",
        "spec:",
        "  images:",
        *images,
    ]
    return header_line(NAME, material) + "\n".join(lines) + "\n"


FORMAT: Final = ExportFormat(
    name=NAME,
    summary="Hauler: Images manifests",
    audience="Tools that copy images",
    gather=gather_mirror,
    export=export,
    options=NoOptions,
)
