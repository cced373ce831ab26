"""`kfdeploy mirror` with little to do: begun from a note, and the same as it always is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.cli import mirror_fast_path
from kfdeploy.codec import pack, unpack
from kfdeploy.files import exclusive_lock
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.settings import MirrorSettings
from tests.conftest import Done, Runner, Site, edit_workspace
from tests.support.answers import Reply
from tests.support.gate import gate
from tests.support.refs import written
from tests.support.registries import Registry, docker_config, serve_registry
from tests.support.standins import push_standins
from tests.support.workspaces import mirror_settings

USUAL = {"HTTPS_PROXY": "http://proxy.invalid:1"}
"""With a proxy, which is not asked for what is on loopback, no note is used."""
NO_BLOBS = "manifests/sha256:"


@dataclass(frozen=True)
class Both:
    """Two workspaces of the same images, each with a registry of its own."""

    kfdeploy: Runner
    sites: tuple[tuple[Path, Registry], tuple[Path, Registry]]

    def each(self, change: Callable[[Path], object]) -> None:
        for root, _ in self.sites:
            change(root)

    def mirror(self, *options: str, check: int = 0) -> Done:
        """From a note and as always: what is printed and the exit code are the same."""
        done = []
        for (root, private), env in zip(self.sites, ({}, USUAL), strict=True):
            env = {**env, "PYTHONPROFILEIMPORTTIME": "1"}
            run = self.kfdeploy("mirror", *options, cwd=root, env=env, check=check)
            assert is_read(run, "typer") == is_read(run, "pydantic") == bool(env.get("HTTPS_PROXY"))
            done.append([text.replace(private.host, "PRIVATE") for text in (run.stdout, said(run))])
        assert done[0] == done[1]
        stdout, stderr = done[0]
        return Done(run.arguments, run.code, stdout, stderr, run.seconds)


def is_read(done: Done, module: str) -> bool:
    return any(line.endswith(f" {module}") for line in done.stderr.splitlines())


def said(done: Done) -> str:
    lines = done.stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("import time:"))


def keep(count: int) -> Callable[[Path], object]:
    """The first images of the lock alone; the others are put away."""

    def change(root: Path) -> None:
        file, all_of_it = root / "images.lock", root / "all.lock"
        if not all_of_it.exists():
            file.rename(all_of_it)
        images = [image for image in lockfile.read_lock(all_of_it) if image.tag]
        lockfile.write_lock(file, Lock(images[:count]))

    return change


@contextmanager
def both(small_site: Site, kfdeploy: Runner, folder: Path, **options: Any) -> Iterator[Both]:
    with (
        serve_registry(folder / "one", **options) as one,
        serve_registry(folder / "other", **options) as other,
    ):
        yield Both(
            kfdeploy,
            (
                (noted(small_site, kfdeploy, folder / "a", one), one),
                (noted(small_site, kfdeploy, folder / "b", other), other),
            ),
        )


def noted(
    small_site: Site,
    kfdeploy: Runner,
    folder: Path,
    private: Registry,
    env: Mapping[str, str] | None = None,
) -> Path:
    """A workspace whose four images are mirrored."""
    root = small_site.copy(folder)
    settings = {"host": private.host, "prefix": "kf"}
    if private.ca is not None:
        settings["ca"] = str(private.ca)
    edit_workspace(root, {"registries.private": settings})
    keep(4)(root)
    kfdeploy("mirror", "--quiet", cwd=root, env=env)
    return root


def _always(path: str, _: ImageRef) -> str:
    return path


@pytest.mark.parametrize("tls", [False, True], ids=["http", "tls"])
def test_one_image_more_is_brought_as_always(
    tls: bool, small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    with both(small_site, kfdeploy, tmp_path, tls=tls) as two:
        two.each(keep(5))
        done = two.mirror()
        assert "1 copied" in done.stdout and "4 present, 0 failed" in done.stdout
        assert done.stderr.startswith("[5/5] copied ")
        # A note of that has taken the place of the one before.
        (root, _), _ = two.sites
        assert (
            mirror_fast_path.find_cached_output(["mirror", "-C", str(root)])
            == kfdeploy("mirror", cwd=root).stdout
        )
        two.each(keep(6))
        copied = two.mirror("--output", "json", "--quiet", "--jobs=3").json
        assert (len(copied["copied"]), len(copied["present"])) == (1, 5)
        two.each(keep(2))
        assert two.mirror().stdout == "0 copied (0 B sent), 2 present, 0 failed\n"


def test_what_another_has_put_there_is_replaced_as_always(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    with both(small_site, kfdeploy, tmp_path) as two:
        for root, private in two.sites:
            image = lockfile.read_lock(root / "images.lock").images[0]
            path = f"kf/{image.path}"
            push_standins(private.host, [f"acme/other:{image.tag}"], path_of=partial(_always, path))
        done = two.mirror("--output", "json").json
        assert [item["state"] for item in done["copied"]] == ["replace"]


def test_blobs_that_it_has_are_mounted_as_always(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    """A second tag of one content in another repository: all of its blobs are there."""
    with both(small_site, kfdeploy, tmp_path) as two:

        def rename(root: Path) -> None:
            file = root / "images.lock"
            first = lockfile.read_lock(file).images[0]
            other = lockfile.LockedImage(
                written("ghcr.io/acme/renamed:v9"),
                first.image,
                first.platforms,
                first.size,
                first.reduced,
                first.attached,
            )
            lockfile.write_lock(file, Lock([*lockfile.read_lock(file), other]))

        two.each(rename)
        done = two.mirror("--output", "json").json
        assert done["moved"] == 0 < done["mounted"]


def test_a_lock_that_was_edited_by_hand_is_read_as_always(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    with both(small_site, kfdeploy, tmp_path) as two:

        def change(root: Path, old: str, new: str) -> None:
            file = root / "images.lock"
            text = file.read_text()
            assert old in text
            file.write_text(text.replace(old, new, 1))

        two.each(lambda root: change(root, "\nimages:", "\n# one less\nimages:"))
        assert two.mirror().stdout == "0 copied (0 B sent), 4 present, 0 failed\n"
        two.each(lambda root: change(root, "@sha256:", "@sha1:"))
        done = two.mirror(check=1)
        assert done.stderr.startswith("error: images.lock:5: images[0].image: ")
        two.each(lambda root: (root / "images.lock").unlink())
        (root, _), _ = two.sites
        assert "no images.lock yet" in kfdeploy("mirror", cwd=root, check=1).stderr


def test_a_copy_that_fails_is_said_as_always(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    with both(small_site, kfdeploy, tmp_path) as two:
        two.each(keep(5))

        def spoil(root: Path) -> None:
            file = root / "images.lock"
            *rest, last = lockfile.read_lock(file)
            nobody = ImageRef(last.image.host, last.image.path, "", f"sha256:{'0' * 64}")
            lost = lockfile.LockedImage(last.id, nobody)
            lockfile.write_lock(file, Lock([*rest, lost]))

        two.each(spoil)
        for _ in range(2):
            done = two.mirror(check=1)
            assert "4 present, 1 failed" in done.stdout
            assert "error: " in done.stderr
        two.each(keep(5))
        assert "1 copied" in two.mirror().stdout


def test_another_mirror_at_work_is_said_as_always(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    with both(small_site, kfdeploy, tmp_path) as two:
        two.each(keep(5))
        (one, _), (other, _) = two.sites
        with (
            exclusive_lock(one / ".kfdeploy" / "mirror.lock", "a test"),
            exclusive_lock(other / ".kfdeploy" / "mirror.lock", "a test"),
        ):
            assert "another `kfdeploy mirror`" in two.mirror(check=1).stderr


def test_other_settings_are_read_where_they_stand(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    with serve_registry(tmp_path / "private") as private:
        root = noted(small_site, kfdeploy, tmp_path / "site", private)
        words = ["mirror", "-C", str(root)]
        before = (root / "kfdeploy.yaml").read_bytes()
        assert mirror_fast_path.find_cached_mirror(words) is not None
        edit_workspace(root, {"environments.default.platforms": ["linux/amd64"]})
        assert mirror_fast_path.find_cached_mirror(words) is None
        kfdeploy("mirror", "--quiet", cwd=root, check=None)
        (root / "kfdeploy.yaml").write_bytes(before)
        assert mirror_fast_path.find_cached_mirror(words) is not None
        assert mirror_fast_path.find_cached_mirror([*words, "--env", "default"]) is None


@pytest.mark.parametrize("setting", ["credentials", "immutableTags", "createRepository"])
def test_what_starts_a_program_or_signs_in_is_not_taken_from_the_cache(
    setting: str, small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    with serve_registry(tmp_path / "private") as private:
        root = noted(small_site, kfdeploy, tmp_path / "site", private)
        value: Any = {
            "credentials": {"dockerConfig": str(docker_config(tmp_path / "docker", private))},
            "immutableTags": True,
            "createRepository": ["true", "{repository}"],
        }[setting]
        edit_workspace(root, {f"registries.private.{setting}": value})
        kfdeploy("mirror", "--quiet", cwd=root)
        assert mirror_fast_path.find_cached_mirror(["mirror", "-C", str(root)]) is None
        keep(5)(root)
        assert "1 copied" in kfdeploy("mirror", "--quiet", cwd=root).stdout


def test_a_registry_with_a_sign_in_is_asked_by_the_engine_alone(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    with serve_registry(tmp_path / "private", auth="basic") as private:
        env = {"DOCKER_CONFIG": str(docker_config(tmp_path / "docker", private))}
        root = noted(small_site, kfdeploy, tmp_path / "site", private, env)
        keep(5)(root)
        done = kfdeploy("mirror", cwd=root, env={**env, "PYTHONPROFILEIMPORTTIME": "1"})
        assert not is_read(done, "typer") and not is_read(done, "pydantic")
        assert "1 copied" in done.stdout and "4 present" in done.stdout
        noted_one = mirror_fast_path.find_cached_mirror(["mirror", "-C", str(root)])
        assert noted_one is not None
        assert (noted_one.read_answers(), noted_one.cached_output) == (frozenset(), None)
        done = kfdeploy("mirror", cwd=root, check=1)
        assert f"hint: sign in (`docker login {private.host}`)" in done.stderr


@pytest.mark.parametrize("status", [401, 429, 500])
def test_answers_that_are_none_are_asked_for_again(
    status: int, small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    """What is asked before the engine is there is only believed where it is what is wanted."""
    asked: list[str] = []

    def rule(method: str, path: str) -> Reply | None:
        if method == "HEAD" and "/manifests/" in path and NO_BLOBS not in path:
            asked.append(path)
            if armed and asked.count(path) == 1:
                return Reply(status, headers={"Retry-After": "0"})
        return None

    armed: list[bool] = []
    with serve_registry(tmp_path / "private") as private, gate(private.host, rule) as host:
        root = small_site.copy(tmp_path / "site")
        edit_workspace(root, {"registries.private": {"host": host, "prefix": "kf"}})
        keep(4)(root)
        kfdeploy("mirror", "--quiet", cwd=root)
        keep(5)(root)
        asked.clear()
        armed.append(True)
        done = kfdeploy("mirror", cwd=root, check=None, env={"PYTHONPROFILEIMPORTTIME": "1"})
        assert not is_read(done, "typer")
        if status == 401:  # the fifth was not asked before
            assert done.code == 1
        else:
            assert "1 copied" in done.stdout and "4 present, 0 failed" in done.stdout


def test_settings_are_the_same_after_the_cache() -> None:
    settings = mirror_settings(
        {
            "private": {
                "host": "r.test:5000",
                "prefix": "kf",
                "ca": "ca.pem",
                "plainHttp": False,
                "naming": {"keepHost": False, "maxDepth": 3, "maxLength": 90},
                "createRepository": ["create", "{repository}"],
                "credentials": {"helper": "pass"},
            },
            "sources": {"*": "proxy.test"},
            "hosts": {"proxy.test": {"skipTlsVerify": True}},
        }
    )
    assert unpack(MirrorSettings, json.loads(json.dumps(pack(settings)))) == settings
