"""`kfdeploy mirror`: platforms, and private registries with rules of their own."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock, LockedImage
from tests.conftest import Runner, Site, edit_workspace
from tests.support.answers import Reply
from tests.support.gate import gate
from tests.support.reader import Wanted, read_registry
from tests.support.registries import Registry, serve_registry
from tests.support.standins import make_standin, push_standins

PREFIX = "kf"


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Registry]:
    with serve_registry(tmp_path / "private") as registry:
        yield registry


@pytest.fixture
def site(small_site: Site, private: Registry, tmp_path: Path) -> Path:
    """The small site with four images, and a private registry of its own."""
    root = small_site.copy(tmp_path / "site")
    edit_workspace(root, {"registries.private": {"host": private.host, "prefix": PREFIX}})
    images = [image for image in lockfile.read_lock(root / "images.lock") if image.tag][:4]
    lockfile.write_lock(root / "images.lock", Lock(images))
    return root


def images(root: Path) -> list[LockedImage]:
    return list(lockfile.read_lock(root / "images.lock"))


def is_whole(registry: Registry, image: LockedImage, tag: str, digest: str) -> bool:
    wanted = Wanted(f"{PREFIX}/{image.path}", tag, digest)
    return bool(read_registry(registry.host, [wanted]).whole)


def refusal(status: int, code: str, message: str) -> Reply:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Reply(status, body, {"Content-Type": "application/json"})


def test_the_summary_says_what_became_of_the_bytes(site: Path, kfdeploy: Runner) -> None:
    first = kfdeploy("mirror", "--output", "json", cwd=site).json
    assert first["moved"] > 0
    assert first["mounted"] > 0
    assert (first["skipped"], first["retried"], first["retries"]) == (0, 0, 0)
    again = kfdeploy("mirror", "--output", "json", cwd=site).json
    assert (again["moved"], again["mounted"], len(again["present"])) == (0, 0, 4)


def test_only_the_platforms_of_the_environment_are_mirrored(
    small_site: Site, private: Registry, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "site")
    edit_workspace(
        root,
        {
            "registries.private": {"host": private.host, "prefix": PREFIX},
            "environments.default.platforms": ["linux/amd64"],
        },
    )
    kfdeploy("lock", "--quiet", cwd=root)
    kfdeploy("mirror", "--quiet", cwd=root)
    reduced = [image for image in images(root) if image.reduced and image.tag]
    assert len(reduced) > 10
    for image in reduced:
        assert image.digest_for(("linux/amd64",)) != image.digest
        assert is_whole(private, image, image.tag, image.digest_for(("linux/amd64",)))
    kfdeploy("render", "--quiet", cwd=root)
    kfdeploy("verify", "--quiet", cwd=root)
    assert kfdeploy("mirror", "--check", "--output", "json", cwd=root).json["copy"] == []


def test_where_tags_do_not_move_the_digest_is_the_tag(
    site: Path, private: Registry, kfdeploy: Runner
) -> None:
    image = images(site)[0]
    push_standins(
        private.host, [f"acme/before:{image.tag}"], path_of=lambda _: f"{PREFIX}/{image.path}"
    )

    def rule(method: str, path: str) -> Reply | None:
        if method == "PUT" and path.endswith(f"{image.path}/manifests/{image.tag}"):
            return refusal(412, "PRECONDITION", f"{image.tag} is configured as immutable")
        return None

    with gate(private.host, rule) as host:
        edit_workspace(site, {"registries.private.host": host})
        said = kfdeploy("mirror", "--quiet", cwd=site, check=1).stderr
        at = f"{host}/{PREFIX}/{image.path}"
        refused = f"412: {image.tag} is configured as immutable"
        assert f"error: {at}: {host} refuses {at}:{image.tag}: {refused}\n" in said
        assert "set registries.private.immutableTags: true" in said
        edit_workspace(site, {"registries.private.immutableTags": True})
        kfdeploy("mirror", "--quiet", cwd=site)
        assert is_whole(private, image, f"digest-{image.digest[7:19]}", image.digest)
        kfdeploy("mirror", "--check", "--quiet", cwd=site)


def test_repositories_that_must_be_made_first_are_made_by_the_sites_command(
    site: Path, private: Registry, kfdeploy: Runner, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()

    def rule(method: str, path: str) -> Reply | None:
        found = re.fullmatch(r"/v2/(.+)/blobs/uploads/.*", path)
        if method == "POST" and found and not (made / found[1].replace("/", "-")).exists():
            return refusal(404, "NAME_UNKNOWN", "The repository does not exist in the registry")
        return None

    with gate(private.host, rule) as host:
        edit_workspace(site, {"registries.private.host": host})
        said = kfdeploy("mirror", "--quiet", cwd=site, check=1).stderr
        assert f"{host} refuses an upload: 404: The repository does not exist" in said
        assert "set registries.private.createRepository to a command that does" in said
        script = site / "make-repository"
        script.write_text(
            f'#!/bin/sh\n[ "$1" = "{host}" ] || exit 1\necho x >> "{made}/$(echo $2 | tr / -)"\n'
        )
        script.chmod(0o755)
        create = ["./make-repository", "{host}", "{repository}"]
        edit_workspace(site, {"registries.private.createRepository": create})
        kfdeploy("mirror", "--quiet", cwd=site)
    wanted = {f"{PREFIX}/{image.path}".replace("/", "-") for image in images(site)}
    assert {file.name: file.read_text() for file in made.iterdir()} == dict.fromkeys(wanted, "x\n")


def test_a_registry_without_mounts_gets_each_blob_sent(
    site: Path, private: Registry, kfdeploy: Runner
) -> None:
    begun = []

    def rule(method: str, path: str) -> Reply | None:
        if method == "POST" and "mount=" in path:
            begun.append(path)
            repository = path.removeprefix("/v2/").partition("/blobs/")[0]
            return Reply(307, b"", {"Location": f"/v2/{repository}/blobs/uploads/"})
        return None

    with gate(private.host, rule) as host:
        edit_workspace(site, {"registries.private.host": host})
        done = kfdeploy("mirror", "--output", "json", cwd=site).json
    assert begun
    assert (done["mounted"], len(done["copied"])) == (0, 4)


def test_two_mirrors_of_one_workspace_do_not_meet(site: Path, kfdeploy: Runner) -> None:
    import fcntl

    with (site / ".kfdeploy" / "mirror.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = kfdeploy("mirror", "--quiet", cwd=site, check=1).stderr
    assert said == (
        "error: another `kfdeploy mirror` is already running here\n"
        "  hint: wait until it ends, then run the same command again: it goes on from there\n"
    )


@pytest.mark.parametrize("which", ["index", "platform"])
def test_a_manifest_that_the_registry_took_and_cannot_read_gets_no_tag(
    which: str, site: Path, private: Registry, kfdeploy: Runner
) -> None:
    """What a full disk leaves in the distribution registry: an empty file, taken for the blob."""
    image = next(image for image in images(site) if len(image.platforms) > 1)
    damaged = image.digest if which == "index" else image.platforms["linux/amd64"]
    value = damaged.partition(":")[2]
    file = private.folder / "docker/registry/v2/blobs/sha256" / value[:2] / value / "data"
    file.parent.mkdir(parents=True)
    file.touch()
    done = kfdeploy("mirror", "--output", "json", cwd=site, check=1)
    (failed,) = done.json["failed"]
    at = f"{private.host}/{PREFIX}/{image.path}"
    said = f"{at}@{damaged}: pushed, but the registry can't read it: 5"
    assert failed["reason"].startswith(said)
    assert "delete the file of that blob there" in failed["hint"]
    wanted = Wanted(f"{PREFIX}/{image.path}", image.tag, image.digest)
    assert read_registry(private.host, [wanted]).absent
    file.write_bytes(make_standin(image.id.text).manifests[damaged][1])
    kfdeploy("mirror", "--quiet", cwd=site)
    assert is_whole(private, image, image.tag, image.digest)


@pytest.mark.parametrize("renews", [True, False], ids=["renewed", "not renewed"])
def test_a_sign_in_that_runs_out_on_the_way_is_renewed_or_said(
    renews: bool, site: Path, private: Registry, kfdeploy: Runner, tmp_path: Path
) -> None:
    """The private registry takes the first password for twenty requests, then only the second."""
    programs = tmp_path / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-corp"
    secret = "second" if renews else "first"
    helper.write_text(
        "#!/bin/sh\ncat >/dev/null\n"
        f'[ -e "{tmp_path}/asked" ] && word={secret} || word=first\n: > "{tmp_path}/asked"\n'
        f'echo \'{{"ServerURL": "x", "Username": "ci", "Secret": "\'$word\'"}}\'\n'
    )
    helper.chmod(0o755)
    taken: list[str] = []

    def sign_in(given: str) -> Reply | None:
        user, _, word = base64.b64decode(given.partition(" ")[2]).decode().partition(":")
        good = "first" if len(taken) < 20 else "second"
        if (user, word) == ("ci", good):
            taken.append(word)
            return None
        challenge = {"WWW-Authenticate": 'Basic realm="x"', "Content-Type": "application/json"}
        return Reply(401, b"{}", challenge)

    with gate(private.host, lambda method, path: None, sign_in) as host:
        access = {"host": host, "prefix": PREFIX, "credentials": {"helper": "corp"}}
        edit_workspace(site, {"registries.private": access})
        env = {"PATH": f"{programs}{os.pathsep}{kfdeploy.env['PATH']}"}
        done = kfdeploy("mirror", "--quiet", cwd=site, env=env, check=0 if renews else 1)
    assert taken[:20] == ["first"] * 20
    if renews:
        assert set(taken[20:]) == {"second"}
        assert all(is_whole(private, image, image.tag, image.digest) for image in images(site))
    else:
        assert f": 401: denied with the credential for {host}\n" in done.stderr
        assert "first" not in done.stderr
