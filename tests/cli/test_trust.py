"""`kfdeploy lock` with images that must be signed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.access import AccessResolver
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.settings import MirrorSettings, PrivateRegistry
from tests.conftest import Runner, edit_workspace, need_programs
from tests.support.registries import Registry, serve_registry
from tests.support.signing import Signer, attach, referrer, simple
from tests.support.standins import make_standin, push_standins
from tests.support.workspaces import deployment, workspace

SIGNED, PLAIN = "quay.io/acme/app:v1", "quay.io/acme/plain:v1"


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Registry]:
    with serve_registry(tmp_path / "public") as registry:
        push_standins(registry.host, [SIGNED, PLAIN])
        yield registry


@pytest.fixture
def site(tmp_path: Path, kfdeploy: Runner, public: Registry) -> Path:
    """Two images; the first is signed by keys/acme.pub, which nothing asks for yet."""
    need_programs("kustomize")
    objects = deployment("signed", SIGNED) + deployment("plain", PLAIN)
    folder = workspace(tmp_path, kfdeploy, objects)
    edit_workspace(folder, {"registries.sources": {"*": public.host}})
    (folder / "keys").mkdir()
    made = make_standin(SIGNED)
    signature = simple(Signer(folder / "keys", "acme"), made.digest)
    attach(public.host, "quay.io/acme/app", signature, made.digest, "sig")
    return folder


def test_what_is_not_signed_stays_out_of_the_lock_and_is_told(site: Path, kfdeploy: Runner) -> None:
    kfdeploy("lock", cwd=site)
    assert PLAIN in (site / "images.lock").read_text()
    rules = [
        {"images": "quay.io/acme/*", "keys": ["keys/acme.pub"]},
        {"images": "gcr.io/acme/*", "keys": ["keys/acme.pub"]},
    ]
    edit_workspace(site, {"images.signatures": rules})
    done = kfdeploy("lock", "--quiet", cwd=site, check=1)
    assert done.stdout == "images.lock: 1 image locked, 1 not\n"
    lines = done.stderr.splitlines()
    assert lines[0] == "note: images.signatures[1]: no image is 'gcr.io/acme/*'"
    assert lines[1] == (
        f"error: {PLAIN}: it has no signature by keys/acme.pub (images.signatures[0])"
    )
    assert lines[-1].startswith("  hint: do not use it until its publisher has signed sha256:")
    assert SIGNED in (site / "images.lock").read_text()
    assert PLAIN not in (site / "images.lock").read_text()


def test_refresh_finds_what_was_signed_since(
    site: Path, kfdeploy: Runner, public: Registry, tmp_path: Path
) -> None:
    kfdeploy("lock", cwd=site)
    made = make_standin(PLAIN)
    attach(
        public.host,
        "quay.io/acme/plain",
        simple(Signer(tmp_path, "late"), made.digest),
        made.digest,
        "sig",
    )
    kfdeploy("lock", "--check", cwd=site)
    assert f"sha256-{made.digest[7:]}.sig" not in (site / "images.lock").read_text()
    changed = kfdeploy("lock", "--refresh", "--check", "--output", "json", cwd=site, check=3)
    assert changed.json["changed"] == ["images.lock"]
    kfdeploy("lock", "--refresh", cwd=site)
    assert f"sha256-{made.digest[7:]}.sig" in (site / "images.lock").read_text()


@pytest.mark.parametrize(
    ("rule", "key", "said"),
    [
        ({"images": "quay.io/a:v1"}, "images", "'quay.io/a:v1' must be HOST/PATH, without tag or"),
        ({"images": "quay.io/a@sha256:0"}, "images", "'quay.io/a@sha256:0' must be HOST/PATH"),
        ({"images": "acme/*"}, "images", "'acme/*' names no registry; Docker Hub's is docker.io"),
        ({"images": "redis"}, "images", "'redis' names no registry; Docker Hub's is docker.io"),
        ({"keys": []}, "keys", "must not be empty"),
        ({"key": "a.pub"}, "key", "unknown key"),
    ],
)
def test_a_rule_that_could_check_nothing_is_an_error(
    rule: dict[str, object], key: str, said: str, site: Path, kfdeploy: Runner
) -> None:
    whole = {"images": "quay.io/acme/*", "keys": ["keys/acme.pub"], **rule}
    edit_workspace(site, {"images.signatures": [whole]})
    done = kfdeploy("lock", cwd=site, check=1)
    line = done.stderr.splitlines()[0]
    assert line.startswith("error: kfdeploy.yaml:")
    assert f": images.signatures[0].{key}: {said}" in line


def test_what_belongs_to_an_image_is_mirrored_with_it(
    site: Path, public: Registry, kfdeploy: Runner, tmp_path: Path
) -> None:
    made = make_standin(SIGNED)
    sbom = referrer(made, "application/spdx+json", b"{}")
    attach(public.host, "quay.io/acme/app", sbom, made.digest)
    with serve_registry(tmp_path / "private") as private:
        edit_workspace(site, {"registries.private": {"host": private.host, "prefix": "kf"}})
        kfdeploy("lock", "--quiet", cwd=site)
        done = kfdeploy("mirror", "--output", "json", cwd=site).json
        tag = f"{made.digest.replace(':', '-')}.sig"
        belongings = [item["belongsTo"] for item in done["copied"] if "belongsTo" in item]
        assert sorted(belongings) == ["application/spdx+json", tag]
        reaches = AccessResolver(MirrorSettings(PrivateRegistry(host=private.host)), tmp_path)
        with RegistryClient(reaches) as client:
            at = ImageRef(private.host, "kf/quay.io/acme/app")
            assert client.get_digest(replace(at, tag=tag)) is not None
            listed = client.get_manifest(replace(at, tag=made.digest.replace(":", "-")))
            assert [child.digest for child in listed.children] == [sbom.digest]
            assert client.get_manifest(replace(at, digest=sbom.digest)).subject == made.digest
        assert kfdeploy("mirror", "--check", "--output", "json", cwd=site).json["copy"] == []
        assert kfdeploy("mirror", "--prune", "--output", "json", cwd=site).json["obsolete"] == []


def test_what_is_not_signed_stays_out_of_a_bundle(
    site: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    kfdeploy("lock", cwd=site)
    # The rule came after the lock.
    edit_workspace(
        site, {"images.signatures": [{"images": "quay.io/acme/*", "keys": ["keys/acme.pub"]}]}
    )
    words = ("mirror", "--to-bundle", tmp_path / "bundle", "--images-only", "--quiet")
    done = kfdeploy(*words, cwd=site, check=1)
    assert (
        f"error: {PLAIN}: it has no signature by keys/acme.pub (images.signatures[0])\n"
        in done.stderr
    )
    assert "not finished" in done.stderr
