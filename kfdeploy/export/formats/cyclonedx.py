"""A CycloneDX 1.6 bill of materials: Kubeflow, its components, and the images of each.

The format is CycloneDX's bom-1.6.schema.json. A container's name is a package URL of type ``oci``
(package-url/purl-spec, types/oci). The file holds no time, and its serial number is derived from
its content: the same lock gives the same file.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from kfdeploy import __version__
from kfdeploy.export.format import ExportedFiles, ExportFormat, NoOptions
from kfdeploy.export.mirror_material import MirrorMaterial, gather_mirror
from kfdeploy.images.lockfile import LockedImage
from kfdeploy.images.sources_file import SourceImage

NAME: Final = "cyclonedx"
_FILE: Final = "bom.json"
_ROOT: Final = "kubeflow"
_SPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/schema/bom-1.6.schema.json")
_ALGORITHMS: Final = {"sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}


def export(material: MirrorMaterial) -> ExportedFiles:
    """Return one file: the components, their images at their digests, and who needs what."""
    found = {image.ref: image for image in material.images}
    parts = sorted({place.component for image in material.images for place in image.found})
    bom: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": _bom_metadata(material),
        "components": [
            *(
                {"type": "application", "bom-ref": _component_ref(name), "name": name}
                for name in parts
            ),
            *(_image_component(image, found[image.id], material) for image in material.lock),
        ],
        "dependencies": list(_list_dependencies(material, parts)),
    }
    content = json.dumps(bom, sort_keys=True)
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(_SPACE, content)}"
    return ExportedFiles({_FILE: json.dumps(bom, indent=2, sort_keys=True) + "\n"}, (_FILE,))


def _bom_metadata(material: MirrorMaterial) -> dict[str, Any]:
    root = {"type": "platform", "bom-ref": _ROOT, "name": "kubeflow"}
    if material.version:
        root["version"] = material.version
    tool = {"type": "application", "name": "kfdeploy", "version": __version__}
    return {
        "tools": {"components": [tool]},
        "component": root,
        "properties": [_make_property("environment", material.environment)],
    }


def _image_component(
    image: LockedImage, source: SourceImage, material: MirrorMaterial
) -> dict[str, Any]:
    algorithm, _, content = image.digest.partition(":")
    properties = [
        _make_property("need", source.need),
        _make_property("mirror", str(material.mirror.mirror_ref(image).pinned_reference)),
        *(_make_property("platform", f"{name} {d}") for name, d in sorted(image.platforms.items())),
        *(_make_property("found", text) for text in sorted(_describe_uses(source))),
    ]
    if image.size is not None:
        properties.insert(2, _make_property("bytes", str(image.size)))
    return {
        "type": "container",
        "bom-ref": _image_ref(image),
        "name": image.id.parsed.repository,
        "version": image.tag or image.digest,
        "purl": package_url(image),
        "hashes": [{"alg": _ALGORITHMS[algorithm], "content": content}],
        "properties": properties,
    }


def _describe_uses(source: SourceImage) -> Iterator[str]:
    for place in source.found:
        at = f" ({place.location})" if place.location else ""
        yield f"{place.component}: {place.object} {place.field}{at}"


def package_url(image: LockedImage) -> str:
    """Return the package URL of the image that the lock names, which may be a substitute."""
    ref = image.image
    qualifiers: dict[str, str] = {"repository_url": ref.repository}
    if image.tag and ref.repository == image.id.parsed.repository:
        qualifiers["tag"] = image.tag
    name = ref.path.rpartition("/")[2]
    return f"pkg:oci/{name}@{quote(ref.digest, safe='')}?{_purl_query(qualifiers)}"


def _purl_query(qualifiers: Mapping[str, str]) -> str:
    return "&".join(f"{key}={quote(value, safe='/')}" for key, value in sorted(qualifiers.items()))


def _list_dependencies(material: MirrorMaterial, parts: list[str]) -> Iterator[dict[str, Any]]:
    refs = {image.id: _image_ref(image) for image in material.lock}
    needs: dict[str, set[str]] = {name: set() for name in parts}
    extra = []  # images.extra: no component names them
    for image in material.images:
        for place in image.found:
            needs[place.component].add(refs[image.ref])
        if not image.found:
            extra.append(refs[image.ref])
    yield {"ref": _ROOT, "dependsOn": sorted([*map(_component_ref, parts), *extra])}
    for name in parts:
        yield {"ref": _component_ref(name), "dependsOn": sorted(needs[name])}
    for ref in sorted(refs.values()):
        yield {"ref": ref}


def _component_ref(name: str) -> str:
    return f"component:{name}"


def _image_ref(image: LockedImage) -> str:
    return f"image:{image.id}"


def _make_property(name: str, value: str) -> dict[str, str]:
    return {"name": f"kfdeploy:{name}", "value": value}


FORMAT: Final = ExportFormat(
    name=NAME,
    summary="CycloneDX 1.6: bom.json",
    audience="Bill of materials",
    gather=gather_mirror,
    export=export,
    options=NoOptions,
)
