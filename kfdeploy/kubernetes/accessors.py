"""Read the fields of a Kubernetes object, whatever its shape.

An object comes from a file that somebody wrote, or from a cluster. A field may be absent, null, or
of another type than the API says: ``metadata: []`` is valid YAML. The functions here never raise.
They return an empty value for a field that is not what it should be, so that a caller says which
field it wants and nothing more. `objects.get_field` is for a path that must exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Body = Mapping[str, Any]
"""An object, or a part of one, as JSON and YAML parsers return it."""


def as_mapping(node: Any) -> Body:
    """Return ``node`` if it is a mapping, else an empty one."""
    return node if isinstance(node, Mapping) else {}


def as_list(node: Any) -> Sequence[Any]:
    """Return ``node`` if it is a list, else an empty one."""
    return node if isinstance(node, list | tuple) else ()


def get_value(body: Any, *path: str) -> Any:
    """Return the value at a path of keys; None if there is none."""
    node = body
    for key in path:
        if not isinstance(node, Mapping):
            return None
        node = node.get(key)
    return node


def get_mapping(body: Any, *path: str) -> Body:
    """Return the mapping at a path of keys, such as ``("spec", "template")``."""
    return as_mapping(get_value(body, *path))


def get_text(body: Any, *path: str) -> str:
    """Return the value at a path of keys as text; null is the empty text."""
    value = get_value(body, *path)
    return "" if value is None else str(value)


def list_mappings(body: Any, *path: str) -> list[Body]:
    """Return those items of the list at a path of keys that are mappings."""
    return [item for item in as_list(get_value(body, *path)) if isinstance(item, Mapping)]


# -- what every object has -------------------------------------------------------------------------


def get_api_group(body: Any) -> str:
    """Return the API group; empty for the core group."""
    return get_text(body, "apiVersion").rpartition("/")[0]


def get_metadata(body: Any) -> Body:
    """Return the object's metadata."""
    return get_mapping(body, "metadata")


def get_name(body: Any) -> str:
    """Return the object's name."""
    return get_text(body, "metadata", "name")


def get_namespace(body: Any) -> str:
    """Return the object's namespace; empty for a cluster-scoped object."""
    return get_text(body, "metadata", "namespace")


def get_uid(body: Any) -> str:
    """Return the uid that the API server gave the object; empty for an object from a file."""
    return get_text(body, "metadata", "uid")


def get_labels(body: Any) -> Body:
    """Return the object's labels."""
    return get_mapping(body, "metadata", "labels")


def get_annotations(body: Any) -> Body:
    """Return the object's annotations."""
    return get_mapping(body, "metadata", "annotations")


def list_owner_references(body: Any) -> list[Body]:
    """Return the object's owner references."""
    return list_mappings(body, "metadata", "ownerReferences")


def find_controller_reference(body: Any) -> Body | None:
    """Return the owner reference of the object's controller; None if nothing controls it."""
    return next((ref for ref in list_owner_references(body) if ref.get("controller")), None)


def list_managed_fields(body: Any) -> list[Body]:
    """Return the object's ``managedFields`` entries."""
    return list_mappings(body, "metadata", "managedFields")


def is_being_deleted(body: Any) -> bool:
    """Return whether the object was deleted and waits for its finalizers."""
    return bool(get_value(body, "metadata", "deletionTimestamp"))


def get_spec(body: Any) -> Body:
    """Return the object's spec."""
    return get_mapping(body, "spec")


def get_status(body: Any) -> Body:
    """Return the object's status."""
    return get_mapping(body, "status")
