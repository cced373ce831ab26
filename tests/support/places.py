"""Small sets on a live cluster: objects to put into them, and a place for each test."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.conftest import Done, Runner
from tests.support.live import LiveCluster
from tests.support.sets import make_workspace, write_set

Body = dict[str, Any]


def config_map(name: str, namespace: str, **data: str) -> Body:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def namespace(name: str) -> Body:
    meta = {"name": name, "annotations": {"helm.sh/resource-policy": "keep"}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}


def deployment(name: str, namespace: str, *, app: str = "", image: str = "r.test/a:1") -> Body:
    labels = {"app": app or name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": image}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def definition(group: str) -> Body:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": "Thing", "plural": "things"},
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


@dataclass(frozen=True)
class Place:
    """A workspace, a namespace of its own for objects, and one for Helm's records.

    Attributes:
        more: variables that kfdeploy runs with, beside the cluster's.
    """

    folder: Path
    live: LiveCluster
    kfdeploy: Runner
    name: str
    more: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def helm(self) -> str:
        return f"helm-{self.name}"

    @property
    def env(self) -> dict[str, str | None]:
        return {**self.live.env, **self.more}

    def write(self, releases: dict[str, list[Body]], **how: Any) -> Path:
        """Write a set; the release ``base`` comes first."""
        waves = [["base"], [name for name in releases if name != "base"]]
        return write_set(self.folder, releases, **{"waves": [w for w in waves if w], **how})

    def on(self, env: Mapping[str, str | None]) -> Place:
        """The same with further variables."""
        return replace(self, more={**self.more, **env})

    def apply(self, *arguments: str, check: int | None = 0) -> Done:
        return self.kfdeploy("apply", *arguments, cwd=self.folder, env=self.env, check=check)

    def destroy(self, *arguments: str, check: int | None = 0) -> Done:
        return self.kfdeploy("destroy", *arguments, cwd=self.folder, env=self.env, check=check)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """kfdeploy, not waited for."""
        return subprocess.Popen(
            [*self.kfdeploy.command, *arguments],
            cwd=self.folder,
            env=self.kfdeploy.environment(self.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def get(self, kind: str, name: str, namespace: str = "") -> Any:
        found = self.live.cluster.kubectl(
            *("get", kind, name, "-n", namespace or self.name, "-o", "json"), check=False
        )
        return json.loads(found.stdout) if found.returncode == 0 else None

    def revisions(self) -> dict[str, list[str]]:
        """Each release's revisions and their statuses."""
        listed = self.live.cluster.kubectl(
            *("get", "secrets", "-n", self.helm, "-l", "owner=helm", "-o", "json")
        )
        out: dict[str, list[str]] = {}
        for secret in json.loads(listed.stdout)["items"]:
            labels = secret["metadata"]["labels"]
            out.setdefault(labels["name"], []).append(f"{labels['version']} {labels['status']}")
        return {name: sorted(found) for name, found in sorted(out.items())}


def make_place(folder: Path, live: LiveCluster, kfdeploy: Runner, test: str) -> Place:
    """A place for a test of this name."""
    name = re.sub(r"[^a-z0-9]+", "-", test.removeprefix("test_"))[-40:].strip("-")
    return Place(make_workspace(folder, namespace=f"helm-{name}"), live, kfdeploy, name)


def list_outcomes(done: Done) -> dict[str, str]:
    return {one["release"]: one["outcome"] for one in done.json["releases"]}


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.1)
