"""Looking into layers: a layer of real programs and Python's own library, made for the run."""

from __future__ import annotations

import shutil
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench.measure import BenchFailed, Place, Subject, children_cpu, interleaved
from tests.bench.result import Result, Rounds

PROGRAMS: Final = ("helm", "helmfile", "kustomize", "crane")
_READ: Final = (
    "import sys; from kfdeploy.scan.content import layers;"
    "found = layers.scan_layer(open(sys.argv[1], 'rb'), '', None);"
    "sys.exit(found.damage or None)"
)
_GREP: Final = (
    # LC_ALL: in a UTF-8 locale grep takes three times as long for the same answer.
    'gunzip -c "$1"'
    " | LC_ALL=C grep -aoE '[a-z0-9.-]+[.](io|com|dev)/[a-z0-9./_-]+:[A-Za-z0-9._-]+' | sort -u"
)


def layer(folder: Path) -> Path:
    """A gzip layer of Go programs and Python's library; as large as these are here.

    Raises:
        BenchFailed: a program is missing.
    """
    target = folder / "layer.tar.gz"
    if target.exists():
        return target
    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        for name in PROGRAMS:
            program = shutil.which(name)
            if program is None:
                raise BenchFailed(f"{name} is not on PATH")
            archive.add(Path(program).resolve(), f"usr/bin/{name}")
        archive.add(sysconfig.get_path("stdlib"), "usr/lib/python3", filter=_own)
    return target


def _own(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "site-packages" in member.name else member


def measured(place: Place, folder: Path, rounds: Rounds) -> Iterator[Result]:
    """Reading the layer, against `gunzip | grep`; seconds of a core for 100 MB; memory."""
    file, empty = layer(folder), folder / "empty.tar.gz"
    packed = file.stat().st_size
    tarfile.open(empty, "w:gz").close()

    def core(of: Path) -> float:
        before = children_cpu()
        place.seconds(sys.executable, "-c", _READ, str(of))
        return children_cpu() - before

    def per_100_mb() -> float:
        # A look starts once, into however many layers: Python's start is no part of its pace.
        return (core(file) - core(empty)) * 100e6 / packed

    ours, theirs, cpu = interleaved(
        rounds.long,
        Subject("layers.read", lambda: place.seconds(sys.executable, "-c", _READ, str(file))),
        Subject("gunzip | grep", lambda: place.seconds("sh", "-c", _GREP, "sh", str(file))),
        Subject(f"of a core for 100 MB ({packed / 1e6:.0f} MB, gzip)", per_100_mb),
    )
    (peak,) = interleaved(
        1, Subject("layers.read", lambda: place.peak(sys.executable, "-c", _READ, str(file)))
    )
    yield Result("content", "", ours, theirs, "ratio", 1.0)
    yield Result("content-core", "", cpu, None, "value", 2.0)
    yield Result("content-memory", "", peak, None, "value", 150, "MiB")
