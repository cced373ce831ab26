"""RBAC rules: decide what they allow, and build them for required rights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from kfdeploy.apply.preflight.needed_rights import RequiredRight

Rule = Mapping[str, Any]


def is_allowed(rules: Iterable[Rule], verb: str, group: str, resource: str, name: str) -> bool:
    """Return whether rules allow a verb on a resource.

    Args:
        resource: with a subresource, such as ``pods/log``; ``*`` for all.
        name: name of one object; empty for any.
    """
    return any(
        _has_value(rule.get("verbs"), verb)
        and _has_value(rule.get("apiGroups"), group)
        and _has_resource(rule.get("resources"), resource)
        and (not rule.get("resourceNames") or name in rule["resourceNames"])
        for rule in rules
    )


def find_missing_verbs(
    rules: Sequence[Rule], right: RequiredRight
) -> list[tuple[str, tuple[str, ...]]]:
    """Return the verbs of a right that rules do not allow, each with its names (none: any)."""
    out: list[tuple[str, tuple[str, ...]]] = []
    for verb in right.verbs:
        denied = [
            name
            for name in right.names or ("",)
            if not is_allowed(rules, verb, right.group, right.resource, name)
        ]
        if denied:
            out.append((verb, tuple(denied) if right.names else ()))
    return out


def covers_rules(rules: Sequence[Rule], wanted: Iterable[Rule]) -> bool:
    """Return whether rules allow all that other rules allow.

    This is the API server's decision when a role is written: only a ``*`` covers a ``*``.
    """
    return all(_covers_urls(rules, rule) and _covers_resources(rules, rule) for rule in wanted)


def _covers_urls(rules: Sequence[Rule], wanted: Rule) -> bool:
    return all(
        any(
            _has_value(rule.get("verbs"), verb) and _has_url(rule.get("nonResourceURLs"), url)
            for rule in rules
        )
        for url, verb in product(wanted.get("nonResourceURLs") or (), wanted.get("verbs") or ())
    )


def _covers_resources(rules: Sequence[Rule], wanted: Rule) -> bool:
    fields = (wanted.get(name) or () for name in ("verbs", "apiGroups", "resources"))
    names = wanted.get("resourceNames") or ("",)
    return all(is_allowed(rules, *request) for request in product(*fields, names))


def build_rules(rights: Iterable[RequiredRight]) -> list[dict[str, Any]]:
    """Return the fewest rules of one role that grant some rights, sorted.

    Resources of one group with the same verbs share a rule. Each resource with names has its own.
    """
    shared: dict[tuple[str, tuple[str, ...]], set[str]] = {}
    named: dict[tuple[str, str, tuple[str, ...]], set[str]] = {}
    for group, resource, verbs in _group_unnamed_verbs(rights):
        shared.setdefault((group, verbs), set()).add(resource)
    for right in rights:
        if right.names:
            named.setdefault((right.group, right.resource, right.verbs), set()).update(right.names)
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
    rights: Iterable[RequiredRight],
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    verbs: dict[tuple[str, str], set[str]] = {}
    for right in rights:
        if not right.names:
            verbs.setdefault((right.group, right.resource), set()).update(right.verbs)
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
