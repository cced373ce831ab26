"""Start programs: argument by argument, without a shell. No other module does."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Final

from kfdeploy.errors import UserError

_STDERR_KEPT = 40
"""Lines of a failed program's output that its error repeats."""

_NOWHERE: Final = "http://127.0.0.1:9"
OFFLINE_ENVIRONMENT: Final = {
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_TERMINAL_PROMPT": "0",
    "HTTP_PROXY": _NOWHERE,
    "HTTPS_PROXY": _NOWHERE,
    "http_proxy": _NOWHERE,
    "https_proxy": _NOWHERE,
    "NO_PROXY": "",
    "no_proxy": "",
}
"""Variables for a program that must not use the network: git and HTTP clients fail at once."""


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """A program's exit code, and all that it wrote."""

    code: int
    stdout: bytes
    stderr: str


class ProgramFailed(UserError):
    """A program ended with an exit code other than 0, or did not end in time.

    Attributes:
        code: the exit code; None when it was stopped for taking too long.
    """

    def __init__(self, message: str, *, stderr: str, code: int | None, hint: str | None = None):
        super().__init__(message, hint=hint)
        self.stderr = stderr
        self.code = code


def find_program(program: str) -> Path:
    """Return the program's path on PATH.

    Raises:
        UserError: it is not there; the hint names ``kfdeploy doctor``.
    """
    found = shutil.which(program)
    if found is None:
        raise UserError(
            f"{program} is not on PATH",
            hint=f"`kfdeploy doctor` says how to install {program}",
        )
    return Path(found)


def run_program(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
    check: bool = True,
    what: str | None = None,
) -> ProcessResult:
    """Run a program to its end.

    Args:
        argv: program and arguments; the program is looked up on PATH.
        env: variables to add to the caller's.
        timeout: seconds, after which the program and its children are stopped.
        check: raise when the exit code is not 0.
        what: what the program does, for the error ("build of component katib").

    Raises:
        UserError: the program is missing.
        ProgramFailed: it failed (the message has its stderr), or did not end in time.
    """
    program = find_program(str(argv[0])).absolute()
    with subprocess.Popen(
        [str(program), *map(str, argv[1:])],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        try:
            out, err = child.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            _stop_program(child)
            raise ProgramFailed(
                f"{what or argv[0]}: {argv[0]} did not finish within {timeout:g} s",
                stderr="",
                code=None,
            ) from None
        except BaseException:
            _stop_program(child)
            raise
    stderr = err.decode("utf-8", "replace")
    if check and child.returncode != 0:
        raise ProgramFailed(
            f"{what or argv[0]}: {_describe_exit(str(argv[0]), child.returncode, stderr)}",
            stderr=stderr,
            code=child.returncode,
        )
    return ProcessResult(child.returncode, out, stderr)


@contextlib.contextmanager
def run_in_background(
    argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None
) -> Iterator[BackgroundProgram]:
    """Run a program until the block ends; it ends with kfdeploy in any case.

    Raises:
        UserError: the program is missing.
    """
    program = find_program(str(argv[0])).absolute()
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            [str(program), *map(str, argv[1:])],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        ) as child,
        _guard_group(child.pid),
    ):
        try:
            yield BackgroundProgram(str(argv[0]), child, stderr)
        finally:
            _stop_program(child)


class BackgroundProgram:
    """A program that `run_in_background` has started."""

    def __init__(self, name: str, child: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
        self._name, self._child, self._stderr = name, child, stderr

    def ensure_running(self) -> None:
        """Check that the program still runs.

        Raises:
            ProgramFailed: it has ended; the message has its stderr.
        """
        if (code := self._child.poll()) is None:
            return
        self._stderr.seek(0)
        stderr = self._stderr.read().decode("utf-8", "replace")
        raise ProgramFailed(_describe_exit(self._name, code, stderr), stderr=stderr, code=code)


# A process that is killed can't stop its programs, and Helm would go on with a release that the
# next run works on. So another process, which does nothing else, ends them when its pipe from
# kfdeploy closes. As long as that process exists, they may, too.
_GUARD: Final = """
import os, signal, sys, time
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
def left(sign):
    for group in list(groups):
        try:
            os.killpg(group, sign)
        except OSError:
            groups.discard(group)
    return groups
until = time.monotonic() + 5
left(signal.SIGTERM)
while left(0) and time.monotonic() < until:
    time.sleep(0.05)
left(signal.SIGKILL)
"""


def guard_pid() -> int:
    """Return the process that ends this one's programs when this one is killed."""
    return _start_guard().pid


def is_running(pid: int) -> bool:
    """Return whether a process exists and has not ended: a zombie does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return True
    return not state.rpartition(")")[2].startswith(" Z")


@lru_cache(maxsize=1)
def _start_guard() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
        bufsize=1,
    )


@contextlib.contextmanager
def _guard_group(group: int) -> Iterator[None]:
    """End this process group, too, if kfdeploy is killed during the block."""
    guard = _start_guard().stdin
    assert guard is not None
    guard.write(f"+{group}\n")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            guard.write(f"-{group}\n")


def stream_output(
    argv: Sequence[str | Path],
    on_line: Callable[[str], None],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    cancelled: threading.Event | None = None,
    what: str | None = None,
    guarded: bool = False,
) -> None:
    """Run a program, and pass on each line of its output (both streams) as it comes.

    Args:
        cancelled: stops the program when another thread sets it.
        what: see `run_program`.
        guarded: end the program even if kfdeploy is killed.

    Raises:
        UserError: the program is missing.
        ProgramFailed: it failed; the message has its last lines.
        KeyboardInterrupt: it was cancelled.
    """
    program = find_program(str(argv[0])).absolute()
    tail: list[str] = []
    with subprocess.Popen(
        [str(program), *map(str, argv[1:])],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as child:
        watcher = threading.Thread(target=_stop_when_cancelled, args=(child, cancelled))
        watcher.start()
        try:
            assert child.stdout is not None
            with _guard_group(child.pid) if guarded else contextlib.nullcontext():
                for raw in child.stdout:
                    line = raw.decode("utf-8", "replace").rstrip("\n")
                    tail = [*tail[1 - _STDERR_KEPT :], line]
                    on_line(line)
                code = child.wait()
        except BaseException:
            _stop_program(child)
            raise
        finally:
            watcher.join()
    if cancelled is not None and cancelled.is_set():
        raise KeyboardInterrupt
    if code != 0:
        stderr = "\n".join(tail)
        raise ProgramFailed(
            f"{what or argv[0]}: {_describe_exit(str(argv[0]), code, stderr)}",
            stderr=stderr,
            code=code,
        )


def _stop_when_cancelled(child: subprocess.Popen[bytes], cancelled: threading.Event | None) -> None:
    """Stop a program, which may print nothing for minutes, as soon as it is cancelled."""
    while cancelled is not None and child.poll() is None:
        if cancelled.wait(0.1):
            _stop_program(child)
            return


def _describe_exit(program: str, code: int, stderr: str) -> str:
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    text = "\n    ".join(lines[-_STDERR_KEPT:])
    ended = f"{program} was stopped by signal {-code}" if code < 0 else f"{program} exited {code}"
    return f"{ended}: {text}" if text else ended


def _stop_program(child: subprocess.Popen[bytes]) -> None:
    """Ask the program and its children to end, and kill them if they don't.

    Its children may take longer than the program.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGTERM)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            child.poll()
            os.killpg(child.pid, 0)
            time.sleep(0.02)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
