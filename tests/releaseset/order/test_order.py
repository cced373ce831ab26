"""The order of the real releases' sets, walked without what derived it.

Each release of a set is taken after those that it needs, as Helmfile does, and each object is held
against what an API server would refuse at that moment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from kfdeploy.kubernetes.objects import Object, split_objects
from tests.conftest import RELEASES, Site

RealSite = Callable[[str], Site]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")

SPLITS = {
    "26.03": {
        "cert-manager-after": {"ClusterIssuer": 1},
        "knative-serving-after": {"Certificate": 1},
        "trainer-after": {"ClusterTrainingRuntime": 6},
        "kserve-after": {"ClusterServingRuntime": 11},
    },
    "1.10.2": {
        "knative-serving-after": {"Certificate": 1},
        "kserve-after": {"ClusterServingRuntime": 11},
    },
}
"""What each release's own webhook judges. cert-manager's issuer is a component of its own in
1.10.2, and the training operator has no objects of its kinds."""


@dataclass(frozen=True)
class Walk:
    """A set as its ``helmfile.yaml`` has it."""

    folder: Path

    @cached_property
    def releases(self) -> dict[str, Any]:
        data = YAML(typ="safe").load(self.folder / "helmfile.yaml")
        return {release["name"]: release for release in data["releases"]}

    @cached_property
    def objects(self) -> dict[str, list[Object]]:
        return {
            name: list(
                split_objects(
                    (self.folder / f"charts/{name}/charts/objects/objects.yaml").read_text()
                )
            )
            for name in self.releases
        }

    @cached_property
    def crds(self) -> dict[str, list[Any]]:
        return {
            name: [item.body for item in split_objects(file.read_text())]
            for name in self.releases
            if (file := self.folder / "crds" / f"{name}.yaml").exists()
        }

    @cached_property
    def before(self) -> dict[str, set[str]]:
        """All releases that are installed when one's turn comes, in the file's order."""
        out: dict[str, set[str]] = {}
        for name, release in self.releases.items():
            needs = [need.partition("/")[2] for need in release.get("needs", ())]
            out[name] = set(needs).union(*(out[need] for need in needs))
        return out

    def every(self) -> Iterator[tuple[str, Object]]:
        for name, objects in self.objects.items():
            yield from ((name, item) for item in objects)

    def holders(self, kind: str, name: str) -> set[str]:
        return {
            release
            for release, item in self.every()
            if (item.key.kind, item.key.name) == (kind, name)
        }

    def serving(self, service: dict[str, str]) -> set[str]:
        """The releases with the workloads behind a Service."""
        wanted = {}
        for _, item in self.every():
            key = item.key
            if (key.kind, key.namespace, key.name) == (
                "Service",
                service["namespace"],
                service["name"],
            ):
                wanted = item.body["spec"]["selector"]
        assert wanted, service
        found = set()
        for release, item in self.every():
            if item.key.kind in WORKLOADS and item.key.namespace == service["namespace"]:
                labels = item.body["spec"]["template"]["metadata"]["labels"]
                if wanted.items() <= labels.items():
                    found.add(release)
        assert found, service
        return found


@pytest.fixture(params=RELEASES, scope="module")
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def walk(version: str, real_site: RealSite) -> Walk:
    return Walk(real_site(version).set)


def test_every_need_is_in_an_earlier_wave(walk: Walk) -> None:
    waves = json.loads((walk.folder / "summary.json").read_text())["waves"]
    wave = {name: number for number, names in enumerate(waves) for name in names}
    assert set(wave) == set(walk.releases)
    for name, before in walk.before.items():
        assert all(wave[other] < wave[name] for other in before)
        assert wave[name] == max((wave[other] + 1 for other in before), default=0)


def test_no_need_follows_from_another(walk: Walk) -> None:
    for release in walk.releases.values():
        needs = [need.partition("/")[2] for need in release.get("needs", ())]
        for need in needs:
            assert not any(need in walk.before[other] for other in needs)


def test_every_kind_is_defined_before_its_objects(walk: Walk) -> None:
    defined: dict[tuple[str, str], set[str]] = {}
    for release, crds in walk.crds.items():
        for crd in crds:
            kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
            defined.setdefault(kind, set()).add(release)
    checked = 0
    for release, item in walk.every():
        if holders := defined.get((item.key.group, item.key.kind)):
            checked += 1
            assert holders & (walk.before[release] | {release}), (release, str(item.key))
        else:
            assert "." not in item.key.group or item.key.group.endswith(".k8s.io"), str(item.key)
    assert checked > 70


def test_every_namespace_is_there_before_what_is_in_it(walk: Walk) -> None:
    for release, item in walk.every():
        holders = walk.holders("Namespace", item.key.namespace)
        if item.key.namespace and holders:
            assert holders & (walk.before[release] | {release}), (release, str(item.key))


def test_every_webhook_is_ready_before_the_custom_resources_that_it_judges(walk: Walk) -> None:
    plural = {
        (crd["spec"]["group"], crd["spec"]["names"]["kind"]): crd["spec"]["names"]["plural"]
        for crds in walk.crds.values()
        for crd in crds
    }
    judged = set()
    for _, configuration in walk.every():
        if not configuration.key.kind.endswith("WebhookConfiguration"):
            continue
        for webhook in configuration.body["webhooks"]:
            if webhook.get("failurePolicy") == "Ignore":
                continue
            for rule in webhook.get("rules") or ():
                for release, item in walk.every():
                    resource = plural.get((item.key.group, item.key.kind))
                    if item.key.group not in rule["apiGroups"] or not (
                        {resource, "*/*", "*"} & set(rule["resources"])
                    ):
                        continue
                    servers = walk.serving(webhook["clientConfig"]["service"])
                    assert servers <= walk.before[release], (str(item.key), configuration.key)
                    assert all(walk.releases[server].get("wait") for server in servers)
                    judged.add(item.key.kind)
    assert {"Certificate", "Issuer", "ClusterIssuer", "ClusterServingRuntime"} <= judged


def test_istio_is_ready_before_the_pods_that_it_joins(walk: Walk) -> None:
    spaces = {
        item.key.name: item.body["metadata"].get("labels") or {}
        for _, item in walk.every()
        if item.key.kind == "Namespace"
    }
    assert walk.releases["istio-install"]["wait"] is True
    joined = 0
    for release, item in walk.every():
        if item.key.kind not in WORKLOADS:
            continue
        labels = item.body["spec"]["template"]["metadata"]["labels"]
        inside = spaces.get(item.key.namespace, {}).get("istio-injection") == "enabled"
        if inside and labels.get("sidecar.istio.io/inject") != "false":
            joined += 1
            assert "istio-install" in walk.before[release], str(item.key)
    assert joined > 10


def test_components_are_split_only_where_their_own_webhooks_judge(walk: Walk, version: str) -> None:
    found: dict[str, dict[str, int]] = {}
    for name in walk.releases:
        if name.endswith("-after"):
            kinds = [item.key.kind for item in walk.objects[name]]
            found[name] = {kind: kinds.count(kind) for kind in kinds}
            assert name.removesuffix("-after") in walk.before[name]
    assert found == SPLITS[version]


def test_where_nothing_says_otherwise_upstreams_order_stays(walk: Walk, version: str) -> None:
    """In the file, a release is where upstream has it but for those that need a later one."""
    names = [name for name in walk.releases if not name.endswith("-after")]
    workspace = YAML(typ="safe").load(walk.folder.parent.parent / "kfdeploy.yaml")
    listed = [component["name"] for component in workspace["components"]]
    moved = [name for name in names if walk.before[name] & set(listed[listed.index(name) :])]
    assert [name for name in names if name not in moved] == [
        name for name in listed if name not in moved
    ]
    assert sorted(names) == sorted(listed)
