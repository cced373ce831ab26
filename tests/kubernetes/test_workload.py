"""Pods in objects: their templates, their containers, and what they read."""

from __future__ import annotations

from typing import Any

import pytest

from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.objects import ObjectKey, get_field

CONFIG = ObjectKey("v1", "ConfigMap", "n", "settings")
SECRET = ObjectKey("v1", "Secret", "n", "settings")


def deployment(spec: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "Deployment", "spec": {"template": {"spec": spec}}}


def test_containers_of_every_group_have_their_path() -> None:
    body = deployment(
        {"containers": [{"name": "a"}], "initContainers": [{"name": "b"}, {"name": "c"}]}
    )
    found = {container["name"]: path for path, container in workload.list_containers(body)}
    assert sorted(found) == ["a", "b", "c"]
    assert all(get_field(body, path)["name"] == name for name, path in found.items())


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "Service", "spec": {"containers": [{}]}},
        {"kind": "Deployment"},
        {"kind": "Deployment", "spec": {"template": {"spec": None}}},
        {"kind": "Deployment", "spec": {"template": None}},
        {},
    ],
)
def test_what_has_no_pod_has_no_containers(body: dict[str, Any]) -> None:
    assert list(workload.list_containers(body)) == []
    assert not workload.reads_config(body, CONFIG)


@pytest.mark.parametrize(
    ("spec", "config", "secret"),
    [
        ({"volumes": [{"configMap": {"name": "settings"}}]}, True, False),
        ({"volumes": [{"secret": {"secretName": "settings"}}]}, False, True),
        (
            {"volumes": [{"projected": {"sources": [{"configMap": {"name": "settings"}}]}}]},
            True,
            False,
        ),
        (
            {"volumes": [{"projected": {"sources": [{"secret": {"name": "settings"}}]}}]},
            False,
            True,
        ),
        ({"containers": [{"envFrom": [{"configMapRef": {"name": "settings"}}]}]}, True, False),
        ({"containers": [{"envFrom": [{"secretRef": {"name": "settings"}}]}]}, False, True),
        (
            {
                "initContainers": [
                    {
                        "env": [
                            {
                                "name": "A",
                                "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "k"}},
                            }
                        ]
                    }
                ]
            },
            True,
            False,
        ),
        ({"volumes": [{"configMap": {"name": "other"}}, {"emptyDir": {}}]}, False, False),
        ({"volumes": None, "containers": [{"env": None, "envFrom": None}]}, False, False),
    ],
)
def test_what_a_pod_reads(spec: dict[str, Any], config: bool, secret: bool) -> None:
    body = deployment(spec)
    assert workload.reads_config(body, CONFIG) is config
    assert workload.reads_config(body, SECRET) is secret
