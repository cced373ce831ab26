"""Environments: another registry, prefix, naming, pull secrets; release sets by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import Runner, Site, edit_workspace, tree

PRODUCTION = {
    "registry": {
        "host": "registry.prod.example.com",
        "prefix": "ml/kubeflow",
        "naming": {"keepHost": True, "maxDepth": 4},
    },
    "kubeContext": "prod-cluster",
    "imagePullPolicy": "IfNotPresent",
    "imagePullSecrets": ["first", "second"],
}


@pytest.fixture(scope="module")
def two(small_site: Site, kfdeploy: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small site with a second environment, both rendered."""
    root = small_site.copy(tmp_path_factory.mktemp("two") / "site")
    edit_workspace(root, {"environments": {"default": {}, "production": PRODUCTION}})
    kfdeploy("patch", cwd=root)
    kfdeploy("render", cwd=root)
    kfdeploy("render", "--env", "production", cwd=root)
    return root


def pods(folder: Path) -> list[dict[str, Any]]:
    """The pod templates of a set's workloads."""
    yaml = YAML(typ="safe", pure=False)
    out = []
    for path in sorted(folder.glob("charts/*/charts/objects/objects.yaml")):
        for item in yaml.load_all(path.read_text()):
            if item and item["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
                out.append(item["spec"]["template"]["spec"])
    return out


def test_another_environment_has_its_own_registry_prefix_and_naming(
    two: Path, small_site: Site
) -> None:
    summary = json.loads((two / "releases/production/summary.json").read_text())
    assert summary["environment"] == "production"
    assert summary["registry"] == "registry.prod.example.com/ml/kubeflow"
    for image in summary["images"].values():
        name = image["mirror"].partition("@")[0]
        assert name.startswith("registry.prod.example.com/ml/kubeflow/"), image
        assert name.count("/") <= 4, image
    rendered = b"".join(tree(two / "releases/production").values())
    assert small_site.private.encode() not in rendered
    assert b"prod-cluster" in rendered


def test_pull_secrets_and_policy_are_on_every_pod_of_that_environment_only(two: Path) -> None:
    production = pods(two / "releases/production")
    assert len(production) > 5
    for spec in production:
        names = [secret["name"] for secret in spec["imagePullSecrets"]]
        assert names[-2:] == ["first", "second"], spec
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            assert container["imagePullPolicy"] == "IfNotPresent", container
    for spec in pods(two / "releases/default"):
        assert "first" not in [secret["name"] for secret in spec.get("imagePullSecrets", ())]


def test_the_patches_hold_no_value_of_an_environment(two: Path) -> None:
    for name, content in tree(two / "patches").items():
        for value in (b"prod.example.com", b"first", b"IfNotPresent", b"prod-cluster"):
            if value == b"first" and b"first" in content:
                continue
            assert value not in content, name


def test_verify_takes_the_sets_environment_by_itself(two: Path, kfdeploy: Runner) -> None:
    kfdeploy("verify", "production", "--offline", cwd=two)
    kfdeploy("verify", "production", "--offline", "--env", "production", cwd=two)
    kfdeploy("verify", "releases/production", "--offline", cwd=two)


def test_verify_refuses_a_set_of_another_environment(two: Path, kfdeploy: Runner) -> None:
    said = kfdeploy(
        "verify", "default", "--offline", "--env", "production", cwd=two, check=2
    ).stderr
    assert said == "error: the set was rendered for the environment default, not production\n"


def test_verify_refuses_a_set_rendered_for_another_registry(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "site")
    edit_workspace(root, {"registries.private.prefix": "moved"})
    done = kfdeploy("verify", "--offline", cwd=root, check=3)
    assert done.stderr == (
        f"error: the set was rendered for the registry {small_site.private}/small, but"
        f" kfdeploy.yaml says {small_site.private}/moved\n"
        "  hint: run `kfdeploy mirror` and `kfdeploy render`\n"
    )


def test_several_sets_and_none_named_is_wrong_use(two: Path, kfdeploy: Runner) -> None:
    said = kfdeploy("verify", "--offline", cwd=two, check=2).stderr
    assert said == (
        "error: there are several release sets: default, production\n  hint: name one of them\n"
    )


def test_a_set_that_is_not_there_is_wrong_use_and_says_which_are(
    two: Path, kfdeploy: Runner
) -> None:
    said = kfdeploy("verify", "staging", "--offline", cwd=two, check=2).stderr
    assert said == (
        "error: staging: there is no such release set\n  hint: there are default, production\n"
    )


def test_an_unknown_environment_says_which_there_are(two: Path, kfdeploy: Runner) -> None:
    for command in (("scan",), ("lock",), ("mirror",), ("patch",), ("render",), ("verify",)):
        said = kfdeploy(*command, "--env", "staging", cwd=two, check=2).stderr
        assert said == (
            "error: --env staging: kfdeploy.yaml has no such environment;"
            " it has default, production\n"
        )


def test_a_set_has_the_name_that_is_asked_for(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "site")
    assert kfdeploy("render", "--set", "2026-q1", cwd=root).stdout.startswith("releases/2026-q1:")
    assert tree(root / "releases/2026-q1") == tree(root / "releases/default")
    for name in ("../out", "a/b", ".", ".hidden"):
        said = kfdeploy("render", "--set", name, cwd=root, check=2).stderr
        assert said == f"error: --set {name}: must be a plain folder name\n"
