"""What a site adds: each feature turns its settings into patches and new objects."""

from __future__ import annotations

from collections.abc import Iterator

from kfdeploy.features import admission
from kfdeploy.features.addition import Addition
from kfdeploy.model.workspace import Workspace

__all__ = ["Addition", "additions"]


def additions(workspace: Workspace) -> Iterator[Addition]:
    """The releases that the features which are on add, in the order of installation."""
    if workspace.features.admission.enabled:
        yield admission.addition()
