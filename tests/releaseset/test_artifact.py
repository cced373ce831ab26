"""A release set as one OCI artifact: the same set is the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from typing import Any

import pytest

from kfdeploy.releaseset import artifact
from tests.support.sets import small_summary

SUMMARY = small_summary(upstream="26.03", environment="production", kfdeploy="0.1.0")
SUM = "ab12cd34ef56" + "0" * 52
FILES = {"summary.json": b"{}\n", "charts/a/Chart.yaml": b"name: a\n", "crds/a.yaml": b""}


def made(files: dict[str, bytes] = FILES) -> artifact.Artifact:
    return artifact.build_artifact("production", SUMMARY, files, SUM)


def manifest_of(found: artifact.Artifact) -> Any:
    return json.loads(found.manifest.body)


def test_the_same_set_is_the_same_digest_in_any_order_and_on_any_machine() -> None:
    shuffled = dict(reversed(FILES.items()))
    assert made(shuffled).digest == made().digest
    # Written down: no compressor and no clock has a say in it.
    assert (
        made().digest == "sha256:ea533092a2587901733006fbf873fa1e900e72236c94ba4ad0db63f9f3d1b49e"
    )


def test_the_layer_is_gzip_that_others_read() -> None:
    noise = random.Random(1).randbytes(200_000)
    found = made({"a": noise, "b/c": b"x" * 0xFFFF})
    archive = gzip.decompress(found.layer)
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        members = opened.getmembers()
        assert opened.extractfile("a").read() == noise  # type: ignore[union-attr]
    assert [(m.name, m.isdir(), m.mode) for m in members] == [
        ("a", False, 0o644),
        ("b", True, 0o755),
        ("b/c", False, 0o644),
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert archive.endswith(b"\0" * 1024) and len(archive) % 512 == 0


def test_the_manifest_names_what_is_pushed() -> None:
    found = made()
    body = manifest_of(found)
    named = [body["config"], *body["layers"]]
    for entry, (blob, content) in zip(named, found.blobs, strict=True):
        assert (entry["digest"], entry["size"]) == (blob.digest, len(content))
        assert blob.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert body["config"]["mediaType"] == "application/vnd.cncf.flux.config.v1+json"
    (layer,) = body["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    archive = hashlib.sha256(gzip.decompress(found.layer)).hexdigest()
    assert layer["annotations"]["io.deis.oras.content.digest"] == f"sha256:{archive}"


def test_annotations_say_what_it_is_and_no_time() -> None:
    annotations = manifest_of(made())["annotations"]
    assert annotations == {
        "org.opencontainers.image.description": "Kubeflow 26.03 for the environment production,"
        " rendered by kfdeploy 0.1.0",
        "org.opencontainers.image.revision": f"sha256:{SUM}",
        "org.opencontainers.image.title": "production",
        "org.opencontainers.image.version": "26.03",
    }


@pytest.mark.parametrize(
    ("name", "upstream", "tag"),
    [
        ("production", "26.03", "production-26.03-ab12cd34ef56"),
        ("a b+c", "v1.10.2", "a-b-c-v1.10.2-ab12cd34ef56"),
        ("-x", "1", "_x-1-ab12cd34ef56"),
        ("n" * 200, "26.03", f"{'n' * 109}-26.03-ab12cd34ef56"),
    ],
)
def test_a_tag_is_what_registries_take(name: str, upstream: str, tag: str) -> None:
    assert artifact.content_tag(name, upstream, SUM) == tag
    assert len(tag) <= 128


def test_sets_lie_beside_the_images() -> None:
    assert str(artifact.repository_of("r.test:5000", "kf/x")) == "r.test:5000/kf/x/kfdeploy-sets"
    assert str(artifact.repository_of("r.test:5000", "")) == "r.test:5000/kfdeploy-sets"
