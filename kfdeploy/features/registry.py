"""The list of all features, and what is asked of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ConfigDict, create_model

from kfdeploy.features.admission.feature import AdmissionFeature
from kfdeploy.features.feature import Feature, FeatureEnvironment, FeatureSettings
from kfdeploy.section import Section

FEATURES: Final[tuple[type[Feature[Any]], ...]] = (AdmissionFeature,)
"""In the order in which they are listed, and their releases installed."""
PLANNED: Final = (
    "network",
    "identity",
    "contributors",
    "scheduling",
    "pools",
    "teams",
    "services",
    "code",
)
"""Features of later versions: a section that is off is let through."""

Settings = TypeVar("Settings", bound=FeatureSettings)


class FeatureSections(Section):
    """What a site adds; all are off unless they are turned on."""

    # Features of later versions are named in files already: `workspace.settings_file` judges them.
    model_config = ConfigDict(extra="allow")

    def configure(self, environments: Mapping[str, FeatureEnvironment]) -> tuple[Feature[Any], ...]:
        """Return each feature with its settings, on or off."""
        return tuple(kind(getattr(self, kind.name), environments) for kind in FEATURES)

    @property
    def unknown(self) -> dict[str, Any]:
        """The sections of no feature here, as they are written."""
        return self.model_extra or {}


def build_sections_model() -> type[FeatureSections]:
    """Return the model of ``features:``, with a field for each feature."""
    fields: dict[str, Any] = {
        feature.name: (feature.settings_model, feature.settings_model()) for feature in FEATURES
    }
    return create_model(
        "Features", __base__=FeatureSections, __doc__=FeatureSections.__doc__, **fields
    )


def find_unserved_hint(kind: str) -> str:
    """Return what an operator can do where a cluster does not serve a feature's kind."""
    return next((f.unserved_hints[kind] for f in FEATURES if kind in f.unserved_hints), "")


def collect_upstream_namers() -> frozenset[str]:
    """Return the kinds of objects that name upstream's images on purpose."""
    return frozenset(kind for feature in FEATURES for kind in feature.names_upstream)
