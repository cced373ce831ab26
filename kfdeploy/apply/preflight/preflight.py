"""A release set and a cluster -> what would go wrong, all of it, before anything is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy import parallel
from kfdeploy.apply.preflight import apis, owners, pods, webhooks
from kfdeploy.apply.preflight import images as preflight_images
from kfdeploy.apply.preflight import rights as preflight_rights
from kfdeploy.apply.preflight.api_versions import ResourceLocator
from kfdeploy.apply.preflight.finding import PreflightFinding, Severity
from kfdeploy.apply.preflight.needed_rights import collect_required_rights
from kfdeploy.errors import UserError
from kfdeploy.files import read_text
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.kubernetes.cluster import bulk
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.errors import ClusterUnreachable
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.releaseset import format
from kfdeploy.releaseset.folder import SetFolder
from kfdeploy.releaseset.order.contents import SetContents
from kfdeploy.wording import pluralize

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
class PreflightReport:
    """What was found."""

    findings: tuple[PreflightFinding, ...]

    def with_severity(self, severity: Severity) -> tuple[PreflightFinding, ...]:
        return tuple(one for one in self.findings if one.severity == severity)

    @property
    def errors(self) -> tuple[PreflightFinding, ...]:
        """What has to be mended first."""
        return self.with_severity("error")

    def to_json(self) -> dict[str, Any]:
        return {
            "ready": not self.errors,
            "findings": self.findings,
        }

    def format_lines(self) -> Iterator[str]:
        """For people: what stops, what is to be known, and how much is well."""
        errors, warnings = self.errors, self.with_severity("warning")
        for finding in (*errors, *warnings):
            yield from finding.format_lines()
        good = len(self.with_severity("ok"))
        yield (
            f"preflight: {pluralize(len(errors), 'error')},"
            f" {pluralize(len(warnings), 'warning')},"
            f" {good} checks passed"
        )


def run_preflight(
    cluster: Cluster,
    release_set: SetFolder,
    *,
    namespace: str,
    registry_client: RegistryClient | None,
    take_over: bool,
    pull_secrets: Sequence[str],
) -> PreflightReport:
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
    contents = SetContents((r.name, (*r.crds, *r.objects)) for r in releases)
    places = ResourceLocator(contents, namespace, cluster.kinds)
    look = _ClusterView(cluster, contents, places)
    found: list[PreflightFinding] = [
        apis.check_version(cluster.version, release_set.summary.kube_version),
        *apis.check_apis(contents, cluster.kinds, cluster.version),
    ]
    rights = collect_required_rights(
        contents,
        places,
        namespace,
        waits=[release.name for release in releases if release.wait],
        pull_secrets=pull_secrets,
    )
    names = [release.name for release in releases]

    def check_conflicts() -> Iterator[PreflightFinding]:
        yield from look.check_namespaces(namespace)
        yield from owners.check_ownership(
            look.read_live_objects(), names, namespace, take_over=take_over
        )

    def check_webhooks() -> Iterator[PreflightFinding]:
        judges = list(webhooks.find_blocking_webhooks(contents, look.list_webhook_configurations()))
        answering = look.find_ready_services({judge.service for judge in judges})
        yield from webhooks.check_webhooks(judges, answering)

    def check_pull_secrets() -> Iterator[PreflightFinding]:
        if not (wanted := pods.find_pull_secrets(contents, places, pull_secrets)):
            return
        own = {(places.locate(i).namespace, i.key.name) for i in contents.of_kind("Secret")}
        asked = [key for key in wanted if (key.namespace, key.name) not in own]
        yield from pods.check_pull_secrets(
            wanted, own, look.list_namespaces(), look.read_secret_types(asked)
        )

    def check_images() -> Iterator[PreflightFinding]:
        if registry_client is None:
            text = "the private registry was not asked for the set's images"
            yield PreflightFinding(preflight_images.CHECK, "warning", text)
            return
        nodes = list(pods.count_platforms(look.get_list_or_empty("nodes")))
        lock = _read_lock(release_set)
        yield from preflight_images.check_images(release_set.summary, lock, registry_client, nodes)

    checks: tuple[tuple[str, str, Callable[[], Iterable[PreflightFinding]]], ...] = (
        ("rights", "rights", lambda: preflight_rights.check_rights(cluster, rights)),
        ("conflict", "the objects that are there", check_conflicts),
        ("node", "nodes", lambda: [pods.check_nodes(look.get_list("nodes"), contents)]),
        ("image", "images", check_images),
        ("pull-secret", "pull secrets", check_pull_secrets),
        (
            "storage",
            "storage classes",
            lambda: pods.check_storage_classes(
                contents, look.get_list("storage classes"), look.read_live_objects()
            ),
        ),
        ("webhook", "webhooks of others", check_webhooks),
    )
    for check, what, run in checks:
        found += _run_check(check, what, run)
    most, good = format.STORED_MAX, format.STORED_GOOD
    found += apis.check_record_sizes(release_set.summary, most, good)
    return PreflightReport(tuple(found))


def _run_check(
    check: str, what: str, run: Callable[[], Iterable[PreflightFinding]]
) -> list[PreflightFinding]:
    try:
        return list(run())
    except ClusterUnreachable:
        raise
    except UserError as error:
        text = f"{what} could not be checked: {error.message}"
        return [PreflightFinding(check, "warning", text, hint=error.hint or "")]


def _read_lock(release_set: SetFolder) -> Lock:
    path = release_set.folder / "images.lock"
    return lockfile.read_lock(path) if path.is_file() and read_text(path).strip() else Lock(())


class _ClusterView:
    """What the cluster has; each list is asked for once, all of them together."""

    def __init__(self, cluster: Cluster, contents: SetContents, places: ResourceLocator) -> None:
        self._cluster, self._contents, self._places = cluster, contents, places
        self._live_objects: dict[ObjectKey, Body] | None = None
        asked = parallel.run_in_threads(self._list_objects, list(_LISTS), _JOBS, lambda: None)
        self._lists: dict[str, list[Body] | UserError] = dict(asked)

    def _list_objects(self, what: str) -> list[Body] | UserError:
        api_version, kind, metadata = _LISTS[what]
        try:
            return self._cluster.list(api_version, kind, metadata=metadata)
        except ClusterUnreachable:
            raise
        except UserError as error:
            return error

    def get_list(self, what: str) -> list[Body]:
        """A list; raises what kept us from it."""
        found = self._lists[what]
        if isinstance(found, UserError):
            raise found
        return found

    def get_list_or_empty(self, what: str) -> list[Body]:
        """A list, empty where we may not look."""
        found = self._lists[what]
        return [] if isinstance(found, UserError) else found

    def list_webhook_configurations(self) -> list[Body]:
        return [body for kind in webhooks.KINDS for body in self.get_list(kind)]

    def list_namespaces(self) -> set[str]:
        return {body["metadata"]["name"] for body in self.get_list("namespaces")}

    def check_namespaces(self, helm: str) -> Iterator[PreflightFinding]:
        """Namespaces that go away, or that nobody makes."""
        there = {body["metadata"]["name"]: body["metadata"] for body in self.get_list("namespaces")}
        # A Profile is a namespace, too.
        made = {item.key.name for item in self._contents.of_kind("Namespace", "Profile")}
        used = {self._places.locate(item).namespace for item in self._contents.items} | {helm} - {
            ""
        }
        going = sorted(name for name in used if there.get(name, {}).get("deletionTimestamp"))
        if going:
            hint = "wait until they are gone; `kubectl get namespace NAME -o yaml` says what holds"
            text = "namespaces of the set are being deleted, and take nothing new"
            yield PreflightFinding("conflict", "error", text, tuple(going), hint)
        if lost := sorted(used - made - there.keys() - {"", helm}):
            text = "namespaces are not there, and the set does not bring them"
            hint = "`kubectl create namespace NAME` makes one"
            yield PreflightFinding("conflict", "error", text, tuple(lost), hint)

    def read_live_objects(self) -> Mapping[ObjectKey, Body]:
        """Metadata of the set's objects that are there."""
        if self._live_objects is None:
            namespaces = {*self.list_namespaces(), ""}
            keys = []
            for item in self._contents.items:
                namespace = self._places.locate(item).namespace
                if namespace in namespaces:
                    key = item.key
                    keys.append(ObjectKey(key.api_version, key.kind, namespace, key.name))
            self._live_objects = bulk.read_objects(self._cluster, keys, metadata=True)
        return self._live_objects

    def read_secret_types(self, keys: Sequence[ObjectKey]) -> dict[ObjectKey, str]:
        """Types of Secrets, those that are there."""
        namespaces = self.list_namespaces()
        asked = [key for key in keys if key.namespace in namespaces]
        found = parallel.run_in_threads(self._cluster.get, asked, _JOBS, lambda: None)
        return {key: str(body.get("type", "")) for key, body in found if body is not None}

    def find_ready_services(self, services: Iterable[webhooks.Service]) -> set[webhooks.Service]:
        """Those with an endpoint that is ready."""

        def list_slices(service: webhooks.Service) -> list[Body]:
            namespace, name = service
            return self._cluster.list(
                "discovery.k8s.io/v1",
                "EndpointSlice",
                namespace=namespace,
                labels=f"kubernetes.io/service-name={name}",
            )

        found = parallel.run_in_threads(list_slices, sorted(services), _JOBS, lambda: None)
        return webhooks.find_ready_services(body for _, bodies in found for body in bodies)
