"""Find the objects of a set that a cluster lacks, has otherwise, or has for another owner.

Objects are first compared with lists of the cluster. Those that seem to differ are then applied as
a server-side dry run, which tells what would change. So a value that the API server defaults or
normalises, or that a webhook fills in, is never taken for a divergence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kfdeploy import parallel
from kfdeploy.cache import Cache
from kfdeploy.kubernetes.accessors import Body, get_labels
from kfdeploy.kubernetes.cluster import bulk
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.errors import ApiError
from kfdeploy.kubernetes.diff import fields, hunks, managers
from kfdeploy.kubernetes.diff.fields import FieldDifference
from kfdeploy.kubernetes.diff.managers import FieldManager
from kfdeploy.kubernetes.helm_release import get_release_owner
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.releaseset import body_cache
from kfdeploy.releaseset.folder import SetRelease

_HELM: Final = "helm"
_KUBECTL: Final = "kubectl"
"""Field managers of Helm, and of the hook that applies definitions."""


@dataclass(frozen=True, slots=True)
class FieldDivergence:
    """A field that the cluster has otherwise than the set.

    Attributes:
        managers: who wrote the cluster's value; empty if the field was removed.
    """

    difference: FieldDifference
    managers: tuple[FieldManager, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "field": self.difference.field,
            "live": self.difference.was,
            "wanted": self.difference.becomes,
            "managers": [str(manager) for manager in self.managers],
        }

    @property
    def is_schema(self) -> bool:
        return fields.is_schema_field(self.difference)

    @property
    def is_one_line(self) -> bool:
        """Whether `str` shows both values in full."""
        values = (self.difference.was, self.difference.becomes)
        return self.difference.is_hidden or all(map(hunks.is_single_line, values))

    def __str__(self) -> str:
        managers = ", ".join(map(str, self.managers))
        text = f"{self.difference.field} {self._describe_values()}"
        return f"{text} (by {managers})" if managers else text

    def _describe_values(self) -> str:
        was, becomes = self.difference.was, self.difference.becomes
        is_shown = self.is_one_line and not self.difference.is_hidden
        if was is None:
            return (
                f"is missing, {hunks.format_inline(becomes)} in the set"
                if is_shown
                else "is missing"
            )
        if becomes is None:
            return (
                f"is {hunks.format_inline(was)}, absent in the set"
                if is_shown
                else "is not in the set"
            )
        if not is_shown:
            return "differs"
        return f"is {hunks.format_inline(was)}, {hunks.format_inline(becomes)} in the set"


@dataclass(frozen=True, slots=True)
class ObjectDivergence:
    """An object that the cluster does not have as its release does.

    Attributes:
        what: ``missing``, ``changed``, or ``owner`` if another Helm release, or none, owns it.
        fields: the fields that differ, of a changed object.
        owner: the owner as ``NAMESPACE/RELEASE``; empty for none.
        unconfirmed: why the API server refused the dry run; empty if it did not.
    """

    what: Literal["missing", "changed", "owner"]
    release: str
    key: ObjectKey
    fields: tuple[FieldDivergence, ...] = ()
    owner: str = ""
    unconfirmed: str = ""

    @property
    def schema_field_count(self) -> int:
        """Number of the fields that are of a definition's schemas."""
        return sum(field.is_schema for field in self.fields)

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "what": self.what,
            "object": self.key,
            "release": self.release,
        }
        if self.what == "changed":
            out["fields"] = [field for field in self.fields if not field.is_schema]
            if self.schema_field_count:
                out["schemaFields"] = self.schema_field_count
        if self.what == "owner":
            out["owner"] = self.owner
        if self.unconfirmed:
            out["unconfirmed"] = self.unconfirmed
        return out

    def __str__(self) -> str:
        if self.what == "missing":
            return f"{self.key} is missing"
        if self.what == "owner":
            owner = f"the Helm release {self.owner}" if self.owner else "no Helm release"
            return f"{self.key} belongs to {owner}"
        more = f" and {len(self.fields) - 1} more" if len(self.fields) > 1 else ""
        return f"{self.key}: {self.fields[0]}{more}"


DivergenceFinder = Callable[[Sequence[SetRelease]], Mapping[str, Sequence[ObjectDivergence]]]
"""Finds the divergences of one cluster, by release."""


def find_divergences(
    cluster: Cluster,
    releases: Sequence[SetRelease],
    *,
    cache: Cache | None = None,
    namespace: str = "",
) -> dict[str, list[ObjectDivergence]]:
    """Return the divergences of each release that has some, in the set's order.

    Left out are fields that the set does not name, and those that a known controller owns: injected
    CAs, replicas that an autoscaler sets.

    Args:
        cache: of parsed bodies; reading a set's YAML takes seconds.
        namespace: the namespace of Helm's records; empty to leave out whose an object is.

    Raises:
        UserError: the cluster does not answer, or the set has broken YAML.
    """
    work = [(release, item) for release in releases for item in (*release.crds, *release.objects)]
    for release in releases:
        body_cache.load_bodies(release.objects, cache or Cache(None))
        body_cache.load_bodies(release.crds, cache or Cache(None))
    live = bulk.read_objects(cluster, (item.key for _, item in work))
    found: list[ObjectDivergence] = []
    suspects: list[_Suspect] = []
    for release, item in work:
        body = live.get(item.key)
        if body is None:
            found.append(ObjectDivergence("missing", release.name, item.key))
            continue
        if namespace and not item.is_crd:
            found += _check_owner(release, item.key, body, namespace)
        if differences := fields.diff_live(item.body, body):
            suspects.append(_Suspect(release, item, body, differences))
    _ = cluster.kinds.of("v1", "Namespace")  # discovery runs once, before there are threads
    confirmed = parallel.map_in_threads(
        lambda suspect: _confirm_by_dry_run(cluster, suspect), suspects, bulk.JOBS
    )
    found += (divergence for divergence in confirmed if divergence is not None)
    order = {item.key: number for number, (_, item) in enumerate(work)}
    found.sort(key=lambda divergence: order[divergence.key])
    out: dict[str, list[ObjectDivergence]] = {}
    for divergence in found:
        out.setdefault(divergence.release, []).append(divergence)
    return out


def _check_owner(
    release: SetRelease, key: ObjectKey, body: Body, namespace: str
) -> Iterator[ObjectDivergence]:
    owner = get_release_owner(body)
    if owner != (release.name, namespace):
        name = f"{owner.namespace}/{owner.release}" if owner.release else ""
        yield ObjectDivergence("owner", release.name, key, owner=name)


@dataclass(frozen=True, slots=True)
class _Suspect:
    """An object that seems to differ from the live one."""

    release: SetRelease
    item: Object
    live: Body
    differences: Sequence[FieldDifference]


def _confirm_by_dry_run(cluster: Cluster, suspect: _Suspect) -> ObjectDivergence | None:
    """Return what an apply would change of an object; None if nothing.

    If the API server refuses the dry run, the suspected differences are returned as unconfirmed.
    """
    item, live = suspect.item, suspect.live
    differences, unconfirmed = suspect.differences, ""
    try:
        manager = _KUBECTL if item.is_crd else _HELM
        after = cluster.apply(item, manager=manager, force=True, dry_run=True)
    except ApiError as error:
        unconfirmed = f"{error.status} {error.reason}: {error.said}"
    else:
        differences = fields.diff_dry_run(item.body, live, after)
    found = (FieldDivergence(one, managers.find_managers(live, one.path)) for one in differences)
    own = tuple(field for field in found if not _is_controller_owned(item.body, field))
    if not own:
        return None
    return ObjectDivergence("changed", suspect.release.name, item.key, own, unconfirmed=unconfirmed)


def list_changed_fields(divergence: ObjectDivergence) -> frozenset[str]:
    """Return the object and field of each difference, as `applied_set` keeps them."""
    if divergence.what != "changed" or divergence.unconfirmed:
        return frozenset()
    return frozenset(f"{divergence.key}: {field.difference.field}" for field in divergence.fields)


def is_fully_controlled(divergence: ObjectDivergence, controlled: Collection[str]) -> bool:
    """Return whether something in the cluster is known to change back all that differs."""
    found = list_changed_fields(divergence)
    return bool(found) and found <= set(controlled)


_AUTOSCALER: Final = FieldManager("kube-controller-manager", "scale")
_ISTIOD: Final = "istiod"


def _is_controller_owned(wanted: Body, field: FieldDivergence) -> bool:
    """Return whether a controller owns a field by its design."""
    path = field.difference.path
    # A HorizontalPodAutoscaler scales through the subresource, as the controller manager.
    if path == ("spec", "replicas"):
        return _AUTOSCALER in field.managers
    # istiod sets its webhook to Fail once it can answer (istio pkg/webhooks/validation/controller).
    labels = get_labels(wanted)
    is_of_istiod = _ISTIOD in (labels.get("app"), labels.get("istio"))
    return path[-1] == "failurePolicy" and is_of_istiod and field.difference.was == "Fail"
