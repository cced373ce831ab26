"""`apply --dry-run`: what would be done, what would be refused, and nothing is changed."""

from __future__ import annotations

from tests.support.places import (
    Place,
    config_map,
    definition,
    deployment,
    namespace,
)


def versions(place: Place) -> dict[str, str]:
    """resourceVersions of all that the test has to do with."""
    out = {}
    for where in (place.name, place.helm):
        kinds = "configmaps,secrets,deployments,replicasets,leases"
        for body in place.live.cluster.get(kinds, "-n", where)["items"]:
            meta = body["metadata"]
            out[f"{where} {body['kind']} {meta['name']}"] = meta["resourceVersion"]
    return out


def test_on_an_empty_cluster_it_says_what_can_not_be_told_yet(place: Place) -> None:
    ns = place.name
    thing = {
        "apiVersion": f"{ns}.test/v1",
        "kind": "Thing",
        "metadata": {"name": "x", "namespace": ns},
    }
    place.write(
        {"base": [namespace(ns), definition(f"{ns}.test")], "a": [config_map("c", ns), thing]}
    )
    done = place.apply("--dry-run")
    assert done.stdout.splitlines()[-3:] == [
        "wave 1: install base",
        "wave 2: install a",
        "2 objects tried, 0 refused, 2 can't be tried before what they need is there",
    ]
    found = place.apply("--dry-run", "--output", "json").json
    assert sorted(found) == ["plan", "preflight", "refused", "set", "tried", "untried"]
    assert (found["set"], found["tried"], found["refused"]) == ("default", 2, [])
    assert [(one["object"]["kind"], one["untried"]) for one in found["untried"]] == [
        ("ConfigMap", f"the namespace {ns} does not exist yet"),
        ("Thing", "its kind is not served yet"),
    ]
    assert [(one["release"], one["action"]) for one in found["plan"]["steps"]] == [
        ("base", "install"),
        ("a", "install"),
    ]
    assert place.get("namespace", ns) is None
    assert place.get("namespace", place.helm) is None


def test_what_the_api_server_would_refuse_is_said_and_nothing_changes(place: Place) -> None:
    ns = place.name
    place.write({"base": [namespace(ns)], "a": [config_map("c", ns, x="1"), deployment("d", ns)]})
    place.apply()
    before = versions(place)
    wrong = config_map("Not_A_Name", ns)
    changed = [config_map("c", ns, x="2"), deployment("d", ns, app="other"), wrong]
    place.write({"base": [namespace(ns)], "a": changed})
    done = place.apply("--dry-run", check=1)
    assert f"error: a: ConfigMap {ns}/Not_A_Name: 422 Invalid: " in done.stderr
    assert done.stdout.splitlines()[-1] == (
        "2 objects tried, 1 refused, 0 can't be tried before what they need is there"
    )
    assert (
        f"  recreates Deployment {ns}/d: spec.selector.matchLabels.app: it cannot be changed"
        in done.stdout.splitlines()
    )
    found = place.apply("--dry-run", "--output", "json", check=1).json
    assert [one["object"]["name"] for one in found["refused"]] == ["Not_A_Name"]
    assert found["refused"][0]["release"] == "a"
    assert found["refused"][0]["refused"].startswith("422 Invalid: ")
    assert versions(place) == before
    # nor with nothing to do
    place.write({"base": [namespace(ns)], "a": [config_map("c", ns, x="1"), deployment("d", ns)]})
    done = place.apply("--dry-run")
    assert "2 of 2 releases are as the set has them" in done.stdout
    assert versions(place) == before
