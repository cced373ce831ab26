"""images.lock: what is written is read the same, and damage is named by file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from kfdeploy.errors import UserError
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.oci.attachments import Attachment
from kfdeploy.oci.reference import ImageRef
from tests.support.refs import written

D = "sha256:" + "0123456789abcdef" * 4
E = "sha256:" + "f" * 64


def locked(found: str, digest: str = D, **more: object) -> LockedImage:
    ref = ImageRef.parse(found)
    image = ImageRef(ref.host, ref.path, "", digest)
    return LockedImage(written(found), image, **more)  # type: ignore[arg-type]


SIGNED = (
    Attachment(D, "referrer", "application/vnd.dev.sigstore.bundle.v0.3+json", E),
    Attachment(D, "referrer", "unknown", D),
    Attachment(D, "tag", f"sha256-{D[7:]}.sig", E),
)
LOCK = Lock(
    [
        locked("redis:6", platforms={"linux/arm64": E, "linux/amd64": D}, size=123),
        locked("docker.io/library/redis:6", platforms={"windows(10.0.1.2)/amd64": E}),
        locked("nginx"),
        locked(f"gcr.io/a/b@{D}"),
        locked(f"gcr.io/a/b:v1@{D}"),
        locked("localhost:5000/x:1.10", reduced={"linux/amd64,linux/arm64": E}),
        locked("x:0x1f"),
        locked("signed:1", attached=SIGNED),
        locked("unsigned:1", attached=()),
    ]
)

TEXT = f"""\
apiVersion: imgpkg.carvel.dev/v1alpha1
kind: ImagesLock
images:
- image: docker.io/library/nginx@{D}
  annotations:
    kbld.carvel.dev/id: "nginx"
    kfdeploy.io/path: docker.io/library/nginx
    kfdeploy.io/tag: "latest"
- image: docker.io/library/redis@{D}
  annotations:
    kbld.carvel.dev/id: "redis:6"
    kfdeploy.io/path: docker.io/library/redis
    kfdeploy.io/platforms: |-
      linux/amd64 {D}
      linux/arm64 {E}
    kfdeploy.io/size: "123"
    kfdeploy.io/tag: "6"
"""


def test_the_file_is_these_bytes() -> None:
    assert (
        lockfile.dumps(Lock([LOCK.by_id[written("redis:6")], LOCK.by_id[written("nginx")]])) == TEXT
    )


def test_what_is_written_is_read_the_same(tmp_path: Path) -> None:
    file = tmp_path / "images.lock"
    assert lockfile.write_lock(file, LOCK)
    assert lockfile.read_lock(file) == LOCK
    assert not lockfile.write_lock(file, lockfile.read_lock(file))


def test_both_readers_agree() -> None:
    text = lockfile.dumps(LOCK)
    assert lockfile._read_own_layout(text) == LOCK
    assert lockfile._read_yaml(text, "images.lock") == LOCK
    assert lockfile.loads("# edited\n" + text) == LOCK


def test_an_empty_lock_is_read_back() -> None:
    assert lockfile.loads(lockfile.dumps(Lock([]))) == Lock([])


def test_it_is_an_images_lock_with_string_annotations_to_any_yaml_reader() -> None:
    for version in ((1, 1), (1, 2)):
        yaml = YAML(typ="safe", pure=True)
        yaml.version = version
        content = yaml.load(lockfile.dumps(LOCK))
        assert content["apiVersion"] == "imgpkg.carvel.dev/v1alpha1"
        assert content["kind"] == "ImagesLock"
        for entry in content["images"]:
            assert set(entry) == {"image", "annotations"}
            assert "@sha256:" in entry["image"]
            assert all(isinstance(value, str) for value in entry["annotations"].values())


def test_what_belongs_to_an_image_is_a_line_each() -> None:
    assert f"""\
    kbld.carvel.dev/id: "signed:1"
    kfdeploy.io/attached: |-
      {D} referrer application/vnd.dev.sigstore.bundle.v0.3+json {E}
      {D} referrer unknown {D}
      {D} tag sha256-{D[7:]}.sig {E}
    kfdeploy.io/path: docker.io/library/signed
""" in lockfile.dumps(LOCK)


def test_nothing_found_is_not_the_same_as_not_looked_for() -> None:
    again = lockfile.loads(lockfile.dumps(LOCK))
    assert again.by_id[written("unsigned:1")].attached == ()
    assert again.by_id[written("nginx")].attached is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nothing",
        f"{D} tag a.sig",
        f"{D} tag a/b {E}",
        f"{D} referrer sbom {E}",
        f"{D} blob a {E}",
        f"{D[:-1]} tag a.sig {E}",
    ],
)
def test_damage_in_what_belongs_to_an_image_is_named(line: str) -> None:
    text = TEXT.replace(
        '    kbld.carvel.dev/id: "nginx"\n',
        f'    kbld.carvel.dev/id: "nginx"\n    kfdeploy.io/attached: "{line}"\n',
    )
    with pytest.raises(UserError) as raised:
        lockfile.loads(text, "L")
    assert raised.value.message == (
        f"L:7: images[0].annotations.kfdeploy.io/attached: {line!r} is not SUBJECT tag|referrer"
        " NAME DIGEST"
    )


def test_the_order_in_which_images_come_does_not_show() -> None:
    assert lockfile.dumps(Lock(LOCK.images)) == lockfile.dumps(Lock(list(LOCK.images)[::-1]))


def test_several_ids_may_have_one_digest() -> None:
    assert (
        LOCK.by_id[written("redis:6")].image
        == LOCK.by_id[written("docker.io/library/redis:6")].image
    )


def test_no_tag_is_latest_and_a_digest_alone_has_none() -> None:
    assert LOCK.by_id[written("nginx")].tag == "latest"
    assert LOCK.by_id[written(f"gcr.io/a/b@{D}")].tag == ""
    assert LOCK.by_id[written(f"gcr.io/a/b:v1@{D}")].tag == "v1"


def test_a_lock_without_our_annotations_is_read() -> None:
    plain = TEXT.replace("    kfdeploy.io/path: docker.io/library/nginx\n", "")
    plain = plain.replace('    kfdeploy.io/tag: "latest"\n', "")
    assert lockfile.loads(plain).by_id[written("nginx")] == LOCK.by_id[written("nginx")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: ImagesLock", "kind: ImageLock", "L:2: kind: 'ImageLock' is not 'ImagesLock'"),
        ("apiVersion: imgpkg.carvel.dev/v1alpha1\n", "", "L:1: apiVersion: None is not"),
        (f"nginx@{D}", "nginx", "L:4: images[0].image: 'docker.io/library/nginx' must be"),
        (f"nginx@{D}", f"nginx:1@{D}", "L:4: images[0].image: "),
        (f"redis@{D}", f"redis@{D[:-1]}", "L:9: images[1].image: "),
        ('"redis:6"', '"Redis:6"', "L:11: images[1].annotations.kbld.carvel.dev/id: "),
        ('"redis:6"', "6", "L:11: images[1].annotations.kbld.carvel.dev/id: 6 is no string"),
        (
            '    kbld.carvel.dev/id: "redis:6"\n',
            "",
            "L:10: images[1].annotations.kbld.carvel.dev/id: missing: the reference as found",
        ),
        (
            "path: docker.io/library/redis",
            "path: docker.io/redis",
            (
                "L:12: images[1].annotations.kfdeploy.io/path: 'docker.io/redis' does not belong to"
                " redis:6: 'docker.io/library/redis' does"
            ),
        ),
        ('tag: "6"', 'tag: "7"', "L:17: images[1].annotations.kfdeploy.io/tag: '7' does not"),
        ('"123"', '"12 MB"', "L:16: images[1].annotations.kfdeploy.io/size: '12 MB' is no number"),
        ('"123"', "123", "L:16: images[1].annotations.kfdeploy.io/size: 123 is no string: put it"),
        (f"arm64 {E}", "arm64", "L:13: images[1].annotations.kfdeploy.io/platforms: 'linux/arm64'"),
        ('"redis:6"', '"nginx"', "L:12: images[1].annotations.kfdeploy.io/path"),
        ("images:\n- image", "images:\n image", "broken YAML"),
        ('  annotations:\n    kbld.carvel.dev/id: "nginx"', "  note: 1", "L:"),
    ],
)
def test_damage_is_named_by_file_line_and_key(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(UserError) as raised:
        lockfile.loads(TEXT.replace(old, new, 1), "L")
    assert raised.value.message.startswith(message) or message == "broken YAML"
    assert raised.value.message.startswith("L:")


def test_an_id_that_is_there_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r"^L:18: images\[2\]: nginx is there already, in line 4$"):
        lockfile.loads(
            TEXT + TEXT.partition("images:\n")[2].partition("- image: docker.io/library/redis")[0],
            "L",
        )


def test_all_damage_is_reported_at_once() -> None:
    with pytest.raises(UserError) as raised:
        lockfile.loads(TEXT.replace('"123"', '"a"').replace('tag: "latest"', 'tag: "x"'), "L")
    assert len(raised.value.list_errors()) == 2


@pytest.mark.parametrize("text", ["", "[]", "a", "kind: [", "\t"])
def test_what_is_no_lock_at_all_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match=r"^L"):
        lockfile.loads(text, "L")
