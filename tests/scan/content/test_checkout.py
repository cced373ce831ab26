"""What of a checkout counts: what ships as the operator, and not what builds, tests or tries it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kfdeploy.scan.content import checkout

CODE = 'const Image = "ghcr.io/acme/thing:1.0"\n'
YAML = "image: ghcr.io/acme/thing:1.0\n"
COMPOSE = "services:\n  db:\n    " + YAML


def hows(folder: Path, name: str, content: str) -> list[str]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    finds, notes = checkout.find_candidates(folder)
    assert notes == []
    return [find.how for find in finds]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".devcontainer/devcontainer.json", '{"image": "ghcr.io/acme/thing:1.0"}\n'),
        (".buildkite/test.yml", YAML),
        (".gitlab-ci.yml", YAML),
        ("ui/.env", "IMAGE=ghcr.io/acme/thing:1.0\n"),
        (".release.cloudbuild.yaml", YAML),
        ("prow/integ-suite.sh", "docker pull ghcr.io/acme/thing:1.0\n"),
        ("make/kind.sh", "IMAGE=ghcr.io/acme/thing:1.0\n"),
        ("py/acme/cd/config.py", CODE),
        ("src/build-services.sh", "IMAGE=ghcr.io/acme/thing:1.0\n"),
        ("component/build_image.sh", "IMAGE=ghcr.io/acme/thing:1.0\n"),
        ("make-win.ps1", CODE),
        ("dev/controller.tiltfile", CODE),
        ("docker-compose.yaml", COMPOSE),
        ("docker/swarm-etcd.yml", f"version: '3'\n\n{COMPOSE}"),
        ("samples/recursion.py", CODE),
        ("config/samples/v1_thing.yaml", f"apiVersion: v1\nkind: Thing\n{YAML}"),
        ("frontend/src/pages/pod-mock.ts", CODE),
        ("internal/static_data_mock.go", CODE),
        ("backend/k8s_service_test.ts", CODE),
        ("ui/thing.stories.tsx", CODE),
    ],
)
def test_what_builds_tests_or_tries_an_operator_is_left_out(
    name: str, content: str, tmp_path: Path
) -> None:
    assert hows(tmp_path, name, content) == []


@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        ("pkg/build/pod.go", CODE, "go"),
        ("pkg/release/hook.go", CODE, "go"),
        ("pkg/samples.go", CODE, "go"),
        ("pkg/pod_spec.go", CODE, "go"),
        ("internal/composer.go", CODE, "go"),
        ("config/params.env", "IMAGE=ghcr.io/acme/thing:1.0\n", "manifest"),
        ("scan/entrypoint.sh", "IMAGE=ghcr.io/acme/thing:1.0\n", "shell"),
        ("charts/acme/values.yaml", COMPOSE, "manifest"),
        ("services/manager.yaml", f"apiVersion: v1\nkind: Pod\n{COMPOSE}", "manifest"),
    ],
)
def test_what_ships_counts(name: str, content: str, how: str, tmp_path: Path) -> None:
    assert hows(tmp_path, name, content) == [how]
