"""Environments that name platforms: from `lock` to the release set and the node's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kfdeploy.images import lockfile
from kfdeploy.oci.reference import ImageRef
from tests.conftest import Runner, Site, edit_workspace, tree
from tests.support.refs import written
from tests.support.registries import free_port

AMD64 = ("linux/amd64",)


@pytest.fixture
def root(small_site: Site, tmp_path: Path) -> Path:
    """The small site with an environment of one platform, which it is not locked for; no source
    can be asked."""
    folder = small_site.copy(tmp_path / "site")
    edit_workspace(
        folder,
        {
            "environments": {"default": {}, "edge": {"platforms": list(AMD64)}},
            "registries.sources": {"*": f"127.0.0.1:{free_port()}"},
        },
    )
    return folder


def digests(folder: Path) -> dict[str, str]:
    """Of each image of a release set, what its manifests say."""
    summary = json.loads((folder / "summary.json").read_text())
    return {ref: ImageRef.parse(i["mirror"]).digest for ref, i in summary["images"].items()}


def test_render_names_what_is_not_locked_for_the_platforms(root: Path, kfdeploy: Runner) -> None:
    said = kfdeploy("render", "--env", "edge", "--quiet", cwd=root, check=1).stderr
    assert "error: mysql:8.4 is not locked for linux/amd64\n" in said
    assert (
        "  hint: run `kfdeploy lock`; `kfdeploy render --unpinned` renders it by its tag\n" in said
    )
    lock = lockfile.read_lock(root / "images.lock")
    lacking = sum(not image.digest_for(AMD64) for image in lock)
    assert said.count(" is not locked for linux/amd64\n") == lacking > 20
    kfdeploy("render", "--quiet", cwd=root)
    report = kfdeploy("render", "--env", "edge", "--unpinned", "--output", "json", cwd=root).json
    assert len(report["unpinned"]) == lacking


def test_lock_takes_the_indexes_from_the_cache_and_the_set_has_the_reduced_ones(
    root: Path, small_site: Site, kfdeploy: Runner
) -> None:
    before = lockfile.read_lock(root / "images.lock").by_id
    kfdeploy("lock", "--offline", cwd=root)
    lock = lockfile.read_lock(root / "images.lock").by_id
    assert {ref: image.digest for ref, image in lock.items()} == {
        ref: image.digest for ref, image in before.items()
    }
    kfdeploy("render", cwd=root)
    kfdeploy("render", "--env", "edge", cwd=root)
    edge = digests(root / "releases/edge")
    assert {ref: edge[ref.text] for ref in lock} == {
        ref: image.digest_for(AMD64) for ref, image in lock.items()
    }
    assert digests(root / "releases/default") == digests(small_site.set)
    texts = b"".join(
        text for name, text in tree(root / "releases/edge").items() if name.startswith("charts/")
    )
    indexes = {i.digest for i in lock.values() if i.digest != i.digest_for(AMD64)}
    assert indexes
    assert not [digest for digest in indexes if digest.encode() in texts]
    summary = json.loads((root / "releases/edge/summary.json").read_text())
    assert summary["platforms"] == ["linux/amd64"]
    kfdeploy("verify", "edge", "--offline", cwd=root)


def test_verify_refuses_a_set_rendered_for_other_platforms(root: Path, kfdeploy: Runner) -> None:
    kfdeploy("lock", "--offline", "--quiet", cwd=root)
    kfdeploy("render", "--env", "edge", "--quiet", cwd=root)
    edit_workspace(root, {"environments.edge.platforms": ["linux/arm64", "linux/amd64"]})
    said = kfdeploy("verify", "edge", "--offline", cwd=root, check=3).stderr
    assert said == (
        "error: the set was rendered for linux/amd64, but kfdeploy.yaml says linux/amd64,"
        " linux/arm64\n"
        "  hint: run `kfdeploy lock`, `kfdeploy mirror` and `kfdeploy render`\n"
    )
    edit_workspace(root, {"environments.edge.platforms": None})
    said = kfdeploy("verify", "edge", "--offline", cwd=root, check=3).stderr
    assert said.startswith(
        "error: the set was rendered for linux/amd64, but kfdeploy.yaml says all"
    )


def test_an_image_without_the_platform_is_an_error_and_stays_for_the_others(
    root: Path, kfdeploy: Runner
) -> None:
    edit_workspace(root, {"environments.edge.platforms": ["linux/riscv64"]})
    done = kfdeploy("lock", "--offline", "--quiet", cwd=root, check=1)
    count = len(lockfile.read_lock(root / "images.lock"))
    assert done.stdout == (
        f"images.lock: {count} images locked, 0 not, {count} not for every environment\n"
    )
    assert "error: mysql:8.4: the environment edge wants linux/riscv64, and the image has" in (
        done.stderr
    )
    assert "\n  used: " in done.stderr
    assert "or change environments.edge.platforms\n" in done.stderr
    kfdeploy("render", "--quiet", cwd=root)


def test_admission_knows_upstreams_digests_and_leads_to_the_reduced_ones(
    root: Path, kfdeploy: Runner
) -> None:
    edit_workspace(root, {"features.admission": {"enabled": True}})
    kfdeploy("lock", "--offline", "--quiet", cwd=root)
    kfdeploy("patch", "--quiet", cwd=root)
    kfdeploy("render", "--env", "edge", "--quiet", cwd=root)
    kfdeploy("verify", "edge", "--offline", "--quiet", cwd=root)
    text = (
        root / "releases/edge/charts/kfdeploy-admission/charts/objects/objects.yaml"
    ).read_text()
    image = lockfile.read_lock(root / "images.lock").by_id[written("mysql:8.4")]
    own, edge = image.digest, image.digest_for(AMD64)
    path = "docker.io/library/mysql"
    assert f'"{path}@{own}": "{path}:8.4@{edge}"' in text
    assert f'"{path}:8.4": "{path}:8.4@{edge}"' in text


def test_export_says_what_is_not_locked_for_the_platforms(root: Path, kfdeploy: Runner) -> None:
    done = kfdeploy("export", "registries-yaml", "--env", "edge", cwd=root)
    assert "note: mysql:8.4 is left out: it is not locked for linux/amd64\n" in done.stderr
    kfdeploy("lock", "--offline", "--quiet", cwd=root)
    done = kfdeploy("export", "registries-yaml", "--env", "edge", cwd=root)
    assert "is not locked" not in done.stderr
