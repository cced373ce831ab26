"""Moving images: the made set into registries and bundles, beside what else does that."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kfdeploy.oci.reference import ImageRef, host_qualified_path
from tests.bench.madesite import (
    folder_bytes,
    layout_names,
    made_site,
    private,
    pushed_path,
)
from tests.bench.measure import Samples, Subject, interleaved
from tests.bench.peers import PEERS, SKOPEO_COPY, WORKERS, Peer, skopeo_copies
from tests.bench.result import Measured, Result, Rounds
from tests.bench.sites import Site
from tests.support.faults import Faults, Limit, faulty
from tests.support.madeset import (
    QUICK,
    MadeImage,
    MadeSet,
    cached,
    cached_single,
    unique,
    unique_manifests,
)
from tests.support.registries import serve_registry
from tests.support.standins import OCI_INDEX

JOBS: Final = ("--jobs", str(WORKERS))
LIMIT: Final = Limit(100, 60)
LIMITED_LATENCY: Final = 0.05
LIMITED_REQUESTS: Final = 330
LIMITED_REQUESTS_QUICK: Final = 150
_LARGE: Final = 3_000_000_000
_LARGE_QUICK: Final = 300_000_000


def mirror_cold(site: Site, rounds: Rounds) -> Measured:
    """All of the made set into an empty registry, against three that can do that too.

    What the registry receives is counted in a round of its own, as counting takes time: bodies of
    uploads and manifests, against the bytes of all distinct blobs and manifests.
    """
    made = cached(rounds.shape)
    with made_site(made, site.work, site.env) as own, private(own.work / "private") as fresh:
        with faulty(fresh.anew().host) as proxy:
            own.goes_to(proxy.host)
            own.mirrored(*JOBS, read_blobs=True)
            received = proxy.counts.received
        yield _bytes("mirror-cold-bytes", "registry received", received, made.images)

        def ready() -> None:
            own.goes_to(fresh.anew().host)

        def copied(peer: Peer) -> Subject:
            return Subject(
                peer.name, lambda: peer.seconds(own.place, own.copies(), own.work), ready
            )

        ours, *theirs = interleaved(
            rounds.long,
            Subject(f"kfdeploy mirror {' '.join(JOBS)}", lambda: own.mirrored(*JOBS), ready),
            *map(copied, PEERS),
        )
        yield from against("mirror-cold", "made set", 0.8, ours, theirs)


def mirror_one(site: Site, rounds: Rounds) -> Measured:
    """One image of the set has changed; against `skopeo copy` of that image alone.

    Both registries have the set as it was. Each round has another change, which is locked before.
    """
    made = cached(rounds.shape)
    changes = list(made.changed[: rounds.short])
    (before,) = {one.ref for one in made.images if _repository(one) == _repository(changes[0])}
    with (
        made_site(made, site.work, site.env) as own,
        serve_registry(_filled(made, own.work / "first")) as first,
        serve_registry(_filled(made, own.work / "second")) as second,
    ):
        own.goes_to(first.host)
        # The set as it was is what an earlier run left.
        own.kfdeploy("mirror", *JOBS)
        steps = itertools.pairwise([before, *(one.ref for one in changes)])
        targets = iter(changes)

        def copy() -> float:
            image = next(targets)
            ref = ImageRef.parse(image.ref)
            source = f"docker://{own.public}/{host_qualified_path(ref)}@{image.digest}"
            target = f"docker://{second.host}/{pushed_path(ref)}:{ref.tag}"
            return own.place.seconds(*SKOPEO_COPY, source, target)

        ours, theirs = interleaved(
            len(changes),
            Subject(
                f"kfdeploy mirror, 1 of {len(made.images)} changed",
                lambda: own.kfdeploy("mirror", *JOBS),
                lambda: own.rename(*next(steps)),
            ),
            Subject("skopeo copy of it", copy),
        )
        yield Result("mirror-one", "made set", ours, theirs, "ratio", 1.3)


def mirror_limited(site: Site, rounds: Rounds) -> Measured:
    """A source that lets through 100 requests a minute, 50 ms away; against what that dictates.

    The limit is a bucket of 100 requests that fills evenly. What has to be asked for is each
    manifest and each blob, once: of N requests 100 pass at once and the others one each 0.6 s,
    so no program can end before (N - 100) x 0.6 s. Programs that ask once more for each image or
    each worker, that ask in vain, or that let the bucket fill up, are later than that. The images
    are a part of the set, each family's share kept, with caches as after a fresh clone.
    """
    made = cached(QUICK)
    quick = rounds.shape == QUICK
    images = _some(made.images, LIMITED_REQUESTS_QUICK if quick else LIMITED_REQUESTS)
    needed = _requests(images)
    dictated = (needed - LIMIT.requests) * LIMIT.seconds / LIMIT.requests
    with (
        made_site(made, site.work, site.env, images) as own,
        private(own.work / "private") as fresh,
        faulty(own.public, Faults(latency=LIMITED_LATENCY, limit=LIMIT)) as proxy,
    ):
        own.goes_to(fresh.anew().host, proxy.host)
        shutil.rmtree(own.folder / ".kfdeploy", ignore_errors=True)
        (taken,) = interleaved(
            1, Subject("kfdeploy mirror", lambda: own.mirrored(*JOBS, read_blobs=True))
        )
        asked = proxy.counts
    refused = asked.faults.get("limit", 0)
    name = f"kfdeploy mirror, {asked.of() - refused} requests and {refused} refused"
    ours = Samples(name, taken.values, taken.cpu)
    theirs = Samples(f"what the limit dictates, {needed} requests", (dictated,), (0.0,))
    yield Result("mirror-limited", f"{len(images)} images", ours, theirs, "ratio", 1.1)


def mirror_memory(site: Site, rounds: Rounds) -> Measured:
    """Peak memory of kfdeploy's own process: the set, and an image with one blob of 3 GB."""
    large = _LARGE_QUICK if rounds.shape == QUICK else _LARGE
    for name, made in (
        ("made set", cached(rounds.shape)),
        (f"{large / 1e9:.1f} GB blob", cached_single(large)),
    ):
        with made_site(made, site.work, site.env) as own, private(own.work / "private") as fresh:
            own.goes_to(fresh.anew().host)
            (peak,) = interleaved(1, Subject("kfdeploy mirror", own.peak_of("mirror", *JOBS)))
        yield Result("mirror-memory", name, peak, None, "value", 200, "MiB")


def bundle(site: Site, rounds: Rounds) -> Measured:
    """A bundle's size against its blobs, and its import against skopeo with the same layout.

    Of the set's images those in OCI's own format: in a layout skopeo overlooks Docker's.
    """
    made = cached(rounds.shape)
    images = [one for one in made.images if one.manifests[one.digest][0] == OCI_INDEX]
    with (
        made_site(made, site.work, site.env, images) as own,
        private(own.work / "private") as fresh,
    ):
        layout = own.work / "bundle"
        words = ("mirror", "--to-bundle", str(layout), "--images-only")
        own.goes_to("private.test:5000")
        (peak,) = interleaved(1, Subject("kfdeploy mirror --to-bundle", own.peak_of(*words)))
        yield Result("bundle-memory", "made set", peak, None, "value", 200, "MiB")
        yield _bytes("bundle-size", "bundle", folder_bytes(layout), images)
        names = layout_names(layout)

        def ready() -> None:
            own.goes_to(fresh.anew().host)

        ours, theirs = interleaved(
            rounds.long,
            Subject(
                f"kfdeploy mirror --from-bundle {' '.join(JOBS)}",
                lambda: own.mirrored("--from-bundle", str(layout), *JOBS),
                ready,
            ),
            Subject(
                f"skopeo copy of the layout, {WORKERS} at a time",
                lambda: skopeo_copies(own.place, layout, names, own.copies()),
                ready,
            ),
        )
        yield Result("bundle-import", "made set", ours, theirs, "ratio", 0.8)


def against(
    benchmark: str, what: str, target: float, ours: Samples, peers: Sequence[Samples]
) -> Measured:
    """A line against the best of the peers, which has the target, and one against each other."""
    best = min(peers, key=lambda taken: taken.median)
    yield Result(benchmark, what, ours, best, "ratio", target)
    for other in peers:
        if other is not best:
            yield Result(f"{benchmark}, others", what, ours, other, "ratio", None)


def _bytes(benchmark: str, what: str, number: int, images: Sequence[MadeImage]) -> Result:
    """Against the images' own, each blob and manifest once."""
    needed = sum((unique(images) | unique_manifests(images)).values())
    ours = Samples(what, (number / 1e6,), (0.0,))
    theirs = Samples("distinct blobs and manifests", (needed / 1e6,), (0.0,))
    return Result(benchmark, "made set", ours, theirs, "ratio", 1.01, "MB")


def _requests(images: Sequence[MadeImage]) -> int:
    return len(unique(images)) + len(unique_manifests(images))


def _some(images: Sequence[MadeImage], requests: int) -> list[MadeImage]:
    """Evenly chosen, as few as need so many requests."""
    for number in range(1, len(images)):
        chosen = [images[at * len(images) // number] for at in range(number)]
        if _requests(chosen) >= requests:
            return chosen
    return list(images)


def _repository(image: MadeImage) -> str:
    return image.ref.rpartition(":")[0]


def _filled(made: MadeSet, storage: Path) -> Path:
    """A private registry's storage with the set; blobs are links to the cache's."""
    made.store(storage, path_of=pushed_path)
    return storage
