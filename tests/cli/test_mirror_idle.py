"""`kfdeploy mirror` with nothing to do: answered from a note, and the registry's answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kfdeploy.cli import mirror_fast_path
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from tests.conftest import Runner, Site, edit_workspace
from tests.support.answers import Reply
from tests.support.gate import gate
from tests.support.registries import Registry, docker_config, serve_registry
from tests.support.standins import push_standins

PREFIX = "kf"


def few_images(small_site: Site, private: Registry, folder: Path) -> Path:
    root = small_site.copy(folder)
    settings = {"host": private.host, "prefix": PREFIX}
    if private.ca is not None:
        settings["ca"] = str(private.ca)
    edit_workspace(root, {"registries.private": settings})
    images = [image for image in lockfile.read_lock(root / "images.lock") if image.tag][:4]
    lockfile.write_lock(root / "images.lock", Lock(images))
    return root


def is_noted(root: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> bool:
    monkeypatch.chdir(root)
    return mirror_fast_path.find_cached_output(["mirror", *options]) is not None


@pytest.mark.parametrize("tls", [False, True], ids=["http", "tls"])
def test_the_next_run_says_the_same_from_the_note(
    tls: bool,
    small_site: Site,
    kfdeploy: Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serve_registry(tmp_path / "private", tls=tls) as private:
        root = few_images(small_site, private, tmp_path / "site")
        assert not is_noted(root, monkeypatch)
        kfdeploy("mirror", "--quiet", cwd=root)
        assert is_noted(root, monkeypatch)
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:1")  # no note is used then
        usual = [
            kfdeploy("mirror", *words, cwd=root, env={"HTTPS_PROXY": "http://proxy.invalid:1"})
            for words in ((), ("--output", "json"))
        ]
        monkeypatch.delenv("HTTPS_PROXY")
        for words, before in (((), usual[0]), (("--output=json", "--jobs", "2"), usual[1])):
            assert mirror_fast_path.find_cached_output(["mirror", *words]) == before.stdout
    # Nobody answers any more: that is for the usual way to say.
    assert not is_noted(root, monkeypatch)


def test_what_is_gone_or_another_is_seen(
    small_site: Site, kfdeploy: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_registry(tmp_path / "private") as private:
        root = few_images(small_site, private, tmp_path / "site")
        kfdeploy("mirror", "--quiet", cwd=root)
        image = lockfile.read_lock(root / "images.lock").images[0]
        ref = f"acme/other:{image.tag}"
        push_standins(private.host, [ref], path_of=lambda _: f"{PREFIX}/{image.path}")
        assert not is_noted(root, monkeypatch)
        done = kfdeploy("mirror", "--output", "json", cwd=root).json
        assert [item["state"] for item in done["copied"]] == ["replace"]
        assert is_noted(root, monkeypatch)
        lines = (root / "kfdeploy.yaml").read_text()
        (root / "kfdeploy.yaml").write_text(f"{lines}\n# another comment\n")
        assert not is_noted(root, monkeypatch)


@pytest.mark.parametrize("status", [401, 429, 500])
def test_an_answer_that_is_no_digest_is_left_to_the_usual_way(
    status: int,
    small_site: Site,
    kfdeploy: Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strict: list[int] = []

    def rule(method: str, path: str) -> Reply | None:
        return Reply(strict[0]) if strict else None

    with (
        serve_registry(tmp_path / "private") as private,
        gate(private.host, rule) as host,
    ):
        root = few_images(small_site, private, tmp_path / "site")
        edit_workspace(root, {"registries.private.host": host})
        kfdeploy("mirror", "--quiet", cwd=root)
        assert is_noted(root, monkeypatch)
        strict.append(status)
        assert not is_noted(root, monkeypatch)


def test_a_registry_with_sign_ins_is_asked_the_usual_way(
    small_site: Site, kfdeploy: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_registry(tmp_path / "private", auth="basic") as private:
        root = few_images(small_site, private, tmp_path / "site")
        config = docker_config(tmp_path / "docker", private)
        edit_workspace(root, {"registries.private.credentials": {"dockerConfig": str(config)}})
        kfdeploy("mirror", "--quiet", cwd=root)
        assert not is_noted(root, monkeypatch)
        assert "present" in kfdeploy("mirror", "--quiet", cwd=root).stdout


@pytest.mark.parametrize(
    "words",
    [
        ("scan",),
        (),
        ("mirror", "--dry-run"),
        ("mirror", "--check"),
        ("mirror", "--output", "yaml"),
        ("mirror", "--jobs", "0"),
        ("mirror", "--env"),
        ("mirror", "-C=."),
        ("mirror", "--to-bundle", "x"),
        ("mirror", "--env", "other"),
    ],
    ids=" ".join,
)
def test_any_other_command_line_is_left_to_the_usual_way(words: tuple[str, ...]) -> None:
    assert mirror_fast_path.find_cached_output(words) is None


def test_little_is_imported_for_it() -> None:
    code = "import sys; import kfdeploy.cli.mirror_fast_path; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ("typer", "pydantic", "ruamel", "http.client", "ssl", "rich"):
        assert f"'{name}'" not in done.stdout
