"""Fields of objects that have, or do not have, the shape of their kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kfdeploy.kubernetes import accessors

WRONG: tuple[Any, ...] = (None, [], "text", 7, True, [{"name": "x"}])
"""Values where YAML allows anything and the API wants a mapping."""
READERS: tuple[tuple[Callable[[Any], Any], Any], ...] = (
    (accessors.get_api_group, ""),
    (accessors.get_metadata, {}),
    (accessors.get_name, ""),
    (accessors.get_namespace, ""),
    (accessors.get_uid, ""),
    (accessors.get_labels, {}),
    (accessors.get_annotations, {}),
    (accessors.list_owner_references, []),
    (accessors.find_controller_reference, None),
    (accessors.list_managed_fields, []),
    (accessors.is_being_deleted, False),
    (accessors.get_spec, {}),
    (accessors.get_status, {}),
)


@pytest.mark.parametrize(("read", "empty"), READERS)
def test_a_wrong_shape_reads_as_empty(read: Callable[[Any], Any], empty: Any) -> None:
    assert read({}) == empty
    for value in WRONG:
        assert read(value) == empty
        assert read({"metadata": value, "spec": value, "status": value}) == empty


@pytest.mark.parametrize("value", [value for value in WRONG if not isinstance(value, list)])
def test_a_wrong_shape_in_metadata_reads_as_empty(value: Any) -> None:
    fields = ("labels", "annotations", "ownerReferences", "managedFields")
    body = {"metadata": dict.fromkeys(fields, value)}
    assert accessors.get_labels(body) == accessors.get_annotations(body) == {}
    assert accessors.list_owner_references(body) == accessors.list_managed_fields(body) == []


def test_fields_are_read() -> None:
    owners = [{"uid": "a"}, "text", {"uid": "b", "controller": True}]
    body = {
        "apiVersion": "apps/v1",
        "metadata": {
            "name": "x",
            "namespace": "y",
            "uid": 7,
            "labels": {"a": "b"},
            "deletionTimestamp": "2026-01-02T03:04:05Z",
            "ownerReferences": owners,
        },
        "spec": {"template": {"spec": {"containers": [None, {"name": "c"}]}}},
    }
    assert accessors.get_api_group(body) == "apps"
    assert (accessors.get_name(body), accessors.get_namespace(body)) == ("x", "y")
    assert accessors.get_uid(body) == "7"
    assert accessors.get_labels(body) == {"a": "b"}
    assert accessors.is_being_deleted(body)
    assert accessors.list_owner_references(body) == [owners[0], owners[2]]
    assert accessors.find_controller_reference(body) == owners[2]
    path = ("spec", "template", "spec", "containers")
    assert accessors.list_mappings(body, *path) == [{"name": "c"}]
    assert accessors.get_value(body, *path, "name") is None
