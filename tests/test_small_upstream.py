"""The project's small upstream and its truth, `tests/data/expected-images.yaml`, agree.

Both are written by hand; this holds one against the other with kustomize itself, and with nothing
of kfdeploy, so that a scan can be held against the truth.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

DATA = Path(__file__).parent / "data"
UPSTREAM = DATA / "upstream"
REMOTES = DATA / "remotes"
REMOTE_BASES = {
    "https://github.com/example-org/workflow-engine/manifests/base?ref=v1.2.3": (
        "github.com/example-org/workflow-engine@v1.2.3/manifests/base"
    ),
    "github.com/example-org/jobqueue//config?ref=v0.1.0": (
        "github.com/example-org/jobqueue@v0.1.0/config"
    ),
    "https://github.com/example-org/thing/releases/download/v0.3.0/manifests.yaml": (
        "github.com/example-org/thing/releases/download/v0.3.0/manifests.yaml"
    ),
}
NAMES = {
    "common/cert-manager/base": "cert-manager",
    "common/istio/istio-namespace/base": "istio-namespace",
    "common/istio/istio-install/overlays/oauth2-proxy": "istio-install",
    "common/oauth2-proxy/overlays/m2m-dex-only": "oauth2-proxy",
    "common/knative/knative-serving/overlays/gateways": "knative-serving",
    "common/kubeflow-namespace/base": "kubeflow-namespace",
    "common/kubeflow-roles/base": "kubeflow-roles",
    "applications/pipeline/overlays": "pipeline",
    "applications/katib/upstream/installs/katib-with-kubeflow": "katib",
    "applications/jupyter/jupyter-web-app/upstream/overlays/istio": "jupyter-web-app",
    "applications/tensorboard/tensorboard-controller/upstream/overlays/kubeflow": (
        "tensorboard-controller"
    ),
    "applications/volumes-web-app/upstream/overlays/istio": "volumes-web-app",
    "applications/training-operator/upstream/overlays/kubeflow": "training-operator",
    "common/user-namespace/base": "user-namespace",
    "applications/kserve/kserve": "kserve",
}
STEP = re.compile(r"([^.\[\]]+)|\[(?:name=)?([^\]]+)\]")


@dataclass(frozen=True, slots=True)
class Built:
    """A component's rendered objects."""

    name: str
    objects: tuple[dict[str, Any], ...]


def load_all(text: str) -> list[Any]:
    return [document for document in YAML(typ="safe").load_all(text) if document is not None]


@cache
def truth() -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe").load(DATA / "expected-images.yaml")
    return document


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree with its remote bases beside it and referred to locally."""
    if shutil.which("kustomize") is None:
        pytest.skip("kustomize is not on PATH; `make setup` installs it")
    tree = tmp_path_factory.mktemp("small") / "upstream"
    shutil.copytree(UPSTREAM, tree)
    shutil.copytree(REMOTES, tree, dirs_exist_ok=True)
    for path in tree.rglob("kustomization.yaml"):
        text = path.read_text()
        for url, target in REMOTE_BASES.items():
            text = text.replace(url, os.path.relpath(tree / target, path.parent))
        path.write_text(text)
    return tree


@pytest.fixture(scope="module")
def built(local: Path) -> dict[str, Built]:
    components = {name: load_all(kustomize(local / path)) for path, name in NAMES.items()}
    folder = local / "experimental/manifests/node-agent"
    components["node-agent"] = [
        document
        for path in sorted(folder.glob("*.yaml"))
        for document in load_all(path.read_text())
    ]
    if shutil.which("helm"):
        chart = local / "experimental/charts/feature-store"
        argv: list[str | Path] = [
            "helm",
            "template",
            "feature-store",
            chart,
            "--namespace",
            "kubeflow",
        ]
        components["feature-store"] = load_all(output(argv))
    return {name: Built(name, tuple(objects)) for name, objects in components.items()}


def kustomize(folder: Path) -> str:
    return output(["kustomize", "build", "--load-restrictor", "LoadRestrictionsNone", folder])


def output(argv: list[str | Path]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def find(component: Built, entry: dict[str, Any]) -> dict[str, Any]:
    wanted = entry["object"]
    suffix = r"-[a-z0-9]{10}" if entry.get("hashed") else ""
    hits = [
        found
        for found in component.objects
        if found["apiVersion"] == wanted["apiVersion"]
        and found["kind"] == wanted["kind"]
        and found["metadata"].get("namespace") == wanted.get("namespace")
        and re.fullmatch(re.escape(wanted["name"]) + suffix, found["metadata"]["name"])
    ]
    assert len(hits) == 1, f"{len(hits)} objects for {wanted}"
    return hits[0]


def value(found: Any, field: str) -> Any:
    for name, bracket in STEP.findall(field):
        if name or isinstance(found, dict):
            found = found[name or bracket]
        elif bracket.isdigit():
            found = found[int(bracket)]
        else:
            found = next(item for item in found if item["name"] == bracket)
    return found


def upstream_lines(file: str) -> list[str]:
    folder = REMOTES if file.startswith("github.com/") else UPSTREAM
    return (folder / file).read_text().splitlines()


def entries() -> list[Any]:
    return [
        pytest.param(entry, id=f"{entry['component']}-{entry['ref']}-{entry['line']}")
        for entry in truth()["images"]
    ]


def test_the_example_lists_the_components_that_the_truth_names() -> None:
    example = YAML(typ="safe").load(UPSTREAM / "example/kustomization.yaml")
    assert [path.removeprefix("../") for path in example["resources"]] == list(NAMES)
    listed = {entry["component"] for entry in truth()["images"] if entry.get("in_example", True)}
    assert listed <= set(NAMES.values())


@pytest.mark.parametrize("entry", entries())
def test_each_expected_image_is_in_its_field_when_built(
    entry: dict[str, Any], built: dict[str, Built]
) -> None:
    if entry["component"] not in built:
        pytest.skip("helm is not on PATH; `make setup` installs it")
    text = value(find(built[entry["component"]], entry), entry["field"])
    assert isinstance(text, str)
    if "parts" in entry:
        name, _, tag = entry["ref"].rpartition(":")
        assert name.rpartition("/")[2] in text
        assert tag in text or "KFP_VERSION" in text
    else:
        assert re.search(re.escape(entry["ref"]) + r"(?![\w.-])", text)


@pytest.mark.parametrize("entry", entries())
def test_each_line_says_what_the_cluster_would_ask_for(entry: dict[str, Any]) -> None:
    line = upstream_lines(entry["file"])[entry["line"] - 1]
    if "overridden_by" in entry:
        over = entry["overridden_by"]
        assert 0 < over["line"] <= len(upstream_lines(over["file"]))
        assert entry["ref"] not in line, "nothing is overridden"
    elif "parts" in entry:
        for part in entry["parts"]:
            words = re.findall(r"[\w./-]+", upstream_lines(part["file"])[part["line"] - 1])
            assert any(word in entry["ref"] for word in words if len(word) > 3)
    elif entry["component"] != "feature-store":
        assert entry["ref"] in line


def test_what_is_no_image_stands_in_the_tree_and_not_among_the_images() -> None:
    text = "\n".join(
        path.read_text()
        for folder in (UPSTREAM, REMOTES)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    images = {entry["ref"] for entry in truth()["images"] if entry.get("in_example", True)}
    for group in truth()["never"]:
        for string in group["strings"]:
            assert string not in images
            name = string.rpartition(":")[0].rpartition("/")[2]
            assert string in text or (name and name in text), string


def test_components_build_what_the_example_builds(local: Path, built: dict[str, Built]) -> None:
    def keys(objects: list[Any]) -> list[tuple[str, ...]]:
        return sorted(
            (
                found["apiVersion"],
                found["kind"],
                found["metadata"].get("namespace", ""),
                found["metadata"]["name"],
            )
            for found in objects
        )

    parts = [found for name in NAMES.values() for found in built[name].objects]
    assert keys(parts) == keys(load_all(kustomize(local / "example")))
