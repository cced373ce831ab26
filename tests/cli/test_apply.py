"""`apply` on a real control plane, with small sets."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.live import LiveCluster, serve_live_cluster
from tests.support.nodes import Fault
from tests.support.places import (
    Body,
    Place,
    config_map,
    definition,
    deployment,
    list_outcomes,
    namespace,
    wait_until,
)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with serve_live_cluster(tmp_path_factory.mktemp("live"), operators=False) as running:
        yield running


def test_one_pass_and_a_second_that_changes_nothing(place: Place) -> None:
    ns = place.name
    thing = {
        "apiVersion": f"{ns}.test/v1",
        "kind": "Thing",
        "metadata": {"name": "x", "namespace": ns},
    }
    releases = {
        "base": [namespace(ns), definition(f"{ns}.test")],
        "app": [deployment("d", ns), thing],
        "more": [config_map("c", ns, a="1")],
    }
    place.write(releases, waits=["app"])
    first = place.apply()
    assert first.stdout.splitlines()[:-1] == [
        "base: installed, revision 1",
        "app: installed, revision 1",
        "more: installed, revision 1",
    ]
    assert first.stdout.splitlines()[-1].startswith("releases/default: applied: 3 installed in ")
    assert [line for line in first.stderr.splitlines() if line.startswith("wave")] == [
        "wave 1: install base",
        "wave 2: install app",
        "wave 2: install more",
        "wave 1 of 2: base",
        "wave 2 of 2: app, more",
    ]
    assert place.get("deployment", "d")["status"]["availableReplicas"] == 1
    assert place.get(f"things.{ns}.test", "x")
    before = place.revisions()
    again = place.apply("--output", "json")
    assert set(list_outcomes(again).values()) == {"unchanged"}
    assert place.revisions() == before == {name: ["1 deployed"] for name in ("app", "base", "more")}
    state = place.get("configmap", "kfdeploy-set", place.helm)["data"]
    assert (state["set"], state["state"]) == ("default", "applied")


def test_only_what_has_changed_gets_a_revision(place: Place) -> None:
    ns = place.name
    place.write(
        {"base": [namespace(ns)], "a": [config_map("a", ns, x="1")], "b": []},
        waves=[
            ["base"],
            ["a", "b"],
        ],
    )
    place.apply()
    place.write(
        {"base": [namespace(ns)], "a": [config_map("a", ns, x="2")], "b": []},
        waves=[
            ["base"],
            ["a", "b"],
        ],
    )
    done = place.apply("--output", "json")
    assert list_outcomes(done) == {"base": "unchanged", "a": "upgraded", "b": "unchanged"}
    assert place.revisions()["a"] == ["1 superseded", "2 deployed"]
    assert place.get("configmap", "a")["data"] == {"x": "2"}


def test_what_was_deleted_by_hand_comes_back(place: Place) -> None:
    ns = place.name
    place.write({"base": [namespace(ns)], "a": [config_map("a", ns, x="1")]})
    place.apply()
    place.live.cluster.kubectl("delete", "configmap", "a", "-n", ns)
    place.live.cluster.kubectl("delete", "namespace", ns)
    done = place.apply("--output", "json")
    assert list_outcomes(done) == {"base": "repaired", "a": "repaired"}
    assert place.get("configmap", "a")["data"] == {"x": "1"}


def test_what_was_changed_by_hand_is_set_right_and_by_a_controller_left(place: Place) -> None:
    ns = place.name
    maps = [config_map("a", ns, x="1"), config_map("b", ns, x="1")]
    place.write({"base": [namespace(ns)], "a": [*maps, deployment("d", ns)]})
    place.live.nodes.faults(Fault("unready", pod=f"{ns}/"))
    stop = threading.Event()

    def control() -> None:
        while not stop.wait(0.1):
            found = place.get("configmap", "b")
            if found and found["data"] == {"x": "1"}:
                change = json.dumps({"data": {"x": "mine"}})
                patch = ("patch", "configmap", "b", "-n", ns, "--type=merge", "-p", change)
                place.live.cluster.kubectl(*patch, check=False)
                place.live.nodes.faults()  # the first apply has been waiting for that

    controller = threading.Thread(target=control)
    controller.start()
    try:
        first = place.apply()
        place.live.cluster.kubectl(
            *("patch", "configmap", "a", "-n", ns, "--type=merge", "-p", '{"data": {"x": "2"}}')
        )
        done = place.apply()
        again = place.apply("--output", "json")
    finally:
        stop.set()
        controller.join()
    note = f"note: something in the cluster changes it back: ConfigMap {ns}/b: data.x"
    assert note in first.stderr.splitlines()
    (repair,) = (line for line in done.stderr.splitlines() if line.startswith("wave 2: repair"))
    assert repair.startswith(f"wave 2: repair a: ConfigMap {ns}/a: data.x is ")
    assert "kubectl-patch" in repair
    assert place.get("configmap", "a")["data"] == {"x": "1"}
    assert set(list_outcomes(again).values()) == {"unchanged"}


def test_an_object_that_moves_to_another_release_is_not_recreated(place: Place) -> None:
    ns = place.name
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": ns},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    moving = [config_map("a", ns, x="1"), claim]
    place.write({"base": [namespace(ns)], "one": moving, "two": []})
    place.apply()
    before = place.get("configmap", "a")["metadata"]["uid"]
    claimed = place.get("pvc", "data")["metadata"]["uid"]
    place.write({"base": [namespace(ns)], "one": [], "two": moving})
    place.apply()
    now = place.get("configmap", "a")["metadata"]
    assert now["uid"] == before
    assert now["annotations"] == {
        "meta.helm.sh/release-name": "two",
        "meta.helm.sh/release-namespace": place.helm,
    }
    assert place.get("pvc", "data")["metadata"]["uid"] == claimed
    # and when the first release goes altogether
    place.write({"base": [namespace(ns)], "three": moving})
    done = place.apply("--output", "json")
    assert done.json["removed"] == ["one", "two"]
    assert place.get("configmap", "a")["metadata"]["uid"] == before
    assert place.get("pvc", "data")["metadata"]["uid"] == claimed
    assert list(place.revisions()) == ["base", "three"]


def test_an_object_that_moves_to_a_later_wave_is_not_recreated(place: Place) -> None:
    ns = place.name
    waves = [["base"], ["one"], ["two"]]
    moving = [config_map("a", ns, x="1")]
    place.write({"base": [namespace(ns)], "one": moving, "two": []}, waves=waves)
    place.apply()
    before = place.get("configmap", "a")["metadata"]["uid"]
    place.write({"base": [namespace(ns)], "one": [], "two": moving}, waves=waves)
    # as a run leaves it that was killed after it had begun
    owner = ["meta.helm.sh/release-name=two", "helm.sh/resource-policy=keep"]
    place.live.cluster.kubectl(
        *("annotate", "--overwrite", "--field-manager=kfdeploy", "-n", ns, "configmap/a", *owner)
    )
    place.apply()
    now = place.get("configmap", "a")["metadata"]
    assert now["uid"] == before
    assert "helm.sh/resource-policy" not in now["annotations"]
    assert now["annotations"]["meta.helm.sh/release-name"] == "two"


def test_an_object_that_moves_stays_when_its_new_release_is_applied_alone(place: Place) -> None:
    ns = place.name
    moving = [config_map("a", ns, x="1")]
    place.write({"base": [namespace(ns)], "one": moving, "two": []})
    place.apply()
    before = place.get("configmap", "a")["metadata"]["uid"]
    # Helm's record of the one still has it until it is applied, too.
    place.write(
        {"base": [namespace(ns)], "one": [], "two": moving}, waves=[["base"], ["one"], ["two"]]
    )
    place.apply("--release", "two")
    assert place.get("configmap", "a")["metadata"]["annotations"]["helm.sh/resource-policy"]
    place.apply()
    now = place.get("configmap", "a")["metadata"]
    assert now["uid"] == before
    assert "helm.sh/resource-policy" not in now["annotations"]


def test_a_release_that_the_set_drops_goes_and_its_users_data_stays(place: Place) -> None:
    ns = place.name
    group = f"{ns}.test"
    old = [definition(group), deployment("operator", ns)]
    place.write({"base": [namespace(ns)], "old": old})
    place.apply()
    users = {
        "apiVersion": f"{group}/v1",
        "kind": "Thing",
        "metadata": {"name": "mine", "namespace": ns},
    }
    place.live.cluster.create(users)
    place.write({"base": [namespace(ns)]})
    done = place.apply("--output", "json")
    assert done.json["removed"] == ["old"]
    assert place.get("deployment", "operator") is None
    assert place.get(f"things.{group}", "mine")["metadata"]["name"] == "mine"


def test_what_can_not_be_changed_is_recreated_and_said(place: Place) -> None:
    ns = place.name
    place.write({"base": [namespace(ns)], "a": [deployment("d", ns, app="old")]})
    place.apply()
    place.write({"base": [namespace(ns)], "a": [deployment("d", ns, app="new")]})
    done = place.apply()
    assert (
        f"  recreates Deployment {ns}/d: spec.selector.matchLabels.app: it cannot be changed"
        in done.stderr.splitlines()
    )
    assert place.get("deployment", "d")["spec"]["selector"] == {"matchLabels": {"app": "new"}}


def test_a_release_that_fails_is_left_with_its_reason_and_mended_by_the_next(place: Place) -> None:
    ns = place.name
    waves = [["base"], ["a"], ["later"]]
    good = {
        "base": [namespace(ns)],
        "a": [deployment("d", ns)],
        "later": [config_map("c", ns)],
    }
    place.live.nodes.faults(Fault("pull", image="r.test/bad"))
    bad = {**good, "a": [deployment("d", ns, image="r.test/bad:1")]}
    place.write(bad, waves=waves, waits=["a"])
    done = place.apply("--timeout", "4", check=1)
    assert "a: failed, revision 1" in done.stdout.splitlines()
    assert "later: not reached" in done.stdout.splitlines()
    assert f"Deployment {ns}/d: " in done.stderr
    assert "ImagePullBackOff" in done.stderr or "ErrImagePull" in done.stderr
    assert place.get("configmap", "kfdeploy-set", place.helm)["data"]["state"] == "failed"
    place.write(good, waves=waves, waits=["a"])
    mended = place.apply("--output", "json")
    assert list_outcomes(mended) == {"base": "unchanged", "a": "finished", "later": "installed"}


def test_a_release_that_fails_is_rolled_back_when_that_is_set(place: Place) -> None:
    ns = place.name
    place.write({"base": [namespace(ns)], "a": [deployment("d", ns)]})
    place.apply()
    place.live.nodes.faults(Fault("pull", image="r.test/bad"))
    bad = [deployment("d", ns, image="r.test/bad:1"), config_map("new", ns)]
    place.write({"base": [namespace(ns)], "a": bad}, waits=["a"])
    done = place.apply("--timeout", "4", "--on-failure", "rollback", check=1)
    assert "a: rolled back, revision 3" in done.stdout.splitlines()
    container = place.get("deployment", "d")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "r.test/a:1"
    assert place.get("configmap", "new") is None


def test_a_workload_nobody_waits_for_is_reported_at_the_end(place: Place) -> None:
    ns = place.name
    place.live.nodes.faults(Fault("pull", image="r.test/bad"))
    place.write(
        {"base": [namespace(ns)], "a": [deployment("d", ns, image="r.test/bad:1")]},
        waves=[
            ["base"],
            ["a"],
        ],
    )
    done = place.apply("--timeout", "3", check=1)
    assert "a: installed, revision 1" in done.stdout.splitlines()
    assert f"error: not ready: Deployment {ns}/d: 0/1 " in done.stderr


@pytest.mark.parametrize("status", ["pending-install", "pending-upgrade"])
def test_a_run_that_was_stopped_is_finished(place: Place, status: str) -> None:
    ns = place.name
    place.write({"base": [namespace(ns)], "a": [config_map("a", ns, x="1")]})
    place.apply()
    secret = place.get("secret", "sh.helm.release.v1.a.v1", place.helm)
    number = 1 if status == "pending-install" else 2
    _pending(place, secret, number, status, {"gone": config_map("gone", ns)})
    if number == 1:
        place.live.cluster.kubectl("delete", "configmap", "a", "-n", ns)
    done = place.apply("--output", "json")
    assert list_outcomes(done) == {"base": "unchanged", "a": "finished"}
    assert place.revisions()["a"][-1].endswith(" deployed")
    assert place.get("configmap", "a")["data"] == {"x": "1"}
    # What the stopped revision had made, and no other has, does not stay behind.
    assert place.get("configmap", "gone") is None


def _pending(place: Place, secret: Any, number: int, status: str, made: dict[str, Body]) -> None:
    """A revision as a killed Helm leaves it, with an object that it had made already."""
    import base64
    import gzip

    data = json.loads(
        gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"])))
    )
    data["version"] = number
    data["info"]["status"] = status
    data["info"]["last_deployed"] = "2026-01-01T00:00:00.123456789Z"
    for body in made.values():
        body["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
        body["metadata"]["annotations"] = {
            "meta.helm.sh/release-name": "a",
            "meta.helm.sh/release-namespace": place.helm,
        }
        place.live.cluster.create(body)
        data["manifest"] += f"---\n{json.dumps(body)}\n"
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(data).encode()))).decode()
    name = f"sh.helm.release.v1.a.v{number}"
    labels = {"name": "a", "owner": "helm", "status": status, "version": str(number)}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "helm.sh/release.v1",
        "metadata": {"name": name, "namespace": place.helm, "labels": labels},
        "data": {"release": packed},
    }
    place.live.cluster.kubectl("delete", "secret", name, "-n", place.helm, "--ignore-not-found")
    place.live.cluster.create(body)


def test_two_applies_do_not_meet(place: Place) -> None:
    ns = place.name
    place.write({"base": [namespace(ns), deployment("d", ns)]}, waits=["base"])
    place.live.nodes.faults(Fault("slow", pod=f"{ns}/", seconds=15))
    first = place.start("apply")
    try:
        wait_until(lambda: "pending" in str(place.revisions()))
        second = place.apply(check=1)
    finally:
        first.wait(timeout=60)
        place.live.nodes.faults()
    assert first.returncode == 0
    assert "error: another apply is running: " in second.stderr
    assert "hint: run `kfdeploy apply` again when it is done" in second.stderr


def test_killed_and_run_again_it_goes_on(place: Place) -> None:
    ns = place.name
    place.live.nodes.faults(Fault("slow", pod=f"{ns}/", seconds=60))
    place.write({"base": [namespace(ns), deployment("d", ns)]}, waits=["base"])
    first = place.start("apply")
    wait_until(lambda: "pending" in str(place.revisions()))
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    place.live.nodes.faults()
    place.live.cluster.kubectl("delete", "pods", "-n", ns, "--all", "--force")
    done = place.apply("--output", "json")
    assert list_outcomes(done) == {"base": "finished"}
    assert place.get("deployment", "d")["status"]["availableReplicas"] == 1


def test_stopped_by_ctrl_c_it_exits_130_and_gives_the_lock_back(place: Place) -> None:
    ns = place.name
    place.live.nodes.faults(Fault("slow", pod=f"{ns}/", seconds=60))
    place.write({"base": [namespace(ns), deployment("d", ns)]}, waits=["base"])
    first = place.start("apply")
    wait_until(lambda: "pending" in str(place.revisions()))
    os.kill(first.pid, signal.SIGINT)
    assert first.wait(timeout=30) == 130
    assert not place.get("lease", "kfdeploy", place.helm)["spec"].get("holderIdentity")
    place.live.nodes.faults()


def test_one_release_alone(place: Place) -> None:
    ns = place.name
    place.write(
        {"base": [namespace(ns)], "a": [config_map("a", ns)], "b": [config_map("b", ns)]},
        waves=[
            ["base"],
            ["a", "b"],
        ],
    )
    place.apply("--release", "base")
    done = place.apply("--release", "a", "--output", "json")
    assert list_outcomes(done) == {"a": "installed"}
    assert list(place.revisions()) == ["a", "base"]
    wrong = place.apply("--release", "c", check=2)
    assert wrong.stderr == "error: --release c: the set has base, a, b\n"


def test_a_set_that_was_changed_is_refused(place: Place) -> None:
    folder = place.write({"base": [namespace(place.name)]})
    with (folder / "helmfile.yaml").open("a") as file:
        file.write("# mine\n")
    done = place.apply(check=3)
    assert done.stderr.startswith(
        "error: releases/default: changed since it was rendered: helmfile.yaml was changed\n"
    )
    assert place.get("namespace", place.helm) is None


def test_an_operator_stays_until_its_custom_resources_are_gone(place: Place) -> None:
    ns = place.name
    settings = json.loads((place.folder / "kfdeploy.yaml").read_text())
    settings["helm"]["timeout"] = 3
    (place.folder / "kfdeploy.yaml").write_text(json.dumps(settings))
    thing = {
        "apiVersion": f"{ns}.test/v1",
        "kind": "Thing",
        "metadata": {"name": "x", "namespace": ns, "finalizers": [f"{ns}.test/clean-up"]},
    }
    base = [namespace(ns), definition(f"{ns}.test"), deployment("operator", ns)]
    place.write({"base": base, "things": [thing]})
    place.apply("--timeout", "60")
    done = place.kfdeploy("destroy", "--yes", cwd=place.folder, env=place.env, check=1)
    assert done.stderr.endswith(
        f"error: Thing {ns}/x: deleted, and still there after 3 s\n"
        "  hint: `kubectl get ... -o yaml` shows the finalizers that hold it\n"
    )
    assert place.get("deployment", "operator")
    place.live.cluster.kubectl(
        *("patch", f"things.{ns}.test", "x", "-n", ns, "--type=merge"),
        *("-p", '{"metadata": {"finalizers": null}}'),
    )
    place.kfdeploy("destroy", "--yes", cwd=place.folder, env=place.env)
    assert place.get("deployment", "operator") is None
