"""The rights that applying a set takes: one list for the check before, and for `export rbac`.

Facts: Kubernetes' "Using RBAC Authorization" (escalation and bind, resourceNames), and what Helm 4,
kubectl and kfdeploy ask the API server for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from kfdeploy.apply.preflight.api_versions import ResourceLocation, ResourceLocator
from kfdeploy.kubernetes import helm_release, workload
from kfdeploy.releaseset.order.contents import SetContents, SetObject

RBAC: Final = "rbac.authorization.k8s.io"
LOCK: Final = "kfdeploy"
"""The Lease that keeps two applies apart."""
APPLIED: Final = "kfdeploy-set"
"""The ConfigMap with what was applied last."""
_READ: Final = ("get", "list", "watch")
_LOOKED_AT: Final = (
    # What waits look at to say why something is not ready.
    ("", "events"),
    ("", "persistentvolumeclaims"),
    ("", "pods"),
    ("apps", "replicasets"),
)

Purpose = Literal["apply", "preflight"]


@dataclass(frozen=True, slots=True, order=True)
class RequiredRight:
    """Some verbs on a resource.

    Attributes:
        namespace: empty for what is in none, or for all of them.
        names: of the objects; empty for all of them.
        purpose: ``preflight`` only looks, and apply works without it.
    """

    namespace: str
    group: str
    resource: str
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()
    purpose: Purpose = "apply"


@dataclass(frozen=True, slots=True)
class RoleEscalation:
    """A role, or a binding to one: who writes it must hold what it grants, or have leave to.

    Attributes:
        verb: ``escalate`` to write the role ``name``, ``bind`` to write a binding to it.
        item: the role of the set whose rights these are; None for a role that is not in the set.
    """

    namespace: str
    verb: str
    resource: str
    name: str
    item: SetObject | None


@dataclass(frozen=True)
class RequiredRights:
    """What applying a set takes."""

    rights: tuple[RequiredRight, ...]
    escalations: tuple[RoleEscalation, ...]

    @property
    def with_escalations(self) -> tuple[RequiredRight, ...]:
        """The needs, with leave to write the set's roles and bindings by their names."""
        grouped: dict[tuple[str, str, str], set[str]] = {}
        for one in self.escalations:
            grouped.setdefault((one.namespace, one.resource, one.verb), set()).add(one.name)
        more = (
            RequiredRight(namespace, RBAC, resource, (verb,), tuple(sorted(names)))
            for (namespace, resource, verb), names in grouped.items()
        )
        return tuple(sorted((*self.rights, *more)))


def collect_required_rights(
    contents: SetContents,
    places: ResourceLocator,
    namespace: str,
    *,
    waits: Collection[str] = (),
    pull_secrets: Sequence[str] = (),
) -> RequiredRights:
    """What applying a set takes.

    Args:
        contents: its objects, by release.
        namespace: Helm's.
        waits: releases that Helm waits for.
        pull_secrets: names that the preflight looks for where pods are.
    """
    found = [(item, places.locate(item)) for item in contents.items]
    needs = [
        *_object_rights(found),
        *_apply_rights(namespace),
        *_wait_rights(found),
        *_preflight_rights(),
    ]
    needs += [*_helm_wait_rights(found, waits), *_pull_secret_rights(found, pull_secrets)]
    return RequiredRights(tuple(sorted(set(needs))), tuple(_find_escalations(found)))


def _object_rights(found: Iterable[tuple[SetObject, ResourceLocation]]) -> Iterator[RequiredRight]:
    names: dict[tuple[str, str, str], set[str]] = {}
    kept: set[tuple[str, str, str]] = set()
    for item, place in found:
        at = (place.namespace, place.group, place.resource)
        names.setdefault(at, set()).add(item.key.name)
        if helm_release.is_user_data(item.key):
            kept.add(at)
    for at, own in names.items():
        namespace, group, resource = at
        change = ("patch",) if at in kept else ("delete", "patch")
        # Whoever may list Secrets has read them.
        secret = (group, resource) == ("", "secrets")
        read, named = ((), ("get",)) if secret else (_READ, ())
        # What is created has no name yet where rights are looked up.
        yield RequiredRight(namespace, group, resource, tuple(sorted(("create", *read))))
        yield RequiredRight(
            namespace, group, resource, tuple(sorted((*change, *named))), _sort_names(own)
        )


def _apply_rights(namespace: str) -> Iterator[RequiredRight]:
    # Helm's records: their names have the revision in them.
    verbs = ("create", "delete", "get", "list", "patch", "update")
    yield RequiredRight(namespace, "", "secrets", verbs)
    yield RequiredRight("", "", "namespaces", ("patch",), (namespace,))
    lease = (namespace, "coordination.k8s.io", "leases")
    yield RequiredRight(*lease, ("create",))
    yield RequiredRight(*lease, ("get", "patch", "update"), (LOCK,))
    yield RequiredRight(namespace, "", "configmaps", ("create",))
    yield RequiredRight(
        namespace, "", "configmaps", ("delete", "get", "patch", "update"), (APPLIED,)
    )
    yield RequiredRight("", "", "namespaces", ("create", *_READ))


def _wait_rights(found: Iterable[tuple[SetObject, ResourceLocation]]) -> Iterator[RequiredRight]:
    for _, place in _select_workloads(found):
        for group, resource in _LOOKED_AT:
            yield RequiredRight(place.namespace, group, resource, _READ)


def _helm_wait_rights(
    found: Iterable[tuple[SetObject, ResourceLocation]], waits: Collection[str]
) -> Iterator[RequiredRight]:
    # Helm 4 watches whatever kinds a release has, Secrets too (pkg/kube/statuswait.go).
    for item, place in found:
        if item.component in waits and (place.group, place.resource) == ("", "secrets"):
            yield RequiredRight(place.namespace, "", "secrets", ("list", "watch"))


def _preflight_rights() -> Iterator[RequiredRight]:
    looks = (
        ("", "nodes"),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
        ("discovery.k8s.io", "endpointslices"),
        ("storage.k8s.io", "storageclasses"),
    )
    for group, resource in looks:
        yield RequiredRight("", group, resource, ("get", "list"), purpose="preflight")


def _pull_secret_rights(
    found: Iterable[tuple[SetObject, ResourceLocation]], pull_secrets: Sequence[str]
) -> Iterator[RequiredRight]:
    names: dict[str, set[str]] = {}
    for item, place in _select_workloads(found):
        spec = workload.pod_spec(dict(item.body))
        own = {str(entry.get("name", "")) for entry in spec.get("imagePullSecrets") or ()}
        names.setdefault(place.namespace, set(pull_secrets)).update(own - {""})
    for namespace, wanted in names.items():
        if wanted:
            yield RequiredRight(
                namespace, "", "secrets", ("get",), _sort_names(wanted), "preflight"
            )


def _find_escalations(
    found: Sequence[tuple[SetObject, ResourceLocation]],
) -> Iterator[RoleEscalation]:
    roles = {(p.resource, p.namespace, i.key.name): i for i, p in found if i.key.group == RBAC}
    for item, place in found:
        if item.key.group != RBAC:
            continue
        if place.resource in ("roles", "clusterroles"):
            name = item.key.name
            yield RoleEscalation(place.namespace, "escalate", place.resource, name, item)
            continue
        ref = item.body.get("roleRef") or {}
        resource, name = f"{str(ref.get('kind', '')).lower()}s", str(ref.get("name", ""))
        role = roles.get((resource, place.namespace if resource == "roles" else "", name))
        yield RoleEscalation(place.namespace, "bind", resource, name, role)


def _select_workloads(
    found: Iterable[tuple[SetObject, ResourceLocation]],
) -> Iterator[tuple[SetObject, ResourceLocation]]:
    return ((i, p) for i, p in found if i.key.kind in workload.WORKLOADS and p.namespace)


def _sort_names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
