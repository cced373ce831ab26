"""The mirror while networks, registries and disks fail: whole or absent, and right in the end."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import Runner, need_programs
from tests.support.faultplan import Kind
from tests.support.faults import Faults, Faulty, Limit
from tests.support.madeset import SMALL, MadeSet, make, unique, unique_manifests
from tests.support.mirrorjob import (
    LONGEST,
    PREFIX,
    STALL,
    Job,
    enlarge,
    filled_up,
    job,
    mend,
    reasons,
    small_disk,
)
from tests.support.reader import read_layout
from tests.support.registries import serve_registry
from tests.support.workspaces import workspace_of

KILLS = 50
SERIES = 5
JOBS = 4
BLOBS: frozenset[Kind] = frozenset({"blob", "upload"})
SEED = int(os.environ.get("KFDEPLOY_FAULT_SEED", "1"))
"""Another number tries other moments and other requests."""

FAULTS: dict[str, tuple[Faults, Faults]] = {
    "resets": (Faults(reset=0.08), Faults(reset=0.04)),
    "5xx": (Faults(unavailable=0.1), Faults(unavailable=0.06)),
    "429-with-retry-after": (
        Faults(too_many=0.15, retry_after=1),
        Faults(too_many=0.05, retry_after=1),
    ),
    "429-without": (Faults(too_many=0.1), Faults(too_many=0.05)),
    "truncated": (Faults(truncate=0.1), Faults(truncate=0.03)),
    "corrupted-at-the-source": (Faults(corrupt=0.1), Faults()),
    "corrupted-on-the-way-in": (Faults(), Faults(corrupt=0.1)),
    "stalls": (Faults(stall=1, at_most=2, kinds=BLOBS), Faults(stall=1, at_most=2, kinds=BLOBS)),
    "wrong-digests": (Faults(wrong_digest=0.2), Faults(wrong_digest=0.1)),
    "everything": (
        Faults(reset=0.02, unavailable=0.03, truncate=0.02, corrupt=0.02, too_many=0.03),
        Faults(reset=0.01, unavailable=0.02, truncate=0.01, corrupt=0.01, wrong_digest=0.01),
    ),
}
"""At the source, and at the private registry."""

ONCE: dict[str, Faults] = {
    "reset": Faults(reset=1),
    "5xx": Faults(unavailable=1),
    "429": Faults(too_many=1, retry_after=1, at_most=6),
    "truncated": Faults(truncate=1),
    "corrupted": Faults(corrupt=1),
}


@dataclass(frozen=True, slots=True)
class Ready:
    """What all tests of this module start from."""

    made: MadeSet
    public: str
    site: Path


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, kfdeploy: Runner) -> Iterator[Ready]:
    need_programs("kustomize")
    folder = tmp_path_factory.mktemp("faults")
    made = make(folder / "made", SMALL)
    with serve_registry(made.registry) as public:
        refs = [image.ref for image in made.images]
        # The private registry is another one in each test.
        hosts = {"public": public.host, "private": "private.test:5000", "prefix": PREFIX}
        yield Ready(made, public.host, workspace_of(folder / "work", kfdeploy, refs, **hosts))


@pytest.fixture
def new_job(
    ready: Ready, kfdeploy: Runner, tmp_path: Path
) -> Callable[..., AbstractContextManager[Job]]:
    """A job of the test's own: ``with new_job() as work``."""
    numbers = iter(range(1000))

    def begin(storage: Path | None = None) -> AbstractContextManager[Job]:
        folder = tmp_path / f"job-{next(numbers)}"
        folder.mkdir()
        images = ready.made.images
        return job(kfdeploy, ready.site, folder, ready.public, images, storage=storage)

    return begin


NewJob = Callable[..., AbstractContextManager[Job]]


def everything(work: Job) -> set[str]:
    return {f"{wanted.repository}:{wanted.tag}" for wanted in work.wanted}


# -- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
def test_what_the_network_does_leaves_images_whole_or_absent_and_a_plain_run_completes(
    name: str, new_job: NewJob
) -> None:
    with new_job() as work:
        source, target = FAULTS[name]
        work.source.faults = replace(source, seed=SEED)
        work.target.faults = replace(target, seed=SEED)
        done = work.run("--jobs", str(JOBS))
        hits = {**work.source.counts.faults, **work.target.counts.faults}
        assert hits, "nothing was hit"
        found = work.look()
        assert (found.broken, work.glimpses) == ({}, {})
        if done.code == 0:
            assert found.whole == everything(work)
        else:
            assert "error: " in done.stderr
        last = work.finish()
        assert (last.whole, last.broken, last.absent) == (everything(work), {}, set())
        assert work.glimpses == {}


@pytest.mark.parametrize("name", ONCE)
def test_a_fault_at_the_source_that_passes_is_ridden_out(name: str, new_job: NewJob) -> None:
    with new_job() as work:
        work.source.faults = replace(ONCE[name], seed=SEED, each=1, kinds=frozenset({"blob"}))
        work.run("--jobs", str(JOBS), check=0)
        assert work.source.counts.faults
        assert work.look().whole == everything(work)


@pytest.mark.parametrize("name", [name for name in ONCE if name != "truncated"])
def test_a_fault_at_the_private_registry_that_passes_is_ridden_out(
    name: str, new_job: NewJob
) -> None:
    with new_job() as work:
        work.target.faults = replace(
            ONCE[name], seed=SEED, each=1, at_most=ONCE[name].at_most or 20
        )
        work.run("--jobs", str(JOBS), check=0)
        assert work.target.counts.faults
        assert work.look().whole == everything(work)


@pytest.mark.parametrize("fault", [Faults(corrupt=1), Faults(truncate=1), Faults(unavailable=1)])
def test_what_stays_broken_is_named_with_a_cause_and_the_rest_is_done(
    fault: Faults, ready: Ready, new_job: NewJob
) -> None:
    lost = ready.made.images[-1]
    own = set(lost.blobs) - set(unique(ready.made.images[:-1]))
    with new_job() as work:
        work.source.faults = replace(fault, matching="|".join(own), kinds=frozenset({"blob"}))
        done = work.run("--jobs", str(JOBS), check=1)
        assert list(reasons(done)) == [lost.ref]
        assert lost.ref.rpartition("/")[2].partition(":")[0] in done.stderr
        found = work.look()
        assert (len(found.whole), len(found.absent)) == (len(ready.made.images) - 1, 1)
        assert work.finish().whole == everything(work)


@pytest.mark.parametrize(
    "limit",
    [Limit(12, 1.5), Limit(12, 1.5, window="fixed"), Limit(12, 1.5, retry_after=False)],
    ids=["bucket", "fixed", "silent"],
)
def test_a_source_that_limits_requests_is_respected_by_all_workers_together(
    limit: Limit, new_job: NewJob
) -> None:
    with new_job() as work:
        work.source.faults = Faults(limit=limit)
        work.run("--jobs", "8", check=0)
        counts = work.source.counts
        assert counts.faults["limit"] > 0
        # Each worker may learn of it by itself; none may go on asking.
        assert counts.faults["limit"] <= counts.of() // 2
        assert work.look().whole == everything(work)


def test_a_stalled_transfer_is_cut_and_done_again(new_job: NewJob) -> None:
    with new_job() as work:
        stall = Faults(seed=SEED, stall=1, each=1, at_most=2, kinds=BLOBS)
        work.source.faults = work.target.faults = stall
        work.run("--jobs", str(JOBS), check=0)
        assert work.source.counts.faults["stall"] + work.target.counts.faults["stall"] >= 2
        assert work.look().whole == everything(work)


def test_only_missing_blobs_travel_and_each_once(ready: Ready, new_job: NewJob) -> None:
    with new_job() as work:
        work.run("--jobs", str(JOBS), check=0)
        images = ready.made.images
        needed = sum((unique(images) | unique_manifests(images)).values())
        assert work.target.counts.received <= 1.01 * needed
        assert uploads(work.target).most_common(1)[0][1] == 1
        asked = Counter(e.target for e in work.source.exchanges if e.kind == "blob")
        assert asked.most_common(1)[0][1] == 1


# -- registries and disks -------------------------------------------------------------------------


def test_a_private_registry_that_restarts_in_the_middle(new_job: NewJob) -> None:
    with new_job() as work:
        restarted = threading.Event()

        def restart() -> None:
            if work.target.wait_until(lambda counts: counts.received > SMALL.size // 3):
                work.end()
                time.sleep(0.5)
                work.serve()
                restarted.set()

        thread = threading.Thread(target=restart)
        thread.start()
        done = work.run("--jobs", str(JOBS))
        thread.join()
        assert restarted.is_set()
        found = work.look()
        assert (found.broken, work.glimpses) == ({}, {})
        assert done.code == (0 if found.whole == everything(work) else 1)
        assert work.finish().whole == everything(work)
        assert work.glimpses == {}


def test_a_private_registry_whose_disk_is_full(tmp_path: Path, new_job: NewJob) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk, new_job(disk / "private") as work:
        done = work.run("--jobs", str(JOBS), check=1)
        assert reasons(done)
        found = work.look()
        assert (found.broken, work.glimpses) == ({}, {})
        assert len(found.whole) + len(reasons(done)) == len(work.images)
        enlarge(disk, "64m")
        # The registry may have manifests that it wrote by half. It takes them again with 201, and
        # gives them out empty: whoever does not look believes that they are there.
        done = work.run("--jobs", str(JOBS))
        found = work.look()
        assert (found.broken, work.glimpses) == ({}, {})
        assert len(found.whole) == len(work.images) - (len(reasons(done)) if done.code else 0)
        work.end()
        spoiled = mend(work.storage)
        assert done.code == 0 or spoiled, str(done)
        work.serve()
        assert work.finish().whole == everything(work)


def test_a_bundle_whose_disk_is_full(tmp_path: Path, new_job: NewJob) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk, new_job() as work:
        folder = disk / "bundle"
        words = ("--to-bundle", str(folder), "--images-only")
        done = work.run(*words, check=1)
        assert f"{folder}: " in done.stderr and " are missing\n" in done.stderr
        assert read_layout(folder, work.wanted).broken == {}
        enlarge(disk, "64m")
        work.run(*words, check=0)
        assert read_layout(folder, work.wanted).whole == everything(work)
        assert work.finish("--from-bundle", str(folder)).whole == everything(work)


def test_a_bundle_whose_disk_is_filled_by_something_else(tmp_path: Path, new_job: NewJob) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk, new_job() as work:
        folder = disk / "bundle"
        words = ("--to-bundle", str(folder), "--images-only")
        work.source.faults = Faults(latency=0.05)
        with filled_up(disk, folder):
            done = work.run(*words, check=1)
        assert f"{folder}: the disk is full" in done.stderr
        assert read_layout(folder, work.wanted).broken == {}
        work.heal()
        work.run(*words, check=0)
        assert read_layout(folder, work.wanted).whole == everything(work)


# -- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "series", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, SERIES))]
)
def test_killed_at_any_moment_it_goes_on_and_nothing_looks_whole_that_is_not(
    series: int, ready: Ready, new_job: NewJob
) -> None:
    dice = random.Random(f"{SEED} {series}")
    with new_job() as work:
        _, seconds = work.kill("--jobs", str(JOBS), after=LONGEST)
        assert work.look().whole == everything(work)
    kills = 0
    while kills < KILLS // SERIES:
        with new_job() as work:
            here = 0
            for number in itertools.count():
                code, took = work.kill("--jobs", str(JOBS), after=dice.uniform(0, seconds))
                assert work.look().broken == {}
                if code == 0 and not number:
                    # The machine was busier while the whole was measured.
                    seconds = min(seconds, took)
                here += code == -signal.SIGKILL
                if code == 0 or kills + here == KILLS // SERIES:
                    break
            kills += here
            last = work.finish()
            assert (last.whole, last.broken) == (everything(work), {})
            # What had arrived was not sent again; what was in flight at a kill may have been.
            again = sum(number - 1 for number in uploads(work.target).values())
            assert again <= here * JOBS
            assert work.glimpses == {}


@pytest.mark.parametrize("way", ["--to-bundle", "--from-bundle"])
def test_a_bundles_writing_and_reading_killed_at_any_moment(
    way: str, tmp_path: Path, new_job: NewJob
) -> None:
    dice = random.Random(f"{SEED} {way}")
    folder = tmp_path / "bundle"
    with new_job() as work:
        options = ("--images-only",) if way == "--to-bundle" else ()
        if way == "--from-bundle":
            work.run("--to-bundle", str(folder), "--images-only", check=0)
        for _ in range(KILLS // SERIES):
            work.kill(way, str(folder), *options, after=dice.uniform(0, 0.6))
            assert read_layout(folder, work.wanted).broken == {}
            assert work.look().broken == {}
        last = work.finish(way, str(folder), *options)
        assert read_layout(folder, work.wanted).whole == everything(work)
        if way == "--from-bundle":
            assert last.whole == everything(work)


def test_two_mirrors_at_once_do_no_harm(kfdeploy: Runner, new_job: NewJob) -> None:
    with new_job() as work:
        argv = [*kfdeploy.command, "mirror", "--jobs", "2"]
        env = kfdeploy.environment(STALL)
        both = [
            subprocess.Popen(argv, cwd=work.root, env=env, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        ends = [(child.communicate(timeout=90)[1], child.returncode) for child in both]
        assert all("Traceback" not in said for said, _ in ends), ends
        assert 0 in [code for _, code in ends], ends
        assert work.look().broken == {}
        assert work.finish().whole == everything(work)


def uploads(target: Faulty) -> Counter[str]:
    """How often each digest was uploaded to its end."""
    return Counter(
        parse_qs(urlsplit(exchange.target).query)["digest"][0]
        for exchange in target.exchanges
        if (exchange.method, exchange.kind, exchange.status) == ("PUT", "upload", 201)
    )
