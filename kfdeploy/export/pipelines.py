"""Ready definitions: GitLab CI, GitHub Actions, and the image that their jobs run in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kfdeploy import __version__
from kfdeploy.export.material import MARK, Exported, below
from kfdeploy.workspace.settings import Workspace

_TEMPLATES: Final = Path(__file__).parent / "templates" / "pipelines"
_ZONES: Final = ("connected", "inside")


@dataclass(frozen=True, slots=True)
class Pipelines:
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
    def of(cls, workspace: Workspace, image: str, *, has_gap: bool) -> Pipelines:
        """For a workspace; without ``image`` the one in the private registry."""
        private = workspace.registries.private
        usual = f"{below(private.host, private.prefix, 'kfdeploy')}:{__version__}"
        return cls(tuple(workspace.environments), image or usual, has_gap)


def gitlab_ci(material: Pipelines) -> Exported:
    """``.gitlab-ci.yml``; with a gap one file for each side."""
    if not material.has_gap:
        files = {".gitlab-ci.yml": _fill("gitlab-ci.yml.j2", material)}
    else:
        files = {f"{z}.gitlab-ci.yml": _fill("gitlab-ci.yml.j2", material, z) for z in _ZONES}
    patterns = (".gitlab-ci.yml", *(f"{zone}.gitlab-ci.yml" for zone in _ZONES))
    return Exported(files, patterns, _image_note(material))


def github_actions(material: Pipelines) -> Exported:
    """``.github/workflows/kfdeploy.yml``; with a gap one file for each side."""
    folder = ".github/workflows"
    name = "github-actions.yml.j2"
    if not material.has_gap:
        files = {f"{folder}/kfdeploy.yml": _fill(name, material)}
    else:
        files = {f"{folder}/kfdeploy-{z}.yml": _fill(name, material, z) for z in _ZONES}
    return Exported(files, (f"{folder}/kfdeploy*.yml",), _image_note(material))


def containerfile(material: Pipelines) -> Exported:
    """``Containerfile``."""
    return Exported({"Containerfile": _fill("Containerfile.j2", material)}, ("Containerfile",))


def _image_note(material: Pipelines) -> tuple[str, ...]:
    return (f"jobs run in {material.image}, which `kfdeploy export containerfile` describes",)


def _fill(name: str, material: Pipelines, zone: str = "") -> str:
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
