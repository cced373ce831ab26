"""`apply` and `destroy` killed (SIGKILL) at whatever moment, and run again: the same end."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.places import (
    Body,
    Place,
    config_map,
    definition,
    deployment,
    namespace,
    wait_until,
)

CHUNKS: Final = 3
KILLS: Final = 10
"""Of each chunk: 30 moments in all."""


def thing(ns: str, name: str, **spec: str) -> Body:
    meta = {"name": name, "namespace": ns}
    return {"apiVersion": f"{ns}.test/v1", "kind": "Thing", "metadata": meta, "spec": spec}


def versions(ns: str) -> dict[str, dict[str, list[Body]]]:
    """Two versions of a set, of which each has what the other has not.

    ``moves`` changes hands within a wave; ``early`` goes to a later wave, and with the other
    version back to an earlier one.
    """
    moves, early = config_map("moves", ns, of="both"), config_map("early", ns, of="both")
    base = [namespace(ns), definition(f"{ns}.test")]
    a = {
        "base": [*base, config_map("base-a", ns)],
        "one": [deployment("one", ns, app="old"), moves, early, config_map("one-a", ns)],
        "two": [config_map("two", ns, version="a"), thing(ns, "x", is_="a"), thing(ns, "a")],
        "three": [deployment("three", ns, image="r.test/a:1"), config_map("three-a", ns)],
        "only-a": [config_map("only-a", ns), deployment("only-a", ns)],
    }
    b = {
        "base": [*base, config_map("base-b", ns)],
        "one": [deployment("one", ns, app="new"), config_map("one-b", ns)],
        "two": [config_map("two", ns, version="b"), thing(ns, "x", is_="b"), moves],
        "three": [deployment("three", ns, image="r.test/a:2"), early, thing(ns, "b")],
        "only-b": [config_map("only-b", ns), thing(ns, "only-b")],
    }
    return {"a": a, "b": b}


class Killed:
    """A place whose applies are killed."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.dice = random.Random(seed)
        self.sets = versions(place.name)
        self.good: dict[str, Any] = {}

    def write(self, version: str) -> None:
        releases = self.sets[version]
        waves = [["base"], ["one", "two"], [name for name in releases if name not in _EARLY]]
        self.place.write(releases, waves=waves, waits=["one", "three"])

    def undisturbed(self) -> float:
        """Seconds that an apply of the one on top of the other takes; all is as it should be."""
        took = 0.0
        for version in ("a", "b", "a"):
            self.write(version)
            took = self.place.apply().seconds
            found = self.found()
            assert self.good.setdefault(version, found) == found
        assert self.good["a"] != self.good["b"]
        return took

    def kill(self, *arguments: str, within: float) -> float:
        """Start it, and kill it in the middle; when that was."""
        moment = self.dice.uniform(0.0, within)
        process = self.place.start(*arguments)
        time.sleep(moment)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        return moment

    def found(self) -> dict[str, Any]:
        """What there is: objects, newest revisions, the lock."""
        ns, helm = self.place.name, self.place.helm
        kinds = f"configmaps,deployments,things.{ns}.test"
        objects = self.place.live.cluster.get(kinds, "-n", ns)["items"]
        records = self.place.live.cluster.get("secrets,leases,configmaps", "-n", helm)["items"]
        newest: dict[str, tuple[int, str]] = {}
        pending = []
        for one in records:
            labels = one["metadata"].get("labels", {})
            if one["kind"] == "Secret" and labels.get("owner") == "helm":
                entry = (int(labels["version"]), labels["status"])
                newest[labels["name"]] = max(newest.get(labels["name"], (0, "")), entry)
                if labels["status"].startswith("pending"):
                    pending.append(labels["name"])
        state = next(one for one in records if one["metadata"]["name"] == "kfdeploy-set")
        lease = next(one for one in records if one["kind"] == "Lease")
        return {
            "objects": {_name(one): _essence(one) for one in objects if _is_ours(one)},
            "newest": {name: status for name, (_, status) in sorted(newest.items())},
            "pending": pending,
            "state": state["data"]["state"],
            "digest": state["data"]["digest"],
            "lock": lease["spec"].get("holderIdentity", ""),
        }


_EARLY: Final = ("base", "one", "two")


def _name(body: Any) -> str:
    return f"{body['kind']}/{body['metadata']['name']}"


def _is_ours(body: Any) -> bool:
    return _name(body) != "ConfigMap/kube-root-ca.crt"


def _essence(body: Any) -> Any:
    """An object without what tells one of its name from another."""
    meta = body["metadata"]
    notes = dict(meta.get("annotations") or {})
    notes.pop("deployment.kubernetes.io/revision", None)
    return {
        **{key: value for key, value in body.items() if key not in ("metadata", "status")},
        "labels": meta.get("labels"),
        "annotations": notes,
        "going": "deletionTimestamp" in meta,
    }


@pytest.fixture
def killed(place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> Killed:
    # Of its own, so that this test's programs are told from others'.
    config = tmp_path / "kubeconfig"
    shutil.copy(place.live.cluster.kubeconfig, config)
    seed = request.node.callspec.params.get("chunk", 0) if hasattr(request.node, "callspec") else 0
    return Killed(place.on({"KUBECONFIG": str(config)}), seed)


def running(place: Place) -> list[str]:
    """Programs that were started for a place, and have not ended."""
    mark = f"KUBECONFIG={place.env['KUBECONFIG']}".encode()
    out = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                out.append(b" ".join(words).decode(errors="replace"))
        except OSError:
            continue
    return [line for line in out if line]


@pytest.mark.parametrize(
    "chunk", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, CHUNKS))]
)
def test_apply_killed_at_any_moment_and_run_again_ends_the_same(killed: Killed, chunk: int) -> None:
    place = killed.place
    took = killed.undisturbed()
    version, kills = "a", 0
    moments = []
    while kills < KILLS:
        # Sometimes who runs it again is killed, too, and has another version.
        for _ in range(min(killed.dice.choice((1, 1, 2, 3)), KILLS - kills)):
            version = "b" if version == "a" else "a"
            killed.write(version)
            moments.append(killed.kill("apply", within=took))
            kills += 1
        again = place.apply(check=None)
        assert again.code == 0, f"after {moments}: {again}"
        assert killed.found() == killed.good[version], f"after {moments}: {again.stderr}"
    wait_until(lambda: not running(place))
    second = place.apply("--output", "json").json
    assert {one["outcome"] for one in second["releases"]} == {"unchanged"}
    assert json.dumps(second["removed"]) == "[]"


def test_destroy_killed_at_any_moment_and_run_again_leaves_nothing(killed: Killed) -> None:
    place = killed.place
    killed.write("a")
    place.apply()
    took = place.destroy("--yes").seconds
    assert _left(place) == []
    for _ in range(3):
        place.apply()
        killed.kill("destroy", "--yes", within=took)
        place.destroy("--yes")
        assert _left(place) == []
        assert place.get("namespace", place.name)
        assert place.get("customresourcedefinition", f"things.{place.name}.test")
    wait_until(lambda: not running(place))


def _left(place: Place) -> list[str]:
    kinds = f"configmaps,deployments,things.{place.name}.test"
    objects = place.live.cluster.get(kinds, "-n", place.name)["items"]
    records = place.live.cluster.get("secrets,configmaps", "-n", place.helm)["items"]
    return [_name(one) for one in (*objects, *records) if _is_ours(one)]
