"""The made set: what is said of it, seen through a real registry."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.support.madeset import (
    FULL,
    QUICK,
    MadeSet,
    Shape,
    make,
    make_single,
    unique,
    unique_manifests,
)
from tests.support.registries import serve_registry
from tests.support.standins import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

SHAPE = Shape(images=12, size=600_000)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeSet:
    return make(tmp_path_factory.mktemp("made") / "set", SHAPE)


def test_all_blobs_are_what_their_digests_say(made: MadeSet) -> None:
    images = (*made.images, *made.changed)
    for digest, size in (unique(images) | unique_manifests(images)).items():
        data = made.blob(digest).read_bytes()
        assert (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)) == (digest, size)
    assert abs(sum(unique(made.images).values()) / SHAPE.size - 1) < 0.4  # tar's own, when so small


def test_it_is_the_same_again(made: MadeSet, tmp_path: Path) -> None:
    assert make(tmp_path / "again", SHAPE).images == made.images


def test_families_share_their_bases_and_images_differ(made: MadeSet) -> None:
    assert len({image.ref for image in made.images}) == SHAPE.images
    assert len({image.ref.rpartition("/")[2] for image in made.images}) == SHAPE.images
    assert len({image.digest for image in made.images}) == SHAPE.images
    used = Counter(digest for image in made.images for digest in image.blobs)
    assert sum(number > 1 for number in used.values()) > 20
    assert all(len(image.manifests) == 3 for image in made.images)
    kinds = {kind for image in made.images for kind, _ in image.manifests.values()}
    assert kinds == {OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST}


def test_a_change_is_of_an_images_own_layers(made: MadeSet) -> None:
    first, second = made.changed[:2]
    (before,) = [i for i in made.images if i.ref.split(":")[0] == first.ref.split(":")[0]]
    shared = set(before.blobs) & set(first.blobs) & set(second.blobs)
    assert len(shared) >= 6
    assert set(first.blobs) - set(before.blobs) - set(second.blobs)
    assert sum(first.blobs.values()) > 0


def test_a_registry_serves_what_was_stored(made: MadeSet, tmp_path: Path) -> None:
    if shutil.which("crane") is None:
        pytest.skip("no crane on PATH")
    made.store(tmp_path / "copy", made.images[:2], lambda ref: f"kf/{ref.path}")
    with serve_registry(made.registry) as served, serve_registry(tmp_path / "copy") as copy:
        for host, refs in (
            (served.host, [i.ref for i in (*made.images, made.changed[0])]),
            (copy.host, [f"kf/{i.ref.partition('/')[2]}" for i in made.images[:2]]),
        ):
            for ref in refs:
                argv = ["crane", "validate", "--remote", f"{host}/{ref}"]
                subprocess.run(argv, check=True, capture_output=True)


def test_one_large_blob(tmp_path: Path) -> None:
    made = make_single(tmp_path / "single", 9_000_000)
    (image,) = made.images
    assert len(image.blobs) == 2
    assert 9_000_000 < max(image.blobs.values()) < 9_010_000


def test_the_benchmarks_set_has_kubeflows_shape() -> None:
    assert (FULL.images, FULL.size, QUICK.images) == (120, 2_000_000_000, 120)
