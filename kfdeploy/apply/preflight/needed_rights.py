"""List the rights that applying a set takes, for the preflight and for `export rbac`.

Sources: Kubernetes' "Using RBAC Authorization" (escalate and bind, resourceNames), and the requests
of Helm 4, kubectl and kfdeploy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from kfdeploy.apply.preflight.api_versions import ResourceLocation, ResourceLocator
from kfdeploy.kubernetes import helm_release, workload
from kfdeploy.kubernetes.accessors import get_text
from kfdeploy.releaseset.order.contents import SetContents, SetObject

RBAC: Final = "rbac.authorization.k8s.io"
LOCK: Final = "kfdeploy"
"""The Lease that is the lock of an apply."""
APPLIED: Final = "kfdeploy-set"
"""The ConfigMap that says which set was applied last."""
_READ: Final = ("get", "list", "watch")
_READ_BY_WAITS: Final = (
    ("", "events"),
    ("", "persistentvolumeclaims"),
    ("", "pods"),
    ("apps", "replicasets"),
)
"""Group and resource of what a wait reads to explain why a workload is not ready."""
_READ_BY_PREFLIGHT: Final = (
    ("", "nodes"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("discovery.k8s.io", "endpointslices"),
    ("storage.k8s.io", "storageclasses"),
)
"""Group and resource of what the preflight lists."""

Purpose = Literal["apply", "preflight"]


@dataclass(frozen=True, slots=True, order=True)
class RequiredRight:
    """Some verbs on a resource.

    Attributes:
        namespace: empty for cluster-scoped objects, or for all namespaces.
        names: names of the objects; empty for all.
        purpose: an apply works without the rights of ``preflight``, which only reads.
    """

    namespace: str
    group: str
    resource: str
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()
    purpose: Purpose = "apply"


@dataclass(frozen=True, slots=True)
class RoleEscalation:
    """A role, or a binding to a role, that the set has.

    Whoever writes it must hold the rights that the role grants, or have ``verb`` on it.

    Attributes:
        verb: ``escalate`` to write the role ``name``, ``bind`` to write a binding to it.
        item: the set's role that grants the rights; None for a role that is not in the set.
    """

    namespace: str
    verb: str
    resource: str
    name: str
    item: SetObject | None


@dataclass(frozen=True)
class RequiredRights:
    """The rights that applying a set takes."""

    rights: tuple[RequiredRight, ...]
    escalations: tuple[RoleEscalation, ...]

    @property
    def with_escalations(self) -> tuple[RequiredRight, ...]:
        """The rights, and ``escalate`` and ``bind`` on the names of the set's roles."""
        grouped: dict[tuple[str, str, str], set[str]] = {}
        for role in self.escalations:
            grouped.setdefault((role.namespace, role.resource, role.verb), set()).add(role.name)
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
    """Return the rights that applying a set takes.

    Args:
        contents: the set's objects.
        namespace: the namespace of Helm's records.
        waits: names of the releases that Helm waits for.
        pull_secrets: names of the pull secrets that the environment gives to every pod.
    """
    found = [(item, places.locate(item)) for item in contents.items]
    rights = {
        *_object_rights(found),
        *_apply_rights(namespace),
        *_wait_rights(found),
        *_helm_wait_rights(found, waits),
        *_preflight_rights(),
        *_pull_secret_rights(found, pull_secrets),
    }
    return RequiredRights(tuple(sorted(rights)), tuple(_find_escalations(found)))


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
        # A list of Secrets has their contents.
        is_secret = (group, resource) == ("", "secrets")
        read, named = ((), ("get",)) if is_secret else (_READ, ())
        # RBAC does not know the name of an object that is created.
        yield RequiredRight(namespace, group, resource, tuple(sorted(("create", *read))))
        yield RequiredRight(
            namespace, group, resource, tuple(sorted((*change, *named))), _sort_names(own)
        )


def _apply_rights(namespace: str) -> Iterator[RequiredRight]:
    # The names of Helm's records have the revision in them, so that they cannot be listed here.
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
        for group, resource in _READ_BY_WAITS:
            yield RequiredRight(place.namespace, group, resource, _READ)


def _helm_wait_rights(
    found: Iterable[tuple[SetObject, ResourceLocation]], waits: Collection[str]
) -> Iterator[RequiredRight]:
    # Helm 4 watches all kinds of a release, also Secrets (pkg/kube/statuswait.go).
    for item, place in found:
        if item.component in waits and (place.group, place.resource) == ("", "secrets"):
            yield RequiredRight(place.namespace, "", "secrets", ("list", "watch"))


def _preflight_rights() -> Iterator[RequiredRight]:
    for group, resource in _READ_BY_PREFLIGHT:
        yield RequiredRight("", group, resource, ("get", "list"), purpose="preflight")


def _pull_secret_rights(
    found: Iterable[tuple[SetObject, ResourceLocation]], pull_secrets: Sequence[str]
) -> Iterator[RequiredRight]:
    names: dict[str, set[str]] = {}
    for item, place in _select_workloads(found):
        own = workload.list_pull_secrets(workload.pod_spec(item.body))
        names.setdefault(place.namespace, set(pull_secrets)).update(own)
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
        kind, name = (get_text(item.body, "roleRef", field) for field in ("kind", "name"))
        resource = f"{kind.lower()}s"
        role = roles.get((resource, place.namespace if resource == "roles" else "", name))
        yield RoleEscalation(place.namespace, "bind", resource, name, role)


def _select_workloads(
    found: Iterable[tuple[SetObject, ResourceLocation]],
) -> Iterator[tuple[SetObject, ResourceLocation]]:
    return ((i, p) for i, p in found if i.key.kind in workload.WORKLOADS and p.namespace)


def _sort_names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
