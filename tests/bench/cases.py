"""What is measured, against what, and the target for each."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench import applies, transfers
from tests.bench.content import measured
from tests.bench.measure import Subject, interleaved
from tests.bench.peers import PEERS, WORKERS, Copy, Peer
from tests.bench.result import Case, Measured, Result, Rounds
from tests.bench.sites import KFDEPLOY, Registries, Site
from tests.support.faults import Faults, faulty

DELAY_SECONDS: Final = 0.02


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


def mirror_idle(site: Site, rounds: Rounds) -> Measured:
    """`mirror` with nothing to do against three that find that out too, near and far.

    skopeo sync names what it copies in its own way, so it has a copy of its own in the registry.
    """
    copies = site.copies()
    for name, delay, target in (
        ("mirror-idle", 0.0, 1.0),
        ("mirror-idle-20ms", DELAY_SECONDS, 0.5),
    ):
        with _at(site, delay) as hosts, site.registries_at(hosts):
            moved = {
                site.registries.public: hosts.public,
                site.registries.private: hosts.private,
            }
            there = [copy.at(moved) for copy in copies]

            def asked(peer: Peer, there: Sequence[Copy] = there) -> Subject:
                return Subject(peer.name, lambda: peer.seconds(site.place, there, site.work))

            # Nothing to do is what an earlier run left.
            site.kfdeploy("mirror")
            for peer in PEERS:
                asked(peer).work()
            ours, *theirs = interleaved(
                rounds.long,
                Subject(
                    f"kfdeploy mirror --jobs {WORKERS}",
                    lambda: site.kfdeploy("mirror", "--jobs", str(WORKERS)),
                ),
                *map(asked, PEERS),
            )
        yield from transfers.against(name, site.upstream.name, target, ours, theirs)


@contextlib.contextmanager
def _at(site: Site, delay: float) -> Iterator[Registries]:
    """The site's registries, each request to either held back for ``delay`` seconds."""
    if not delay:
        yield site.registries
        return
    with (
        faulty(site.registries.public, Faults(latency=delay)) as public,
        faulty(site.registries.private, Faults(latency=delay)) as private,
    ):
        yield Registries(public.host, private.host)


def lock(site: Site, rounds: Rounds) -> Measured:
    """`lock` when no tag has moved, against asking `crane digest` for the same images."""
    commands = [["crane", "digest", f"{copy.source}@{copy.digest}"] for copy in site.copies()]
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
    yield from measured(site.vendored.place, site.folder, rounds)


CASES: Final[dict[str, Case]] = {
    "start-up": start_up,
    "scan": scan,
    "render": render,
    "memory": memory,
    "mirror-idle": mirror_idle,
    "mirror-cold": transfers.mirror_cold,
    "mirror-one": transfers.mirror_one,
    "mirror-limited": transfers.mirror_limited,
    "mirror-memory": transfers.mirror_memory,
    "bundle": transfers.bundle,
    "lock": lock,
    "patch": patch,
    "verify": verify,
    "content": content,
    "apply": applies.apply,
}
ONCE: Final = frozenset(
    {
        *("start-up", "content", "bundle"),
        *("mirror-cold", "mirror-one", "mirror-limited", "mirror-memory"),
    }
)
"""Cases that are the same for every release."""
