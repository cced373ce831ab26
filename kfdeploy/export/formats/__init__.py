"""The export formats, one module each; a new format is a new module and its line in this list."""

from __future__ import annotations

from typing import Any, Final

from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.export.format import ExportFormat
from kfdeploy.export.formats import (
    argocd,
    containerfile,
    cyclonedx,
    flux,
    github_actions,
    gitlab_ci,
    hauler,
    hosts_toml,
    idms,
    rbac,
    registries_yaml,
    regsync,
    skopeo_sync,
    zarf,
)

FORMATS: Final[list[ExportFormat[Any, Any]]] = [
    hosts_toml.FORMAT,
    registries_yaml.FORMAT,
    idms.FORMAT,
    regsync.FORMAT,
    skopeo_sync.FORMAT,
    hauler.FORMAT,
    zarf.FORMAT,
    cyclonedx.FORMAT,
    flux.FORMAT,
    argocd.FORMAT,
    gitlab_ci.FORMAT,
    github_actions.FORMAT,
    containerfile.FORMAT,
    rbac.FORMAT,
]
"""In the order in which help lists them."""


def find_format(name: str) -> ExportFormat[Any, Any]:
    """Return the format of a name.

    Raises:
        UserError: there is no such format. The hint names those that there are.
    """
    for known in FORMATS:
        if known.name == name:
            return known
    raise UserError(
        f"{name}: there is no such format" if name else "export needs a FORMAT",
        hint="; ".join(f"{known.name} ({known.summary})" for known in FORMATS),
        exit_code=WRONG_USE,
    )
