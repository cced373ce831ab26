"""`kfdeploy apply` against upstream's loop, each on a fresh control plane of its own.

The control plane is a real one; nodes and operators are stand-ins (tests/support/live.py), whose
pods are ready at once. So what is measured is the work of those who apply, and their waiting for
each other, and not images being pulled.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.measure import BenchFailed, Place, Subject, interleaved
from tests.bench.result import Measured, Result, Rounds
from tests.bench.sites import KFDEPLOY, Site
from tests.support.cluster import NoCluster
from tests.support.kubeapi import NotStarted
from tests.support.live import serve_live_cluster
from tests.support.upstream_loop import Loop, NeverDone, local_example, run_loop

# Each is minutes, a part of them upstream's pauses.
_ROUNDS: Final = 1


def apply(site: Site, rounds: Rounds) -> Measured:
    """A first `apply`, the second, and upstream's loop, with and without its pauses."""
    site.rendered  # noqa: B018
    loops: list[Loop] = []
    with tempfile.TemporaryDirectory(prefix="apply-", dir=site.work) as work, _Clusters() as fresh:
        example = local_example(site.folder / "upstream", Path(work) / "example")

        def applied() -> float:
            return fresh.place(site).seconds(KFDEPLOY, "apply", "--quiet")

        def looped() -> float:
            try:
                loops.append(run_loop(example, fresh.place(site).env))
            except NeverDone as error:
                raise BenchFailed(f"upstream's loop: {error}") from error
            return loops[-1].seconds

        first, again, loop, working = interleaved(
            _ROUNDS,
            Subject("kfdeploy apply, first", applied, lambda: fresh.start(site.work)),
            Subject("kfdeploy apply, second", applied),
            Subject("upstream's loop", looped, lambda: fresh.start(site.work)),
            Subject("upstream's loop, its pauses not counted", lambda: loops[-1].working_seconds),
        )
    name = site.upstream.name
    yield Result("apply-first", name, first, loop, "ratio", 1.0)
    # Its subject only reads what the loop took; the cores were busy in the loop itself.
    yield Result("apply-working", name, first, working, "ratio", None)
    yield Result("apply-second", name, again, first, "ratio", 1 / 3)


class _Clusters:
    """One live cluster at a time."""

    def __init__(self) -> None:
        self._running = contextlib.ExitStack()
        self._env: dict[str, str] = {}

    def __enter__(self) -> _Clusters:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def start(self, work: Path) -> None:
        """Another one, empty, in place of the last."""
        self._running.close()
        folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=work))
        self._running.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            live = self._running.enter_context(serve_live_cluster(folder))
        except (NoCluster, NotStarted) as error:
            raise BenchFailed(str(error)) from error
        cache = {"KUBECACHEDIR": str(folder / "discovery"), "HELM_CACHE_HOME": str(folder / "helm")}
        self._env = {**live.env, **cache}

    def place(self, site: Site) -> Place:
        return Place(site.folder, {**site.env, **self._env})
