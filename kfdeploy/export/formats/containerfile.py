"""The image that the jobs of pipelines run in, as a Containerfile."""

from __future__ import annotations

from typing import Final

from kfdeploy.export.format import ExportedFiles, ExportFormat, NoOptions
from kfdeploy.export.pipelines import PipelineMaterial, fill_template, gather_pipelines

_FILE: Final = "Containerfile"


def export(material: PipelineMaterial) -> ExportedFiles:
    """Return ``Containerfile``."""
    return ExportedFiles({_FILE: fill_template("Containerfile.j2", material)}, (_FILE,))


FORMAT: Final = ExportFormat(
    name="containerfile",
    summary="the image that jobs run in: Containerfile",
    audience="Pipelines",
    gather=gather_pipelines,
    export=export,
    options=NoOptions,
)
