"""`kfdeploy publish`: the release set as an OCI artifact in the private registry."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, Site, edit_workspace, need_programs, tree
from tests.support import engines
from tests.support.registries import Registry, docker_config, serve_registry


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Registry]:
    with serve_registry(tmp_path / "private") as registry:
        yield registry


@pytest.fixture
def root(small_site: Site, private: Registry, kfdeploy: Runner, tmp_path: Path) -> Path:
    return site_for(small_site, private.host, kfdeploy, tmp_path / "site")


def site_for(site: Site, host: str, kfdeploy: Runner, folder: Path) -> Path:
    """A copy whose set is rendered for another registry."""
    root = site.copy(folder)
    edit_workspace(root, {"registries.private.host": host, "registries.private.prefix": "kf"})
    kfdeploy("render", "-q", cwd=root)
    return root


def test_what_is_not_there_is_pushed_once(root: Path, private: Registry, kfdeploy: Runner) -> None:
    checked = kfdeploy("publish", "--check", cwd=root, check=3)
    first, again = kfdeploy("publish", cwd=root), kfdeploy("publish", cwd=root)
    ref, tag = first.stdout.splitlines()
    name, digest = ref.split("@")
    assert name.startswith(f"{private.host}/kf/kfdeploy-sets:default-1.0.0-")
    assert tag == f"  {name.rpartition(':')[2]}: pushed"
    assert first.stderr.startswith("pushing ") and again.stderr == ""
    assert again.stdout.splitlines() == [ref, tag.replace("pushed", "there already")]
    assert checked.stdout.splitlines() == [ref, tag.replace("pushed", "to be pushed")]
    found = kfdeploy("publish", "default", "--check", "--output", "json", cwd=root).json
    assert (found["changed"], found["digest"]) == (False, digest)
    assert found["tags"] == {name.rpartition(":")[2]: "present"}


def test_oras_and_flux_pull_the_set_as_it_is(
    root: Path, private: Registry, kfdeploy: Runner, tmp_path: Path
) -> None:
    need_programs("oras")
    kfdeploy("publish", "--tag", "production", cwd=root)
    ref = f"{private.host}/kf/kfdeploy-sets:production"
    set_ = tree(root / "releases" / "default")
    by_oras = tmp_path / "oras"
    by_oras.mkdir()
    subprocess.run(
        ["oras", "pull", "--plain-http", ref], cwd=by_oras, check=True, capture_output=True
    )
    assert tree(by_oras) == set_
    # It is the set: kfdeploy's own check takes it.
    shutil.copytree(by_oras, root / "releases" / "pulled")
    kfdeploy("verify", "pulled", "--offline", cwd=root)
    by_flux = tmp_path / "flux"
    by_flux.mkdir()
    engines.run(engines.flux(), "pull", ref, by_flux)
    assert tree(by_flux) == set_


def test_a_tag_moves_and_the_sets_own_stays(
    root: Path, private: Registry, kfdeploy: Runner
) -> None:
    first = kfdeploy("publish", "--tag", "production", "--output", "json", cwd=root).json
    edit_workspace(root, {"environments.default.imagePullPolicy": "Always"})
    kfdeploy("patch", "-q", cwd=root)
    kfdeploy("render", "-q", cwd=root)
    done = kfdeploy("publish", "--tag", "production", cwd=root)
    assert "  production: moved" in done.stdout.splitlines()
    second = kfdeploy("publish", "--tag", "production", "--output", "json", cwd=root).json
    assert set(second["tags"].values()) == {"present"}
    assert second["digest"] != first["digest"]
    edit_workspace(root, {"environments.default.imagePullPolicy": None})
    kfdeploy("patch", "-q", cwd=root)
    kfdeploy("render", "-q", cwd=root)
    edit_workspace(root, {"registries.private.immutableTags": True})
    said = kfdeploy("publish", "--tag", "production", cwd=root, check=1)
    (own,) = set(first["tags"]) - {"production"}
    assert said.stderr == (
        f"error: {private.host}/kf/kfdeploy-sets:production is {second['digest']}, and"
        " registries.private.immutableTags says that tags do not move\n"
        f"  hint: leave --tag production out: {own} is this set's own\n"
    )
    assert kfdeploy("publish", "--check", "--output", "json", cwd=root).json["tags"] == {
        own: "present"
    }


def test_a_set_that_was_changed_is_not_published(root: Path, kfdeploy: Runner) -> None:
    set_ = root / "releases" / "default"
    (set_ / "helmfile.yaml").write_text("releases: []\n")
    (set_ / "more.yaml").write_text("")
    said = kfdeploy("publish", cwd=root, check=3)
    assert said.stderr == (
        "error: default: helmfile.yaml was changed, and 1 more\n"
        "  hint: run `kfdeploy render`: a set that was changed by hand is not published\n"
    )


def test_a_tag_that_is_none_is_wrong_use(root: Path, kfdeploy: Runner) -> None:
    said = kfdeploy("publish", "--tag", "a/b", cwd=root, check=2)
    assert said.stderr == (
        "error: --tag a/b: a tag is up to 128 letters, digits, '_', '.' and '-'\n"
    )


def test_it_signs_in_as_mirror_does(small_site: Site, kfdeploy: Runner, tmp_path: Path) -> None:
    with serve_registry(tmp_path / "private", tls=True, auth="basic") as private:
        root = site_for(small_site, private.host, kfdeploy, tmp_path / "site")
        assert private.ca is not None
        (root / "ca.pem").write_bytes(private.ca.read_bytes())
        edit_workspace(root, {"registries.private.ca": "ca.pem"})
        kfdeploy("publish", cwd=root, check=1)
        env = {"DOCKER_CONFIG": str(docker_config(tmp_path / "docker", private))}
        assert ": pushed\n" in kfdeploy("publish", cwd=root, env=env).stdout


def test_prune_leaves_what_was_published(root: Path, private: Registry, kfdeploy: Runner) -> None:
    kfdeploy("publish", cwd=root)
    done = kfdeploy("mirror", "--prune", "--output", "json", cwd=root)
    assert done.json["obsolete"] == []
