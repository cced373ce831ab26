"""``registries.yaml`` of K3s and RKE2: mirrors with rewrite rules, without credentials.

Facts from github.com/rancher/wharfie@v0.7.1, pkg/registries/types.go, and K3s,
pkg/agent/containerd/config.go: they try the rules of a host in no fixed order and take the first
that changes the name, so the rules here exclude one another. They copy a rule into TOML as it is,
so no rule may hold a backslash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from kfdeploy.export.format import ExportedFiles, ExportFormat, NoOptions
from kfdeploy.export.mirror_material import MirrorMaterial, gather_mirror, header_line
from kfdeploy.export.routes import UpstreamHost

NAME: Final = "registries-yaml"
CA_FILE: Final = "/etc/rancher/kfdeploy-registry-ca.crt"
"""The CA's file on a node; K3s and RKE2 have their own folders below /etc/rancher."""


def export(material: MirrorMaterial) -> ExportedFiles:
    """Return ``registries.yaml``, and the CA that it names."""
    lines = ["mirrors:"]
    for host in material.hosts:
        lines += [f"  {json.dumps(host.name)}:", "    endpoint:", f"    - {material.url}"]
        if found := list(rewrite_rules(host)):
            lines += [
                "    rewrite:",
                *(f"      {json.dumps(a)}: {json.dumps(b)}" for a, b in found),
            ]
    name = json.dumps(material.registry.host)
    if material.is_plain:
        # Without this, images named with the registry itself would be pulled by HTTPS.
        lines += [f"  {name}:", "    endpoint:", f"    - {material.url}"]
    if len(lines) == 1:
        lines = ["mirrors: {}"]
    if (material.ca and not material.is_plain) or material.skips_verify:
        lines += ["configs:", f"  {name}:", "    tls:"]
        if material.ca:
            lines.append(f"      ca_file: {CA_FILE}")
        if material.skips_verify:
            lines.append("      insecure_skip_verify: true")
    files = {"registries.yaml": header_line(NAME, material) + "\n".join(lines) + "\n"}
    notes = ["put registries.yaml into /etc/rancher/k3s or /etc/rancher/rke2 on every node"]
    if material.ca and not material.is_plain:
        files[CA_FILE.rpartition("/")[2]] = material.ca
        notes.append(f"put the registry's CA at {CA_FILE} on every node")
    return ExportedFiles(files, ("registries.yaml",), tuple(notes))


def rewrite_rules(host: UpstreamHost) -> Iterator[tuple[str, str]]:
    """Yield pattern and replacement of each rule; nothing where no path changes."""
    prefix = host.prefix
    if prefix is None:
        for route in host.routes:
            # A dot as a class: a backslash would be an escape in TOML.
            yield f"^{route.path.replace('.', '[.]')}$", route.target
    elif prefix:
        yield "^(.*)$", f"{prefix}/$1"


FORMAT: Final = ExportFormat(
    name=NAME,
    summary="K3s and RKE2: registries.yaml",
    audience="Nodes",
    gather=gather_mirror,
    export=export,
    options=NoOptions,
)
