"""The README's worked run does what it says, and the documents' kfdeploy.yaml is a valid one."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from kfdeploy.workspace.settings import Workspace
from tests.support.live import LiveCluster

ROOT = Path(__file__).resolve().parent.parent


def marked(document: str, marker: str) -> str:
    """The fenced block after ``<!-- MARKER -->``."""
    pattern = rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```"
    found = re.findall(pattern, (ROOT / document).read_text(), re.DOTALL)
    assert len(found) == 1, f"{document}: {len(found)} blocks marked {marker!r}"
    return str(found[0])


def test_the_documented_kfdeploy_yaml_is_valid() -> None:
    workspace = Workspace.model_validate(
        YAML(typ="safe").load(marked("docs/workspace.md", "kfdeploy.yaml"))
    )
    assert [component.name for component in workspace.components][-1] == "feature-store"


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for document in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            if "://" not in target and target != "docs/decisions/":
                assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.skipif(
    importlib.util.find_spec("kfdeploy.cli") is None, reason="kfdeploy has no command line yet"
)
def test_the_worked_run_ends_with_a_set_that_is_verified_and_applied(
    tmp_path: Path, live_cluster: Callable[..., LiveCluster]
) -> None:
    for program in ("kfdeploy", "kustomize"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH; `make setup` installs it")
    from demo import edit_settings, list_expected_refs, make_environment
    from tests.support.registries import serve_registry
    from tests.support.standins import name_standin, push_standins

    (tmp_path / "tests").symlink_to(ROOT / "tests")
    with (
        serve_registry(tmp_path / "public") as public,
        serve_registry(tmp_path / "private") as private,
    ):
        substitutes = {
            ref: name_standin(ref) for ref in push_standins(public.host, list_expected_refs())
        }
        push_standins(public.host, substitutes.values())

        def shell(script: str, env: Mapping[str, str] | None = None) -> str:
            done = subprocess.run(
                ["bash", "-eu", "-c", script],
                cwd=tmp_path,
                env={**make_environment(), "REGISTRY": private.host, **(env or {})},
                capture_output=True,
                text=True,
                check=False,
                timeout=600,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        shell(marked("README.md", "worked run: 1"))
        edit_settings(tmp_path / "site/kfdeploy.yaml", public.host, substitutes)
        shell(marked("README.md", "worked run: 2"))
        assert (tmp_path / "site/releases/default/SHA256SUMS").is_file()
        said = shell("cd site\n" + marked("README.md", "worked run: 3"), live_cluster().env)
    assert "releases/default: applied: 15 installed in " in said
    assert "releases/default: applied: 15 unchanged in " in said
    assert said.endswith("all running images are in the lock\n")
