"""What a site adds: each feature turns its settings into patches and new objects."""

from __future__ import annotations

from collections.abc import Iterator

from kfdeploy.features.addition import Addition
from kfdeploy.features.admission import admission
from kfdeploy.workspace.settings import Workspace

__all__ = ["Addition", "additions", "notes"]


def additions(workspace: Workspace) -> Iterator[Addition]:
    """The releases that the features which are on add, in the order of installation."""
    settings = workspace.features.admission
    if settings.enabled:
        yield admission.addition(images=settings.images)


def notes(workspace: Workspace, environment: str) -> Iterator[str]:
    """What an operator may not expect of the features in an environment."""
    return admission.notes(workspace, environment)
