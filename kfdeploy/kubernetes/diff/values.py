"""Decide whether two values mean the same to the API server."""

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
"""Go fields with ``omitempty`` that are no pointers: false and 0 are not stored."""
_EMPTY_MEANS_ALL: Final = frozenset(
    ("podSelector", "namespaceSelector", "objectSelector", "selector", "labelSelector", "emptyDir")
)
"""Fields in which an empty mapping means something else than its absence."""


def parse_quantity(value: Any) -> Decimal | None:
    """Return the amount of a Kubernetes quantity (`500m`, `1Gi`, `2`); None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        return None
    unit = match[2] or ""
    has_exponent = unit[:1] in ("e", "E") and len(unit) > 1  # E alone is 10^18
    exponent = int(unit[1:]) if has_exponent else _DECIMAL.get(unit, 0)
    try:
        return Decimal(match[1]).scaleb(exponent) * _BINARY.get(unit, 1)
    except InvalidOperation:
        return None


def is_quantity_field(parent: str, key: str) -> bool:
    """Return whether a field holds a quantity, by its name and its parent's."""
    return parent in _OF_QUANTITIES or key in _QUANTITIES


def is_same_value(first: Any, second: Any, parent: str, key: str, *, loose: bool) -> bool:
    """Return whether two scalars mean the same in the field ``parent.key``.

    Args:
        loose: a number equals its text. A field of strings stores a number in YAML as text.
    """
    if first == second and isinstance(first, bool) == isinstance(second, bool):
        return True
    if is_quantity_field(parent, key):
        amount = parse_quantity(first)
        if amount is not None and amount == parse_quantity(second):
            return True
    return loose and _format_scalar(first) == _format_scalar(second)


def _format_scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def is_same_as_absent(value: Any, key: str) -> bool:
    """Return whether the API server stores a value as if it were absent."""
    if value is None or value == "" or value == []:
        return True
    if value is False or (value == 0 and isinstance(value, (int, float))):
        return key in _FALSE_IS_ABSENT
    if isinstance(value, Mapping):
        return key not in _EMPTY_MEANS_ALL and all(
            is_same_as_absent(inner, str(name)) for name, inner in value.items()
        )
    return False
