"""Rules of roles: what they allow, and the rights of a need written as them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from kfdeploy.apply.preflight.needed_rights import RequiredRight

Rule = Mapping[str, Any]


def is_allowed(rules: Iterable[Rule], verb: str, group: str, resource: str, name: str) -> bool:
    """Whether rules allow it.

    Args:
        resource: with its subresource, such as ``pods/log``; ``*`` for all.
        name: of one object; empty for any.
    """
    return any(
        _has_value(rule.get("verbs"), verb)
        and _has_value(rule.get("apiGroups"), group)
        and _has_resource(rule.get("resources"), resource)
        and (not rule.get("resourceNames") or name in rule["resourceNames"])
        for rule in rules
    )


def find_missing_verbs(
    rules: Sequence[Rule], need: RequiredRight
) -> list[tuple[str, tuple[str, ...]]]:
    """What of a need the rules do not allow: verbs, each with the names it lacks (none: any)."""
    out: list[tuple[str, tuple[str, ...]]] = []
    for verb in need.verbs:
        if not need.names:
            if not is_allowed(rules, verb, need.group, need.resource, ""):
                out.append((verb, ()))
            continue
        names = [n for n in need.names if not is_allowed(rules, verb, need.group, need.resource, n)]
        if names:
            out.append((verb, tuple(names)))
    return out


def covers_rules(rules: Sequence[Rule], wanted: Iterable[Rule]) -> bool:
    """Whether rules allow all that others allow, as the API server decides it when a role is
    written: a ``*`` is covered by a ``*`` only."""
    for rule in wanted:
        for url, verb in product(rule.get("nonResourceURLs") or (), rule.get("verbs") or ()):
            if not any(
                _has_value(one.get("verbs"), verb) and _has_url(one.get("nonResourceURLs"), url)
                for one in rules
            ):
                return False
        for verb, group, resource, name in product(
            rule.get("verbs") or (),
            rule.get("apiGroups") or (),
            rule.get("resources") or (),
            rule.get("resourceNames") or ("",),
        ):
            if not is_allowed(rules, verb, group, resource, name):
                return False
    return True


def build_rules(needs: Iterable[RequiredRight]) -> list[dict[str, Any]]:
    """The rules of one role, few and sorted.

    Resources of one group with the same verbs are one rule; with names each has its own.
    """
    shared: dict[tuple[str, tuple[str, ...]], set[str]] = {}
    named: dict[tuple[str, str, tuple[str, ...]], set[str]] = {}
    for group, resource, verbs in _group_unnamed_verbs(needs):
        shared.setdefault((group, verbs), set()).add(resource)
    for need in needs:
        if need.names:
            named.setdefault((need.group, need.resource, need.verbs), set()).update(need.names)
    out = [
        {"apiGroups": [group], "resources": sorted(resources), "verbs": list(verbs)}
        for (group, verbs), resources in sorted(shared.items())
    ]
    out += [
        {
            "apiGroups": [group],
            "resources": [resource],
            "resourceNames": sorted(names),
            "verbs": list(verbs),
        }
        for (group, resource, verbs), names in sorted(named.items())
    ]
    return out


def _group_unnamed_verbs(
    needs: Iterable[RequiredRight],
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    verbs: dict[tuple[str, str], set[str]] = {}
    for need in needs:
        if not need.names:
            verbs.setdefault((need.group, need.resource), set()).update(need.verbs)
    for (group, resource), own in verbs.items():
        yield group, resource, tuple(sorted(own))


def _has_value(values: Iterable[str] | None, wanted: str) -> bool:
    return any(value in ("*", wanted) for value in values or ())


def _has_resource(values: Iterable[str] | None, wanted: str) -> bool:
    _, slash, sub = wanted.partition("/")
    return any(
        value in ("*", wanted) or (bool(slash) and value == f"*/{sub}") for value in values or ()
    )


def _has_url(values: Iterable[str] | None, wanted: str) -> bool:
    return any(
        value in ("*", wanted) or (value.endswith("*") and wanted.startswith(value[:-1]))
        for value in values or ()
    )
