"""``regsync.yaml``: regclient's regsync copies from a digest to a tag, with signatures.

The format is that of github.com/regclient/regclient@v0.11.5, cmd/regsync/config.go and
config/host.go. ``creds`` says only how a registry is reached: regsync reads the passwords from
Docker's ``config.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from kfdeploy.export.format import ExportedFiles, ExportFormat, NoOptions
from kfdeploy.export.mirror_material import (
    MirrorMaterial,
    gather_mirror,
    header_line,
    unreduced_copies,
)

NAME: Final = "regsync"
_FILE: Final = "regsync.yaml"
_PARALLEL: Final = 4


def export(material: MirrorMaterial) -> ExportedFiles:
    """Return one file with an entry for each image, by digest, and the access to registries."""
    copies = unreduced_copies(material, NAME)
    creds = [line for host in sorted(material.reaches) for line in _registry_creds(host, material)]
    lines = [
        "# regsync once -c regsync.yaml",
        "version: 1",
        *(["creds:", *creds] if creds else []),
        "defaults:",
        f"  parallel: {_PARALLEL}",
        "  # Signatures, attestations and SBOMs: as tags beside the image, and by its referrers.",
        "  digestTags: true",
        "  referrers: true",
        "sync:" if copies else "sync: []",
    ]
    for copy in copies:
        lines += [
            f"- source: {json.dumps(str(copy.source))}",
            f"  target: {json.dumps(str(copy.target.reference))}",
            "  type: image",
        ]
    text = header_line(NAME, material) + "\n".join(lines) + "\n"
    note = "regsync signs in with Docker's config.json; DOCKER_CONFIG names its folder"
    return ExportedFiles({_FILE: text}, (_FILE,), (note,))


def _registry_creds(host: str, material: MirrorMaterial) -> Iterator[str]:
    reach = material.reaches[host]
    lines = []
    if reach.plain_http:
        lines.append("  tls: disabled")
    elif reach.skip_tls_verify:
        lines.append("  tls: insecure")
    if not reach.plain_http and (ca := material.ca_of(host)):
        lines.append("  regcert: |")
        lines += [f"    {line}".rstrip() for line in ca.splitlines()]
    if reach.login.helper:
        lines.append(f"  credHelper: {json.dumps(f'docker-credential-{reach.login.helper}')}")
    if lines:
        yield f"- registry: {json.dumps(host)}"
        yield from lines


FORMAT: Final = ExportFormat(
    name=NAME,
    summary="regclient's regsync: regsync.yaml",
    audience="Tools that copy images",
    gather=gather_mirror,
    export=export,
    options=NoOptions,
)
