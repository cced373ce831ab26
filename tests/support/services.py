"""Servers that all processes of a test run share: registries and clusters.

The first test that needs one starts it, in a process of its own, below a folder that the run's
controlling process made. It ends with the controlling process, however that ends: that holds a
lock for as long as it lives, and each server waits for the lock.

    python -m tests.support.services FOLDER NAME
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Final

from tests.support.cluster import NoCluster, serve_cluster
from tests.support.kubeapi import NotStarted
from tests.support.live import serve_live_cluster
from tests.support.markers import require_servers
from tests.support.registries import NoRegistry, serve_registry

_ROOT: Final = Path(__file__).resolve().parents[2]
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 30.0


class NotServed(RuntimeError):
    """The server did not start, for a reason that is not its own word for it."""


class Run:
    """The controlling process's hold on a folder that its whole run shares."""

    def __init__(self) -> None:
        self.folder: Final = Path(tempfile.mkdtemp(prefix="kfdeploy-tests-"))
        self._alive: Final = _locked(self.folder / "alive", fcntl.LOCK_EX)
        self._serving: Final = (self.folder / "serving").open("w")

    def end(self) -> None:
        """Let the servers end, wait for them, and remove the folder."""
        self._alive.close()
        until = time.monotonic() + _STOP_SECONDS
        while not _is_last(self._serving) and time.monotonic() < until:
            time.sleep(0.02)
        self._serving.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def service(folder: Path, name: str) -> dict[str, Any]:
    """What a server says of itself, started if no process of the run has done so.

    ``{"error": ...}`` from one that cannot be had on this machine.

    Raises:
        NotServed: it ended, or said nothing for too long.
    """
    file = folder / f"{name}.json"
    with only_one(folder / name):
        if not file.exists():
            _start(folder, name, file)
    content: dict[str, Any] = json.loads(file.read_text())
    return content


@contextlib.contextmanager
def only_one(name: Path) -> Iterator[None]:
    """One process of the run at a time."""
    with _locked(name.with_name(f"{name.name}.mutex"), fcntl.LOCK_EX):
        yield


def _start(folder: Path, name: str, file: Path) -> None:
    require_servers(name)
    said = folder / f"{name}.log"
    with said.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder), name],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    until = time.monotonic() + _START_SECONDS
    while not file.exists():
        if server.poll() is not None or time.monotonic() > until:
            raise NotServed(f"{name} did not start:\n{said.read_text(errors='replace')}")
        time.sleep(0.02)


# -- in the server's own process ------------------------------------------------------------------


@contextlib.contextmanager
def _registries(folder: Path) -> Iterator[Mapping[str, str]]:
    with (
        serve_registry(folder / "public-data") as public,
        serve_registry(folder / "private-data") as private,
    ):
        yield {"public": public.host, "private": private.host}


@contextlib.contextmanager
def _cluster(folder: Path) -> Iterator[Mapping[str, Any]]:
    with serve_cluster(folder / "cluster") as cluster:
        yield {
            "server": cluster.server,
            "kubeconfig": str(cluster.kubeconfig),
            "folder": str(cluster.folder),
            "pids": dict(cluster.pids),
        }


@contextlib.contextmanager
def _live(folder: Path) -> Iterator[Mapping[str, Any]]:
    with serve_live_cluster(folder / "live") as live:
        yield live.to_json()


_SERVICES: Final[Mapping[str, Callable[[Path], AbstractContextManager[Mapping[str, Any]]]]] = {
    "registries": _registries,
    "cluster": _cluster,
    "live": _live,
}


def _serve(folder: Path, name: str) -> None:
    """Serve until the controlling process lets go of its lock, or dies."""
    file = folder / f"{name}.json"
    with _locked(folder / "serving", fcntl.LOCK_SH) as serving:
        with contextlib.ExitStack() as stack:
            content: Mapping[str, Any]
            try:
                content = stack.enter_context(_SERVICES[name](folder))
            except (NoCluster, NoRegistry, NotStarted) as error:
                content = {"error": str(error)}
            fresh = file.with_suffix(".new")
            fresh.write_text(json.dumps(content))
            fresh.replace(file)
            _locked(folder / "alive", fcntl.LOCK_SH).close()
        if _is_last(serving):  # a controlling process that was killed left that to us
            shutil.rmtree(folder, ignore_errors=True)


def _locked(file: Path, how: int) -> IO[str]:
    opened = file.open("a")
    fcntl.flock(opened, how)
    return opened


def _is_last(serving: IO[str]) -> bool:
    try:
        fcntl.flock(serving, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
