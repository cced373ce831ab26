"""What a site adds: each feature turns its settings into patches and new objects."""

from __future__ import annotations

from collections.abc import Iterator

from kfdeploy.features.addition import FeatureRelease
from kfdeploy.features.admission import admission
from kfdeploy.workspace.settings import Workspace

__all__ = ["FeatureRelease", "iter_feature_notes", "iter_feature_releases"]


def iter_feature_releases(workspace: Workspace) -> Iterator[FeatureRelease]:
    """The releases that the features which are on add, in the order of installation."""
    settings = workspace.features.admission
    if settings.enabled:
        yield admission.build_admission_release(images=settings.images)


def iter_feature_notes(workspace: Workspace, environment: str) -> Iterator[str]:
    """What an operator may not expect of the features in an environment."""
    return admission.iter_admission_notes(workspace, environment)
