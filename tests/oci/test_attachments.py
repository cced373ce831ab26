"""What belongs to an image: its tags, and the index of referrers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.oci.attachments import (
    Attachment,
    build_fallback_index,
    cosign_tags,
    fallback_tag,
    normalize_artifact_type,
)
from kfdeploy.oci.manifest import Manifest
from kfdeploy.oci.reference import ImageRef

D = "sha256:" + "0123456789abcdef" * 4
E = "sha256:" + "f" * 64
COSIGN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "signatures" / "cosign.json").read_text()
)


def referrer(**more: Any) -> Manifest:
    return Manifest.parse(json.dumps({"schemaVersion": 2, "layers": [], **more}).encode())


@pytest.mark.parametrize(
    "one",
    [
        Attachment(D, "tag", f"sha256-{D[7:]}.sig", E),
        Attachment(D, "referrer", "application/x+json", E),
    ],
)
def test_what_is_written_is_read_the_same(one: Attachment) -> None:
    assert Attachment.parse(str(one)) == one


def test_a_tag_stays_with_it_and_a_referrer_has_none() -> None:
    repository = ImageRef.parse("gcr.io/a/b:v1")
    tagged, referring = Attachment(D, "tag", "x.sig", E), Attachment(D, "referrer", "a/b", E)
    assert (tagged.tag, referring.tag) == ("x.sig", "")
    assert str(tagged.ref_in(repository)) == f"gcr.io/a/b@{E}"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("application/vnd.dev.sigstore.bundle.v0.3+json", True),
        ("", False),
        (None, False),
        (7, False),
        ("sbom", False),
        ("a/b c", False),
        ("a/b\n- image: evil", False),
        ("application/json;version=1", False),
    ],
)
def test_only_media_types_are_written_down(text: object, kept: bool) -> None:
    assert normalize_artifact_type(text) == (text if kept else "unknown")


def test_tags_of_a_digest() -> None:
    assert cosign_tags(D) == tuple(f"sha256-{D[7:]}.{end}" for end in ("sig", "att", "sbom"))
    assert fallback_tag(D) == f"sha256-{D[7:]}"


def test_a_longer_digest_has_no_cosign_tags_and_a_shortened_fallback() -> None:
    long = "sha512:" + "a" * 128
    assert cosign_tags(long) == ()
    assert fallback_tag(long) == "sha512-" + "a" * 64


def test_the_tags_are_those_that_cosign_made() -> None:
    for case in COSIGN["images"].values():
        digest = Manifest.parse(case["image"].encode()).digest
        assert case["tag"] in {fallback_tag(digest), cosign_tags(digest)[0]}


def test_the_index_names_types_as_cosigns_does() -> None:
    for case in COSIGN["images"].values():
        if "index" in case:
            index = build_fallback_index(
                Manifest.parse(text.encode()) for text in case["manifests"]
            )
            (ours,) = index.content["manifests"]
            (theirs,) = json.loads(case["index"])["manifests"]
            assert {key: ours[key] for key in theirs} == theirs


def test_a_referrer_without_a_type_has_its_configs() -> None:
    index = build_fallback_index([referrer(config={"mediaType": "application/vnd.acme.x+json"})])
    (entry,) = index.content["manifests"]
    assert entry["artifactType"] == "application/vnd.acme.x+json"
    assert "annotations" not in entry


def test_what_is_in_the_index_already_stays_once() -> None:
    one, two, three = (referrer(annotations={"n": str(n)}) for n in range(3))
    before = build_fallback_index([one, two])
    after = build_fallback_index([three, two], before)
    digests = [entry["digest"] for entry in after.content["manifests"]]
    assert digests == [one.digest, *sorted([two.digest, three.digest])]
    assert build_fallback_index([two, three], before).body == after.body
