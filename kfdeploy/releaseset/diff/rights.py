"""What each role and binding gains or loses, aggregation resolved, and which of it is dangerous.

What is dangerous follows Kubernetes' "Role Based Access Control Good Practices" (privilege
escalation risks): https://kubernetes.io/docs/concepts/security/rbac-good-practices/
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes.accessors import get_labels
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.releaseset.diff.sides import SetSide
from kfdeploy.releaseset.order.selectors import selector_matches

RBAC: Final = "rbac.authorization.k8s.io"
_AGGREGATE: Final = f"{RBAC}/aggregate-to-"
_BUILT_IN: Final = ("admin", "edit", "view")


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one resource, perhaps of one name; or on one URL."""

    group: str
    resource: str
    verb: str
    name: str = ""

    def covers(self, other: Right) -> bool:
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
        danger: why they let their owner become more than it is; empty where they do not.
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
        holders: whom the new set (the old one, for what is removed) binds it to.
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
    """A binding whose role or subjects are others."""

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
    """Roles that allow other things than they did, the dangerous ones first."""
    first, second = _RoleIndex(old), _RoleIndex(new)
    out = []
    for key in sorted({*first.keys, *second.keys}):
        before, after = first.rights_of(key), second.rights_of(key)
        gains, loses = _rights_beyond(after, before), _rights_beyond(before, after)
        if not gains and not loses:
            continue
        what = "changed"
        if key in first.built_in or key in second.built_in:
            what = "extended"
        elif key not in first.keys:
            what = "added"
        elif key not in second.keys:
            what = "removed"
        holders = (first if what == "removed" else second).holders_of(key)
        out.append(RoleChange(what, key, _group_grants(gains), _group_grants(loses), holders))
    return sorted(out, key=lambda change: (not change.is_dangerous, change.key))


def compare_bindings(old: SetSide, new: SetSide) -> list[BindingChange]:
    """Bindings that give a role to others than before."""
    first, second = _read_bindings(old), _read_bindings(new)
    out = []
    for key in sorted({*first, *second}):
        (role, before), (other, after) = first.get(key, _NOBODY), second.get(key, _NOBODY)
        if role == other and before == after:
            continue
        moved = bool(role and other and role != other)
        gains = after if moved else after - before
        loses = before if moved else before - after
        what = "added" if key not in first else "removed" if key not in second else "changed"
        named = f"{role} -> {other}" if moved else other or role
        danger = _dangerous_binding(other, gains)
        out.append(
            BindingChange(what, key, named, tuple(sorted(gains)), tuple(sorted(loses)), danger)
        )
    return sorted(out, key=lambda change: (not change.danger, change.key))


_BoundRole = tuple[str, frozenset[str]]
_NOBODY: Final[_BoundRole] = ("", frozenset())


def _read_bindings(side: SetSide) -> dict[ObjectKey, _BoundRole]:
    out = {}
    for one in side.of_kind("RoleBinding", "ClusterRoleBinding"):
        ref = one.body.get("roleRef") or {}
        subjects = one.body.get("subjects") or ()
        named = frozenset(_subject_name(subject, one.key.namespace) for subject in subjects)
        key = ObjectKey(f"{RBAC}/v1", one.key.kind, one.key.namespace, one.key.name)
        out[key] = (f"{ref.get('kind')} {ref.get('name')}", named)
    return out


def _subject_name(subject: Mapping[str, Any], namespace: str) -> str:
    kind, name = subject.get("kind", ""), subject.get("name", "")
    if kind == "ServiceAccount":
        return f"{kind} {subject.get('namespace') or namespace}/{name}"
    return f"{kind} {name}"


_EVERYBODY: Final = frozenset(
    (
        *("Group system:authenticated", "Group system:unauthenticated"),
        *("Group system:serviceaccounts", "User system:anonymous"),
    )
)


def _dangerous_binding(role: str, gains: frozenset[str]) -> str:
    if not gains:
        return ""
    if role.endswith("ClusterRole cluster-admin"):
        return "it gives everything there is"
    if everybody := sorted(gains & _EVERYBODY):
        return f"{everybody[0]} is nearly everybody"
    return ""


class _RoleIndex:
    """A set's roles with what they allow.

    A ClusterRole that aggregates has the rules of the set's roles that it selects. The cluster's
    own admin, edit and view are there with what the set adds to them.
    """

    def __init__(self, side: SetSide) -> None:
        self._bodies: dict[ObjectKey, Mapping[str, Any]] = {}
        for one in side.of_kind("Role", "ClusterRole"):
            key = ObjectKey(f"{RBAC}/v1", one.key.kind, one.key.namespace, one.key.name)
            self._bodies[key] = one.body
        self._cluster = [body for key, body in self._bodies.items() if key.kind == "ClusterRole"]
        self.built_in: dict[ObjectKey, Mapping[str, Any]] = {}
        for name in _BUILT_IN:
            key = ObjectKey(f"{RBAC}/v1", "ClusterRole", "", name)
            label = {f"{_AGGREGATE}{name}": "true"}
            if key not in self._bodies and any(
                selector_matches({"matchLabels": label}, _labels_of(b)) for b in self._cluster
            ):
                self.built_in[key] = {
                    "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": label}]}
                }
        self._holders: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        for binding in side.of_kind("RoleBinding", "ClusterRoleBinding"):
            ref = binding.body.get("roleRef") or {}
            kind = str(ref.get("kind", ""))
            where = binding.key.namespace if kind == "Role" else ""
            for subject in binding.body.get("subjects") or ():
                who = _subject_name(subject, binding.key.namespace)
                inside = f" in {binding.key.namespace}" if binding.key.namespace else ""
                self._holders[kind, where, str(ref.get("name"))].add(who + inside)

    @property
    def keys(self) -> set[ObjectKey]:
        return {*self._bodies, *self.built_in}

    def holders_of(self, key: ObjectKey) -> tuple[str, ...]:
        return tuple(sorted(self._holders.get((key.kind, key.namespace, key.name), ())))

    def rights_of(self, key: ObjectKey) -> frozenset[Right]:
        body = self._bodies.get(key) or self.built_in.get(key)
        return frozenset(self._resolve_rules(body, ())) if body else frozenset()

    def _resolve_rules(self, body: Mapping[str, Any], seen: tuple[int, ...]) -> Iterator[Right]:
        rule = body.get("aggregationRule")
        if not rule:
            yield from read_rules(body.get("rules") or ())
        elif id(body) not in seen:
            selectors = rule.get("clusterRoleSelectors") or ()
            for other in self._cluster:
                if any(
                    selector and selector_matches(selector, _labels_of(other))
                    for selector in selectors
                ):
                    yield from self._resolve_rules(other, (*seen, id(body)))


def _labels_of(body: Mapping[str, Any]) -> Mapping[str, str]:
    return get_labels(body)


def read_rules(rules: Iterable[Mapping[str, Any]]) -> Iterator[Right]:
    """The rights that a role's rules spell out."""
    for rule in rules:
        verbs = rule.get("verbs") or ()
        for verb in verbs:
            for url in rule.get("nonResourceURLs") or ():
                yield Right("", str(url), str(verb))
            for group in rule.get("apiGroups") or ():
                for resource in rule.get("resources") or ():
                    for name in rule.get("resourceNames") or ("",):
                        yield Right(str(group), str(resource), str(verb), str(name))


def _rights_beyond(rights: frozenset[Right], known: frozenset[Right]) -> frozenset[Right]:
    """Rights that the known ones do not give, in whatever words."""
    wide = [one for one in known if "*" in f"{one.group}{one.resource}{one.verb}" or not one.name]
    return frozenset(one for one in rights - known if not any(other.covers(one) for other in wide))


def _group_grants(rights: Iterable[Right]) -> tuple[Grant, ...]:
    verbs: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for one in sorted(rights):
        verbs[one.group, one.resource, one.name].append(one.verb)
    found = [
        Grant(group, resource, name, tuple(some), describe_danger(group, resource, some))
        for (group, resource, name), some in verbs.items()
    ]
    return tuple(sorted(found, key=lambda g: (not g.danger, g.group, g.resource, g.name)))


_READS: Final = frozenset(("get", "list", "watch", "*"))
_WRITES: Final = frozenset(("create", "update", "patch", "*"))
_ANY: Final = _READS | _WRITES | {"delete", "deletecollection"}
_DANGERS: Final[Sequence[tuple[str, str, frozenset[str], str]]] = (
    ("", "secrets", _READS, "reads passwords and tokens"),
    ("", "secrets", _WRITES, "makes tokens of service accounts"),
    ("", "pods/exec", _ANY, "runs commands in others' pods"),
    ("", "pods/attach", _ANY, "runs commands in others' pods"),
    ("", "pods/ephemeralcontainers", _WRITES, "runs commands in others' pods"),
    ("", "nodes/proxy", _ANY, "runs commands on nodes"),
    ("", "serviceaccounts/token", _WRITES, "makes tokens of service accounts"),
    ("", "persistentvolumes", _WRITES, "can mount a node's files"),
    (RBAC, "rolebindings", _WRITES, "hands out roles"),
    (RBAC, "clusterrolebindings", _WRITES, "hands out roles"),
    (RBAC, "roles", _WRITES, "changes roles"),
    (RBAC, "clusterroles", _WRITES, "changes roles"),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        _WRITES,
        "sees and changes whatever is created",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        _WRITES,
        "sees whatever is created",
    ),
    ("certificates.k8s.io", "certificatesigningrequests/approval", _WRITES, "makes identities"),
)
_DANGEROUS_VERBS: Final = {
    "impersonate": "acts as others",
    "bind": "hands out roles that it lacks",
    "escalate": "gives itself rights that it lacks",
}


def describe_danger(group: str, resource: str, verbs: Iterable[str]) -> str:
    """Why these rights let their owner become more than it is; empty where they do not."""
    some = set(verbs)
    for verb, why in _DANGEROUS_VERBS.items():
        if verb in some:
            return why
    if resource.startswith("/"):
        return ""
    if group == resource == "*" and "*" in some:
        return "everything there is"
    for of, what, which, why in _DANGERS:
        if group in ("*", of) and resource in ("*", what) and some & which:
            return why if resource == what else f"every kind: {why}"
    return "whatever verb there will be" if "*" in some else ""
