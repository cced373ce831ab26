"""What patches look up, by the environment and the lock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kfdeploy.errors import UserError
from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.images.sources_file import SourceImage
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.settings import PrivateRegistry
from kfdeploy.patch.values import build_image_values
from tests.support.refs import written

SHA = "sha256:" + "ab" * 32
REGISTRY = PrivateRegistry(host="reg.test:5000", prefix="kf")
MIRROR = MirrorNaming(REGISTRY)
AMD64 = MirrorNaming(REGISTRY, ("linux/amd64",))


def image(ref: str, *, covered: bool = True) -> SourceImage:
    return SourceImage(written(ref), "required", covered)


def locked(ref: str) -> LockedImage:
    found = written(ref)
    return LockedImage(found, replace(found.parsed, tag="", digest=SHA))


MYSQL = image("mysql:8.4")
TAG = ImageRef.parse("docker.io/library/mysql:8.4")
INDEX = ImageRef.parse(f"docker.io/library/mysql@{SHA}")


def test_a_locked_image_has_its_mirrors_reference_whole_and_in_parts() -> None:
    looks = build_image_values([MYSQL], Lock((locked("mysql:8.4"),)), MIRROR, unpinned=False)
    assert looks[MYSQL.ref].to_values() == {
        "ref": f"reg.test:5000/kf/docker.io/library/mysql:8.4@{SHA}",
        "byTag": "reg.test:5000/kf/docker.io/library/mysql:8.4",
        "repository": "reg.test:5000/kf/docker.io/library/mysql",
        "parent": "reg.test:5000/kf/docker.io/library",
        "tag": f"8.4@{SHA}",
        "plainTag": "8.4",
        "keys": ["docker.io/library/mysql:8.4", f"docker.io/library/mysql@{SHA}"],
    }
    assert looks[MYSQL.ref].source == INDEX


def test_all_that_is_not_locked_is_named() -> None:
    other = image("a/b:1")
    with pytest.raises(UserError) as caught:
        build_image_values([MYSQL, other], Lock(()), MIRROR, unpinned=False)
    messages = [error.message for error in caught.value.list_errors()]
    assert messages == ["mysql:8.4 is not locked", "a/b:1 is not locked"]


def test_an_environments_platforms_decide_the_digest_but_not_what_upstream_calls_it() -> None:
    reduced = "sha256:" + "cd" * 32
    lock = Lock((replace(locked("mysql:8.4"), reduced={"linux/amd64": reduced}),))
    look = build_image_values([MYSQL], lock, AMD64, unpinned=False)[MYSQL.ref]
    assert str(look.mirror) == f"reg.test:5000/kf/docker.io/library/mysql:8.4@{reduced}"
    assert look.aliases == (TAG, INDEX)
    assert look.source == INDEX


def test_what_is_not_locked_for_the_platforms_is_named_and_goes_by_tag_unpinned() -> None:
    lock = Lock((locked("mysql:8.4"),))
    with pytest.raises(UserError) as caught:
        build_image_values([MYSQL], lock, AMD64, unpinned=False)
    assert caught.value.message == "mysql:8.4 is not locked for linux/amd64"
    assert caught.value.hint == (
        "run `kfdeploy lock`; `kfdeploy render --unpinned` renders it by its tag"
    )
    look = build_image_values([MYSQL], lock, AMD64, unpinned=True)[MYSQL.ref]
    assert (str(look.mirror), look.mirror.digest) == (
        "reg.test:5000/kf/docker.io/library/mysql:8.4",
        "",
    )


def test_unpinned_goes_by_tag() -> None:
    look = build_image_values([MYSQL], Lock(()), MIRROR, unpinned=True)[MYSQL.ref]
    assert str(look.mirror) == "reg.test:5000/kf/docker.io/library/mysql:8.4"


def test_what_is_not_covered_needs_no_lock() -> None:
    left = image("a/b:1", covered=False)
    look = build_image_values([left], Lock(()), MIRROR, unpinned=False)[left.ref]
    assert (str(look.mirror), look.covered) == ("reg.test:5000/kf/docker.io/a/b:1", False)
    assert look.aliases == ()


def test_a_reference_by_digest_alone_has_no_tag() -> None:
    ref = f"ghcr.io/a@{SHA}"
    look = build_image_values([image(ref)], Lock(()), MIRROR, unpinned=False)[written(ref)]
    assert str(look.mirror) == str(look.by_tag) == f"reg.test:5000/kf/ghcr.io/a@{SHA}"
    assert look.aliases == (ImageRef.parse(f"ghcr.io/a@{SHA}"),)
