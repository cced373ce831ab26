"""Ready definitions: GitLab CI, GitHub Actions, and the image that their jobs run in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kfdeploy import __version__
from kfdeploy.export.material import MARK, ExportedFiles, join_path
from kfdeploy.workspace.settings import Workspace

_TEMPLATES: Final = Path(__file__).parent / "templates" / "pipelines"
_ZONES: Final = ("connected", "inside")


@dataclass(frozen=True, slots=True)
class PipelineMaterial:
    """What the definitions are filled with.

    Attributes:
        environments: their names, in the workspace's order.
        image: reference of the image that jobs run in.
        has_gap: nothing reaches from the connected zone to the inside: bundles are carried.
    """

    environments: tuple[str, ...]
    image: str
    has_gap: bool = False

    @classmethod
    def for_workspace(cls, workspace: Workspace, image: str, *, has_gap: bool) -> PipelineMaterial:
        """For a workspace; without ``image`` the one in the private registry."""
        private = workspace.registries.private
        usual = f"{join_path(private.host, private.prefix, 'kfdeploy')}:{__version__}"
        return cls(tuple(workspace.environments), image or usual, has_gap)


def export_gitlab_ci(material: PipelineMaterial) -> ExportedFiles:
    """``.gitlab-ci.yml``; with a gap one file for each side."""
    if not material.has_gap:
        files = {".gitlab-ci.yml": _fill_template("gitlab-ci.yml.j2", material)}
    else:
        files = {
            f"{z}.gitlab-ci.yml": _fill_template("gitlab-ci.yml.j2", material, z) for z in _ZONES
        }
    patterns = (".gitlab-ci.yml", *(f"{zone}.gitlab-ci.yml" for zone in _ZONES))
    return ExportedFiles(files, patterns, _image_note(material))


def export_github_actions(material: PipelineMaterial) -> ExportedFiles:
    """``.github/workflows/kfdeploy.yml``; with a gap one file for each side."""
    folder = ".github/workflows"
    name = "github-actions.yml.j2"
    if not material.has_gap:
        files = {f"{folder}/kfdeploy.yml": _fill_template(name, material)}
    else:
        files = {f"{folder}/kfdeploy-{z}.yml": _fill_template(name, material, z) for z in _ZONES}
    return ExportedFiles(files, (f"{folder}/kfdeploy*.yml",), _image_note(material))


def export_containerfile(material: PipelineMaterial) -> ExportedFiles:
    """``Containerfile``."""
    return ExportedFiles(
        {"Containerfile": _fill_template("Containerfile.j2", material)}, ("Containerfile",)
    )


def _image_note(material: PipelineMaterial) -> tuple[str, ...]:
    return (f"jobs run in {material.image}, which `kfdeploy export containerfile` describes",)


def _fill_template(name: str, material: PipelineMaterial, zone: str = "") -> str:
    from jinja2 import Environment, StrictUndefined

    # Both engines have `{{ }}` of their own.
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
