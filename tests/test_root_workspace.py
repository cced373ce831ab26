"""The project's root is a workspace for Kubeflow 26.03: what is committed is what is generated."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ("kfdeploy.yaml", "kfdeploy.schema.json", "helmfile.yaml.gotmpl", "images.lock")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kfdeploy.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root's committed files, vendored from the real 26.03."""
    upstreams = Path(os.environ.get("KFDEPLOY_UPSTREAMS", ROOT.parent / "shared" / "upstream"))
    if not (upstreams / "kubeflow-26.03").is_dir():
        pytest.skip("the real Kubeflow 26.03 is not beside the project (KFDEPLOY_UPSTREAMS)")
    folder = tmp_path_factory.mktemp("root")
    for name in COMMITTED:
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "patches", folder / "patches")
    settings = folder / "kfdeploy.yaml"
    text, changed = re.subn(
        r"^  source: .*$",
        f"  source: {upstreams}/kubeflow-26.03\n"
        f"  remotes: {{'https://github.com/': {upstreams}/remotes/github.com}}",
        settings.read_text(),
        flags=re.MULTILINE,
    )
    assert changed == 1
    settings.write_text(text)
    vendored = run("vendor", "-C", str(folder), "--quiet")
    assert vendored.returncode == 0, vendored.stderr
    return folder


def test_the_committed_patches_are_what_patch_generates(site: Path) -> None:
    checked = run("patch", "--check", "-C", str(site), "--quiet")
    assert (checked.returncode, checked.stdout) == (0, "")


def test_around_a_hundred_patches_are_committed() -> None:
    assert 90 <= len(list((ROOT / "patches").glob("*/*.yaml.gotmpl"))) <= 130


def test_the_committed_lock_has_what_is_known_without_a_network(site: Path) -> None:
    locked = run("lock", "--offline", "-C", str(site), "--quiet")
    assert locked.returncode == 1  # the rest is named
    assert "hint: run `kfdeploy lock` once where the sources can be reached" in locked.stderr
    assert (site / "images.lock").read_bytes() == (ROOT / "images.lock").read_bytes()


def test_the_components_are_what_init_lists(site: Path) -> None:
    fresh = site.parent / "fresh"
    upstream = re.search(r"^  source: (.*)$", (site / "kfdeploy.yaml").read_text(), re.MULTILINE)
    assert upstream is not None
    made = run("init", str(fresh), "--upstream", upstream[1])
    assert made.returncode == 0, made.stderr

    def components(path: Path) -> str:
        return path.read_text().partition("\ncomponents:\n")[2].partition("\nregistries:\n")[0]

    assert components(fresh / "kfdeploy.yaml") == components(ROOT / "kfdeploy.yaml")
    assert (fresh / "kfdeploy.schema.json").read_bytes() == (
        ROOT / "kfdeploy.schema.json"
    ).read_bytes()


def test_no_committed_patch_names_a_registry_or_depends_on_the_stand_in_script() -> None:
    texts = [path.read_text() for path in (ROOT / "patches").rglob("*") if path.is_file()]
    together = "\n".join([*texts, (ROOT / "helmfile.yaml.gotmpl").read_text()])
    assert "registry.example.com" not in together
    # sync.py stands in for upstream's: neither its content's hash nor a line of it may show.
    assert not re.search(r"profile-controller-code-[2456789bcdfghkmt]{10}", together)
