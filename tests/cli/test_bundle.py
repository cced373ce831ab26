"""`kfdeploy mirror --to-bundle` and `--from-bundle`, as an operator runs them."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, Site, edit_workspace
from tests.conftest import tree as files_of
from tests.support.registries import Registry, serve_registry
from tests.test_readme import marked


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Registry]:
    with serve_registry(tmp_path / "private") as registry:
        yield registry


@pytest.fixture(scope="module")
def site(small_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_site.copy(tmp_path_factory.mktemp("site") / "site")


@pytest.fixture(scope="module")
def bundle(site: Path, kfdeploy: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of images only; not to be changed."""
    folder = tmp_path_factory.mktemp("bundle") / "b"
    kfdeploy("mirror", "--to-bundle", folder, "--images-only", cwd=site)
    return folder


def test_a_whole_bundle_and_what_it_has(
    site: Path, kfdeploy: Runner, private: Registry, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("helm", "helmfile", "kustomize"):
        (programs / name).write_bytes(b"#!/bin/sh\n")
        (programs / name).chmod(0o755)
    done = kfdeploy("mirror", "--to-bundle", tmp_path / "b", cwd=site, env={"PATH": str(programs)})
    assert done.stdout.splitlines()[0].endswith(", written")
    assert [line for line in done.stderr.splitlines() if line.startswith("note: ")] == [
        *(
            f"note: {name} is a script: the programs that it calls are not in the bundle"
            for name in ("helm", "helmfile", "kustomize")
        ),
        "note: kubectl is not on PATH: it is not in the bundle",
    ]
    there = files_of(tmp_path / "b")
    names = {name.partition("/")[0] for name in there}
    assert names == {
        *("oci-layout", "index.json", "blobs", "bundle.json", "part.json", "images.lock"),
        *("workspace", "wheels", "programs", "SHA256SUMS"),
    }
    assert any(name.startswith("wheels/kfdeploy-") for name in there)
    assert "workspace/releases/default/helmfile.yaml" in there
    assert not any(str(tmp_path).encode() in data for data in there.values())

    far = tmp_path / "far"
    shutil.copytree(tmp_path / "b" / "workspace", far)
    host = private.host
    edit_workspace(far, {"registries.private.host": host, "registries.sources": None})
    from_bundle = ("mirror", "--from-bundle", tmp_path / "b", "--output", "json")
    planned = kfdeploy(*from_bundle, "--dry-run", cwd=far).json["copy"]
    arrived = kfdeploy(*from_bundle, cwd=far).json
    assert len(planned) == len(arrived["copied"]) > 10
    assert (arrived["failed"], arrived["bundle"]["missing"]) == ([], [])
    again = kfdeploy("mirror", "--check", cwd=far)
    assert again.stdout.splitlines()[-1].startswith("0 to copy (0 B at most)")


def test_the_same_command_again_changes_nothing(
    site: Path, bundle: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    before = files_of(bundle)
    done = kfdeploy("mirror", "--to-bundle", bundle, "--images-only", cwd=site)
    assert files_of(bundle) == before
    assert done.stdout.splitlines()[0].endswith(", present")
    kfdeploy("mirror", "--to-bundle", bundle, "--images-only", "--check", cwd=site)
    kfdeploy("mirror", "--to-bundle", tmp_path / "c", "--images-only", cwd=site)
    assert files_of(tmp_path / "c") == before


def test_check_says_whether_a_bundle_is_finished(
    site: Path, bundle: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    options = ("mirror", "--images-only", "--check", "--to-bundle")
    assert kfdeploy(*options, tmp_path / "c", cwd=site, check=3).stdout.startswith(
        f"{tmp_path / 'c'}: "
    )
    assert not (tmp_path / "c").exists()
    done = kfdeploy(*options, bundle, "--output", "json", cwd=site)
    assert done.json["finished"] is True
    assert done.json["bundle"]["parts"][0]["part"] == 1


def test_parts_are_made_checked_and_made_again(
    site: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    options = ("mirror", "--images-only", "--part-size", "1.5M", "--to-bundle")
    made = kfdeploy(*options, tmp_path / "b", "--output", "json", cwd=site).json
    folders = [Path(part["folder"]) for part in made["bundle"]["parts"]]
    assert len(folders) > 1 and {part["state"] for part in made["bundle"]["parts"]} == {"written"}
    count = len(folders)
    checked = kfdeploy("mirror", "--from-bundle", tmp_path / "b", "--check", cwd=site)
    assert checked.stdout == f"{count} of {count} parts, 0 problems\n"
    shutil.rmtree(folders[1])
    checked = kfdeploy("mirror", "--from-bundle", tmp_path / "b", "--check", cwd=site, check=1)
    assert checked.stdout == f"{count - 1} of {count} parts, 0 problems\n"
    assert f"note: part 2 of {count} is not here, or can't be used\n" in checked.stderr
    kfdeploy(*options, tmp_path / "new", "--part", "2", cwd=site)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["part-002"]
    both = ("--from-bundle", tmp_path / "b", "--from-bundle", tmp_path / "new")
    kfdeploy("mirror", *both, "--check", cwd=site)
    done = kfdeploy(*options, tmp_path / "new", "--part", "99", cwd=site, check=2)
    assert f"error: --part 99: the bundle has parts 1 to {count}\n" in done.stderr


def test_damage_is_named_before_anything_is_pushed(
    site: Path, bundle: Path, kfdeploy: Runner, private: Registry, tmp_path: Path
) -> None:
    damaged, far = tmp_path / "b", tmp_path / "far"
    shutil.copytree(bundle, damaged)
    shutil.copytree(bundle / "workspace", far)
    edit_workspace(far, {"registries.private.host": private.host})
    (damaged / "blobs" / "evil").write_text("x")
    (damaged / "index.json").write_text("{}")
    done = kfdeploy("mirror", "--from-bundle", damaged, cwd=far, check=1)
    assert done.stderr.splitlines()[-3:] == [
        f"error: {damaged}/blobs/evil: nothing of the bundle",
        f"error: {damaged}/index.json: changed: it is not what SHA256SUMS says",
        "  hint: write this part again and bring it: `kfdeploy mirror --to-bundle DIR`",
    ]
    assert not any(private.folder.rglob("_manifests"))


def test_a_delta_says_what_it_leaves_out(
    site: Path, kfdeploy: Runner, private: Registry, bundle: Path, tmp_path: Path
) -> None:
    options = ("mirror", "--images-only", "--since", site / "images.lock", "--to-bundle")
    made = kfdeploy(*options, tmp_path / "d", "--output", "json", cwd=site)
    assert made.json["bundle"]["leftOut"] > 5
    assert made.json["bundle"]["parts"][0]["bytes"] < 10_000_000
    assert not [name for name in files_of(tmp_path / "d") if name.startswith("blobs/")]
    assert "note: left out, as both locks have them: " in made.stderr


def test_images_of_a_bundle_are_looked_into(
    site: Path, bundle: Path, kfdeploy: Runner, small_site: Site
) -> None:
    ref = next(ref for ref in small_site.refs if "@" not in ref)
    done = kfdeploy("scan", "--image", ref, "--from", bundle, "--output", "json", cwd=site)
    (looked,) = done.json["images"]
    assert looked["layers"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--yes"], "--yes needs --prune"),
        (["--part-size", "1G"], "--part-size needs --to-bundle"),
        (["--images-only"], "--images-only needs --to-bundle"),
        (["--since", "x.lock"], "--since needs --to-bundle"),
        (["--set", "x"], "--set needs --to-bundle"),
        (["--sign-key", "k"], "--sign-key needs --to-bundle"),
        (["--verify-key", "k"], "--verify-key needs --from-bundle"),
        (["--from-bundle", "b", "--part", "1"], "--part needs --to-bundle"),
        (["--to-bundle", "b", "--verify-key", "k"], "--verify-key needs --from-bundle"),
        (
            ["--to-bundle", "b", "--from-bundle", "c"],
            "--to-bundle and --from-bundle exclude each other",
        ),
        (
            ["--prune", "--from-bundle", "c"],
            "--from-bundle and --prune exclude each other",
        ),
        (
            ["--to-bundle", "b", "--part", "1"],
            "--part needs --part-size, with the size that the parts were made with",
        ),
        (["--to-bundle", "b", "--part-size", "x"], "--part-size x: not a size"),
    ],
)
def test_options_that_do_not_go_together(
    site: Path, kfdeploy: Runner, options: list[str], message: str
) -> None:
    done = kfdeploy("mirror", *options, cwd=site, check=2)
    assert done.stderr.splitlines()[0] == f"error: {message}"


def test_no_name_of_this_machine_is_in_a_bundle(bundle: Path, small_site: Site, site: Path) -> None:
    mine = (small_site.public, os.fspath(site.parent))
    for name, data in files_of(bundle).items():
        if not name.startswith("workspace/"):
            assert not any(text.encode() in data for text in mine), name


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key and its public one."""
    folder = tmp_path_factory.mktemp("keys")
    private, public = folder / "site.key", folder / "site.pub"
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    subprocess.run(["openssl", "genpkey", *curve, "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


def test_a_signed_bundle_is_taken_and_no_other_one(
    site: Path, bundle: Path, kfdeploy: Runner, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    signed, far = tmp_path / "b", tmp_path / "far"
    shutil.copytree(bundle, signed)
    shutil.copytree(bundle / "workspace", far)
    kfdeploy("mirror", "--to-bundle", signed, "--images-only", "--sign-key", private, cwd=site)
    check = ("mirror", "--check", "--from-bundle")
    kfdeploy(*check, signed, "--verify-key", public, cwd=far)
    bare = tmp_path / "sig"
    bare.write_bytes(base64.b64decode((signed / "SHA256SUMS.sig").read_bytes()))
    verified = subprocess.run(
        [*("openssl", "dgst", "-sha256", "-verify", public), "-signature", bare, "SHA256SUMS"],
        cwd=signed,
        capture_output=True,
        check=False,
    )
    assert verified.stdout == b"Verified OK\n"
    assert (
        "note: the bundle is signed, but no key to check it is named: use --verify-key\n"
        in kfdeploy(*check, signed, cwd=far).stderr
    )
    shutil.copy(public, far / "site.pub")
    edit_workspace(far, {"registries.bundleKeys": ["site.pub"]})
    done = kfdeploy(*check, bundle, cwd=far, check=1)
    assert f"error: {bundle}: is not signed, and only a signed bundle is taken\n" in done.stderr
    kfdeploy(*check, signed, cwd=far)
    with (signed / "SHA256SUMS").open("ab") as sums:
        sums.write(b"0" * 64 + b"  workspace/evil\n")
    done = kfdeploy(*check, signed, cwd=far, check=1)
    assert done.stderr.splitlines()[-2].startswith(
        f"error: {signed}/SHA256SUMS: the signature is not by "
    )


def test_a_key_that_can_not_sign_is_said_before_anything_is_fetched(
    site: Path, kfdeploy: Runner, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    options = ("mirror", "--to-bundle", tmp_path / "b", "--sign-key")
    kfdeploy(*options, keys[1], cwd=site, check=1)
    assert not (tmp_path / "b").exists()


def test_the_documented_commands_bring_images_over(
    small_site: Site, kfdeploy: Runner, private: Registry, tmp_path: Path
) -> None:
    """All but the installation, which has a test of its own: tests/tools/test_wheels.py."""
    site = small_site.copy(tmp_path / "site")
    edit_workspace(site, {"registries.private.host": private.host})
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kfdeploy").symlink_to(kfdeploy.command[0])
    path = os.pathsep.join((str(programs), "/usr/bin", "/bin"))
    install = marked("docs/bundles.md", "far: check and install").splitlines()
    for script in (
        marked("docs/bundles.md", "near"),
        install[0],
        marked("docs/bundles.md", "far: push"),
    ):
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=tmp_path,
            env=kfdeploy.environment({"PATH": path}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert ", 0 present, 0 failed" in done.stdout
