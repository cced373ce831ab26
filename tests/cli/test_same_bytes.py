"""Same input, same bytes: folder, hash seed, time zone, umask and language make no difference."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CURRENT, PREVIOUS, Runner, Site, tree

RealSite = Callable[[str], Site]

STEPS = ("vendor", "lock", "patch", "render")
OTHER = {
    "PYTHONHASHSEED": "4242",
    "TZ": "Pacific/Kiritimati",
    "LC_ALL": "C",
    "LANG": "de_DE.UTF-8",
    "SOURCE_DATE_EPOCH": "1",
    "HOME": "/nonexistent",
}


def again(site: Site, kfdeploy: Runner, folder: Path) -> None:
    """All steps once more in another folder, otherwise surrounded."""
    folder.mkdir(parents=True)
    for name in ("kfdeploy.yaml", "kfdeploy.schema.json", ".gitignore"):
        shutil.copyfile(site.root / name, folder / name)
    for step in STEPS:
        done = subprocess.run(
            ["sh", "-c", 'umask 077; exec "$@"', "-", *kfdeploy.command, step, "--quiet"],
            cwd=folder,
            env=kfdeploy.environment(OTHER),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def modes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): stat.S_IMODE(os.lstat(path).st_mode)
        for path in folder.rglob("*")
        if path.is_file() and ".kfdeploy" not in path.parts and path.parent != folder
    }


def same(site: Site, folder: Path) -> None:
    one, other = tree(site.root), tree(folder)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    assert modes(site.root) == modes(folder)
    for content in other.values():
        assert str(folder).encode() not in content


def test_the_small_site_is_the_same_made_elsewhere(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    again(small_site, kfdeploy, tmp_path / "deep/er/folder with spaces")
    same(small_site, tmp_path / "deep/er/folder with spaces")


@pytest.mark.slow
@pytest.mark.parametrize("version", (CURRENT, PREVIOUS))
def test_a_real_site_is_the_same_made_elsewhere(
    version: str, real_site: RealSite, kfdeploy: Runner, tmp_path: Path
) -> None:
    again(real_site(version), kfdeploy, tmp_path / "other")
    same(real_site(version), tmp_path / "other")
