"""What an environment changes of the private registry, and which platforms are wanted."""

from __future__ import annotations

from typing import Any

import pytest

from kfdeploy.oci.registry.settings import PrivateRegistry
from kfdeploy.workspace.settings import Workspace


def workspace(private: dict[str, Any], environments: dict[str, Any]) -> Workspace:
    return Workspace.model_validate(
        {
            "upstream": {"source": "upstream"},
            "components": [{"name": "a", "path": "a"}],
            "registries": {"private": {"host": "reg.corp", **private}},
            "environments": environments,
        }
    )


@pytest.mark.parametrize(
    ("private", "changes", "naming"),
    [
        ({}, {}, (True, None, None)),
        ({"keepHost": False, "maxDepth": 3}, {"maxLength": 99}, (False, 3, 99)),
        ({"keepHost": False, "maxDepth": 3}, {"keepHost": True}, (True, 3, None)),
        ({"maxDepth": 3}, {"keepHost": False}, (False, 3, None)),
        ({"maxDepth": 3, "maxLength": 99}, {"maxDepth": None}, (True, None, 99)),
        ({"maxDepth": 3}, None, (True, 3, None)),
    ],
)
def test_an_environment_changes_single_keys_of_naming(
    private: dict[str, Any], changes: dict[str, Any] | None, naming: tuple[Any, ...]
) -> None:
    space = workspace({"naming": private}, {"e": {"registry": {"naming": changes}}})
    found = space.resolve_registry(space.environments["e"]).naming
    assert (found.keep_host, found.max_depth, found.max_length) == naming


def test_an_environment_changes_the_settings_of_difficult_registries() -> None:
    create = ["create", "{repository}"]
    environments: dict[str, Any] = {
        "same": {},
        "easy": {"registry": {"immutableTags": False, "createRepository": []}},
        "other": {"registry": {"createRepository": ["other", "--name={repository}"]}},
    }
    space = workspace({"immutableTags": True, "createRepository": create}, environments)
    found = {name: space.resolve_registry(space.environments[name]) for name in environments}
    assert {name: registry.immutable_tags for name, registry in found.items()} == {
        "same": True,
        "easy": False,
        "other": True,
    }
    assert {name: registry.creation_command("kf/a") for name, registry in found.items()} == {
        "same": ("create", "kf/a"),
        "easy": (),
        "other": ("other", "--name=kf/a"),
    }


def test_a_command_has_host_and_repository_put_in_once() -> None:
    words = ("sh", "{host}", "--repo={host}/{repository}", "{other} {}")
    registry = PrivateRegistry(host="reg.corp:5000", create_repository=words)
    assert registry.creation_command("kf/{host}") == (
        "sh",
        "reg.corp:5000",
        "--repo=reg.corp:5000/kf/{host}",
        "{other} {}",
    )
    assert PrivateRegistry(host="reg.corp").creation_command("kf/a") == ()


def test_each_list_of_platforms_is_there_once_with_its_environments() -> None:
    space = workspace(
        {},
        {
            "a": {"platforms": ["linux/arm64", "linux/amd64", "linux/arm64"]},
            "b": {"platforms": ["linux/amd64", "linux/arm64"]},
            "c": {"platforms": ["linux/arm/v7"]},
            "d": {},
        },
    )
    assert space.platforms == {
        ("linux/amd64", "linux/arm64"): ("a", "b"),
        ("linux/arm/v7",): ("c",),
    }
