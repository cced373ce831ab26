"""Zarf packages: one for each path that the mirror puts before the sources' own.

Facts from github.com/zarf-dev/zarf@v0.84.0, src/pkg/images and src/pkg/transform: an image named
by digest is copied with all its platforms to ``REGISTRY/PATH@DIGEST``, without the source's host
and without a tag. So images of different hosts need different packages. ``registry_override``
replaces the beginning of a reference for pulls, not for pushes; the longest one wins.
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
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.access import RegistryAccess

NAME: Final = "zarf"
_TOP: Final = "zarf"
_FILE: Final = "zarf.yaml"
_CONFIG: Final = "zarf-config.toml"


def export(material: MirrorMaterial) -> ExportedFiles:
    """Return ``zarf/PATH/zarf.yaml`` and ``zarf-config.toml``, and the tags to set afterwards."""
    groups: dict[str, list[ImageCopy]] = {}
    notes = []
    for copy in unreduced_copies(material, NAME):
        folder = path_prefix(copy.path, copy.origin.path)
        if folder is None:
            notes.append(
                f"{copy.ids[0]} is left out: {NAME} can't rename an image; copy {copy.source} to"
                f" {copy.target.reference} by other means"
            )
        else:
            groups.setdefault(folder, []).append(copy)
    files: dict[str, str] = {}
    for folder, copies in sorted(groups.items()):
        files[join_path(_TOP, folder, _FILE)] = _package_yaml(folder, copies, material)
        files[join_path(_TOP, folder, _CONFIG)] = _package_config(folder, copies, material)
    if groups:
        held = [copy for _, copies in sorted(groups.items()) for copy in copies]
        files[f"{_TOP}/{TAGS}"] = tags_file(NAME, material, held)
        notes.append(f"{NAME} pushes by digest and sets no tag: set those of {_TOP}/{TAGS}")
    patterns = (f"{_TOP}/**/{_FILE}", f"{_TOP}/**/{_CONFIG}", f"{_TOP}/{TAGS}")
    return ExportedFiles(files, patterns, tuple(notes))


def _package_yaml(folder: str, copies: list[ImageCopy], material: MirrorMaterial) -> str:
    name = "-".join(part for part in ("kubeflow", *folder.split("/")) if part)
    pull = _command_options([material.reaches[copy.source.host] for copy in copies])
    push = _command_options([material.reaches[material.registry.host]])
    mirror = "zarf package mirror-resources zarf-package-*.tar.zst --images --no-img-checksum"
    lines = [
        f"# zarf package create . --confirm{pull}",
        f"# {mirror} --confirm{push}",
        "kind: ZarfPackageConfig",
        "metadata:",
        f"  name: {name.replace('.', '-').replace('_', '-')}",
        f"  description: {json.dumps(f'Images of Kubeflow for {material.environment}')}",
        *([f"  version: {json.dumps(material.version)}"] if material.version else []),
        "components:",
        "- name: images",
        "  required: true",
        "  images:",
        *(f"  - {json.dumps(str(_tagged_ref(copy)))}" for copy in copies),
    ]
    return header_line(NAME, material) + "\n".join(lines) + "\n"


def _tagged_ref(copy: ImageCopy) -> ImageRef:
    """Return the origin with a tag for people, unless the tag is that of another image."""
    first = copy.ids[0].parsed
    if first.repository != copy.origin.repository:
        return copy.origin
    return ImageRef(first.host, first.path, first.with_default_tag().tag, copy.origin.digest)


def _package_config(folder: str, copies: list[ImageCopy], material: MirrorMaterial) -> str:
    """Return the configuration that Zarf reads in the folder where it runs."""
    overrides = sorted(
        {
            f"{_override_prefix(_tagged_ref(copy))}={copy.source.repository}@"
            for copy in copies
            if copy.source != copy.origin
        }
    )
    lines = [
        "[init.registry]",
        f"url = {json.dumps(join_path(material.registry.host, folder))}",
    ]
    if overrides:
        lines += ["[package.create]", "registry_override = ["]
        lines += [*(f"  {json.dumps(override)}," for override in overrides), "]"]
    return header_line(NAME, material) + "\n".join(lines) + "\n"


def _command_options(reaches: list[RegistryAccess]) -> str:
    """Return options for the command line; in the file they would apply to pulls and pushes."""
    plain = any(reach.plain_http for reach in reaches)
    lax = any(reach.skip_tls_verify for reach in reaches)
    return (" --plain-http" if plain else "") + (" --insecure-skip-tls-verify" if lax else "")


def _override_prefix(named: ImageRef) -> str:
    """Return a reference up to its digest; no other reference begins with that."""
    return str(ImageRef(named.host, named.path, named.tag)) + "@"


FORMAT: Final = ExportFormat(
    name=NAME,
    summary="Zarf: packages of images",
    audience="Tools that copy images",
    gather=gather_mirror,
    export=export,
    options=NoOptions,
)
