"""Kubeflow's own programs are known as each release runs them, and pull what was read there."""

from __future__ import annotations

import json

import pytest

from kfdeploy.catalogue import hidden_images, load
from kfdeploy.catalogue.facts import Catalogue
from kfdeploy.kubernetes.objects import Object
from tests.support.refs import written

OLD, NEW = "docker.io/kubeflownotebookswg", "ghcr.io/kubeflow/kubeflow"
WEB = ("jupyter-web-app", "tensorboards-web-app", "volumes-web-app")
CONTROLLERS = ("notebook-controller", "tensorboard-controller", "profile-controller", "kfam")
OWN = (*WEB, *CONTROLLERS, "poddefaults-webhook")
PROGRAMS = {
    "1.6.1": [f"{OLD}/{name}:v1.6.1" for name in (*OWN, "centraldashboard")],
    "1.7.0": [f"{OLD}/{name}:v1.7.0" for name in (*OWN, "centraldashboard")],
    "1.8.1": [f"{OLD}/{name}:v1.8.0" for name in (*OWN, "centraldashboard", "pvcviewer-controller")]
    + ["docker.io/kubeflowmanifestswg/oidc-authservice:e236439"],
    "1.9.0": [f"{OLD}/{name}:v1.9.0" for name in (*OWN, "centraldashboard", "pvcviewer-controller")]
    + ["docker.io/curlimages/curl", "quay.io/oauth2-proxy/oauth2-proxy:v7.6.0"],
    "1.9.1": [f"{OLD}/{name}:v1.9.2" for name in (*OWN, "centraldashboard", "pvcviewer-controller")]
    + ["kubeflow/model-registry:v0.2.9", "ghcr.io/dexidp/dex:v2.39.1"],
    "1.10.0": [f"{NEW}/{name}:v1.10.0" for name in (*OWN, "central-dashboard")]
    + [f"ghcr.io/kubeflow/model-registry/{name}:v0.2.15.3" for name in ("server", "ui")],
    "1.10.1": [f"ghcr.io/kubeflow/model-registry/{name}:v0.2.17" for name in ("server", "ui")],
    "1.11.0": [f"ghcr.io/kubeflow/model-registry/{name}:v0.3.4" for name in ("server", "ui")]
    + ["ghcr.io/dexidp/dex:v2.44.0", "quay.io/oauth2-proxy/oauth2-proxy:v7.13.0"],
    "later": [f"ghcr.io/kubeflow/notebooks/{name}:v1.11.0" for name in (*WEB, *CONTROLLERS[:2])]
    + [f"ghcr.io/kubeflow/dashboard/{name}:v2.0.0" for name in ("dashboard", "access-management")]
    + ["ghcr.io/kubeflow/dashboard/poddefaults-webhook:v2.0.0"],
}


@pytest.fixture(scope="module")
def facts() -> Catalogue:
    return load.load_catalogue()


def deployment(name: str, image: str) -> Object:
    pod = {"spec": {"containers": [{"name": "main", "image": image}]}}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "kubeflow"},
        "spec": {"template": pod},
    }
    return Object(json.dumps(body))


@pytest.mark.parametrize("release", PROGRAMS)
def test_somebody_has_read_kubeflows_own_programs(facts: Catalogue, release: str) -> None:
    objects = [deployment(f"p{n}", image) for n, image in enumerate(PROGRAMS[release])]
    programs = facts.find_programs(objects)
    assert [program.image for program in programs if not program.is_known] == []
    assert len(programs) == len(objects)


JOB = "ghcr.io/kubeflow/model-registry/job/async-upload:latest"
BASES = {"busybox:latest": "program", "quay.io/quay/busybox:latest": "program"}


@pytest.mark.parametrize(
    ("version", "pulled"),
    [
        ("0.2.19", {}),
        ("0.3.5", {}),
        ("0.3.6", {"quay.io/opendatahub/model-registry-job-async-upload:latest": ""}),
        ("0.3.7", {JOB: "", **BASES}),
        ("0.3.8", {JOB: "", **BASES}),
    ],
)
def test_the_model_registrys_page_pulls_what_was_read_at_its_version(
    facts: Catalogue, version: str, pulled: dict[str, str]
) -> None:
    image = f"ghcr.io/kubeflow/model-registry/ui:v{version}"
    for name, expected in (("model-registry-ui", pulled), ("another", {})):
        objects = [deployment(name, image)]
        found = hidden_images.find_hidden_images("c", objects, facts.find_programs(objects), [])
        assert {use.ref.text: use.pulled_by for use in found} == expected


@pytest.mark.parametrize(
    ("tag", "substitute"),
    [("e236439", "docker.io/kubeflowmanifestswg/oidc-authservice:e236439"), ("28c59ef", "")],
)
def test_what_went_with_its_owners_registry_is_known(
    facts: Catalogue, tag: str, substitute: str
) -> None:
    lost = facts.find_unavailable(written(f"gcr.io/arrikto/kubeflow/oidc-authservice:{tag}"))
    assert lost is not None
    assert lost.substitute == substitute
