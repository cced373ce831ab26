"""A set's releases against a cluster: what is missing, otherwise, or somebody else's.

What the set names is compared first with what lists of the cluster show. What seems to differ is
then tried: the API server applies it without storing it, and tells what would change. So what it
defaults, normalises or lets a webhook fill in is never taken for a divergence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kfdeploy import parallel
from kfdeploy.cache import Cache
from kfdeploy.kubernetes.cluster import bulk
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.errors import ApiError
from kfdeploy.kubernetes.diff import fields, hunks, managers
from kfdeploy.kubernetes.diff.fields import FieldDifference
from kfdeploy.kubernetes.diff.managers import FieldManager
from kfdeploy.kubernetes.helm_release import OWNER, OWNER_NAMESPACE
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.releaseset import body_cache
from kfdeploy.releaseset.folder import SetRelease

_HELM: Final = "helm"
_KUBECTL: Final = "kubectl"
"""Field managers of Helm, and of the hook that applies definitions."""
Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FieldDivergence:
    """One field that is otherwise.

    Attributes:
        managers: who wrote what the cluster has; empty where it was taken away.
    """

    difference: FieldDifference
    managers: tuple[FieldManager, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "field": self.difference.field,
            "live": self.difference.was,
            "wanted": self.difference.becomes,
            "managers": [str(one) for one in self.managers],
        }

    @property
    def is_schema(self) -> bool:
        return fields.is_schema_field(self.difference)

    @property
    def is_one_line(self) -> bool:
        """Whether `str` says all of it."""
        one = self.difference
        return one.is_hidden or (
            hunks.is_single_line(one.was) and hunks.is_single_line(one.becomes)
        )

    def __str__(self) -> str:
        one = self.difference
        if one.is_hidden or not self.is_one_line:
            what = "is otherwise"
            if one.was is None or one.becomes is None:
                what = "is missing" if one.was is None else "is not in the set"
        elif one.becomes is None:
            what = f"is {hunks.format_inline(one.was)}, and nothing in the set"
        elif one.was is None:
            what = f"is missing, {hunks.format_inline(one.becomes)} in the set"
        else:
            what = (
                f"is {hunks.format_inline(one.was)}, {hunks.format_inline(one.becomes)} in the set"
            )
        by = ", ".join(map(str, self.managers))
        return f"{one.field} {what}" + (f" (by {by})" if by else "")


@dataclass(frozen=True, slots=True)
class ObjectDivergence:
    """One object that is not as its release has it.

    Attributes:
        what: ``missing``, ``changed``, or ``owner`` for what another Helm release, or none, has.
        fields: for what is changed.
        owner: of the object, as ``NAMESPACE/RELEASE``; empty for none.
        unconfirmed: why the API server did not try it; empty where it did.
    """

    what: Literal["missing", "changed", "owner"]
    release: str
    key: ObjectKey
    fields: tuple[FieldDivergence, ...] = ()
    owner: str = ""
    unconfirmed: str = ""

    @property
    def schema_field_count(self) -> int:
        """How many of the fields are of a definition's schemas."""
        return sum(one.is_schema for one in self.fields)

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "what": self.what,
            "object": self.key,
            "release": self.release,
        }
        if self.what == "changed":
            out["fields"] = [one for one in self.fields if not one.is_schema]
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
            return f"{self.key} is of {owner}"
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
    """What releases have otherwise in a cluster than in their set; those that have nothing are not
    in it.

    Fields that the set does not name are nobody's business, nor are those that a known controller
    keeps for itself: CAs that are injected, replicas that an autoscaler sets.

    Args:
        cache: of bodies; a set's YAML takes some seconds to be read otherwise.
        namespace: of Helm's records, to tell objects of other releases; they are not told if empty.

    Raises:
        UserError: the cluster can't be asked, or broken YAML in the set.
    """
    work = [(one, item) for one in releases for item in (*one.crds, *one.objects)]
    for one in releases:
        body_cache.load_bodies(one.objects, cache or Cache(None))
        body_cache.load_bodies(one.crds, cache or Cache(None))
    there = bulk.read_objects(cluster, (item.key for _, item in work))
    suspects: list[tuple[SetRelease, Object, Body, list[FieldDifference]]] = []
    found: list[ObjectDivergence] = []
    for release, item in work:
        body = there.get(item.key)
        if body is None:
            found.append(ObjectDivergence("missing", release.name, item.key))
            continue
        if namespace and not item.is_crd:
            found += _check_owner(release, item.key, body, namespace)
        if suspected := fields.diff_live(item.body, body):
            suspects.append((release, item, body, suspected))
    # Found out once, before there are several threads.
    _ = cluster.kinds.of("v1", "Namespace")
    for confirmed in parallel.map_in_threads(
        lambda suspect: list(_confirm_by_dry_run(cluster, *suspect)), suspects, bulk.JOBS
    ):
        found += confirmed
    order = {item.key: number for number, (_, item) in enumerate(work)}
    found.sort(key=lambda one: order[one.key])
    out: dict[str, list[ObjectDivergence]] = {}
    for divergence in found:
        out.setdefault(divergence.release, []).append(divergence)
    return out


def _check_owner(
    release: SetRelease, key: ObjectKey, body: Body, namespace: str
) -> Iterator[ObjectDivergence]:
    notes = (body.get("metadata") or {}).get("annotations") or {}
    name, where = notes.get(OWNER, ""), notes.get(OWNER_NAMESPACE, "")
    if (name, where) != (release.name, namespace):
        yield ObjectDivergence("owner", release.name, key, owner=f"{where}/{name}" if name else "")


def _confirm_by_dry_run(
    cluster: Cluster,
    release: SetRelease,
    item: Object,
    body: Body,
    suspected: Iterable[FieldDifference],
) -> Iterator[ObjectDivergence]:
    """What an apply would change of an object."""
    unconfirmed = ""
    differing = list(suspected)
    try:
        manager = _KUBECTL if item.is_crd else _HELM
        after = cluster.apply(item, manager=manager, force=True, dry_run=True)
    except ApiError as error:
        unconfirmed = f"{error.status} {error.reason}: {error.said}"
    else:
        differing = fields.diff_dry_run(item.body, body, after)
    told = [FieldDivergence(one, managers.find_managers(body, one.path)) for one in differing]
    told = [one for one in told if not _is_controller_owned(item.body, one)]
    if told:
        yield ObjectDivergence(
            "changed", release.name, item.key, tuple(told), unconfirmed=unconfirmed
        )


def list_changed_fields(one: ObjectDivergence) -> frozenset[str]:
    """What differs, as `setstate` keeps it: the object and the field, one each."""
    if one.what != "changed" or one.unconfirmed:
        return frozenset()
    return frozenset(f"{one.key}: {field.difference.field}" for field in one.fields)


def is_fully_controlled(one: ObjectDivergence, controlled: Collection[str]) -> bool:
    """Whether all that differs is known to be changed back."""
    found = list_changed_fields(one)
    return bool(found) and all(field in controlled for field in found)


_AUTOSCALER: Final = FieldManager("kube-controller-manager", "scale")
_ISTIOD: Final = "istiod"


def _is_controller_owned(wanted: Body, one: FieldDivergence) -> bool:
    """Whether a controller, by its design, has the last word about a field."""
    path = one.difference.path
    # A HorizontalPodAutoscaler scales through the subresource, as the controller manager.
    if path == ("spec", "replicas"):
        return _AUTOSCALER in one.managers
    # istiod closes its webhook once it can answer (istio pkg/webhooks/validation/controller).
    labels = (wanted.get("metadata") or {}).get("labels") or {}
    of_istiod = _ISTIOD in (labels.get("app"), labels.get("istio"))
    return path[-1] == "failurePolicy" and of_istiod and one.difference.was == "Fail"
