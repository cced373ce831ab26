"""Which item of a list is which: by the API's merge keys, as a server-side apply pairs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

MergeKeys = tuple[tuple[str, Any], ...]
"""What tells an item from the others of its list: ``(("name", "main"),)``."""
Step = str | int | MergeKeys

_BY_NAME: Final = (("name",),)
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")
_KEYS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    # Merge keys of the API's types (k8s.io/api, `patchMergeKey`, `listMapKey`). A ports list is a
    # container's or a Service's.
    **dict.fromkeys(_CONTAINERS, _BY_NAME),
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
    # Of a ConfigMap or Secret in a volume, and of files in the downward API.
    "items": (("path",),),
}
_DEFAULTS: Final = {"protocol": "TCP"}
_ORDERED: Final = frozenset(("initContainers", "env"))
_WHOLE: Final = frozenset(("versions", "volumeClaimTemplates", "items", "schedulingGates"))
"""Paired to be read, yet replaced as a whole: what the wanted list lacks goes."""


def is_replaced_whole(path: Sequence[Step]) -> bool:
    """Whether an apply takes items out of this list that it does not name, in an API's own type."""
    key = path[-1]
    if key == "ports":  # elsewhere, as in a NetworkPolicy, they are one value
        of_container = len(path) > 2 and path[-3] in _CONTAINERS
        return not (of_container or tuple(path) == ("spec", "ports"))
    return key not in _KEYS or key in _WHOLE


def compare_order(
    key: str, first: Iterable[MergeKeys], second: Iterable[MergeKeys]
) -> list[list[str]] | None:
    """How the items that both lists have are ordered, where that differs and means something.

    Containers that come first, variables that name others, routes of a custom resource: what comes
    first decides. Of volumes or ports the order says nothing.
    """
    if key in _KEYS and key not in _ORDERED:
        return None
    one, two = list(first), list(second)
    both = set(one) & set(two)
    orders = [[format_steps([keys])[1:-1] for keys in some if keys in both] for some in (one, two)]
    return orders if orders[0] != orders[1] else None


def pair_items(
    key: str, first: Sequence[Any], second: Sequence[Any], *, guess: bool
) -> tuple[dict[MergeKeys, Any], dict[MergeKeys, Any]] | None:
    """The items of two lists by what identifies them; None where nothing does.

    Args:
        guess: take a ``name`` that all items have and none shares, where the API has no key.
    """
    choices = _KEYS.get(key, ())
    if guess and not choices:
        choices = _BY_NAME
    for names in choices:
        one, two = _index_by_keys(first, names), _index_by_keys(second, names)
        if one is not None and two is not None:
            return one, two
    return None


def _index_by_keys(items: Sequence[Any], names: Sequence[str]) -> dict[MergeKeys, Any] | None:
    out: dict[MergeKeys, Any] = {}
    for item in items:
        keys = tuple((name, _get_key_value(item, name)) for name in names)
        if not isinstance(item, Mapping) or any(
            not isinstance(value, (str, int)) for _, value in keys
        ):
            return None
        if keys in out:
            return None
        out[keys] = item
    return out


def _get_key_value(item: Any, name: str) -> Any:
    node = item
    for part in name.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return _DEFAULTS.get(name) if node is None else node


def format_steps(path: Sequence[Step]) -> str:
    """A field's name for people, as `objects.show_path` writes it: ``containers[name=x].image``.

    What an item is told by comes first; a protocol that is the usual one is left out.
    """
    out: list[str] = []
    for step in path:
        if isinstance(step, str):
            plain = all(letter.isalnum() or letter in "_-" for letter in step) and step
            out.append((f".{step}" if out else step) if plain else f"[{step}]")
        elif isinstance(step, int):
            out.append(f"[{step}]")
        else:
            said = (f"{n}={v}" for n, v in step if _DEFAULTS.get(n) != v)
            out.append(f"[{','.join(said)}]")
    return "".join(out)
