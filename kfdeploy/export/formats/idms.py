"""OpenShift's ImageDigestMirrorSet and ImageTagMirrorSet (config.openshift.io/v1).

There is a rule for each repository, so that OpenShift's own images of the same hosts are left
alone. The first set is for pods that name a digest, the second for pods that name a tag.
"""

from __future__ import annotations

from typing import Final

from kfdeploy.export.format import ExportedFiles, ExportFormat, NoOptions
from kfdeploy.export.mirror_material import MirrorMaterial, gather_mirror, header_line

NAME: Final = "idms"
_SETS: Final = (
    ("ImageDigestMirrorSet", "imageDigestMirrors"),
    ("ImageTagMirrorSet", "imageTagMirrors"),
)


def export(material: MirrorMaterial) -> ExportedFiles:
    """Return one file with both sets."""
    pairs = sorted(
        (f"{host.name}/{route.path}", f"{material.registry.host}/{route.target}")
        for host in material.hosts
        for route in host.routes
    )
    documents = []
    for kind, field in _SETS:
        lines = ["apiVersion: config.openshift.io/v1", f"kind: {kind}", "metadata:"]
        lines += ["  name: kubeflow", "spec:", f"  {field}:" if pairs else f"  {field}: []"]
        for source, mirror in pairs:
            lines += [f"  - source: {source}", "    mirrors:", f"    - {mirror}"]
        documents.append("\n".join(lines) + "\n")
    text = header_line(NAME, material) + "---\n".join(documents)
    return ExportedFiles({"idms.yaml": text}, ("idms.yaml",), tuple(_list_notes(material)))


def _list_notes(material: MirrorMaterial) -> list[str]:
    """Return notes on settings that OpenShift has in image.config.openshift.io/cluster."""
    host, where = material.registry.host, "image.config.openshift.io/cluster"
    if material.is_plain or material.skips_verify:
        return [f"add {host} to spec.registrySources.insecureRegistries of {where}"]
    if material.ca:
        return [f"add the CA of {host} to the ConfigMap in spec.additionalTrustedCA of {where}"]
    return []


FORMAT: Final = ExportFormat(
    name=NAME,
    summary="OpenShift: ImageDigestMirrorSet and ImageTagMirrorSet",
    audience="Nodes",
    gather=gather_mirror,
    export=export,
    options=NoOptions,
)
