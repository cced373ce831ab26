"""containerd's ``certs.d/HOST/hosts.toml``, which sends pulls from a host to the private registry.

Facts from containerd, remotes/docker/config/hosts.go (v1.7.28) and core/remotes/docker/config
(v2.1.4):

- A folder's name writes a port as ``HOST_PORT_``.
- 1.7 refuses a file without a ``[host]`` table.
- A relative ``ca`` is relative to the file.
- With ``override_path`` the URL's path is the root of the API.
- HTTP with any TLS setting beside it would try HTTPS first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from kfdeploy.errors import UserError, raise_all
from kfdeploy.export.format import ExportedFiles, ExportFormat, NoOptions
from kfdeploy.export.mirror_material import MirrorMaterial, gather_mirror, header_line
from kfdeploy.export.routes import UpstreamHost

NAME: Final = "hosts-toml"
_API_HOSTS: Final = {"docker.io": "registry-1.docker.io"}
_CA: Final = "ca.crt"


def export(material: MirrorMaterial) -> ExportedFiles:
    """Return a file for each upstream host, and one for the private registry where it needs one.

    Raises:
        UserError: ``naming`` changes the path of a repository, which containerd can't.
    """
    raise_all([error for host in material.hosts for error in _rename_errors(host, material)])
    files = {
        f"certs.d/{certs_folder(h.name)}/hosts.toml": _upstream_toml(h, material)
        for h in material.hosts
    }
    own = f"certs.d/{certs_folder(material.registry.host)}"
    if material.ca or material.is_plain or material.skips_verify:
        files[f"{own}/hosts.toml"] = _private_toml(material)
    if material.ca:
        files[f"{own}/{_CA}"] = material.ca
    return ExportedFiles(
        dict(sorted(files.items())),
        ("certs.d/*/hosts.toml",),
        ("put what certs.d holds into the folder that containerd's config_path names",),
    )


def certs_folder(host: str) -> str:
    """Return the folder's name for a host, with the port as ``_PORT_``."""
    name, colon, port = host.rpartition(":")
    return f"{name}_{port}_" if colon and port.isdigit() else host


def _rename_errors(host: UpstreamHost, material: MirrorMaterial) -> Iterator[UserError]:
    if host.prefix is None:
        naming = material.registry.naming
        limits = (("maxDepth", naming.max_depth), ("maxLength", naming.max_length))
        setting = " or ".join(name for name, limit in limits if limit is not None)
        for route in host.renamed_routes or host.routes:
            yield UserError(
                f"{route.refs[0]}: registries.private.naming.{setting} makes it {route.target}, but"
                f" {NAME} can't rename a repository",
                hint=f"raise {setting}, or use `kfdeploy export registries-yaml` or `idms`",
            )


def _upstream_toml(host: UpstreamHost, material: MirrorMaterial) -> str:
    lines = [f'server = "https://{_API_HOSTS.get(host.name, host.name)}"', ""]
    path = "/".join(part for part in ("v2", host.prefix) if part)
    lines.append(f"[host.{_toml_string(f'{material.url}/{path}')}]")
    lines.append('  capabilities = ["pull", "resolve"]')
    lines.append("  override_path = true")
    up = f"../{certs_folder(material.registry.host)}/"
    return header_line(NAME, material) + "\n".join([*lines, *_tls_settings(material, up), ""])


def _private_toml(material: MirrorMaterial) -> str:
    # containerd 1.7 wants the table. `server` comes after it, with the settings above the table.
    tls = [line.lstrip() for line in _tls_settings(material, "")]
    lines = [f"server = {_toml_string(material.url)}", *tls, ""]
    lines.append(f"[host.{_toml_string(material.url)}]")
    lines.append('  capabilities = ["pull", "resolve"]')
    return header_line(NAME, material) + "\n".join([*lines, *_tls_settings(material, ""), ""])


def _tls_settings(material: MirrorMaterial, where: str) -> Iterator[str]:
    if material.is_plain:
        return
    if material.ca:
        yield f"  ca = {_toml_string(where + _CA)}"
    if material.skips_verify:
        yield "  skip_verify = true"


def _toml_string(value: str) -> str:
    """Return a TOML basic string of a name or URL; JSON writes those in the same way."""
    return json.dumps(value)


FORMAT: Final = ExportFormat(
    name=NAME,
    summary="containerd: certs.d/HOST/hosts.toml",
    audience="Nodes",
    gather=gather_mirror,
    export=export,
    options=NoOptions,
)
