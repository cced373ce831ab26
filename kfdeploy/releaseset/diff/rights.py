"""Compare what roles and bindings allow, with aggregation resolved, and name what is dangerous.

What is dangerous follows Kubernetes' "Role Based Access Control Good Practices" (privilege
escalation risks): https://kubernetes.io/docs/concepts/security/rbac-good-practices/
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from kfdeploy.kubernetes.accessors import (
    as_list,
    get_labels,
    get_mapping,
    get_text,
    list_mappings,
)
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset.diff.sides import ReleaseObject, SetSide
from kfdeploy.releaseset.order.selectors import selector_matches

RBAC: Final = "rbac.authorization.k8s.io"
_AGGREGATE: Final = f"{RBAC}/aggregate-to-"
_BUILT_IN: Final = ("admin", "edit", "view")
_BINDINGS: Final = ("RoleBinding", "ClusterRoleBinding")


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one resource, or on one object of it; or on one URL."""

    group: str
    resource: str
    verb: str
    name: str = ""

    @property
    def is_wide(self) -> bool:
        """True if it can cover other rights: it has a wildcard, or is for all names."""
        return not self.name or "*" in f"{self.group}{self.resource}{self.verb}"

    def covers(self, other: Right) -> bool:
        """Return whether this right gives the other one too."""
        return (
            self.group in ("*", other.group)
            and _covers_resource(self.resource, other.resource)
            and self.verb in ("*", other.verb)
            and self.name in ("", other.name)
        )


def _covers_resource(mine: str, other: str) -> bool:
    if mine in ("*", other):
        return True
    if mine.startswith("/"):  # a URL
        return mine.endswith("*") and other.startswith(mine[:-1])
    # `*/scale` is the subresource of every kind.
    return mine.startswith("*/") and other.partition("/")[2] == mine[2:]


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights that differ in their verb alone.

    Attributes:
        danger: why they let their holder gain further rights; empty where they do not.
    """

    group: str
    resource: str
    name: str
    verbs: tuple[str, ...]
    danger: str

    def __str__(self) -> str:
        of = f".{self.group}" if self.group and not self.resource.startswith("/") else ""
        only = f" {self.name}" if self.name else ""
        return f"{','.join(self.verbs)} {self.resource}{of}{only}"

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"apiGroup": self.group, "resource": self.resource}
        if self.name:
            out["name"] = self.name
        return {**out, "verbs": self.verbs, "escalation": self.danger}


@dataclass(frozen=True, slots=True)
class RoleChange:
    """A role that allows other things than it did.

    Attributes:
        what: ``added``, ``removed``, ``changed``; ``extended`` is a role of the cluster's own, such
            as ``edit``, that the set's roles are collected into.
        holders: the subjects that the new set binds it to; for a removed role, the old set.
    """

    what: str
    key: ObjectKey
    gains: tuple[Grant, ...]
    loses: tuple[Grant, ...]
    holders: tuple[str, ...]

    @property
    def is_dangerous(self) -> bool:
        return any(grant.danger for grant in self.gains)

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "role": self.key,
            "gains": self.gains,
            "loses": self.loses,
            "holders": self.holders,
        }


@dataclass(frozen=True, slots=True)
class BindingChange:
    """A binding that gives another role, or to other subjects, than before."""

    what: str
    key: ObjectKey
    role: str
    gains: tuple[str, ...]
    loses: tuple[str, ...]
    danger: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "binding": self.key,
            "role": self.role,
            "gains": self.gains,
            "loses": self.loses,
            "escalation": self.danger,
        }


def compare_roles(old: SetSide, new: SetSide) -> list[RoleChange]:
    """Return roles that allow other things than they did, the dangerous ones first."""
    first, second = _RoleIndex(old), _RoleIndex(new)
    changes = []
    for key in {*first.keys, *second.keys}:
        before, after = first.rights_of(key), second.rights_of(key)
        gains, loses = _rights_beyond(after, before), _rights_beyond(before, after)
        if gains or loses:
            what = _describe_role_change(key, first, second)
            holders = (first if what == "removed" else second).holders_of(key)
            changes.append(
                RoleChange(what, key, _group_grants(gains), _group_grants(loses), holders)
            )
    return sorted(changes, key=lambda change: (not change.is_dangerous, change.key))


def _describe_role_change(key: ObjectKey, old: _RoleIndex, new: _RoleIndex) -> str:
    if key in old.built_in or key in new.built_in:
        return "extended"
    if key not in old.keys:
        return "added"
    return "changed" if key in new.keys else "removed"


def compare_bindings(old: SetSide, new: SetSide) -> list[BindingChange]:
    """Return bindings that give a role to others than before, the dangerous ones first."""
    first, second = _read_bindings(old), _read_bindings(new)
    changes = [
        _compare_binding(key, first.get(key), second.get(key))
        for key in {*first, *second}
        if first.get(key) != second.get(key)
    ]
    return sorted(changes, key=lambda change: (not change.danger, change.key))


@dataclass(frozen=True, slots=True)
class _Binding:
    """A role, and the subjects that have it."""

    role: str
    subjects: frozenset[str]


_NO_BINDING: Final = _Binding("", frozenset())


def _compare_binding(key: ObjectKey, old: _Binding | None, new: _Binding | None) -> BindingChange:
    before, after = old or _NO_BINDING, new or _NO_BINDING
    what, role = "changed", after.role
    gains, loses = after.subjects - before.subjects, before.subjects - after.subjects
    if old is None:
        what = "added"
    elif new is None:
        what, role = "removed", before.role
    elif before.role != after.role:
        role = f"{before.role} -> {after.role}"
        gains, loses = after.subjects, before.subjects
    danger = _dangerous_binding(after.role, gains)
    return BindingChange(what, key, role, tuple(sorted(gains)), tuple(sorted(loses)), danger)


def _read_bindings(side: SetSide) -> dict[ObjectKey, _Binding]:
    return {_rbac_key(placed.key): _read_binding(placed) for placed in side.of_kind(*_BINDINGS)}


def _read_binding(placed: ReleaseObject) -> _Binding:
    ref = get_mapping(placed.body, "roleRef")
    return _Binding(
        f"{ref.get('kind')} {ref.get('name')}",
        frozenset(
            _subject_name(subject, placed.key.namespace)
            for subject in list_mappings(placed.body, "subjects")
        ),
    )


def _rbac_key(key: ObjectKey) -> ObjectKey:
    """Return the key in one version, so that another version is no other object."""
    return ObjectKey(f"{RBAC}/v1", key.kind, key.namespace, key.name)


def _subject_name(subject: Mapping[str, Any], namespace: str) -> str:
    kind, name = get_text(subject, "kind"), get_text(subject, "name")
    if kind == "ServiceAccount":
        return f"{kind} {get_text(subject, 'namespace') or namespace}/{name}"
    return f"{kind} {name}"


_EVERYBODY: Final = frozenset(
    (
        *("Group system:authenticated", "Group system:unauthenticated"),
        *("Group system:serviceaccounts", "User system:anonymous"),
    )
)


def _dangerous_binding(role: str, gains: frozenset[str]) -> str:
    """Return why it is dangerous that these subjects get a role; empty where it is not."""
    if gains and role.endswith("ClusterRole cluster-admin"):
        return "it gives everything there is"
    if everybody := sorted(gains & _EVERYBODY):
        return f"{everybody[0]} is nearly everybody"
    return ""


class _RoleIndex:
    """A set's roles with what they allow.

    A ClusterRole that aggregates has the rules of the set's roles that it selects. The cluster's
    own admin, edit and view are there with what the set adds to them.

    Attributes:
        built_in: those of the cluster's own that the set adds to.
    """

    def __init__(self, side: SetSide) -> None:
        self._bodies = {
            _rbac_key(placed.key): placed.body for placed in side.of_kind("Role", "ClusterRole")
        }
        self._cluster = [body for key, body in self._bodies.items() if key.kind == "ClusterRole"]
        self.built_in = {
            key: body
            for key, body in map(_built_in_role, _BUILT_IN)
            if key not in self._bodies and any(self._list_aggregated(body))
        }
        self._holders: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
        for binding in side.of_kind(*_BINDINGS):
            self._add_holders(binding)

    def _add_holders(self, binding: ReleaseObject) -> None:
        namespace = binding.key.namespace
        kind, name = (get_text(binding.body, "roleRef", key) for key in ("kind", "name"))
        where = f" in {namespace}" if namespace else ""
        self._holders[kind, namespace if kind == "Role" else "", name] |= {
            _subject_name(subject, namespace) + where
            for subject in list_mappings(binding.body, "subjects")
        }

    @property
    def keys(self) -> set[ObjectKey]:
        return {*self._bodies, *self.built_in}

    def holders_of(self, key: ObjectKey) -> tuple[str, ...]:
        return tuple(sorted(self._holders.get((key.kind, key.namespace, key.name), ())))

    def rights_of(self, key: ObjectKey) -> frozenset[Right]:
        body = self._bodies.get(key) or self.built_in.get(key)
        return frozenset(self._resolve_rules(body, ())) if body else frozenset()

    def _resolve_rules(self, body: Mapping[str, Any], seen: tuple[int, ...]) -> Iterator[Right]:
        if not body.get("aggregationRule"):
            yield from read_rules(list_mappings(body, "rules"))
        elif id(body) not in seen:
            for other in self._list_aggregated(body):
                yield from self._resolve_rules(other, (*seen, id(body)))

    def _list_aggregated(self, body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yield the set's ClusterRoles that a role collects."""
        selectors = list_mappings(body, "aggregationRule", "clusterRoleSelectors")
        for other in self._cluster:
            labels = get_labels(other)
            if any(selector and selector_matches(selector, labels) for selector in selectors):
                yield other


def _built_in_role(name: str) -> tuple[ObjectKey, Mapping[str, Any]]:
    """Return a role of the cluster's own, as far as the set can add to it."""
    selector = {"matchLabels": {f"{_AGGREGATE}{name}": "true"}}
    key = ObjectKey(f"{RBAC}/v1", "ClusterRole", "", name)
    return key, {"aggregationRule": {"clusterRoleSelectors": [selector]}}


def read_rules(rules: Iterable[Mapping[str, Any]]) -> Iterator[Right]:
    """Yield the rights that a role's rules spell out."""
    for rule in rules:
        verbs = [str(verb) for verb in as_list(rule.get("verbs"))]
        urls = as_list(rule.get("nonResourceURLs"))
        yield from (Right("", str(url), verb) for verb, url in product(verbs, urls))
        for verb, group, resource, name in product(
            verbs,
            as_list(rule.get("apiGroups")),
            as_list(rule.get("resources")),
            as_list(rule.get("resourceNames")) or ("",),
        ):
            yield Right(str(group), str(resource), verb, str(name))


def _rights_beyond(rights: frozenset[Right], known: frozenset[Right]) -> frozenset[Right]:
    """Return the rights that the known ones do not give, directly or by a wider one."""
    wide = [right for right in known if right.is_wide]
    return frozenset(
        right for right in rights - known if not any(other.covers(right) for other in wide)
    )


def _group_grants(rights: Iterable[Right]) -> tuple[Grant, ...]:
    verbs: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for right in sorted(rights):
        verbs[right.group, right.resource, right.name].append(right.verb)
    grants = [
        Grant(group, resource, name, tuple(some), describe_danger(group, resource, some))
        for (group, resource, name), some in verbs.items()
    ]
    return tuple(sorted(grants, key=lambda g: (not g.danger, g.group, g.resource, g.name)))


_READS: Final = frozenset(("get", "list", "watch", "*"))
_WRITES: Final = frozenset(("create", "update", "patch", "*"))
_ANY: Final = _READS | _WRITES | {"delete", "deletecollection"}


@dataclass(frozen=True, slots=True)
class _Danger:
    """A resource, the verbs on it that are dangerous, and why."""

    group: str
    resource: str
    verbs: frozenset[str]
    why: str

    def is_given_by(self, group: str, resource: str, verbs: Collection[str]) -> bool:
        return (
            group in ("*", self.group)
            and resource in ("*", self.resource)
            and not self.verbs.isdisjoint(verbs)
        )


_DANGERS: Final = (
    _Danger("", "secrets", _READS, "reads passwords and tokens"),
    _Danger("", "secrets", _WRITES, "makes tokens of service accounts"),
    _Danger("", "pods/exec", _ANY, "runs commands in others' pods"),
    _Danger("", "pods/attach", _ANY, "runs commands in others' pods"),
    _Danger("", "pods/ephemeralcontainers", _WRITES, "runs commands in others' pods"),
    _Danger("", "nodes/proxy", _ANY, "runs commands on nodes"),
    _Danger("", "serviceaccounts/token", _WRITES, "makes tokens of service accounts"),
    _Danger("", "persistentvolumes", _WRITES, "can mount a node's files"),
    _Danger(RBAC, "rolebindings", _WRITES, "hands out roles"),
    _Danger(RBAC, "clusterrolebindings", _WRITES, "hands out roles"),
    _Danger(RBAC, "roles", _WRITES, "changes roles"),
    _Danger(RBAC, "clusterroles", _WRITES, "changes roles"),
    _Danger(
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        _WRITES,
        "sees and changes whatever is created",
    ),
    _Danger(
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        _WRITES,
        "sees whatever is created",
    ),
    _Danger(
        "certificates.k8s.io", "certificatesigningrequests/approval", _WRITES, "makes identities"
    ),
)
_DANGEROUS_VERBS: Final = {
    "impersonate": "acts as others",
    "bind": "hands out roles that it lacks",
    "escalate": "gives itself rights that it lacks",
}


def describe_danger(group: str, resource: str, verbs: Iterable[str]) -> str:
    """Return why these rights let their holder gain further rights; empty where they do not."""
    some = set(verbs)
    for verb, why in _DANGEROUS_VERBS.items():
        if verb in some:
            return why
    if resource.startswith("/"):
        return ""
    if group == resource == "*" and "*" in some:
        return "everything there is"
    for danger in _DANGERS:
        if danger.is_given_by(group, resource, some):
            return danger.why if resource == danger.resource else f"every kind: {danger.why}"
    return "whatever verb there will be" if "*" in some else ""
