"""GitLab CI: ``.gitlab-ci.yml``, or one such file for each side of a gap."""

from __future__ import annotations

from typing import Final

from kfdeploy.export.format import ExportedFiles, ExportFormat
from kfdeploy.export.pipelines import (
    ZONES,
    PipelineMaterial,
    PipelineOptions,
    fill_template,
    gather_pipelines,
)

_FILE: Final = ".gitlab-ci.yml"
_TEMPLATE: Final = "gitlab-ci.yml.j2"


def export(material: PipelineMaterial) -> ExportedFiles:
    """Return ``.gitlab-ci.yml``; with a gap ``connected.gitlab-ci.yml`` and ``inside...``."""
    by_zone = {f"{zone}{_FILE}": zone for zone in ZONES}
    wanted = by_zone if material.has_gap else {_FILE: ""}
    files = {name: fill_template(_TEMPLATE, material, zone) for name, zone in wanted.items()}
    return ExportedFiles(files, (_FILE, *by_zone), (material.image_note,))


FORMAT: Final = ExportFormat(
    name="gitlab-ci",
    summary="GitLab: a pipeline",
    audience="Pipelines",
    gather=gather_pipelines,
    export=export,
    options=PipelineOptions,
)
