"""A workspace to mirror, with a proxy that breaks things on either side."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from kfdeploy.oci.reference import ImageRef, host_qualified_path
from tests.conftest import Done, Runner, edit_workspace
from tests.support.faults import Faults, Faulty, faulty
from tests.support.madeset import MadeImage
from tests.support.reader import Look, Wanted, read_registry
from tests.support.registries import free_port, serve_registry

PREFIX: Final = "kf"
STALL: Final = {"KFDEPLOY_STALL_SECONDS": "1"}
LONGEST: Final = 90.0
"""Seconds that no run of so few megabytes may take, faults or not."""
_WATCH_SECONDS: Final = 0.05


@dataclass(slots=True)
class Job:
    """A locked workspace between two proxies.

    Attributes:
        source, target: the proxies that the workspace goes through.
        private: HOST:PORT of the private registry itself.
        storage: the folder that it keeps images in.
        images: what is to be mirrored.
        glimpses: what was seen broken while a command ran.
    """

    kfdeploy: Runner
    root: Path
    source: Faulty
    target: Faulty
    private: str
    storage: Path
    images: Sequence[MadeImage]
    glimpses: dict[str, str] = field(default_factory=dict)
    _servers: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _pid: int = 0

    @property
    def wanted(self) -> list[Wanted]:
        """Where each image is to be in the private registry."""
        refs = [(ImageRef.parse(image.ref), image.digest) for image in self.images]
        return [
            Wanted(f"{PREFIX}/{host_qualified_path(ref)}", ref.tag, digest) for ref, digest in refs
        ]

    def run(self, *arguments: str, check: int | None = None) -> Done:
        """``kfdeploy mirror ARGUMENTS``, and all the while a look at what shows itself.

        Raises:
            AssertionError: it exited with neither 0 nor 1, or with a traceback.
        """
        words = ("mirror", *arguments, "--output", "json")
        with self._watched():
            done = self.kfdeploy(*words, cwd=self.root, env=STALL, check=check, timeout=LONGEST)
        assert done.code in (0, 1), str(done)
        assert "Traceback" not in done.stderr, str(done)
        return done

    def kill(self, *arguments: str, after: float) -> tuple[int, float]:
        """Begin a run and end it with SIGKILL, seconds after its first request.

        Returns:
            The exit code, that of the signal unless it was quicker; and the seconds that it had
            from its first request on.
        """
        before = len(self.target.exchanges) + len(self.source.exchanges)
        child = subprocess.Popen(
            [*self.kfdeploy.command, "mirror", *arguments],
            cwd=self.root,
            env=self.kfdeploy.environment(STALL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while child.poll() is None:
            if len(self.target.exchanges) + len(self.source.exchanges) > before:
                break
            time.sleep(0.002)
        begun = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(after)
        child.send_signal(signal.SIGKILL)
        return child.wait(), time.monotonic() - begun

    def serve(self) -> None:
        """Start the private registry; after an end, on the same port with what it had."""
        port = int(self.private.rpartition(":")[2])
        served = self._servers.enter_context(serve_registry(self.storage, port=port))
        self._pid = served.pid
        self.target.start()

    def end(self) -> None:
        """Kill the private registry in whatever it does; its port refuses from then on."""
        os.kill(self._pid, signal.SIGKILL)
        self.target.stop()
        self._servers.close()

    def look(self) -> Look:
        """All that the private registry has, read and hashed."""
        return read_registry(self.private, self.wanted)

    def heal(self) -> None:
        self.source.faults = self.target.faults = Faults()

    def finish(self, *arguments: str) -> Look:
        """A plain run without any fault, which must succeed; what is there then."""
        self.heal()
        self.run(*arguments, check=0)
        return self.look()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Note what looks whole and is not, at any moment."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_WATCH_SECONDS):
                # A registry that is down or full says nothing of its images.
                with contextlib.suppress(OSError, http.client.HTTPException):
                    self.glimpses.update(
                        read_registry(self.private, self.wanted, read_blobs=False).broken
                    )

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextlib.contextmanager
def job(
    kfdeploy: Runner,
    site: Path,
    folder: Path,
    public: str,
    images: Sequence[MadeImage],
    *,
    storage: Path | None = None,
) -> Iterator[Job]:
    """A copy of a locked workspace, with a private registry of its own that is empty.

    Args:
        site: the workspace, its upstream not needed any more.
        folder: where the copy and the registry go.
        public: the registry that has the images.
        storage: the private registry's folder; one below ``folder`` when left out.
    """
    root = folder / "site"
    shutil.copytree(site, root, symlinks=True)
    private = f"127.0.0.1:{free_port()}"
    with faulty(public) as source, faulty(private) as target:
        changes = {"registries.private.host": target.host, "registries.sources": {"*": source.host}}
        edit_workspace(root, changes)
        place = storage or folder / "private"
        work = Job(kfdeploy, root, source, target, private, place, images)
        work.serve()
        try:
            yield work
        finally:
            work.end()


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own at ``folder``, as large as ``size`` (``2m``).

    Skips the test where none can be mounted.
    """
    folder.mkdir()
    _mount(folder, "mount", "-t", "tmpfs", "-o", f"size={size}", "none")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def filled_up(disk: Path, folder: Path) -> Iterator[None]:
    """A `small_disk` of which something else takes all the rest once ``folder`` has a file."""
    filler, over = disk / "filler", threading.Event()

    def fill() -> None:
        while not any(file.is_file() for file in folder.rglob("*")):
            if over.wait(0.002):
                return
        with filler.open("wb", buffering=0) as opened, contextlib.suppress(OSError):
            while opened.write(bytes(4096)):
                pass

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        filler.unlink(missing_ok=True)


def enlarge(folder: Path, size: str) -> None:
    """Make a `small_disk` larger."""
    _mount(folder, "mount", "-o", f"remount,size={size}")


def mend(storage: Path) -> int:
    """Remove what a registry has written by half, as its garbage collection does; how many files.

    Version 2.8 writes manifests and links in place: on a full disk they stay empty, and for the
    registry they are there. It must not run meanwhile.
    """
    spoiled = [file for file in storage.rglob("link") if not file.stat().st_size]
    for file in storage.glob("docker/registry/v2/blobs/sha256/*/*/data"):
        if hashlib.sha256(file.read_bytes()).hexdigest() != file.parent.name:
            spoiled.append(file)
    for file in spoiled:
        file.unlink()
    return len(spoiled)


def reasons(done: Done) -> Mapping[str, str]:
    """Reference to the cause that a run gave for not copying it."""
    return {ref: item["reason"] for item in done.json["failed"] for ref in item["refs"]}


def _mount(folder: Path, *argv: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    done = subprocess.run([*argv, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
