"""Two applies of one cluster: who holds the lock, who waits, and who stops."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from kfdeploy.kubernetes.cluster import lease
from tests.support.nodes import Fault
from tests.support.places import (
    Place,
    config_map,
    deployment,
    list_outcomes,
    namespace,
    wait_until,
)

SINCE = "2026-01-01T00:00:00.000000Z"


def held_by(place: Place, holder: str) -> None:
    """The lock as another one has it, or left it behind."""
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": lease.NAME, "namespace": place.helm},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": lease.SECONDS,
            "acquireTime": SINCE,
            "renewTime": SINCE,
        },
    }
    if place.get("namespace", place.helm) is None:
        place.live.cluster.namespace(place.helm)
    place.live.cluster.kubectl(
        "delete", "lease", lease.NAME, "-n", place.helm, "--ignore-not-found"
    )
    place.live.cluster.create(body)


def spec(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = place.get("lease", lease.NAME, place.helm)["spec"]
    return found


def test_two_at_once_one_applies_and_the_other_says_who_does(place: Place) -> None:
    ns = place.name
    place.write({"base": [namespace(ns)], "a": [deployment("d", ns)]}, waits=["a"])
    place.live.nodes.faults(Fault("slow", pod=f"{ns}/", seconds=15))
    try:
        both = [place.start("apply", "--output", "json") for _ in range(2)]
        said = [one.communicate(timeout=120) for one in both]
    finally:
        place.live.nodes.faults()
    codes = [one.returncode for one in both]
    assert sorted(codes) == [0, 1]
    winner, loser = both[codes.index(0)], said[codes.index(1)][1]
    host = f"{socket.gethostname()}/{winner.pid}"
    assert f"the lock is held by {host}: checking that it is alive" in loser.splitlines()
    assert f"error: another apply is running: {host} holds the lock since " in loser
    assert "hint: run `kfdeploy apply` again when it is done" in loser
    assert place.revisions() == {"a": ["1 deployed"], "base": ["1 deployed"]}


def test_a_lock_that_another_host_has_left_behind_is_taken_when_it_has_run_out(
    place: Place,
) -> None:
    place.write({"base": [namespace(place.name)]})
    held_by(place, "gone-runner/17/18/abc")
    done = place.apply("--output", "json")
    assert list_outcomes(done) == {"base": "installed"}
    assert "the lock is held by gone-runner/17: checking that it is alive" in done.stderr
    assert (spec(place)["holderIdentity"], spec(place)["leaseTransitions"]) == ("", 1)


def test_a_lock_of_a_process_here_that_is_no_more_is_taken_at_once(place: Place) -> None:
    place.write({"base": [namespace(place.name)]})
    held_by(place, f"{socket.gethostname()}/{2**22 + 1}/{2**22 + 2}/abc")
    done = place.apply()
    assert "checking that it is alive" not in done.stderr
    assert not spec(place)["holderIdentity"]


def test_a_lock_that_is_renewed_by_another_host_is_not_taken(place: Place) -> None:
    place.write({"base": [namespace(place.name)]})
    held_by(place, "runner-7/17/18/abc")
    done = threading.Event()

    def renew() -> None:
        number = 0
        while not done.wait(0.5):
            number += 1
            change = f'{{"spec":{{"renewTime":"2026-01-01T00:00:00.{number:06}Z"}}}}'
            patch = ("patch", "lease", lease.NAME, "-n", place.helm, "--type=merge", "-p", change)
            place.live.cluster.kubectl(*patch)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        refused = place.apply(check=1)
    finally:
        done.set()
        thread.join()
    assert refused.stderr.splitlines()[-2:] == [
        f"error: another apply is running: runner-7/17 holds the lock since {SINCE}",
        "  hint: run `kfdeploy apply` again when it is done",
    ]
    assert spec(place)["holderIdentity"] == "runner-7/17/18/abc"
    assert place.revisions() == {}


def test_who_loses_the_lock_stops_and_leaves_it_to_the_other(place: Place) -> None:
    ns = place.name
    place.write(
        {"base": [namespace(ns)], "a": [deployment("d", ns)], "later": [config_map("c", ns)]},
        waves=[["base"], ["a"], ["later"]],
        waits=["a"],
    )
    place.live.nodes.faults(Fault("slow", pod=f"{ns}/", seconds=120))
    try:
        process = place.start("apply")
        wait_until(lambda: "pending" in str(place.revisions()))
        held_by(place, "other-host/1/2/abc")
        began = time.monotonic()
        _, said = process.communicate(timeout=100)
        assert time.monotonic() - began < 100  # it has not waited for the pod
    finally:
        place.live.nodes.faults()
    assert process.returncode == 1
    assert said.splitlines()[-2:] == [
        "error: the lock was lost: other-host/1 has taken it",
        "  hint: run `kfdeploy apply` again when the other apply is done",
    ]
    assert place.get("configmap", "c") is None
    # The other one's.
    assert spec(place)["holderIdentity"] == "other-host/1/2/abc"
    assert place.get("configmap", "kfdeploy-set", place.helm)["data"]["state"] == "applying"
    held_by(place, "")
    place.live.cluster.kubectl("delete", "pods", "-n", ns, "--all", "--force")
    assert list_outcomes(place.apply("--output", "json"))["later"] == "installed"
