"""Whole processes, measured: time from start to end, and the memory of the process itself."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_SAMPLE_SECONDS: Final = 0.002
_WORDS_KEPT: Final = 2000


class BenchFailed(Exception):
    """A program that is measured did not do its work, so its time means nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where processes run: working folder, and all their variables."""

    folder: Path
    env: Mapping[str, str]

    def seconds(self, *argv: str) -> float:
        """Run a program to its end, its output thrown away; the seconds it took.

        Raises:
            BenchFailed: it did not exit 0.
        """
        with tempfile.TemporaryFile() as words:
            started = time.perf_counter()
            code = subprocess.run(
                argv,
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=words,
                check=False,
            ).returncode
            seconds = time.perf_counter() - started
            if code:
                words.seek(0)
                said = words.read()[-_WORDS_KEPT:].decode("utf-8", "replace")
                raise BenchFailed(f"`{' '.join(argv)}` exited {code}:\n{said}")
        return seconds

    def pool_seconds(self, commands: Sequence[Sequence[str]], workers: int) -> float:
        """Run many programs, ``workers`` at a time; the seconds until the last has ended."""
        started = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda argv: self.seconds(*argv), commands))
        return time.perf_counter() - started

    def answer(self, *argv: str) -> str:
        """What a program prints.

        Raises:
            BenchFailed: it did not exit 0.
        """
        done = subprocess.run(
            argv, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = done.stderr[-_WORDS_KEPT:]
            raise BenchFailed(f"`{' '.join(argv)}` exited {done.returncode}:\n{said}")
        return done.stdout

    def peak(self, *argv: str) -> float:
        """Peak resident memory of a program's own process, in MiB, its children left out.

        ``wait4`` would count the children that the process waited for, and what the process that
        started it had before; VmHWM belongs to this program alone and only grows, so the last
        sample before the end is the peak.
        """
        child = subprocess.Popen(
            argv,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        status = Path(f"/proc/{child.pid}/status")
        program = os.fspath(Path(argv[0]).name)
        peak = 0
        while child.poll() is None:
            text = _read(status)
            # Between fork and exec it is still a copy of the benchmark.
            if f"Name:\t{program[:15]}\n" in text and (found := _HWM.search(text)):
                peak = max(peak, int(found[1]))
            time.sleep(_SAMPLE_SECONDS)
        if child.returncode or not peak:
            raise BenchFailed(f"`{' '.join(argv)}` exited {child.returncode}; peak {peak} KiB")
        return peak / 1024


_HWM: Final = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has just ended
        return ""


@dataclass(frozen=True, slots=True)
class Subject:
    """One of the things compared: ``work`` measures once, after an unmeasured ``prepare``."""

    name: str
    work: Callable[[], float]
    prepare: Callable[[], None] = field(default=lambda: None)


@dataclass(frozen=True, slots=True)
class Samples:
    """What one subject came to, in each round.

    ``cpu`` has the seconds that its processes kept cores busy, their children's included: another
    program's load on the machine moves these less than it moves the clock.
    """

    name: str
    values: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu)


def interleaved(rounds: int, *subjects: Subject) -> tuple[Samples, ...]:
    """Measure A B A B, so that what else the machine does falls on both."""
    taken: list[list[tuple[float, float]]] = [[] for _ in subjects]
    for _ in range(rounds):
        for subject, pairs in zip(subjects, taken, strict=True):
            subject.prepare()
            before = children_cpu()
            value = subject.work()
            pairs.append((value, children_cpu() - before))
    return tuple(
        Samples(subject.name, tuple(v for v, _ in pairs), tuple(cpu for _, cpu in pairs))
        for subject, pairs in zip(subjects, taken, strict=True)
    )


def children_cpu() -> float:
    """Seconds, of processes that have ended; registries run on and count nowhere."""
    times = os.times()
    return times.children_user + times.children_system
