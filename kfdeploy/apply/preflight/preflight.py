"""Check a release set against a cluster before anything is changed, and report all errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

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
from kfdeploy.kubernetes.accessors import get_name, is_being_deleted
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
"""Lists that are read of the cluster: apiVersion, kind, and whether metadata is enough."""
Body = dict[str, Any]


@dataclass(frozen=True)
class PreflightReport:
    """The findings of a preflight."""

    findings: tuple[PreflightFinding, ...]

    def with_severity(self, severity: Severity) -> tuple[PreflightFinding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    @property
    def errors(self) -> tuple[PreflightFinding, ...]:
        """The findings that stop an apply."""
        return self.with_severity("error")

    def to_json(self) -> dict[str, Any]:
        return {
            "ready": not self.errors,
            "findings": self.findings,
        }

    def format_lines(self) -> Iterator[str]:
        """Yield the report for people: errors, warnings, and the number of passed checks."""
        errors, warnings = self.errors, self.with_severity("warning")
        for finding in (*errors, *warnings):
            yield from finding.format_lines()
        good = len(self.with_severity("ok"))
        yield (
            f"preflight: {pluralize(len(errors), 'error')},"
            f" {pluralize(len(warnings), 'warning')},"
            f" {good} checks passed"
        )


@dataclass(frozen=True, slots=True)
class PreflightOptions:
    """What a preflight is told of the environment.

    Attributes:
        namespace: the namespace of Helm's records.
        registry_client: reads the private registry; None leaves its images unchecked.
        take_over: objects that were made without Helm may become Helm's.
        pull_secrets: names of the pull secrets that the environment gives to every pod.
    """

    namespace: str
    registry_client: RegistryClient | None
    take_over: bool
    pull_secrets: Sequence[str]


def run_preflight(
    cluster: Cluster, release_set: SetFolder, options: PreflightOptions
) -> PreflightReport:
    """Check a cluster, and the private registry, against what a set needs.

    A check that may not read what it needs becomes a warning; the other checks still run.

    Raises:
        ClusterUnreachable: the cluster does not answer.
        UserError: the set has broken YAML.
    """
    cluster.kinds.refresh()
    releases = release_set.releases
    contents = SetContents((one.name, (*one.crds, *one.objects)) for one in releases)
    checks = _Checks(cluster, release_set, contents, options)
    found: list[PreflightFinding] = [
        apis.check_version(cluster.version, release_set.summary.kube_version),
        *apis.check_apis(contents, cluster.kinds, cluster.version),
    ]
    for name, subject, run in checks.list_checks():
        found += _run_check(name, subject, run)
    limits = format.STORED_MAX, format.STORED_GOOD
    found += apis.check_record_sizes(release_set.summary, *limits)
    return PreflightReport(tuple(found))


class _Checks:
    """The checks that read the cluster or the registry, in the order of the report."""

    def __init__(
        self,
        cluster: Cluster,
        release_set: SetFolder,
        contents: SetContents,
        options: PreflightOptions,
    ) -> None:
        self._cluster, self._set, self._contents = cluster, release_set, contents
        self._options = options
        self._locations = ResourceLocator(contents, options.namespace, cluster.kinds)
        self._view = _ClusterView(cluster, contents, self._locations)

    def list_checks(self) -> tuple[_Check, ...]:
        return (
            _Check("rights", "rights", self._check_rights),
            _Check("conflict", "the objects that exist", self._check_conflicts),
            _Check("node", "nodes", self._check_nodes),
            _Check("image", "images", self._check_images),
            _Check("pull-secret", "pull secrets", self._check_pull_secrets),
            _Check("storage", "storage classes", self._check_storage),
            _Check("webhook", "webhooks of others", self._check_webhooks),
        )

    def _check_rights(self) -> Iterator[PreflightFinding]:
        needed = collect_required_rights(
            self._contents,
            self._locations,
            self._options.namespace,
            waits=[release.name for release in self._set.releases if release.wait],
            pull_secrets=self._options.pull_secrets,
        )
        return preflight_rights.check_rights(self._cluster, needed)

    def _check_conflicts(self) -> Iterator[PreflightFinding]:
        yield from self._view.check_namespaces(self._options.namespace)
        yield from owners.check_ownership(
            self._view.read_live_objects(),
            [release.name for release in self._set.releases],
            self._options.namespace,
            take_over=self._options.take_over,
        )

    def _check_nodes(self) -> Iterator[PreflightFinding]:
        yield pods.check_nodes(self._view.get_list("nodes"), self._contents)

    def _check_images(self) -> Iterator[PreflightFinding]:
        client = self._options.registry_client
        if client is None:
            text = "the set's images were not looked for in the private registry"
            yield PreflightFinding(preflight_images.CHECK, "warning", text)
            return
        platforms = list(pods.count_platforms(self._view.get_list_or_empty("nodes")))
        lock = _read_lock(self._set)
        yield from preflight_images.check_images(self._set.summary, lock, client, platforms)

    def _check_pull_secrets(self) -> Iterator[PreflightFinding]:
        wanted = pods.find_pull_secrets(self._contents, self._locations, self._options.pull_secrets)
        if not wanted:
            return
        own = {
            (self._locations.locate(item).namespace, item.key.name)
            for item in self._contents.of_kind("Secret")
        }
        others = [key for key in wanted if (key.namespace, key.name) not in own]
        types = self._view.read_secret_types(others)
        yield from pods.check_pull_secrets(wanted, own, self._view.list_namespaces(), types)

    def _check_storage(self) -> Iterator[PreflightFinding]:
        classes = self._view.get_list("storage classes")
        live = self._view.read_live_objects()
        return pods.check_storage_classes(self._contents, classes, live)

    def _check_webhooks(self) -> Iterator[PreflightFinding]:
        configurations = self._view.list_webhook_configurations()
        blocking = list(webhooks.find_blocking_webhooks(self._contents, configurations))
        ready = self._view.find_ready_services({webhook.service for webhook in blocking})
        return webhooks.check_webhooks(blocking, ready)


class _Check(NamedTuple):
    """A check: its name, what it is about, and its function."""

    name: str
    subject: str
    run: Callable[[], Iterable[PreflightFinding]]


def _run_check(
    name: str, subject: str, run: Callable[[], Iterable[PreflightFinding]]
) -> list[PreflightFinding]:
    try:
        return list(run())
    except ClusterUnreachable:
        raise
    except UserError as error:
        text = f"{subject} could not be checked: {error.message}"
        return [PreflightFinding(name, "warning", text, hint=error.hint or "")]


def _read_lock(release_set: SetFolder) -> Lock:
    path = release_set.folder / "images.lock"
    return lockfile.read_lock(path) if path.is_file() and read_text(path).strip() else Lock(())


class _ClusterView:
    """What the cluster has. Each list is read once, and all of them at the same time."""

    def __init__(self, cluster: Cluster, contents: SetContents, locations: ResourceLocator) -> None:
        self._cluster, self._contents, self._locations = cluster, contents, locations
        self._live_objects: dict[ObjectKey, Body] | None = None
        found = parallel.run_in_threads(self._list_objects, list(_LISTS), _JOBS, lambda: None)
        self._lists: dict[str, list[Body] | UserError] = dict(found)

    def _list_objects(self, what: str) -> list[Body] | UserError:
        api_version, kind, metadata = _LISTS[what]
        try:
            return self._cluster.list(api_version, kind, metadata=metadata)
        except ClusterUnreachable:
            raise
        except UserError as error:
            return error

    def get_list(self, what: str) -> list[Body]:
        """Return a list.

        Raises:
            UserError: it could not be read.
        """
        found = self._lists[what]
        if isinstance(found, UserError):
            raise found
        return found

    def get_list_or_empty(self, what: str) -> list[Body]:
        """Return a list; an empty one if it could not be read."""
        found = self._lists[what]
        return [] if isinstance(found, UserError) else found

    def list_webhook_configurations(self) -> list[Body]:
        return [body for kind in webhooks.KINDS for body in self.get_list(kind)]

    def list_namespaces(self) -> set[str]:
        return {get_name(body) for body in self.get_list("namespaces")}

    def check_namespaces(self, helm_namespace: str) -> Iterator[PreflightFinding]:
        """Find namespaces of the set that are being deleted, or that nobody creates."""
        live = {get_name(body): body for body in self.get_list("namespaces")}
        # A Profile creates a namespace of its own name.
        brought = {item.key.name for item in self._contents.of_kind("Namespace", "Profile")}
        used = {self._locations.locate(item).namespace for item in self._contents.items}
        used = (used | {helm_namespace}) - {""}
        if terminating := sorted(name for name in used if is_being_deleted(live.get(name))):
            text = "namespaces of the set are being deleted, and accept no new objects"
            hint = (
                "wait until they are gone; `kubectl get namespace NAME -o yaml` shows what holds"
                " them"
            )
            yield PreflightFinding("conflict", "error", text, tuple(terminating), hint)
        if missing := sorted(used - brought - live.keys() - {helm_namespace}):
            text = "namespaces do not exist, and the set does not bring them"
            hint = "`kubectl create namespace NAME` creates one"
            yield PreflightFinding("conflict", "error", text, tuple(missing), hint)

    def read_live_objects(self) -> Mapping[ObjectKey, Body]:
        """Return the metadata, at least, of the set's objects that exist."""
        if self._live_objects is None:
            namespaces = {*self.list_namespaces(), ""}
            keys = []
            for item in self._contents.items:
                namespace = self._locations.locate(item).namespace
                if namespace in namespaces:
                    key = item.key
                    keys.append(ObjectKey(key.api_version, key.kind, namespace, key.name))
            self._live_objects = bulk.read_objects(self._cluster, keys, metadata=True)
        return self._live_objects

    def read_secret_types(self, keys: Sequence[ObjectKey]) -> dict[ObjectKey, str]:
        """Return the types of those Secrets that exist."""
        namespaces = self.list_namespaces()
        wanted = [key for key in keys if key.namespace in namespaces]
        found = parallel.run_in_threads(self._cluster.get, wanted, _JOBS, lambda: None)
        return {key: str(body.get("type", "")) for key, body in found if body is not None}

    def find_ready_services(self, services: Iterable[webhooks.Service]) -> set[webhooks.Service]:
        """Return those services that have a ready endpoint."""

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
