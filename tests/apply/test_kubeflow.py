"""Whole Kubeflows on a cluster: one pass, again, by the smallest rights, up and back down.

Nodes and operators are stand-ins (tests/support/live.py says what they do); the API server, its
controllers, the webhook configurations, Helm and Helmfile are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.kubernetes.cluster import bulk as tool_live
from kfdeploy.kubernetes.cluster import client as tool
from kfdeploy.kubernetes.objects import Object
from kfdeploy.releaseset.folder import open_set
from tests.conftest import Done, Runner, Site, need_programs
from tests.support import userobjects
from tests.support.live import LiveCluster, serve_live_cluster

_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "None", "nonResourceURLs": ["*"]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True)
class Audited:
    """A live cluster and what was written to it."""

    live: LiveCluster
    log: Path

    def refused(self) -> list[str]:
        """Writes of an apply that the API server did not take.

        That something is there already, or no longer, is no refusal.
        """
        out, seen = [], 0
        for line in self.log.read_text().splitlines():
            event = json.loads(line)
            code = event.get("responseStatus", {}).get("code", 0)
            agent = event.get("userAgent", "").partition("/")[0].lower()
            seen += agent in ("helm", "kubectl")
            known = code == 409 or (code == 404 and event["verb"] == "delete")
            if code >= 400 and not known and agent in ("helm", "kubectl"):
                out.append(f"{code} {event['verb']} {event['requestURI']} {agent}")
        assert seen > 600, "the log does not have the apply's own writes"
        return out


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Audited]:
    policy, log = tmp_path / "policy.json", tmp_path / "audit.log"
    policy.write_text(json.dumps(_POLICY))
    flags = (f"--audit-policy-file={policy}", f"--audit-log-path={log}")
    with serve_live_cluster(tmp_path / "live", apiserver=flags) as running:
        yield Audited(running, log)


def apply(kfdeploy: Runner, site: Site, live: LiveCluster, *arguments: str, **env: str) -> Done:
    need_programs("helm", "helmfile", "kubectl")
    return kfdeploy("apply", *arguments, cwd=site.root, env={**live.env, **env})


def missing(site: Site, live: LiveCluster, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Objects of a set that are not there."""
    for name, value in live.env.items():
        monkeypatch.setenv(name, value)
    objects: list[Object] = []
    for release in open_set(site.set).releases:
        objects += [*release.crds, *release.objects]
    with tool.connect(None) as asked:
        there = tool_live.read_objects(asked, (item.key for item in objects))
    return [str(item.key) for item in objects if item.key not in there]


def revisions(live: LiveCluster) -> list[tuple[str, str, str]]:
    listed = live.cluster.kubectl(
        *("get", "secrets", "-n", "kfdeploy", "-l", "owner=helm", "-o", "json")
    )
    labels = [secret["metadata"]["labels"] for secret in json.loads(listed.stdout)["items"]]
    return sorted((one["name"], one["version"], one["status"]) for one in labels)


def unavailable(live: LiveCluster) -> list[str]:
    """Workloads that are not as many as they should be."""
    out = []
    for kind in ("deployments", "statefulsets", "daemonsets"):
        listed = live.cluster.kubectl("get", kind, "-A", "-o", "json")
        for body in json.loads(listed.stdout)["items"]:
            status = body["status"]
            wanted = status.get("desiredNumberScheduled", body["spec"].get("replicas", 1))
            ready = status.get("numberReady", status.get("readyReplicas", 0))
            if ready < wanted:
                out.append(f"{kind} {body['metadata']['name']}: {ready} of {wanted}")
    return out


def test_26_03_on_an_empty_cluster_in_one_pass_by_the_smallest_rights(
    real_site: Callable[[str], Site],
    audited: Audited,
    kfdeploy: Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, live = real_site("26.03"), audited.live
    account = _account(kfdeploy, site, live, tmp_path)
    first = apply(kfdeploy, site, live, "--output", "json", KUBECONFIG=str(account))
    assert {one["outcome"] for one in first.json["releases"]} == {"installed"}
    assert first.json["notReady"] == []
    assert audited.refused() == []
    assert missing(site, live, monkeypatch) == []
    assert unavailable(live) == []
    before = revisions(live)
    again = apply(kfdeploy, site, live, "--output", "json", KUBECONFIG=str(account))
    assert {one["outcome"] for one in again.json["releases"]} == {"unchanged"}
    assert revisions(live) == before


def _account(kfdeploy: Runner, site: Site, live: LiveCluster, folder: Path) -> Path:
    """A kubeconfig of the account that `export rbac` writes, and of no other."""
    rights = kfdeploy("export", "rbac", cwd=site.root).stdout
    live.cluster.kubectl("apply", "--server-side", "-f", "-", stdin=rights)
    token = live.cluster.kubectl("create", "token", "kfdeploy", "-n", "kfdeploy").stdout.strip()
    config = json.loads(live.cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    file = folder / "account.kubeconfig"
    file.write_text(json.dumps(config))
    return file


@pytest.mark.slow
def test_1_10_2_then_26_03_then_back_and_what_users_made_is_untouched(
    real_site: Callable[[str], Site],
    audited: Audited,
    kfdeploy: Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new, live = real_site("1.10.2"), real_site("26.03"), audited.live
    apply(kfdeploy, old, live)
    assert audited.refused() == []
    assert missing(old, live, monkeypatch) == []
    users = userobjects.objects("1.10.2")
    userobjects.put(live.cluster, users)
    before = userobjects.state(live.cluster, users)
    up = apply(kfdeploy, new, live, "--output", "json")
    assert "training-operator" in up.json["removed"]
    assert _same(before, userobjects.state(live.cluster, users))
    assert missing(new, live, monkeypatch) == []
    assert unavailable(live) == []
    down = apply(kfdeploy, old, live, "--output", "json")
    assert "trainer" in down.json["removed"]
    assert _same(before, userobjects.state(live.cluster, users))
    assert missing(old, live, monkeypatch) == []
    assert unavailable(live) == []
    assert audited.refused() == []


def _same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    assert after.keys() == before.keys()
    for name, body in before.items():
        assert after[name] == body, name
    return True
