"""Kyverno's policies by Kyverno's own code: the same answers as the API server's.

Its command line takes minutes to build the first time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from tests.features.admission.test_admission import NORMALISED
from tests.support.admission import (
    HINT,
    REGISTRY,
    a_pod,
    filled,
    images_of,
    mirrored,
    values,
)
from tests.support.programs import build_on_request

pytestmark = pytest.mark.slow  # its program is built on request

_LABELS: Final = {
    "users": {"app.kubernetes.io/part-of": "kubeflow-profile"},
    "elsewhere": {"some": "label"},
}


@dataclass(frozen=True, slots=True)
class Kyverno:
    """The command line, and a folder with the policies."""

    program: str
    folder: Path

    def apply(self, policy: str, *objects: Mapping[str, Any]) -> tuple[list[Any], str]:
        """What becomes of objects, in their order, and what it prints; names must differ."""
        resources = self.folder / "resources.yaml"
        resources.write_text("".join(f"---\n{json.dumps(each)}\n" for each in objects))
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        done = subprocess.run(
            [
                *(self.program, "apply", self.folder / f"{policy}.yaml"),
                *("--resource", resources, "-f", self.folder / "namespaces.yaml", "-o", out),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        yaml = YAML(typ="safe")
        files = [out / f"{each['metadata']['name']}-mutated.yaml" for each in objects]
        found = [next(yaml.load_all(file.read_text())) for file in files if file.exists()]
        return found, done.stdout + done.stderr


@pytest.fixture
def kyverno(tmp_path: Path) -> Kyverno:
    program = str(build_on_request("kyverno"))
    settings = values(api="kyverno", imagePullSecrets=["mirror", "other"], allowed=["quay.io/a"])
    for what in ("images", "pull-secrets"):
        for kind, policy in filled(settings, what).items():
            (tmp_path / f"{kind}-{what}.yaml").write_text(json.dumps(policy))
    namespaces = [{"name": name, "labels": labels} for name, labels in _LABELS.items()]
    known = {
        "apiVersion": "cli.kyverno.io/v1alpha1",
        "kind": "Values",
        "metadata": {"name": "values"},
        "namespaceSelector": namespaces,
    }
    (tmp_path / "namespaces.yaml").write_text(json.dumps(known))
    return Kyverno(program, tmp_path)


def pod(spec: Any, name: str, namespace: str = "users") -> dict[str, Any]:
    out = a_pod(spec, name)
    out["metadata"]["namespace"] = namespace
    return out


def test_images_are_rewritten_as_the_api_server_does(kyverno: Kyverno) -> None:
    spec = {
        "initContainers": [{"name": "a", "image": "busybox"}],
        "containers": [{"name": "b", "image": "mysql:8.4"}, {"name": "c", "image": "foreign:1"}],
        "volumes": [{"name": "d", "image": {"reference": "curlimages/curl:8"}}],
    }
    table, places, left, workload = kyverno.apply(
        "MutatingPolicy-images",
        pod(list(NORMALISED), "table"),
        pod(spec, "places"),
        pod(["mysql:8.4"], "left", "elsewhere"),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "users"},
            "spec": {"template": {"spec": a_pod(["mysql:8.4"])["spec"]}},
        },
    )[0]
    assert images_of(table) == [mirrored(ref) for ref in NORMALISED.values()]
    assert images_of(places, "initContainers") == [mirrored("busybox")]
    assert images_of(places) == [mirrored("mysql:8.4"), "foreign:1"]
    (volume,) = places["spec"]["volumes"]
    assert volume["image"]["reference"] == mirrored("curlimages/curl:8")
    assert images_of(left) == ["mysql:8.4"]
    assert images_of(workload["spec"]["template"]) == ["mysql:8.4"]
    (again,) = kyverno.apply("MutatingPolicy-images", table)[0]
    assert again == table


def test_what_is_left_is_refused_as_the_api_server_does(kyverno: Kyverno) -> None:
    good = pod([mirrored("mysql:8.4"), f"{REGISTRY}/own:1", "quay.io/a/b:1"], "good")
    bad = ["mysql", f"{REGISTRY}-evil/a:1", "quay.io/ab/c:1"]
    said = kyverno.apply(
        "ValidatingPolicy-images", good, pod(bad, "bad"), pod(bad, "other", "elsewhere")
    )[1]
    named = ", ".join(f"{ref} (container c{i})" for i, ref in enumerate(bad))
    assert f"users/Pod/bad failed:\n1 -  not in {REGISTRY}: {named}{HINT}\n" in said
    assert said.count(" failed:\n") == 1


def test_pull_secrets_are_added_as_the_api_server_does(kyverno: Kyverno) -> None:
    own = [{"name": "own"}, {"name": "other"}]
    containers = a_pod(["foreign:1"])["spec"]["containers"]
    account: dict[str, Any] = {"apiVersion": "v1", "kind": "ServiceAccount"}
    account["metadata"] = {"name": "default-editor", "namespace": "users"}
    plain, named, empty, left, editor = kyverno.apply(
        "MutatingPolicy-pull-secrets",
        pod(["foreign:1"], "plain"),
        pod({"containers": containers, "imagePullSecrets": own}, "named"),
        pod({"containers": containers, "imagePullSecrets": []}, "empty"),
        pod(["foreign:1"], "left", "elsewhere"),
        account,
    )[0]
    both = [{"name": "mirror"}, {"name": "other"}]
    assert plain["spec"] == {"containers": containers, "imagePullSecrets": both}
    assert named["spec"]["imagePullSecrets"] == [*own, {"name": "mirror"}]
    assert empty["spec"]["imagePullSecrets"] == both
    assert "imagePullSecrets" not in left["spec"]
    assert editor["imagePullSecrets"] == both
