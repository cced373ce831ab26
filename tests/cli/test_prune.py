"""`kfdeploy mirror --prune`: what no kept release set needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.oci.reference import ImageRef
from tests.conftest import Runner, Site, edit_workspace
from tests.support.registries import Registry, serve_registry
from tests.support.standins import make_standin, push_standins


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Registry]:
    with serve_registry(tmp_path / "private") as registry:
        yield registry


@pytest.fixture
def site(small_site: Site, private: Registry, kfdeploy: Runner, tmp_path: Path) -> Path:
    """A mirrored site of three images, one of them in a release set only."""
    root = small_site.copy(tmp_path / "site")
    edit_workspace(root, {"registries.private": {"host": private.host, "prefix": "kf"}})
    shutil.rmtree(root / "releases")
    images = lockfile.read_lock(root / "images.lock").images
    some = [image for image in images if image.tag and image.platforms][:3]
    lockfile.write_lock(root / "images.lock", Lock(some))
    kfdeploy("mirror", "--quiet", cwd=root)
    lockfile.write_lock(root / "images.lock", Lock(some[:2]))
    (root / "releases" / "old").mkdir(parents=True)
    lockfile.write_lock(root / "releases" / "old" / "images.lock", Lock(some[1:]))
    return root


def there(registry: Registry, ref: str, tag: str) -> bool:
    return (
        registry.folder / "docker/registry/v2/repositories" / ref / "_manifests/tags" / tag
    ).is_dir()


def test_what_release_sets_need_stays(site: Path, kfdeploy: Runner) -> None:
    done = kfdeploy("mirror", "--prune", "--yes", "--quiet", cwd=site)
    assert done.stdout == "0 manifests no longer needed; 3 images kept in 3 repositories\n"


def test_what_nothing_needs_is_listed_and_deleted_when_that_is_said(
    site: Path, private: Registry, kfdeploy: Runner
) -> None:
    kept = lockfile.read_lock(site / "images.lock").images
    shutil.rmtree(site / "releases")
    push_standins(private.host, ["acme/left:v1"], path_of=lambda ref: f"kf/{ref.host}/{ref.path}")
    push_standins(private.host, ["acme/other:v1"], path_of=lambda ref: f"others/{ref.path}")
    push_standins(private.host, ["acme/tag:old"], path_of=lambda ref: f"kf/{kept[0].path}")
    listed = kfdeploy("mirror", "--prune", "--quiet", cwd=site)
    left = make_standin("acme/left:v1")
    assert f"{private.host}/kf/docker.io/acme/left@{left.digest} (v1)" in listed.stdout
    assert listed.stdout.endswith("nothing was deleted: run the same command with --yes\n")
    assert there(private, "kf/docker.io/acme/left", "v1")
    found = kfdeploy("mirror", "--prune", "--yes", "--output", "json", cwd=site).json
    assert found["deleted"] == found["obsolete"] != []
    gone = {
        (one["repository"].removeprefix(private.host), *one["tags"]) for one in found["deleted"]
    }
    assert ("/kf/docker.io/acme/left", "v1") in gone
    assert (f"/kf/{kept[0].path}", "old") in gone
    assert not any("others" in where for where, *_ in gone)
    # The manifests of platforms go with their index.
    digests = {one["digest"] for one in found["deleted"]}
    assert set(left.platforms.values()) < digests
    kfdeploy("mirror", "--check", "--quiet", cwd=site)
    assert kfdeploy("mirror", "--prune", "--output", "json", cwd=site).json["obsolete"] == []


def test_what_belongs_to_a_kept_image_stays(
    site: Path, private: Registry, kfdeploy: Runner
) -> None:
    (kept, *_) = lockfile.read_lock(site / "images.lock").images
    tag = f"{kept.digest.replace(':', '-')}.sig"
    lost = f"sha256-{'0' * 64}.sig"
    for name in (tag, lost):
        push_standins(
            private.host,
            [f"acme/signature-{name[7:12]}:{name}"],
            path_of=lambda _: f"kf/{kept.path}",
        )
    found = kfdeploy("mirror", "--prune", "--output", "json", cwd=site).json["obsolete"]
    assert [one["tags"] for one in found if one["tags"]] == [[lost]]


def test_without_a_prefix_only_repositories_that_locks_name_are_looked_at(
    site: Path, private: Registry, kfdeploy: Runner
) -> None:
    edit_workspace(site, {"registries.private.prefix": ""})
    push_standins(private.host, ["acme/left:v1"], path_of=lambda ref: f"{ref.host}/{ref.path}")
    done = kfdeploy("mirror", "--prune", "--yes", cwd=site)
    assert "note: registries.private.prefix is empty, so only repositories" in done.stderr
    assert there(private, "docker.io/acme/left", "v1")


def test_a_registry_that_keeps_what_it_has_is_told(
    site: Path, tmp_path: Path, kfdeploy: Runner
) -> None:
    fill_ref = ImageRef.parse("acme/left:v1")
    with serve_registry(tmp_path / "strict", deletes=False) as strict:
        edit_workspace(site, {"registries.private.host": strict.host})
        push_standins(strict.host, [str(fill_ref)], path_of=lambda ref: f"kf/{ref.host}/{ref.path}")
        done = kfdeploy("mirror", "--prune", "--yes", "--quiet", cwd=site, check=1)
    assert f": 405: {strict.host} does not allow manifests to be deleted" in done.stderr
    assert (
        "hint: allow it in the registry (the distribution registry: storage.delete" in done.stderr
    )
