"""The project's root is a workspace for Kubeflow 26.03: what is committed is what is generated."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import Runner

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ("kfdeploy.yaml", "kfdeploy.schema.json", "helmfile.yaml.gotmpl", "images.lock")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, upstreams: Path, kfdeploy: Runner) -> Path:
    """The root's committed files, vendored from the real 26.03."""
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
    kfdeploy("vendor", "-C", folder)
    return folder


def test_the_committed_patches_are_what_patch_generates(site: Path, kfdeploy: Runner) -> None:
    checked = kfdeploy("patch", "--check", "-C", site)
    assert checked.stdout == ""


def test_around_a_hundred_patches_are_committed() -> None:
    assert 90 <= len(list((ROOT / "patches").glob("*/*.yaml.gotmpl"))) <= 130


def test_the_committed_lock_has_what_is_known_without_a_network(
    site: Path, kfdeploy: Runner
) -> None:
    locked = kfdeploy("lock", "--offline", "-C", site, check=1)  # the rest is named
    assert "hint: run `kfdeploy lock` once where the sources can be reached" in locked.stderr
    assert (site / "images.lock").read_bytes() == (ROOT / "images.lock").read_bytes()


def test_the_components_are_what_init_lists(
    upstreams: Path, tmp_path: Path, kfdeploy: Runner
) -> None:
    kfdeploy("init", tmp_path / "fresh", "--upstream", upstreams / "kubeflow-26.03")

    def components(folder: Path) -> str:
        text = (folder / "kfdeploy.yaml").read_text()
        return text.partition("\ncomponents:\n")[2].partition("\nregistries:\n")[0]

    assert components(tmp_path / "fresh") == components(ROOT)


def test_the_committed_schema_is_that_of_the_model(kfdeploy: Runner) -> None:
    assert kfdeploy("schema").stdout == (ROOT / "kfdeploy.schema.json").read_text()
    assert kfdeploy("schema", "--catalogue").json["title"] == "a file of kfdeploy's catalogue"


def test_no_committed_patch_names_a_registry_or_depends_on_the_stand_in_script() -> None:
    texts = [path.read_text() for path in (ROOT / "patches").rglob("*") if path.is_file()]
    together = "\n".join([*texts, (ROOT / "helmfile.yaml.gotmpl").read_text()])
    assert "registry.example.com" not in together
    # sync.py stands in for upstream's: neither its content's hash nor a line of it may show.
    assert not re.search(r"profile-controller-code-[2456789bcdfghkmt]{10}", together)


def test_the_readme_in_releases_is_no_release_set(tmp_path: Path, kfdeploy: Runner) -> None:
    shutil.copy(ROOT / "kfdeploy.yaml", tmp_path)
    shutil.copytree(ROOT / "releases", tmp_path / "releases", ignore=_ignore_folders)
    done = kfdeploy("verify", "-C", tmp_path, check=1)
    assert done.stderr.startswith("error: there is no release set yet\n")


def _ignore_folders(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_dir()]
