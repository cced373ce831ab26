"""A release set and a cluster -> what would go wrong, all of it, before anything is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy import parallel
from kfdeploy.apply.preflight import apis, owners, pods, webhooks
from kfdeploy.apply.preflight import images as preflight_images
from kfdeploy.apply.preflight import rights as preflight_rights
from kfdeploy.apply.preflight.api_versions import Places
from kfdeploy.apply.preflight.finding import Finding, Severity
from kfdeploy.apply.preflight.needed_rights import needed
from kfdeploy.errors import UserError
from kfdeploy.files import read_text
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.kubernetes.cluster import bulk
from kfdeploy.kubernetes.cluster.client import Cluster, Unreachable
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.oci.registry.client import Client
from kfdeploy.releaseset import format
from kfdeploy.releaseset.folder import SetFolder
from kfdeploy.releaseset.order.contents import Contents

_JOBS: Final = 8
_LISTS: Final[Mapping[str, tuple[str, str, bool]]] = {
    "namespaces": ("v1", "Namespace", True),
    "nodes": ("v1", "Node", False),
    "storage classes": ("storage.k8s.io/v1", "StorageClass", True),
    **{kind: ("admissionregistration.k8s.io/v1", kind, False) for kind in webhooks.KINDS},
}
"""What is listed of the cluster: apiVersion, kind, whether metadata is enough."""
Body = dict[str, Any]


@dataclass(frozen=True)
class Preflight:
    """What was found."""

    findings: tuple[Finding, ...]

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.severity == severity)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What has to be mended first."""
        return self.of("error")

    def to_json(self) -> dict[str, Any]:
        return {
            "ready": not self.errors,
            "findings": [finding.to_json() for finding in self.findings],
        }

    def lines(self) -> Iterator[str]:
        """For people: what stops, what is to be known, and how much is well."""
        errors, warnings = self.errors, self.of("warning")
        for finding in (*errors, *warnings):
            yield from finding.lines()
        good = len(self.of("ok"))
        yield (
            f"preflight: {_counted(errors, 'error')}, {_counted(warnings, 'warning')},"
            f" {good} checks passed"
        )


def preflight(
    cluster: Cluster,
    release_set: SetFolder,
    *,
    namespace: str,
    registry_client: Client | None,
    take_over: bool,
    pull_secrets: Sequence[str],
) -> Preflight:
    """Check a cluster, and the private registry, against what a set needs.

    What cannot be looked at is a warning of its own: nothing keeps the other checks from running.

    Args:
        namespace: Helm's.
        registry_client: asks the private registry; None leaves its images out.
        take_over: objects that were made without Helm may become its.
        pull_secrets: names that the environment gives to every pod.

    Raises:
        Unreachable: the cluster does not answer.
        UserError: broken YAML in the set.
    """
    cluster.kinds.refresh()
    releases = release_set.releases
    contents = Contents((r.name, (*r.crds, *r.objects)) for r in releases)
    places = Places(contents, namespace, cluster.kinds)
    look = _Look(cluster, contents, places)
    found: list[Finding] = [
        apis.version(cluster.version, str(release_set.summary.get("kubeVersion", ""))),
        *apis.apis(contents, cluster.kinds, cluster.version),
    ]
    rights = needed(
        contents,
        places,
        namespace,
        waits=[release.name for release in releases if release.wait],
        pull_secrets=pull_secrets,
    )
    names = [release.name for release in releases]

    def conflicts() -> Iterator[Finding]:
        yield from look.namespaces_found(namespace)
        yield from owners.conflicts(look.there(), names, namespace, take_over=take_over)

    def judged() -> Iterator[Finding]:
        judges = list(webhooks.judging(contents, look.configurations()))
        answering = look.answering({judge.service for judge in judges})
        yield from webhooks.dead(judges, answering)

    def pulled() -> Iterator[Finding]:
        if not (wanted := pods.pull_secrets(contents, places, pull_secrets)):
            return
        own = {(places.of(i).namespace, i.key.name) for i in contents.of_kind("Secret")}
        asked = [key for key in wanted if (key.namespace, key.name) not in own]
        yield from pods.pulls(wanted, own, look.namespaces(), look.types(asked))

    def images() -> Iterator[Finding]:
        if registry_client is None:
            text = "the private registry was not asked for the set's images"
            yield Finding(preflight_images.CHECK, "warning", text)
            return
        nodes = list(pods.platforms(look.quiet("nodes")))
        lock = _lock(release_set)
        yield from preflight_images.check(release_set.summary, lock, registry_client, nodes)

    checks: tuple[tuple[str, str, Callable[[], Iterable[Finding]]], ...] = (
        ("rights", "rights", lambda: preflight_rights.check(cluster, rights)),
        ("conflict", "the objects that are there", conflicts),
        ("node", "nodes", lambda: [pods.nodes_found(look.listed("nodes"), contents)]),
        ("image", "images", images),
        ("pull-secret", "pull secrets", pulled),
        (
            "storage",
            "storage classes",
            lambda: pods.storage(contents, look.listed("storage classes"), look.there()),
        ),
        ("webhook", "webhooks of others", judged),
    )
    for check, what, run in checks:
        found += _guarded(check, what, run)
    most, good = format.STORED_MAX, format.STORED_GOOD
    found += apis.sizes(release_set.summary, most, good)
    return Preflight(tuple(found))


def _counted(found: Sequence[Finding], what: str) -> str:
    return f"{len(found)} {what}" if len(found) == 1 else f"{len(found)} {what}s"


def _guarded(check: str, what: str, run: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(run())
    except Unreachable:
        raise
    except UserError as error:
        text = f"{what} could not be checked: {error.message}"
        return [Finding(check, "warning", text, hint=error.hint or "")]


def _lock(release_set: SetFolder) -> Lock:
    path = release_set.folder / "images.lock"
    return lockfile.read(path) if path.is_file() and read_text(path).strip() else Lock(())


class _Look:
    """What the cluster has; each list is asked for once, all of them together."""

    def __init__(self, cluster: Cluster, contents: Contents, places: Places) -> None:
        self._cluster, self._contents, self._places = cluster, contents, places
        self._there: dict[ObjectKey, Body] | None = None
        asked = parallel.each(self._ask, list(_LISTS), _JOBS, lambda: None)
        self._lists: dict[str, list[Body] | UserError] = dict(asked)

    def _ask(self, what: str) -> list[Body] | UserError:
        api_version, kind, metadata = _LISTS[what]
        try:
            return self._cluster.list(api_version, kind, metadata=metadata)
        except Unreachable:
            raise
        except UserError as error:
            return error

    def listed(self, what: str) -> list[Body]:
        """A list; raises what kept us from it."""
        found = self._lists[what]
        if isinstance(found, UserError):
            raise found
        return found

    def quiet(self, what: str) -> list[Body]:
        """A list, empty where we may not look."""
        found = self._lists[what]
        return [] if isinstance(found, UserError) else found

    def configurations(self) -> list[Body]:
        return [body for kind in webhooks.KINDS for body in self.listed(kind)]

    def namespaces(self) -> set[str]:
        return {body["metadata"]["name"] for body in self.listed("namespaces")}

    def namespaces_found(self, helm: str) -> Iterator[Finding]:
        """Namespaces that go away, or that nobody makes."""
        there = {body["metadata"]["name"]: body["metadata"] for body in self.listed("namespaces")}
        # A Profile is a namespace, too.
        made = {item.key.name for item in self._contents.of_kind("Namespace", "Profile")}
        used = {self._places.of(item).namespace for item in self._contents.items} | {helm} - {""}
        going = sorted(name for name in used if there.get(name, {}).get("deletionTimestamp"))
        if going:
            hint = "wait until they are gone; `kubectl get namespace NAME -o yaml` says what holds"
            text = "namespaces of the set are being deleted, and take nothing new"
            yield Finding("conflict", "error", text, tuple(going), hint)
        if lost := sorted(used - made - there.keys() - {"", helm}):
            text = "namespaces are not there, and the set does not bring them"
            hint = "`kubectl create namespace NAME` makes one"
            yield Finding("conflict", "error", text, tuple(lost), hint)

    def there(self) -> Mapping[ObjectKey, Body]:
        """Metadata of the set's objects that are there."""
        if self._there is None:
            namespaces = {*self.namespaces(), ""}
            keys = []
            for item in self._contents.items:
                namespace = self._places.of(item).namespace
                if namespace in namespaces:
                    key = item.key
                    keys.append(ObjectKey(key.api_version, key.kind, namespace, key.name))
            self._there = bulk.read(self._cluster, keys, metadata=True)
        return self._there

    def types(self, keys: Sequence[ObjectKey]) -> dict[ObjectKey, str]:
        """Types of Secrets, those that are there."""
        namespaces = self.namespaces()
        asked = [key for key in keys if key.namespace in namespaces]
        found = parallel.each(self._cluster.get, asked, _JOBS, lambda: None)
        return {key: str(body.get("type", "")) for key, body in found if body is not None}

    def answering(self, services: Iterable[webhooks.Service]) -> set[webhooks.Service]:
        """Those with an endpoint that is ready."""

        def slices(service: webhooks.Service) -> list[Body]:
            namespace, name = service
            return self._cluster.list(
                "discovery.k8s.io/v1",
                "EndpointSlice",
                namespace=namespace,
                labels=f"kubernetes.io/service-name={name}",
            )

        found = parallel.each(slices, sorted(services), _JOBS, lambda: None)
        return webhooks.answering(body for _, bodies in found for body in bodies)
