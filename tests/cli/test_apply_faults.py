"""`apply` with an API server that refuses, is slow, or goes away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Done, Runner
from tests.support.apifaults import faulty_api
from tests.support.faults import Faults, Faulty
from tests.support.live import LiveCluster
from tests.support.nodes import Fault
from tests.support.places import (
    Place,
    config_map,
    definition,
    deployment,
    list_outcomes,
    make_place,
    namespace,
    wait_until,
)


@contextlib.contextmanager
def behind(place: Place, faults: Faults | None = None) -> Iterator[tuple[Faulty, Place]]:
    """A proxy before the API server, and the place as it is seen through it."""
    with faulty_api(place.live.cluster, place.folder.parent, faults) as (proxy, env):
        yield proxy, place.on(env)


def write(place: Place, version: str) -> None:
    ns = place.name
    thing = {
        "apiVersion": f"{ns}.test/v1",
        "kind": "Thing",
        "metadata": {"name": "x", "namespace": ns},
        "spec": {"version": version},
    }
    releases = {
        "base": [namespace(ns), definition(f"{ns}.test")],
        "app": [deployment("d", ns, image=f"r.test/a:{version}")],
        "more": [config_map("c", ns, version=version), thing],
    }
    place.write(releases, waits=["app"])


def must_be(place: Place, version: str) -> None:
    """All is there, each release deployed, nothing pending, the lock free."""
    ns = place.name
    container = place.get("deployment", "d")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"r.test/a:{version}"
    assert place.get("configmap", "c")["data"] == {"version": version}
    assert place.get(f"things.{ns}.test", "x")["spec"] == {"version": version}
    statuses = {name: found[-1].split()[1] for name, found in place.revisions().items()}
    assert statuses == dict.fromkeys(("app", "base", "more"), "deployed")
    assert "pending" not in str(place.revisions())
    assert place.get("configmap", "kfdeploy-set", place.helm)["data"]["state"] == "applied"
    assert not place.get("lease", "kfdeploy", place.helm)["spec"].get("holderIdentity")


def apply_until_right(place: Place, most: int = 4) -> list[Done]:
    """Apply as often as it fails clearly: exit code 1, and words that say what to do."""
    done = []
    for _ in range(most):
        done.append(place.apply("--timeout", "20", check=None))
        if done[-1].code == 0:
            return done
        assert done[-1].code == 1, str(done[-1])
        assert "error: " in done[-1].stderr, str(done[-1])
        assert "Traceback" not in done[-1].stderr, str(done[-1])
    pytest.fail("\n\n".join(map(str, done)))


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(Faults(seed=1, too_many=0.1, retry_after=1), id="429"),
        pytest.param(
            Faults(seed=2, too_many=0.05), id="429-without-retry-after", marks=pytest.mark.slow
        ),
        pytest.param(Faults(seed=3, unavailable=0.05), id="5xx", marks=pytest.mark.slow),
        pytest.param(Faults(seed=4, reset=0.05), id="reset"),
    ],
)
def test_refusals_and_resets_now_and_then(place: Place, faults: Faults) -> None:
    with behind(place, faults) as (proxy, through):
        for version in ("1", "2"):
            write(place, version)
            apply_until_right(through)
            must_be(place, version)
        assert proxy.counts.faults


@pytest.mark.slow
def test_slow_answers(place: Place) -> None:
    ns = place.name
    place.write({"base": [namespace(ns), config_map("c", ns)]})
    with behind(place, Faults(latency=2.0)) as (_, through):
        assert list_outcomes(through.apply("--output", "json")) == {"base": "installed"}
    assert place.revisions() == {"base": ["1 deployed"]}


def test_helm_gets_another_turn_and_it_is_said(place: Place) -> None:
    ns = place.name
    place.write({"base": [namespace(ns)], "a": [config_map("a", ns)], "b": [config_map("b", ns)]})
    # Only Helm writes this, and its own attempts end with the first answer.
    place_of_a = f"/namespaces/{ns}/configmaps/a"
    broken = Faults(unavailable=1.0, matching=place_of_a, methods=frozenset(("PATCH",)), at_most=2)
    with behind(place, broken) as (_, through):
        done = through.apply()
    again = [line for line in done.stderr.splitlines() if "tried again" in line]
    assert again
    assert all(line.startswith("  a: tried again in ") for line in again)
    assert place.get("configmap", "a")
    assert place.revisions()["b"] == ["1 deployed"]


def test_a_refusal_is_not_tried_again(place: Place) -> None:
    ns = place.name
    wrong = {**config_map("a", ns), "data": {"key": 1}}
    place.write({"base": [namespace(ns)], "a": [wrong]}, waves=[["base"], ["a"]])
    done = place.apply(check=1)
    assert "a: failed" in done.stdout
    assert "tried again" not in done.stderr
    assert "error: a: failed: " in done.stderr


def test_away_for_seconds_in_the_middle(place: Place) -> None:
    write(place, "1")
    with behind(place) as (proxy, through):
        through.apply()
        write(place, "2")
        place.live.nodes.faults(Fault("slow", pod=f"{place.name}/", seconds=3))
        process = through.start("apply")
        try:
            wait_until(lambda: "pending" in str(place.revisions()))
            proxy.stop()
            time.sleep(4)
            proxy.start()
            _, said = process.communicate(timeout=120)
        finally:
            place.live.nodes.faults()
        if process.returncode:
            assert process.returncode == 1
            assert "error: " in said
            through.apply()
        must_be(place, "2")


@pytest.mark.slow
def test_gone_for_good_it_says_so_and_the_next_run_finishes(place: Place) -> None:
    write(place, "1")
    with behind(place) as (proxy, through):
        place.live.nodes.faults(Fault("slow", pod=f"{place.name}/", seconds=5))
        process = through.start("apply")
        try:
            wait_until(lambda: "pending" in str(place.revisions()))
            proxy.stop()
            _, said = process.communicate(timeout=280)
        finally:
            place.live.nodes.faults()
        assert process.returncode == 1
        # Who notices first, is chance: who holds the lock, or who asked for something.
        *_, error, hint = said.splitlines()
        lost = (
            "error: the lock was lost: the API server did not answer for so long that another"
            " apply may have taken it"
        )
        assert error == lost or "the API server does not answer: " in error, said
        assert hint.startswith(
            "  hint: `kubectl version` tells whether this machine reaches the API server"
        )
        proxy.start()
        through.apply()
        must_be(place, "1")


def test_away_from_the_beginning_it_says_so(place: Place) -> None:
    place.write({"base": [namespace(place.name)]})
    with behind(place) as (proxy, through):
        proxy.stop()
        done = through.apply(check=1)
    assert done.stderr.startswith("error: GET /version: the API server does not answer: ")
    assert done.stderr.splitlines()[-1] == (
        "  hint: `kubectl version` tells whether this machine reaches the API server"
    )


def test_the_api_server_is_killed_and_started_again(
    tmp_path: Path, live_cluster: Callable[..., LiveCluster], kfdeploy: Runner
) -> None:
    live = live_cluster(operators=False)
    assert live.cluster.programs is not None
    place = make_place(tmp_path / "ws", live, kfdeploy, "restarted")
    for version, moment in (("1", 0.8), ("2", 1.4), ("3", 2.0)):
        write(place, version)
        process = place.start("apply")
        time.sleep(moment)
        live.cluster.programs.kill("kube-apiserver")
        time.sleep(0.5)
        live.cluster.programs.start("kube-apiserver")
        _, said = process.communicate(timeout=180)
        # It may have been done before.
        wait_until(
            lambda: live.cluster.kubectl("get", "--raw", "/readyz", check=False).returncode == 0
        )
        if process.returncode:
            assert process.returncode == 1, said
            assert "error: " in said
            place.apply()
        must_be(place, version)
