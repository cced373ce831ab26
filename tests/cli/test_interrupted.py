"""^C, and what a scheduler sends: the workspace is as before or complete, and a new run goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.conftest import Runner, Site, edit_workspace, tree
from tests.support.registries import serve_registry

MADE: Mapping[str, tuple[str, ...]] = {
    "vendor": ("upstream/", "upstream.lock"),
    "lock": ("images.lock", "images.sources.yaml"),
    "patch": ("patches/", "helmfile.yaml.gotmpl"),
    "render": ("releases/",),
}
MOMENTS = 5
TRIES = 4 * MOMENTS
IMPORTED = 0.3
"""Seconds until kfdeploy has its imports: before that Python itself ends, without a word."""
SAID = "interrupted; run the same command again to go on\n"


def interrupt(
    kfdeploy: Runner, words: Sequence[str], root: Path, after: float
) -> subprocess.CompletedProcess[str]:
    """Run a command, with ^C after some seconds if it still runs."""
    child = subprocess.Popen(
        [*kfdeploy.command, *words],
        cwd=root,
        env=kfdeploy.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = child.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    return subprocess.CompletedProcess(list(words), child.returncode, out, err)


def own(command: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.startswith(MADE[command])}


@pytest.mark.parametrize("command", MADE)
def test_an_interrupted_command_leaves_all_or_nothing_and_can_be_run_again(
    command: str, small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    finished = tree(small_site.root)
    root = tmp_path / "site"

    def begin() -> dict[str, bytes]:
        subprocess.run(["rm", "-rf", root], check=True)
        small_site.copy(root)
        gone = (".kfdeploy", *MADE[command])
        subprocess.run(["rm", "-rf", *(root / name for name in gone)], check=True)
        return tree(root)

    begin()
    started = time.monotonic()
    kfdeploy(command, "--quiet", cwd=root)
    whole = time.monotonic() - started
    assert tree(root) == finished
    codes: list[int] = []
    # A machine that was busy while the whole was measured is quicker now: then shorter ones.
    while len(codes) < MOMENTS or (not any(codes) and len(codes) < TRIES):
        before = begin()
        after = IMPORTED + (whole - IMPORTED) * (len(codes) % MOMENTS + 1) / (MOMENTS + 1)
        started = time.monotonic()
        done = interrupt(kfdeploy, [command, "--quiet"], root, after)
        codes.append(done.returncode)
        there = tree(root)
        assert there in (before, finished), sorted(set(there) ^ set(finished))
        if done.returncode == 0:
            whole = max(IMPORTED, min(whole, time.monotonic() - started))
        else:
            assert done.returncode in (130, -signal.SIGINT), (after, done.stderr)
            assert done.stderr.lstrip("\n") == SAID, (after, done.stderr)
        kfdeploy(command, "--quiet", cwd=root)
        assert tree(root) == finished
    assert any(codes), "none was interrupted"


def test_sigterm_is_an_interruption_too(small_site: Site, kfdeploy: Runner, tmp_path: Path) -> None:
    root = small_site.copy(tmp_path / "site")
    before = tree(root)
    subprocess.run(["rm", "-rf", root / ".kfdeploy"], check=True)
    child = subprocess.Popen(
        [*kfdeploy.command, "render"],
        cwd=root,
        env=kfdeploy.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    assert child.stderr.readline().startswith("building: ")
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said.splitlines()[-1:]) == (130, SAID.splitlines())
    assert tree(root) == before


def test_an_interrupted_mirror_goes_on_where_it_was(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "site")
    with serve_registry(tmp_path / "private") as private:
        edit_workspace(root, {"registries.private.host": private.host})
        codes = []
        for after in (0.6, 1.2, 2.0, 3.0):
            done = interrupt(kfdeploy, ["mirror", "--jobs", "2"], root, after)
            codes.append(done.returncode)
            assert done.returncode in (0, 130, -signal.SIGINT), done.stderr
            assert "Traceback" not in done.stderr
        assert set(codes) - {0}, "none was interrupted"
        there = len(kfdeploy("mirror", "--dry-run", "--output", "json", cwd=root).json["present"])
        assert there > 0
        last = kfdeploy("mirror", cwd=root).stdout.splitlines()[-1]
        assert f", {there} present, 0 failed" in last
        kfdeploy("render", "--quiet", cwd=root)
        kfdeploy("verify", "--quiet", cwd=root)


def test_a_stop_that_became_another_error_is_one_all_the_same() -> None:
    script = (
        "import signal\nfrom kfdeploy import terminal\n"
        "class Field:\n"
        "    def __set_name__(self, owner, name):\n        signal.raise_signal(signal.SIGINT)\n"
        "def command():\n    class Model:\n        field = Field()\n"
        "terminal.run_command(command)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, SAID)
