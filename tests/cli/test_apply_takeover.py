"""Objects that `kubectl apply` has made become a release's own."""

from __future__ import annotations

import json

import pytest

from tests.support.places import (
    Body,
    Place,
    config_map,
    deployment,
    list_outcomes,
    namespace,
)

LAST = "kubectl.kubernetes.io/last-applied-configuration"


def by_hand(place: Place, how: tuple[str, ...]) -> list[Body]:
    """What an earlier `kubectl apply` has left: more in it than in the set."""
    ns = place.name
    old = deployment("d", ns)
    old["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "OLD", "value": "1"}]
    old["spec"]["template"]["metadata"]["annotations"] = {"old": "1"}
    objects = [config_map("c", ns, old="1", both="1"), old]
    place.live.cluster.namespace(ns)
    for body in objects:
        place.live.cluster.kubectl("apply", *how, "-f", "-", stdin=json.dumps(body))
    return objects


@pytest.mark.parametrize("how", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_what_kubectl_has_applied_is_taken_over_when_that_is_asked_for(
    place: Place, how: tuple[str, ...]
) -> None:
    ns = place.name
    by_hand(place, how)
    uids = [
        place.get(kind, name)["metadata"]["uid"] for kind, name in (("cm", "c"), ("deploy", "d"))
    ]
    place.write(
        {"base": [namespace(ns)], "a": [config_map("c", ns, both="1"), deployment("d", ns)]}
    )
    refused = place.apply(check=1)
    maker = "kubectl" if how else "kubectl-client-side-apply"
    assert refused.stderr.splitlines() == [
        "error: 2 objects of the set are there already, made without Helm:",
        f"    Deployment {ns}/d (by {maker})",
        f"    ConfigMap {ns}/c (by {maker})",
        "  hint: `kfdeploy apply --take-over` makes them the releases' own",
        "preflight: 1 error, 0 warnings, 9 checks passed",
    ]
    assert place.get("namespace", place.helm) is None
    done = place.apply("--take-over")
    assert "  takes over, made without Helm: " in done.stderr
    found = place.get("configmap", "c")
    pod = place.get("deployment", "d")["spec"]["template"]
    assert [found["metadata"]["uid"], place.get("deploy", "d")["metadata"]["uid"]] == uids
    assert found["data"] == {"both": "1"}
    assert LAST not in found["metadata"]["annotations"]
    assert "env" not in pod["spec"]["containers"][0]
    assert "annotations" not in pod["metadata"]
    again = place.apply("--output", "json")
    assert set(list_outcomes(again).values()) == {"unchanged"}
    assert place.revisions() == {"a": ["1 deployed"], "base": ["1 deployed"]}
