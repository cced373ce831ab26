"""GitHub Actions: a workflow, or one for each side of a gap."""

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

_STEM: Final = ".github/workflows/kfdeploy"
_TEMPLATE: Final = "github-actions.yml.j2"


def export(material: PipelineMaterial) -> ExportedFiles:
    """Return ``kfdeploy.yml``; with a gap ``kfdeploy-connected.yml`` and ``-inside``."""
    by_zone = {f"{_STEM}-{zone}.yml": zone for zone in ZONES}
    wanted = by_zone if material.has_gap else {f"{_STEM}.yml": ""}
    files = {name: fill_template(_TEMPLATE, material, zone) for name, zone in wanted.items()}
    return ExportedFiles(files, (f"{_STEM}*.yml",), (material.image_note,))


FORMAT: Final = ExportFormat(
    name="github-actions",
    summary="GitHub: a workflow",
    audience="Pipelines",
    gather=gather_pipelines,
    export=export,
    options=PipelineOptions,
)
