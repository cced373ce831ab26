"""The templates of pipelines, filled with the environments of a workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from kfdeploy import __version__
from kfdeploy.export.format import MARK, ExportMaterial, ExportOption, ExportRequest
from kfdeploy.export.mirror_material import join_path

ZONES: Final = ("connected", "inside")
_TEMPLATES: Final = Path(__file__).parent / "templates" / "pipelines"


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """Hold the options of the formats that define pipelines.

    Attributes:
        image: reference of the image that jobs run in; empty for the one in the private registry.
        has_gap: nothing reaches from the connected zone to the inside. Bundles are carried.
    """

    image: Annotated[
        str,
        ExportOption(
            "--image",
            "The image that jobs run in. Without it: kfdeploy of the private registry.",
            metavar="REF",
        ),
    ] = ""
    has_gap: Annotated[
        bool, ExportOption("--gap", "Two pipelines, one for each side, that use bundles.")
    ] = False


@dataclass(frozen=True, slots=True)
class PipelineMaterial(ExportMaterial):
    """Hold the values of the templates.

    Attributes:
        environments: the names of the environments, in the workspace's order.
        image: reference of the image that jobs run in.
        has_gap: whether there is a pipeline for each side of a gap.
    """

    environments: tuple[str, ...]
    image: str
    has_gap: bool = False

    @property
    def image_note(self) -> str:
        """A note that names the image and says how to build it."""
        return f"jobs run in {self.image}, which `kfdeploy export containerfile` describes"


def gather_pipelines(request: ExportRequest[object]) -> PipelineMaterial:
    """Read the environments of the workspace, and the format's options where it has some."""
    workspace, options = request.session.workspace, request.options
    private = workspace.registries.private
    default = f"{join_path(private.host, private.prefix, 'kfdeploy')}:{__version__}"
    if not isinstance(options, PipelineOptions):
        options = PipelineOptions()
    return PipelineMaterial(
        tuple(workspace.environments), options.image or default, options.has_gap
    )


def fill_template(name: str, material: PipelineMaterial, zone: str = "") -> str:
    """Return a template with its values.

    Args:
        zone: ``connected`` or ``inside`` for the jobs of one side; empty for all jobs.
    """
    from jinja2 import Environment, StrictUndefined

    # GitLab and GitHub have `{{ }}` of their own.
    environment = Environment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
    )
    text = (_TEMPLATES / name).read_text(encoding="utf-8")
    filled = environment.from_string(text).render(
        mark=MARK,
        version=__version__,
        image=material.image,
        environments=material.environments,
        zone=zone,
        connected=zone != "inside",
        inside=zone != "connected",
    )
    return filled.rstrip("\n") + "\n"
