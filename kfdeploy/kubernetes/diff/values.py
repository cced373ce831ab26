"""When two values mean the same to the API server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
_BINARY: Final[dict[str, int]] = {
    f"{letter}i": 1024 ** (n + 1) for n, letter in enumerate("KMGTPE")
}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_OF_QUANTITIES: Final = frozenset(
    ("limits", "requests", "capacity", "hard", "overhead", "default", "defaultRequest")
)
_QUANTITIES: Final = frozenset(("cpu", "memory", "storage", "sizeLimit", "divisor", "averageValue"))
_FALSE_IS_ABSENT: Final = frozenset(
    (
        *("hostNetwork", "hostPID", "hostIPC", "readOnly", "stdin", "stdinOnce", "tty", "paused"),
        *("publishNotReadyAddresses", "insecureSkipTLSVerify", "globalDefault", "unschedulable"),
        *("minReadySeconds", "initialDelaySeconds", "preserveUnknownFields", "deprecated"),
        *("uniqueItems", "exclusiveMinimum", "exclusiveMaximum", "nullable"),
        *("x-kubernetes-embedded-resource", "x-kubernetes-int-or-string"),
    )
)
"""Plain Go fields with ``omitempty``: false or 0 is not stored. Others are pointers, and are."""
_EMPTY_MEANS_ALL: Final = frozenset(
    ("podSelector", "namespaceSelector", "objectSelector", "selector", "labelSelector", "emptyDir")
)
"""Here an empty mapping says something that its absence does not."""


def parse_quantity(value: Any) -> Decimal | None:
    """A Kubernetes quantity's amount (`500m`, `1Gi`, `2`); None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        return None
    unit = match[2] or ""
    try:
        number = Decimal(match[1])
        if unit in _BINARY:
            return number * Decimal(_BINARY[unit])
        if unit[:1] in ("e", "E") and len(unit) > 1:
            return number.scaleb(int(unit[1:]))
        return number.scaleb(_DECIMAL.get(unit, 0))
    except InvalidOperation:
        return None


def is_quantity_field(parent: str, key: str) -> bool:
    """Whether a field holds a quantity, by its name and its parent's."""
    return parent in _OF_QUANTITIES or key in _QUANTITIES


def is_same_value(first: Any, second: Any, parent: str, key: str, *, loose: bool) -> bool:
    """Whether two scalars mean the same in the field ``parent.key``.

    Args:
        loose: a number is its text too: what YAML has as a number, a field of strings stores so.
    """
    if first == second and isinstance(first, bool) == isinstance(second, bool):
        return True
    if is_quantity_field(parent, key):
        one, two = parse_quantity(first), parse_quantity(second)
        if one is not None and one == two:
            return True
    return loose and _format_scalar(first) == _format_scalar(second)


def _format_scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def is_same_as_absent(value: Any, key: str) -> bool:
    """Whether a wanted value comes to the same as its absence in what the API server stores."""
    if value is None or value == "" or value == []:
        return True
    if value is False or (value == 0 and isinstance(value, (int, float))):
        return key in _FALSE_IS_ABSENT
    if isinstance(value, Mapping):
        return key not in _EMPTY_MEANS_ALL and all(
            is_same_as_absent(inner, str(name)) for name, inner in value.items()
        )
    return False
