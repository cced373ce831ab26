"""What holds for every feature on the list."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from kfdeploy.features.feature import Feature, FeatureEnvironment
from kfdeploy.features.registry import FEATURES, PLANNED, build_sections_model
from tests.conftest import ROOT

ENVIRONMENT = FeatureEnvironment("default", "1.36.0", names_kube_version=True)


def test_names_are_there_once_and_none_is_planned_still() -> None:
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == len(names)
    assert not set(names) & set(PLANNED)
    assert all(re.fullmatch("[a-z]+", name) for name in names)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_init_writes_a_section_that_is_valid_and_turns_it_on(feature: type[Feature[Any]]) -> None:
    text = feature.read_init_text()
    assert all(line.startswith("  ") for line in text.splitlines())
    sections = build_sections_model().model_validate(YAML(typ="safe").load(text))
    (enabled,) = [each for each in sections.configure({}) if each.enabled]
    assert type(enabled) is feature


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_section_that_only_turns_it_on_works(feature: type[Feature[Any]]) -> None:
    made = feature(feature.settings_model(enabled=True))
    assert made.build_values(ENVIRONMENT)
    assert made.list_flows() is not None


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_it_has_its_page_and_its_tests(feature: type[Feature[Any]]) -> None:
    page = ROOT / "docs" / "features" / f"{feature.name}.md"
    assert page.read_text().startswith(f"# {feature.name}\n")
    assert f"(features/{feature.name}.md)" in (ROOT / "docs" / "features.md").read_text()
    assert list((ROOT / "tests" / "features" / feature.name).glob("test_*.py"))


def test_validators_leave_settings_as_they_are_written() -> None:
    """Plain Helmfile reads the section itself, and has to see what `render` sees."""
    settings = {"enabled": True, "allow": ["quay.io/team/"], "policies": "kyverno"}
    sections = build_sections_model().model_validate({"admission": settings})
    assert sections.model_dump(mode="json", exclude_unset=True)["admission"] == settings
