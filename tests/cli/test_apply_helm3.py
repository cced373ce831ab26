"""`apply` with Helm 3, which many sites still have: the same, without server-side apply."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.support.live import LiveCluster
from tests.support.nodes import Fault
from tests.support.places import (
    Body,
    Place,
    config_map,
    definition,
    deployment,
    list_outcomes,
    make_place,
    namespace,
)
from tests.support.programs import build_on_request

pytestmark = pytest.mark.slow  # its program is built on request


@pytest.fixture(scope="module")
def helm3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``helm`` is Helm 3."""
    program = build_on_request("helm3")
    folder = tmp_path_factory.mktemp("helm3")
    (folder / "helm").symlink_to(program)
    return folder


@pytest.fixture
def place(
    tmp_path: Path, live: LiveCluster, kfdeploy: Runner, helm3: Path, request: pytest.FixtureRequest
) -> Iterator[Place]:
    made = make_place(tmp_path / "ws", live, kfdeploy, f"helm3-{request.node.name}")
    place = made.on({"PATH": f"{helm3}:{kfdeploy.env['PATH']}"})
    yield place
    live.nodes.faults()


def thing(ns: str, **spec: str) -> Body:
    meta = {"name": "x", "namespace": ns}
    return {"apiVersion": f"{ns}.test/v1", "kind": "Thing", "metadata": meta, "spec": spec}


def test_installed_unchanged_upgraded_recreated(place: Place) -> None:
    ns = place.name
    base = [namespace(ns), definition(f"{ns}.test")]
    first = [deployment("d", ns, app="old"), config_map("c", ns, x="1"), thing(ns, is_="1")]
    place.write({"base": base, "a": first}, waits=["a"])
    assert list_outcomes(place.apply("--output", "json")) == {"base": "installed", "a": "installed"}
    assert set(list_outcomes(place.apply("--output", "json")).values()) == {"unchanged"}
    second = [deployment("d", ns, app="new"), config_map("c", ns, y="2"), thing(ns, also="2")]
    place.write({"base": base, "a": second}, waits=["a"])
    assert list_outcomes(place.apply("--output", "json")) == {"base": "unchanged", "a": "upgraded"}
    assert place.get("configmap", "c")["data"] == {"y": "2"}
    assert place.get(f"things.{ns}.test", "x")["spec"] == {"also": "2"}
    assert place.get("deployment", "d")["spec"]["selector"] == {"matchLabels": {"app": "new"}}
    assert set(list_outcomes(place.apply("--output", "json")).values()) == {"unchanged"}


def test_from_3_to_4_and_back(place: Place, kfdeploy: Runner) -> None:
    ns = place.name
    fourth = place.on({"PATH": kfdeploy.env["PATH"]})

    def releases(value: str, image: str = "r.test/a:1") -> dict[str, list[Body]]:
        made = [config_map("c", ns, x=value), deployment("d", ns, image=image)]
        return {"base": [namespace(ns)], "a": made}

    place.write(releases("1"), waits=["a"])
    place.apply()
    assert set(list_outcomes(fourth.apply("--output", "json")).values()) == {"unchanged"}
    place.write(releases("2"), waits=["a"])
    assert list_outcomes(fourth.apply("--output", "json"))["a"] == "upgraded"
    place.live.nodes.faults(Fault("pull", image="r.test/bad"))
    place.write(releases("3", "r.test/bad:1"), waits=["a"])
    fourth.apply("--timeout", "4", "--on-failure", "rollback", check=1)
    assert place.get("configmap", "c")["data"] == {"x": "2"}
    place.write(releases("4"), waits=["a"])
    assert list_outcomes(place.apply("--output", "json"))["a"] == "upgraded"
    assert place.get("configmap", "c")["data"] == {"x": "4"}


def test_what_others_have_changed_is_repaired(place: Place) -> None:
    ns = place.name
    base = [namespace(ns), definition(f"{ns}.test")]
    objects = [deployment("d", ns), config_map("c", ns, x="1"), thing(ns, is_="1")]
    place.write({"base": base, "a": objects})
    place.apply()
    kubectl = place.live.cluster.kubectl
    kubectl("patch", "cm", "c", "-n", ns, "-p", '{"data":{"x":"9"}}')
    patch = ("--type=merge", "-p", '{"spec":{"is_":"9"}}')
    kubectl("patch", f"things.{ns}.test", "x", "-n", ns, *patch)
    kubectl("set", "image", "deployment/d", "main=r.test/other:1", "-n", ns)
    assert list_outcomes(place.apply("--output", "json")) == {"base": "unchanged", "a": "repaired"}
    assert place.get("configmap", "c")["data"] == {"x": "1"}
    assert place.get(f"things.{ns}.test", "x")["spec"] == {"is_": "1"}
    assert set(list_outcomes(place.apply("--output", "json")).values()) == {"unchanged"}


def test_an_object_that_moves_and_a_release_that_goes(place: Place) -> None:
    ns = place.name
    moving = [config_map("a", ns, x="1"), deployment("d", ns)]
    place.write({"base": [namespace(ns)], "one": moving, "two": []})
    place.apply()
    uid = place.get("deployment", "d")["metadata"]["uid"]
    place.write({"base": [namespace(ns)], "two": moving})
    done = place.apply("--output", "json")
    assert done.json["removed"] == ["one"]
    assert place.get("deployment", "d")["metadata"]["uid"] == uid
    assert set(list_outcomes(place.apply("--output", "json")).values()) == {"unchanged"}


@pytest.mark.parametrize("how", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_what_kubectl_has_applied_is_taken_over(place: Place, how: tuple[str, ...]) -> None:
    ns = place.name
    place.live.cluster.namespace(ns)
    old = deployment("d", ns)
    old["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "OLD", "value": "1"}]
    for body in (config_map("c", ns, old="1", both="1"), old):
        place.live.cluster.kubectl("apply", *how, "-f", "-", stdin=json.dumps(body))
    uid = place.get("deployment", "d")["metadata"]["uid"]
    place.write(
        {"base": [namespace(ns)], "a": [config_map("c", ns, both="1"), deployment("d", ns)]}
    )
    place.apply("--take-over")
    assert place.get("configmap", "c")["data"] == {"both": "1"}
    found = place.get("deployment", "d")
    assert "env" not in found["spec"]["template"]["spec"]["containers"][0]
    assert found["metadata"]["uid"] == uid
    assert set(list_outcomes(place.apply("--output", "json")).values()) == {"unchanged"}


def test_a_release_that_fails_is_rolled_back(place: Place) -> None:
    ns = place.name
    place.write({"base": [namespace(ns)], "a": [deployment("d", ns)]})
    place.apply()
    place.live.nodes.faults(Fault("pull", image="r.test/bad"))
    bad = [deployment("d", ns, image="r.test/bad:1"), config_map("new", ns)]
    place.write({"base": [namespace(ns)], "a": bad}, waits=["a"])
    done = place.apply("--timeout", "4", "--on-failure", "rollback", check=1)
    assert "a: rolled back, revision 3" in done.stdout.splitlines(), str(done)
    container = place.get("deployment", "d")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "r.test/a:1"
    assert place.get("configmap", "new") is None
