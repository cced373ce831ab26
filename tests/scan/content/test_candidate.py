"""What a token says of itself, with the evidence around it."""

from __future__ import annotations

import pytest

from kfdeploy.scan.content.candidate import LIKELY, judge_token

IMAGES = [
    "alpine:3.10",
    "python:3.9",
    "busybox:stable-glibc",
    "tensorflow/tensorflow:2.2.2",
    "kserve/storage-initializer:latest",
    "filebrowser/filebrowser:latest",
    "pytorch/torchserve-kfs:0.9.0-gpu",
    "ghcr.io/containerd/busybox",
    "docker.io/istio/proxyv2:1.28.0",
    "docker.io/mysql",
    "registry.k8s.io/pause:3.9",
    "public.ecr.aws/abc/def:v1",
    "us-docker.pkg.dev/vertex-ai/tabular/server:prod",
    "docker.acme.co/team/thing",
    "container-registry.acme.com/database/thing",
    "cgr.dev/acme/thing",
    "internal.acme.dev:5000/team/thing:v2",
    "acme/thing@sha256:" + "0" * 64,
]
OTHERS = [
    "application/json",
    "text/html:1.0",
    "k8s.io/api/core/v1/generated.proto",
    "kubeflow.org/v1:latest",
    "scheduling.k8s.io/group-name",
    "github.com/kubeflow/katib:v1.2.3",
    "https://ghcr.io/a/b:1.0",
    "oci://ghcr.io/charts/thing:1.0",
    "localhost:8080",
    "10.96.0.1:443",
    "127.0.0.1:53",
    "metrics.acme.io:9090",
    "kubernetes.default.svc:443",
    "main.go:104",
    "pkg/config/config.go:28",
    "system:masters",
    "apps/v1",
    "gcr.io/project",
    "quay.io",
    "16:9",
    "12:30",
    "port:8080",
    "Foo/Bar:1.0",
    "../a/b:1.0",
    "my-registry.example.com/your-image:v1.0",
    "repository/image:v1.0",
]


@pytest.mark.parametrize("text", IMAGES)
def test_a_constant_that_is_an_image_is_likely(text: str) -> None:
    found = judge_token(text, bounds="exact")
    assert found is not None
    assert found.ref == text
    assert found.score >= LIKELY, found


@pytest.mark.parametrize("text", OTHERS)
def test_what_is_no_image_is_not_likely(text: str) -> None:
    found = judge_token(text, bounds="exact")
    assert found is None or found.score < LIKELY


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("quay.io/argoproj/argoexec:", "quay.io/argoproj/argoexec"),
        ("quay.io/jetstack/solver:%s", "quay.io/jetstack/solver"),
        ("ghcr.io/a/b:v%s", "ghcr.io/a/b"),
        ("ghcr.io/a/b:v", "ghcr.io/a/b"),
        ("ghcr.io/a/b:${TAG}", "ghcr.io/a/b"),
        ("ghcr.io/a/b:{version}", "ghcr.io/a/b"),
        ("docker.io/a/b:<tag>", "docker.io/a/b"),
    ],
)
def test_a_tag_that_is_joined_at_run_time_is_left_out_and_said(text: str, ref: str) -> None:
    found = judge_token(text, bounds="exact")
    assert found is not None
    assert (found.ref, found.joined) == (ref, True)
    assert found.score >= LIKELY


@pytest.mark.parametrize(
    "text",
    ["%s/image:1.0", "${HUB}/proxyv2:1.0", "ghcr.io/{name}/x:1.0", "vault:v1:", "a/b:v1:%s"],
)
def test_a_name_that_is_not_all_there_is_none(text: str) -> None:
    assert judge_token(text, bounds="exact") is None


def test_a_name_alone_needs_a_key_that_says_image() -> None:
    assert judge_token("tensorflow/tensorflow", bounds="quoted") is None
    assert judge_token("tensorflow/tensorflow", bounds="quoted", key="module") is None
    found = judge_token("tensorflow/tensorflow", bounds="quoted", key="TF_IMAGE_NAME")
    assert found is not None
    assert found.score >= LIKELY
    assert judge_token("undefined", bounds="quoted", key="image") is None


def test_a_flag_beside_it_speaks_for_it() -> None:
    plain = judge_token("acme/thing:nightly", bounds="exact")
    beside = judge_token("acme/thing:nightly", bounds="exact", near=("--thing-image",))
    assert plain is not None
    assert beside is not None
    assert beside.score > plain.score
    assert beside.near == ("--thing-image",)


def test_inside_prose_it_counts_less() -> None:
    exact, prose = (judge_token("acme/thing:1.0.0", bounds="word", prose=p) for p in (False, True))
    assert exact is not None
    assert prose is None or prose.score < exact.score
    assert prose is None or prose.score < LIKELY
