"""Files for ``skopeo sync --src yaml``, and a script that runs it for each of them.

From such a file skopeo 1.9.3 keeps only the last element of a source's path, so there is a file
for each folder of the private registry. With ``--scoped`` it keeps the whole path and the host.
That is no legal path where the host has a port, and not the mirror's path where there is a proxy
or ``naming``.

An entry is a tag or a digest. An image pulled by digest is pushed by digest, without a tag. So the
script sets the tag with ``skopeo copy``, which finds all blobs there. It also copies in that way
an image whose last element the mirror changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from kfdeploy.export.format import ExportedFiles, ExportFormat, NoOptions
from kfdeploy.export.mirror_material import (
    ImageCopy,
    MirrorMaterial,
    gather_mirror,
    header_line,
    host_folder,
    join_path,
    unreduced_copies,
)

NAME: Final = "skopeo-sync"
_TOP: Final = "skopeo-sync"
_SCRIPT: Final = f"{_TOP}/sync.sh"


def export(material: MirrorMaterial) -> ExportedFiles:
    """Return ``skopeo-sync/FOLDER/sync.yaml``, ``sync.sh``, and the CAs that they name."""
    folders: dict[str, list[ImageCopy]] = {}
    renamed: list[ImageCopy] = []
    for copy in unreduced_copies(material, NAME):
        folder, _, name = copy.path.rpartition("/")
        if name == copy.source.path.rpartition("/")[2]:
            folders.setdefault(folder, []).append(copy)
        else:
            renamed.append(copy)
    files = {
        join_path(_TOP, folder, "sync.yaml"): _sync_yaml(copies, material)
        for folder, copies in sorted(folders.items())
    }
    files[_SCRIPT] = _sync_script(folders, renamed, material)
    for host in material.reaches:
        if _has_ca(host, material):
            files[join_path(_TOP, _certs_folder(host), "ca.crt")] = material.ca_of(host)
    notes = (
        f"run `sh {_SCRIPT}`; skopeo signs in with REGISTRY_AUTH_FILE or Docker's config.json",
        "skopeo sync does not copy signatures that are tags or referrers of an image",
    )
    return ExportedFiles(dict(sorted(files.items())), (f"{_TOP}/**/sync.yaml", _SCRIPT), notes)


def _sync_yaml(copies: Sequence[ImageCopy], material: MirrorMaterial) -> str:
    hosts: dict[str, dict[str, set[str]]] = {}
    for copy in copies:
        repositories = hosts.setdefault(copy.source.host, {})
        repositories.setdefault(copy.source.path, set()).add(copy.source.digest)
    lines = []
    for host, repositories in sorted(hosts.items()):
        reach = material.reaches[host]
        lines.append(f"{json.dumps(host)}:")
        if reach.plain_http or reach.skip_tls_verify:
            lines.append("  tls-verify: false")
        if _has_ca(host, material):
            lines.append(f"  cert-dir: {json.dumps(_certs_folder(host))}")
        lines.append("  images:")
        for path, digests in sorted(repositories.items()):
            lines.append(f"    {json.dumps(path)}:")
            lines += [f"    - {json.dumps(digest)}" for digest in sorted(digests)]
    return header_line(NAME, material) + "\n".join(lines) + "\n"


def _sync_script(
    folders: dict[str, list[ImageCopy]], renamed: Sequence[ImageCopy], material: MirrorMaterial
) -> str:
    private = material.registry.host
    to = "".join(f" {option}" for option in _access_options("dest", private, material))
    again = "".join(f" {option}" for option in _access_options("src", private, material))
    lines = [
        "# SKOPEO names the program, with options before its command if need be.",
        "set -eu",
        'cd "$(dirname "$0")"',
        ': "${SKOPEO:=skopeo}"',
        f"registry={private}",
        "",
        "# sync FILE FOLDER",
        "sync() {",
        "    $SKOPEO sync --src yaml --dest docker --all --preserve-digests --retry-times 2 \\",
        f'       {to} "$1" "$2"',
        "}",
        "# copy FROM TO [OPTION ...]",
        "copy() {",
        "    from=$1 to=$2; shift 2",
        "    $SKOPEO copy --all --preserve-digests --retry-times 2 --quiet \\",
        f'       {to} "$@" "docker://$from" "docker://$to"',
        "}",
        "# tag PATH DIGEST TAG: what `skopeo sync` copied by digest has none",
        f'tag() {{ copy "$registry/$1@$2" "$registry/$1:$3"{again}; }}',
        "",
    ]
    for folder, copies in sorted(folders.items()):
        lines.append(f"sync {join_path(folder, 'sync.yaml')} {join_path('$registry', folder)}")
        lines += [f"tag {copy.path} {copy.source.digest} {copy.target.push_tag}" for copy in copies]
    if renamed:
        lines += ["", "# The last element of their paths is another than the source's."]
    for copy in renamed:
        options = _access_options("src", copy.source.host, material)
        to = f"$registry/{copy.path}:{copy.target.push_tag}"
        lines.append(" ".join(["copy", str(copy.source), to, *options]))
    return header_line(NAME, material) + "\n".join(lines) + "\n"


def _access_options(side: str, host: str, material: MirrorMaterial) -> Iterator[str]:
    reach = material.reaches[host]
    if reach.plain_http or reach.skip_tls_verify:
        yield f"--{side}-tls-verify=false"
    if _has_ca(host, material):
        yield f"--{side}-cert-dir={_certs_folder(host)}"


def _has_ca(host: str, material: MirrorMaterial) -> bool:
    reach = material.reaches[host]
    return reach.ca is not None and not reach.plain_http


def _certs_folder(host: str) -> str:
    return f"certs/{host_folder(host)}"


FORMAT: Final = ExportFormat(
    name=NAME,
    summary="skopeo sync: a YAML file for each folder, and a script",
    audience="Tools that copy images",
    gather=gather_mirror,
    export=export,
    options=NoOptions,
)
