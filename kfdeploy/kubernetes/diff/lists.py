"""Pair the items of two lists by the API's merge keys, as a server-side apply does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from kfdeploy.kubernetes.accessors import get_value
from kfdeploy.kubernetes.workload import CONTAINERS

MergeKeys = tuple[tuple[str, Any], ...]
"""The fields that identify an item in its list: ``(("name", "main"),)``."""
Step = str | int | MergeKeys
"""A step of a path: a key, an index of a list, or the identity of an item."""

_BY_NAME: Final = (("name",),)
_KEYS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    # Merge keys of the API's types (k8s.io/api, `patchMergeKey`, `listMapKey`). A list of ports
    # is a container's or a Service's.
    **dict.fromkeys(CONTAINERS, _BY_NAME),
    **dict.fromkeys(("env", "volumes", "imagePullSecrets", "resourceClaims"), _BY_NAME),
    **dict.fromkeys(("webhooks", "matchConditions", "versions", "secrets"), _BY_NAME),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "volumeMounts": (("mountPath",),),
    "volumeDevices": (("devicePath",),),
    "hostAliases": (("ip",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "conditions": (("type",),),
    "ownerReferences": (("uid",),),
    "schedulingGates": _BY_NAME,
    "volumeClaimTemplates": (("metadata.name",),),
    # Items of a ConfigMap or Secret in a volume, and files of the downward API.
    "items": (("path",),),
}
_DEFAULTS: Final = {"protocol": "TCP"}
_ORDERED: Final = frozenset(("initContainers", "env"))
"""Lists with a merge key whose order has a meaning."""
_REPLACED_WHOLE: Final = frozenset(("versions", "volumeClaimTemplates", "items", "schedulingGates"))
"""Paired to be readable, and replaced as a whole: items that the wanted list lacks go."""


def is_replaced_whole(path: Sequence[Step]) -> bool:
    """Return whether an apply removes the items of this list that it does not name.

    This holds for Kubernetes' own kinds.
    """
    key = path[-1]
    if key == "ports":  # elsewhere, as in a NetworkPolicy, the list is one value
        of_container = len(path) > 2 and path[-3] in CONTAINERS
        return not (of_container or tuple(path) == ("spec", "ports"))
    return key not in _KEYS or key in _REPLACED_WHOLE


def compare_order(
    key: str, first: Iterable[MergeKeys], second: Iterable[MergeKeys]
) -> list[list[str]] | None:
    """Return both orders of the items that both lists have; None if they are equal in effect.

    The order matters for init containers, for variables that name others, and in a custom resource
    such as a list of routes. It does not for volumes or ports.
    """
    if key in _KEYS and key not in _ORDERED:
        return None
    both = (list(first), list(second))
    common = set(both[0]) & set(both[1])
    orders = [[format_steps([keys])[1:-1] for keys in items if keys in common] for items in both]
    return orders if orders[0] != orders[1] else None


def pair_items(
    key: str, first: Sequence[Any], second: Sequence[Any], *, guess: bool
) -> tuple[dict[MergeKeys, Any], dict[MergeKeys, Any]] | None:
    """Return the items of two lists by their merge keys; None if they have none.

    Args:
        guess: where the API has no key, use a ``name`` that all items have and no two share.
    """
    choices = _KEYS.get(key, ())
    if guess and not choices:
        choices = _BY_NAME
    for names in choices:
        before, after = _index_by_keys(first, names), _index_by_keys(second, names)
        if before is not None and after is not None:
            return before, after
    return None


def _index_by_keys(items: Sequence[Any], names: Sequence[str]) -> dict[MergeKeys, Any] | None:
    out: dict[MergeKeys, Any] = {}
    for item in items:
        keys = tuple((name, _get_key_value(item, name)) for name in names)
        is_complete = all(isinstance(value, str | int) for _, value in keys)
        if not isinstance(item, Mapping) or not is_complete or keys in out:
            return None
        out[keys] = item
    return out


def _get_key_value(item: Any, name: str) -> Any:
    value = get_value(item, *name.split("."))
    return _DEFAULTS.get(name) if value is None else value


def format_steps(path: Sequence[Step]) -> str:
    """Return a field's name for people: ``containers[name=x].image``.

    `objects.show_path` writes the same form. A value that is the API's default is left out.
    """
    out: list[str] = []
    for step in path:
        if isinstance(step, str):
            plain = all(letter.isalnum() or letter in "_-" for letter in step) and step
            out.append((f".{step}" if out else step) if plain else f"[{step}]")
        elif isinstance(step, int):
            out.append(f"[{step}]")
        else:
            keys = (f"{name}={value}" for name, value in step if _DEFAULTS.get(name) != value)
            out.append(f"[{','.join(keys)}]")
    return "".join(out)
