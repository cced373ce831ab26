"""Registries that are down, refuse, or are none; images that are gone, or that collide."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Runner, Served, Site, edit_workspace, tree
from tests.support.answers import Reply, answering
from tests.support.registries import PASSWORD, USER, docker_config, free_port, serve_registry
from tests.support.standins import push_standins


@pytest.fixture
def root(small_site: Site, tmp_path: Path) -> Path:
    return small_site.copy(tmp_path / "site")


def test_a_private_registry_that_is_down_is_one_error(root: Path, kfdeploy: Runner) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    edit_workspace(root, {"registries.private.host": nobody})
    for command in ("mirror", "--dry-run"), ("mirror",):
        said = kfdeploy(*command, cwd=root, check=1).stderr
        assert said == (
            f"error: {nobody}: connection refused\n"
            "  hint: check that the registry is running, and its port\n"
        )


def test_a_private_registry_that_refuses_says_how_to_sign_in(
    root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    with serve_registry(tmp_path / "closed", auth="basic") as closed:
        edit_workspace(root, {"registries.private.host": closed.host})
        said = kfdeploy("mirror", "--quiet", cwd=root, check=1).stderr
        assert len(said.splitlines()) == 5, said
        assert said.count(f"`docker login {closed.host}`") == 1, said
        config = docker_config(tmp_path / "docker", closed)
        signed_in = {"DOCKER_CONFIG": str(config)}
        kfdeploy("mirror", "--quiet", cwd=root, env=signed_in)
        kfdeploy("render", "--quiet", cwd=root)
        done = kfdeploy("verify", "--quiet", cwd=root, env=signed_in)
        assert PASSWORD not in done.stdout + done.stderr
        said = kfdeploy("verify", "--quiet", cwd=root, check=1).stderr
        assert f"docker login {closed.host}" in said, said
    assert USER.encode() not in b"".join(tree(root / "releases").values())


def test_a_web_page_instead_of_a_registry_is_said_to_be_none(root: Path, kfdeploy: Runner) -> None:
    page = Reply(200, b"<html>Welcome</html>", {"Content-Type": "text/html"})
    with answering(lambda method, path, number: page) as web:
        edit_workspace(root, {"registries.private.host": web.host})
        said = kfdeploy("mirror", "--quiet", cwd=root, check=1).stderr
        lines = said.splitlines()
        assert len(lines) == 5, said
        first = f"error: {web.host}: not a registry: "
        assert all(line.startswith(first) for line in lines[:3]), said
        assert lines[3].startswith("  and ")
        assert lines[4] == (
            f"  hint: check the host name; a sign-in page or a proxy may answer for {web.host}"
        )


def test_two_images_on_one_target_are_an_error_that_names_both(
    root: Path, kfdeploy: Runner, registries: Served
) -> None:
    extra = ["first.example.com/same/app:v1", "second.example.com/same/app:v1"]
    push_standins(registries.public, extra)
    edit_workspace(root, {"images.extra": extra, "registries.private.naming": {"keepHost": False}})
    kfdeploy("lock", "--quiet", cwd=root)
    for command in ("mirror", "render"):
        said = kfdeploy(command, "--quiet", cwd=root, check=1).stderr
        assert f"error: {extra[0]} and {extra[1]} are different images and would both be" in said
        assert "hint: change registries.private.naming (keepHost, maxDepth)" in said


def test_an_image_gone_from_its_source_is_named_with_its_places_and_the_rest_is_locked(
    root: Path, small_site: Site, kfdeploy: Runner
) -> None:
    before = (root / "images.lock").read_text()
    gone = "docker.io/lost/substitute:v1"
    edit_workspace(root, {"images.substitutes": {**small_site.substitutes, "mysql:8.4": gone}})
    done = kfdeploy("lock", cwd=root, check=1)
    said = done.stderr
    assert f"error: mysql:8.4: its substitute {gone}: not found: " in said, said
    assert "\n  used: " in said
    assert "(applications/pipeline/upstream/third-party/mysql/mysql.yaml:" in said, said
    assert (
        "  hint: gone from its source: change images.substitutes['mysql:8.4'] in kfdeploy.yaml"
        in said
    ), said
    assert done.stdout.endswith(" locked, 1 not\n")
    locked = (root / "images.lock").read_text()
    assert locked.count("kbld.carvel.dev/id") == before.count("kbld.carvel.dev/id") - 1
    assert "mysql" not in locked
    report = kfdeploy("lock", "--output", "json", cwd=root, check=1).json
    assert [failure["ref"] for failure in report["failures"]] == ["mysql:8.4"]


def test_a_source_that_is_down_leaves_what_was_locked(root: Path, kfdeploy: Runner) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    before = (root / "images.lock").read_bytes()
    edit_workspace(root, {"registries.sources": {"*": nobody}})
    done = kfdeploy("lock", "--quiet", cwd=root, check=1)
    assert f"{nobody}: connection refused" in done.stderr
    assert (root / "images.lock").read_bytes() == before
    assert "  stays locked as before: sha256:" in done.stderr
    assert "as before)" in done.stdout


def test_lock_offline_keeps_what_is_known_and_asks_nobody(root: Path, kfdeploy: Runner) -> None:
    before = tree(root)
    edit_workspace(root, {"registries.sources": {"*": f"127.0.0.1:{free_port()}"}})
    kfdeploy("lock", "--offline", "--quiet", cwd=root)
    assert {k: v for k, v in tree(root).items() if k != "kfdeploy.yaml"} == {
        k: v for k, v in before.items() if k != "kfdeploy.yaml"
    }
