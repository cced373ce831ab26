"""Who owns a field."""

from __future__ import annotations

from typing import Any

import pytest

from kfdeploy.kubernetes.diff import managers
from kfdeploy.kubernetes.diff.lists import Step

BODY: dict[str, Any] = {
    "metadata": {
        "managedFields": [
            {
                "manager": "helm",
                "operation": "Apply",
                "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:a": {}}},
                    "f:spec": {
                        "f:ports": {
                            'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:name": {}}
                        },
                        "f:selector": {},
                    },
                },
            },
            {
                "manager": "kubectl-edit",
                "operation": "Update",
                "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}},
            },
            {
                "manager": "controller",
                "operation": "Update",
                "subresource": "scale",
                "fieldsV1": {"f:spec": {"f:replicas": {}}},
            },
        ]
    }
}
OWNED: list[tuple[tuple[Step, ...], list[str]]] = [
    (("metadata", "labels", "a"), ["helm", "kubectl-edit"]),
    (("metadata", "labels", "b"), []),
    (("spec", "replicas"), ["controller/scale"]),
    (("spec", "ports", (("containerPort", 80), ("protocol", "TCP")), "name"), ["helm"]),
    (("spec", "ports", (("containerPort", 80), ("protocol", "UDP")), "name"), []),
    (("spec", "selector", "app"), ["helm"]),  # owned as a whole
    (("spec", "selector", 0), ["helm"]),
    (("data",), []),
]


@pytest.mark.parametrize(("path", "expected"), OWNED)
def test_the_managers_of_a_field(path: tuple[Step, ...], expected: list[str]) -> None:
    assert [str(one) for one in managers.find_managers(BODY, path)] == expected


def test_nobody_owns_a_field_of_an_object_without_managers() -> None:
    assert managers.find_managers({"metadata": {}}, ("spec",)) == ()
