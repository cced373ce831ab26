"""Wheels of what is installed, installed again by pip without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.bundle import extras, wheels
from kfdeploy.errors import UserError


def test_a_wheel_is_the_same_bytes_twice() -> None:
    one = [wheel.build() for wheel in wheels.list_installed("rich")]
    assert one == [wheel.build() for wheel in wheels.list_installed("rich")]


def test_requirements_are_followed_to_their_end() -> None:
    names = [wheel.name.partition("-")[0] for wheel in wheels.list_installed("rich")]
    assert names == ["markdown_it_py", "mdurl", "pygments", "rich"]


def test_pip_installs_kfdeploy_from_the_wheels_alone(tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for along in extras.collect_wheels():
        with along.open() as stream:
            (tmp_path / along.taken.path).write_bytes(stream.read())
    # With the pip that is here: another one takes most of the time, and does the same.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    there = tmp_path / "venv" / "bin"
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PIP_CONFIG_FILE")}
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        there / "python",
    ]
    subprocess.run(
        [
            *(*pip, "install", "-q", "--no-compile", "--no-cache-dir"),
            *("--no-index", "--find-links", folder, "kfdeploy"),
        ],
        check=True,
        env=clean,
    )
    for option in ("--version", "--help"):
        done = subprocess.run(
            [there / "kfdeploy", option],
            env=clean,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "kfdeploy" in done.stdout
    where = subprocess.run(
        [there / "python", "-c", "import kfdeploy.catalogue, kfdeploy; print(kfdeploy.__file__)"],
        env=clean,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert where.stdout.startswith(str(tmp_path))


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with a script and data beside site-packages."""
    prefix = tmp_path / "prefix"
    site = prefix / "lib" / "site-packages"
    info = site / "made_up-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nmade = made_up:main\n")
    (site / "made_up.py").write_text("x = 1\n")
    (prefix / "bin").mkdir()
    (prefix / "bin" / "made").write_text("#!/made/by/pip/python\n")
    (prefix / "bin" / "other").write_text("#!/old/place/bin/python3\nimport made_up\n")
    (prefix / "share").mkdir()
    (prefix / "share" / "page.1").write_text("page\n")
    listed = ["made_up.py", "../../bin/made", "../../bin/other", "../../share/page.1"]
    listed += [f"made_up-1.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD")]
    listed += ["made_up-1.0.dist-info/entry_points.txt", "made_up-1.0.dist-info/INSTALLER"]
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in listed))
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    monkeypatch.setattr(sys, "prefix", str(prefix))
    return site


def content(name: str) -> dict[str, bytes]:
    import io

    (wheel,) = wheels.list_installed(name)
    assert wheel.name == "made_up-1.0-py3-none-any.whl"
    with zipfile.ZipFile(io.BytesIO(wheel.build())) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_what_lies_beside_the_packages_comes_along(made_up: Path) -> None:
    found = content("made-up")
    assert sorted(found) == [
        "made_up-1.0.data/data/share/page.1",
        "made_up-1.0.data/scripts/other",
        "made_up-1.0.dist-info/METADATA",
        "made_up-1.0.dist-info/RECORD",
        "made_up-1.0.dist-info/WHEEL",
        "made_up-1.0.dist-info/entry_points.txt",
        "made_up.py",
    ]
    assert found["made_up-1.0.data/scripts/other"] == b"#!python\nimport made_up\n"


def test_a_file_that_was_changed_is_named(made_up: Path) -> None:
    record = made_up / "made_up-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text().replace("made_up.py,,", "made_up.py,sha256=AAAA,6"))
    with pytest.raises(UserError) as error:
        wheels.list_installed("made-up")
    assert error.value.message == (
        f"{made_up / 'made_up.py'}: was changed after made-up was installed"
    )


def test_a_file_that_is_gone_is_named(made_up: Path) -> None:
    (made_up / "made_up.py").unlink()
    with pytest.raises(UserError) as error:
        wheels.list_installed("made-up")
    assert error.value.message == (
        f"{made_up / 'made_up.py'}: no such file or directory: made-up lacks it"
    )


def test_what_pip_did_not_install_is_named(made_up: Path) -> None:
    (made_up / "made_up-1.0.dist-info" / "WHEEL").unlink()
    with pytest.raises(UserError) as error:
        wheels.list_installed("made-up")
    assert error.value.message == ("made-up: was not installed by pip, and its wheel can't be made")
    with pytest.raises(UserError) as error:
        wheels.list_installed("no-such-thing")
    assert error.value.message == "no-such-thing: is not installed, and its wheel can't be made"


def test_a_link_to_another_package_is_named(made_up: Path) -> None:
    (made_up / "made_up-1.0.dist-info" / "direct_url.json").write_text(
        '{"url": "file:///x", "dir_info": {"editable": true}}'
    )
    with pytest.raises(UserError) as error:
        wheels.list_installed("made-up")
    assert error.value.message == (
        "made-up: is installed as a link to a folder, and its wheel can't be made"
    )


def test_programs_are_taken_from_path_through_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    real.write_bytes(b"#!/bin/sh\n")
    real.chmod(0o755)
    (tmp_path / "helm").symlink_to(real)
    (tmp_path / "kubectl").write_bytes(Path("/bin/sh").read_bytes())
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found, notes = extras.collect_programs()
    assert [(one.taken.path, one.taken.executable) for one in found] == [
        ("programs/helm", True),
        ("programs/kubectl", True),
    ]
    assert notes == [
        "helm is a script: the programs that it calls are not in the bundle",
        "helmfile is not on PATH: it is not in the bundle",
        "kustomize is not on PATH: it is not in the bundle",
        "kubectl is linked to libraries of this machine: the far side must have them too",
    ]


def workspace(root: Path, **more: Any) -> list[str]:
    sets = [root / "releases" / "default"]
    return [along.taken.path for along in extras.collect_workspace(root, sets, **more)]


def test_of_a_workspace_goes_what_is_needed(tmp_path: Path) -> None:
    for name in (
        "kfdeploy.yaml",
        "images.lock",
        "patches/a/b.yaml",
        "releases/default/crds/x.yaml",
        "releases/other/x.yaml",
        "upstream/big.yaml",
        "ca.pem",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert workspace(tmp_path, more=["ca.pem", "/etc/hosts", "../x"]) == [
        "workspace/ca.pem",
        "workspace/images.lock",
        "workspace/kfdeploy.yaml",
        "workspace/patches/a/b.yaml",
        "workspace/releases/default/crds/x.yaml",
    ]


def test_a_link_in_a_workspace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "x").symlink_to("/etc/hosts")
    with pytest.raises(UserError) as error:
        workspace(tmp_path)
    assert error.value.message == (
        f"{tmp_path}/patches/x: a bundle can't hold a link or special file"
    )
