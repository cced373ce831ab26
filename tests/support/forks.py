"""Runs of kfdeploy that do not wait for Python to start.

A server imports all of kfdeploy once and forks for each run. A run is a process of its own, with
its own folder, variables, output, signal handlers and exit code; it only skips the imports, which
take most of the time of a short command. Tests about start-up itself run a real process.

    python -m tests.support.forks SOCKET     serves until its stdin is closed
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parents[2]
_START_SECONDS: Final = 120.0
_REQUEST_MAX: Final = 1 << 20
_AT_START: Final = ("PYTHON", "LC_", "LANG", "OPENSSL_", "MALLOC_", "LD_")
"""Beginnings of variables that Python or its libraries read as a process starts."""


def differs_at_start(changes: Mapping[str, str | None]) -> bool:
    """Say whether these variables need a process that starts with them."""
    return any(name.startswith(_AT_START) for name in changes)


class ForkServer:
    """A running server.

    Args:
        folder: takes the server's socket and log.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        # Socket paths may have 107 bytes at most, and tests' folders can be longer.
        self._folder: Final = tempfile.TemporaryDirectory(prefix="kfd-")
        self._address: Final = f"{self._folder.name}/s"
        self._log: Final = folder / f"forks-{os.getpid()}.log"
        with self._log.open("wb") as log:
            self._process: Final = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forks", self._address],
                cwd=_ROOT,
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + _START_SECONDS
        while not os.path.exists(self._address):  # noqa: PTH110
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"no fork server:\n{self._log.read_text(errors='replace')}")
            time.sleep(0.02)

    def run(
        self, arguments: Sequence[str], *, cwd: Path | None, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``kfdeploy ARGUMENTS`` to its end, with nothing on its stdin.

        Raises:
            subprocess.TimeoutExpired: it takes longer; it is killed.
        """
        words = ["kfdeploy", *arguments]
        request = {"argv": words, "cwd": str(cwd or Path.cwd()), "env": dict(env)}
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
        ):
            connection.settimeout(timeout)
            connection.connect(self._address)
            content = json.dumps(request).encode("utf-8", "surrogateescape")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST_MAX)
            socket.send_fds(connection, [content], [out.fileno(), err.fileno()])
            pid = int(connection.recv(64))
            try:
                code = int(connection.recv(64))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(words, timeout) from None
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(
                    stream.read().decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
                )
        return subprocess.CompletedProcess(words, code, *texts)

    def close(self) -> None:
        """End it, and what it still runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()


# -- in the server's own process -------------------------------------------------------------------


def _import_kfdeploy() -> None:
    import kfdeploy

    for module in pkgutil.walk_packages(kfdeploy.__path__, "kfdeploy."):
        if "templates" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _serve(address: str) -> bool:
    """Fork for each request; True in a process that is to be kfdeploy, False when all is over."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{address}.new")
    listener.listen(64)
    os.rename(f"{address}.new", address)  # noqa: PTH104
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                for pid, _connection in running.values():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return False
            if key.fileobj is listener:
                connection, _address = listener.accept()
                content, descriptors, _, _ = socket.recv_fds(connection, _REQUEST_MAX, 2)
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    for opened in (listener, connection, *(c for _, c in running.values())):
                        opened.detach()
                    _become(json.loads(content), descriptors)
                    return True
                for descriptor in descriptors:
                    os.close(descriptor)
                with contextlib.suppress(OSError):
                    connection.send(str(pid).encode())
                ended = os.pidfd_open(pid)
                selector.register(ended, selectors.EVENT_READ)
                running[ended] = pid, connection
            else:
                ended = key.fd
                selector.unregister(ended)
                os.close(ended)
                pid, connection = running.pop(ended)
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(OSError), connection:
                    connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Make this process what a new one of ``kfdeploy`` would be."""
    null = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((null, *descriptors)):
        os.dup2(descriptor, number)
    os.closerange(3, 4096)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    tempfile.tempdir = None
    sys.argv[:] = request["argv"]


if __name__ == "__main__":
    _import_kfdeploy()
    gc.collect()
    gc.freeze()
    if _serve(sys.argv[1]):
        from kfdeploy.cli import main

        __package__ = ""  # else usage says "python -m tests.support.kfdeploy"
        main()
