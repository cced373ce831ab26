"""What is measured, against what, and the target for each."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from bench.measure import Samples, Subject, interleaved
from bench.sites import KFDEPLOY, Registries, Site
from tests.support.relay import relay

WORKERS: Final = 8
DELAY_SECONDS: Final = 0.02

Kind = Literal["ratio", "difference", "value"]


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report.

    Attributes:
        ours, theirs: what each round gave, in ``unit``.
        kind: how the two are compared: ours / theirs, ours - theirs, or ours alone.
        target: what the comparison may be at most; None where it only informs.
    """

    benchmark: str
    release: str
    ours: Samples
    theirs: Samples | None
    kind: Kind
    target: float | None
    unit: str = "s"

    @property
    def value(self) -> float:
        if self.theirs is None or self.kind == "value":
            return self.ours.median
        if self.kind == "ratio":
            return self.ours.median / self.theirs.median
        return self.ours.median - self.theirs.median

    @property
    def cpu_ratio(self) -> float | None:
        """Ours / theirs in seconds of busy cores; only where that is a comparison."""
        if self.kind != "ratio" or self.theirs is None or not self.theirs.cpu_median:
            return None
        return self.ours.cpu_median / self.theirs.cpu_median

    @property
    def is_met(self) -> bool | None:
        return None if self.target is None else self.value <= self.target

    def to_json(self) -> dict[str, Any]:
        def samples(taken: Samples | None) -> dict[str, Any] | None:
            if taken is None:
                return None
            values = [round(value, 4) for value in taken.values]
            return {
                "what": taken.name,
                "median": round(taken.median, 4),
                "values": values,
                "cpuSeconds": round(taken.cpu_median, 4),
            }

        return {
            "benchmark": self.benchmark,
            "release": self.release,
            "unit": self.unit,
            "ours": samples(self.ours),
            "theirs": samples(self.theirs),
            "compared": self.kind,
            "value": round(self.value, 4),
            "cpuRatio": None if self.cpu_ratio is None else round(self.cpu_ratio, 4),
            "target": self.target,
            "met": self.is_met,
        }


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often each is measured: work of seconds, and work of tenths."""

    long: int
    short: int


Measured = Iterator[Result]
Case = Callable[[Site, Rounds], Measured]


def start_up(site: Site, rounds: Rounds) -> Measured:
    """`kfdeploy --help`, less what Python itself takes."""
    place = site.vendored.place
    ours, theirs = interleaved(
        rounds.short * 2,
        Subject("kfdeploy --help", lambda: 1000 * place.seconds(KFDEPLOY, "--help")),
        Subject("python -c pass", lambda: 1000 * place.seconds(sys.executable, "-c", "pass")),
    )
    yield Result("start-up", "", ours, theirs, "difference", 150, "ms")


def scan(site: Site, rounds: Rounds) -> Measured:
    """`scan` from nothing against the builds it must run; and again with nothing changed."""
    builds = site.vendored.builds()
    cold, peers, warm = interleaved(
        rounds.long,
        Subject("kfdeploy scan, cold", lambda: site.kfdeploy("scan"), site.forget),
        Subject(
            f"{len(builds)} kustomize builds, one after the other",
            lambda: sum(site.place.seconds(*argv) for argv in builds),
        ),
        # A cold scan comes before it in each round, so the caches are whole.
        Subject("kfdeploy scan, warm", lambda: site.kfdeploy("scan")),
    )
    yield Result("scan-cold", site.upstream.name, cold, peers, "ratio", 1.3)
    yield Result("scan-warm", site.upstream.name, warm, cold, "ratio", 0.1)


def render(site: Site, rounds: Rounds) -> Measured:
    """`render` from nothing, after one patch, and unchanged; against Helmfile on the workspace."""
    helmfile = ("helmfile", "--file", "helmfile.yaml.gotmpl", "template")
    options = ("--skip-deps", "--include-crds")
    try:
        cold, again, one, peers = interleaved(
            rounds.long,
            Subject("kfdeploy render, cold", lambda: site.kfdeploy("render"), site.rendered.forget),
            Subject("kfdeploy render, warm", lambda: site.kfdeploy("render")),
            Subject(
                "kfdeploy render, one patch changed",
                lambda: site.kfdeploy("render"),
                site.change_a_patch,
            ),
            Subject("helmfile template", lambda: site.place.seconds(*helmfile, *options)),
        )
    finally:
        for file in site.folder.glob("patches/*/bench.yaml"):
            file.unlink()
    name = site.upstream.name
    yield Result("render-patch", name, one, cold, "ratio", 0.2)
    yield Result("render-cold", name, cold, peers, "ratio", 0.2)
    yield Result("render-warm", name, again, peers, "ratio", 0.2)


def memory(site: Site, rounds: Rounds) -> Measured:
    """Peak memory of kfdeploy's own process, where nothing is cached."""
    site.rendered  # noqa: B018
    for command in ("scan", "render"):
        (peak,) = interleaved(
            1,
            Subject(
                f"kfdeploy {command}, cold",
                lambda command=command: site.place.peak(KFDEPLOY, command, "--quiet"),  # type: ignore[misc]
                site.forget,
            ),
        )
        name = f"memory-{command}"
        yield Result(name, site.upstream.name, peak, None, "value", 300, "MiB")


def mirror(site: Site, rounds: Rounds) -> Measured:
    """`mirror` with nothing to do against as many `crane copy` at a time, near and far."""
    copies = site.copies()
    for name, delay, target in (
        ("mirror-idle", 0.0, 1.0),
        ("mirror-idle-20ms", DELAY_SECONDS, 0.5),
    ):
        with _at(site, delay) as hosts, site.registries_at(hosts):
            commands = [
                [
                    *("crane", "copy"),
                    source.replace(site.registries.public, hosts.public),
                    destination.replace(site.registries.private, hosts.private),
                ]
                for source, destination in copies
            ]
            ours, theirs = interleaved(
                rounds.long,
                Subject(
                    f"kfdeploy mirror --jobs {WORKERS}",
                    lambda: site.kfdeploy("mirror", "--jobs", str(WORKERS)),
                ),
                Subject(
                    f"{len(commands)} crane copy, {WORKERS} at a time",
                    lambda commands=commands: site.place.pool_seconds(commands, WORKERS),  # type: ignore[misc]
                ),
            )
        yield Result(name, site.upstream.name, ours, theirs, "ratio", target)


@contextlib.contextmanager
def _at(site: Site, delay: float) -> Iterator[Registries]:
    """The site's registries, each request to either held back for ``delay`` seconds."""
    if not delay:
        yield site.registries
        return
    with (
        relay(site.registries.public, delay=delay) as public,
        relay(site.registries.private, delay=delay) as private,
    ):
        yield Registries(public, private)


def lock(site: Site, rounds: Rounds) -> Measured:
    """`lock` when no tag has moved, against asking `crane digest` for the same images."""
    sources = [source for source, _ in site.copies()]
    commands = [["crane", "digest", source] for source in sources]
    ours, theirs = interleaved(
        rounds.long,
        Subject(
            f"kfdeploy lock --jobs {WORKERS}, nothing new",
            lambda: site.kfdeploy("lock", "--jobs", str(WORKERS)),
        ),
        Subject(
            f"{len(commands)} crane digest, {WORKERS} at a time",
            lambda: site.place.pool_seconds(commands, WORKERS),
        ),
    )
    yield Result("lock-idle", site.upstream.name, ours, theirs, "ratio", None)


def patch(site: Site, rounds: Rounds) -> Measured:
    """`patch` with nothing to write, against a scan that finds everything in the caches."""
    site.rendered.kfdeploy("patch")
    yield _against_warm_scan("patch", site, rounds)


def verify(site: Site, rounds: Rounds) -> Measured:
    """`verify` with the registry asked, against a scan that finds everything in the caches."""
    site.rendered.kfdeploy("render")
    yield _against_warm_scan("verify", site, rounds)


def _against_warm_scan(command: str, site: Site, rounds: Rounds) -> Result:
    site.kfdeploy("scan")
    ours, theirs = interleaved(
        rounds.short,
        Subject(f"kfdeploy {command}, nothing changed", lambda: site.kfdeploy(command)),
        Subject("kfdeploy scan, warm", lambda: site.kfdeploy("scan")),
    )
    return Result(command, site.upstream.name, ours, theirs, "ratio", None)


def content(site: Site, rounds: Rounds) -> Measured:
    """Looking into a layer, against `gunzip | grep`; seconds of a core, and memory."""
    from bench.content import measured

    yield from measured(site.vendored.place, site.folder, rounds)


CASES: Final[dict[str, Case]] = {
    "start-up": start_up,
    "scan": scan,
    "render": render,
    "memory": memory,
    "mirror": mirror,
    "lock": lock,
    "patch": patch,
    "verify": verify,
    "content": content,
}
ONCE: Final = frozenset({"start-up", "content"})
"""Cases that are the same for every release."""
