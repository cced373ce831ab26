"""Wait until objects of the cluster are ready, and find out why some are not."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kfdeploy import parallel
from kfdeploy.errors import UserError
from kfdeploy.kubernetes import diagnosis
from kfdeploy.kubernetes.accessors import (
    Body,
    get_metadata,
    get_name,
    get_namespace,
    get_spec,
    get_status,
    get_text,
    get_uid,
)
from kfdeploy.kubernetes.diagnosis import RelatedObjects
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.kubernetes.readiness import READY, Readiness, assess_readiness

if TYPE_CHECKING:
    from kfdeploy.kubernetes.cluster.client import Cluster

PAUSE: Final = 1.0
"""Seconds between two looks."""
_EXPLAIN_EVERY: Final = 5.0
"""Seconds between two searches for causes, which read more than the objects themselves."""
_EXPLAINED_MAX: Final = 20
"""Number of objects whose cause is searched during a wait; at its end all are."""
ABSENT: Final = "does not exist"
"""State of an object that nobody has created yet."""
_PODS_MAX: Final = 3
"""Number of pods of a workload whose events are read: most pods have the same ones."""
_JOBS: Final = 8


@dataclass(frozen=True, slots=True)
class UnreadyObject:
    """An object that is not ready.

    Attributes:
        state: what it lacks, in a few words.
        why: the cause; empty if nothing says one.
        is_final: waiting will not make it ready.
    """

    key: ObjectKey
    state: str
    why: str = ""
    is_final: bool = False

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.key), self.state, self.why) if part)

    def to_json(self) -> dict[str, Any]:
        return {"object": self.key, "state": self.state, "why": self.why}


@dataclass(frozen=True, slots=True)
class WaitProgress:
    """The state of a running wait.

    Attributes:
        ready: number of objects that are ready.
        pending: the others, with the causes that were found last.
        seconds: time since the wait began.
    """

    ready: int
    total: int
    pending: tuple[UnreadyObject, ...]
    seconds: float


def wait_until_ready(
    cluster: Cluster,
    keys: Iterable[ObjectKey],
    *,
    seconds: float,
    on_progress: Callable[[WaitProgress], None] = lambda waiting: None,
    pause: float = PAUSE,
) -> tuple[UnreadyObject, ...]:
    """Wait until all objects are ready.

    Args:
        seconds: the longest wait; with 0 the objects are looked at once.
        on_progress: called after each look.
        pause: seconds between two looks.

    Returns:
        The objects that are not ready, with their causes: when the time is over, or earlier when
        waiting will make none of them ready. Empty if all are ready.

    Raises:
        UserError: the API server refuses a read, or does not answer for longer than the cluster's
            patience.
    """
    wanted = tuple(dict.fromkeys(keys))
    started = time.monotonic()
    explained, causes = started, dict[ObjectKey, str]()
    binding = _ClaimBinding(cluster)
    left = wanted
    while True:
        bodies = _read_bodies(cluster, left)
        pending = tuple(_find_unready(left, bodies, binding, causes))
        # An object that was ready may be unready again: the last look is at all of them.
        if not pending and left != wanted:
            left = wanted
            continue
        now = time.monotonic()
        ready = len(wanted) - len(pending)
        on_progress(WaitProgress(ready, len(wanted), pending, now - started))
        if now - started >= seconds or all(item.is_final for item in pending):
            return explain_pending(cluster, pending, bodies)
        if now - explained >= _EXPLAIN_EVERY:
            some = explain_pending(cluster, pending[:_EXPLAINED_MAX], bodies)
            causes = {item.key: item.why for item in some}
            explained = time.monotonic()
        left = tuple(item.key for item in pending)
        time.sleep(max(0.0, min(pause, seconds - (time.monotonic() - started))))


def _find_unready(
    keys: Iterable[ObjectKey],
    bodies: Mapping[ObjectKey, Body],
    binding: _ClaimBinding,
    causes: Mapping[ObjectKey, str],
) -> Iterator[UnreadyObject]:
    for key in keys:
        state = _get_readiness(bodies.get(key), binding)
        if not state.is_ready:
            yield UnreadyObject(key, state.reason, causes.get(key, ""), state.status == "failed")


def explain_pending(
    cluster: Cluster, pending: Sequence[UnreadyObject], bodies: Mapping[ObjectKey, Body]
) -> tuple[UnreadyObject, ...]:
    """Return the same objects with their causes, in the same order.

    Pods and events that may not be read are left out of the search.

    Args:
        bodies: the objects that exist, as last read.
    """
    cache = _RelatedCache(cluster)

    def explain_object(item: UnreadyObject) -> UnreadyObject:
        body = bodies.get(item.key)
        if body is None:
            return item
        related = cache.collect_related(item.key, body)
        return replace(item, why=diagnosis.explain_unready(body, related))

    if not pending:
        return ()
    found = dict(parallel.run_in_threads(explain_object, pending, _JOBS, lambda: None))
    return tuple(found[item] for item in pending)


def _get_readiness(body: Body | None, binding: _ClaimBinding) -> Readiness:
    if body is None:
        return Readiness("progressing", ABSENT)
    found = assess_readiness(body)
    is_claim = body.get("kind") == "PersistentVolumeClaim"
    if is_claim and not found.is_ready and binding.is_delayed(body):
        return READY
    return found


def _read_bodies(cluster: Cluster, keys: Sequence[ObjectKey]) -> dict[ObjectKey, Body]:
    """Return the objects that exist: by one list a kind and namespace, or one by itself."""
    groups: defaultdict[tuple[str, str, str], list[ObjectKey]] = defaultdict(list)
    for key in keys:
        groups[key.api_version, key.kind, key.namespace].append(key)
    out: dict[ObjectKey, Body] = {}

    def read_group(where: tuple[str, str, str]) -> dict[ObjectKey, Body]:
        own = groups[where]
        if len(own) == 1:
            body = cluster.get(own[0])
            return {} if body is None else {own[0]: body}
        api_version, kind, namespace = where
        listed = cluster.list(api_version, kind, namespace=namespace)
        by_name = {get_name(body): body for body in listed}
        return {key: by_name[key.name] for key in own if key.name in by_name}

    for _, found in parallel.run_in_threads(read_group, list(groups), _JOBS, lambda: None):
        out.update(found)
    return out


class _ClaimBinding:
    """Finds claims that are bound only when a pod mounts them; a wait is for their pods instead."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._modes: dict[str, str] = {}

    def is_delayed(self, claim: Body) -> bool:
        """Return whether a claim's storage class has ``WaitForFirstConsumer``."""
        name = get_text(claim, "spec", "storageClassName")
        if not name:
            return False
        if name not in self._modes:
            key = ObjectKey("storage.k8s.io/v1", "StorageClass", "", name)
            found = _list_or_empty(lambda: [self._cluster.get(key)])
            self._modes[name] = get_text(found[0], "volumeBindingMode") if found else ""
        return self._modes[name] == "WaitForFirstConsumer"


class _RelatedCache:
    """The objects that belong to workloads; each list of a namespace is read once.

    Two threads that need the same list at once may both read it. That costs one request.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lists: dict[tuple[str, str], list[Body]] = {}

    def collect_related(self, key: ObjectKey, body: Body) -> RelatedObjects:
        """Return what belongs to an object."""
        if key.kind == "PersistentVolumeClaim":
            return RelatedObjects(claims=(body,), events=self._events_by_uid((body,)))
        if key.kind not in _POD_OWNERS:
            return RelatedObjects(events=self._events_by_uid((body,)))
        makers: tuple[Body, ...] = ()
        if key.kind == "Deployment":
            sets = self._list_cached("apps/v1", "ReplicaSet", key)
            newest = diagnosis.newest_replica_set(body, sets)
            if newest is None:
                return RelatedObjects(events=self._events_by_uid((body,)))
            makers = (newest,)
        pods = diagnosis.newest_pods(body, makers, self._list_cached("v1", "Pod", key))
        unbound = self._list_unbound_claims(key, diagnosis.mounted_claims(pods))
        events = self._events_by_uid((body, *makers, *pods[:_PODS_MAX], *unbound))
        return RelatedObjects(makers, pods, unbound, events)

    def _list_unbound_claims(self, near: ObjectKey, names: Collection[str]) -> list[Body]:
        """Return the unbound claims of these names in the namespace of an object."""
        if not names:
            return []
        return [
            claim
            for claim in self._list_cached("v1", "PersistentVolumeClaim", near)
            if get_name(claim) in names and get_status(claim).get("phase") != "Bound"
        ]

    def _list_cached(self, api_version: str, kind: str, near: ObjectKey) -> list[Body]:
        where = (kind, near.namespace)
        if where not in self._lists:
            self._lists[where] = _list_or_empty(
                lambda: self._cluster.list(api_version, kind, namespace=near.namespace)
            )
        return self._lists[where]

    def _events_by_uid(self, bodies: Sequence[Body]) -> dict[str, list[Body]]:
        """Return the warnings about objects by uid, oldest first; about claims all events.

        That nothing provisions a claim's volume is an event of type Normal.
        """
        out: dict[str, list[Body]] = {}
        for body in bodies:
            uid, namespace = get_uid(body), get_namespace(body) or "default"
            fields = f"involvedObject.uid={uid}"
            # Only claims have access modes.
            if "accessModes" not in get_spec(body):
                fields += ",type=Warning"
            events = _list_or_empty(partial(self._list_events, namespace, fields))
            out[uid] = sorted(events, key=_event_time)
        return out

    def _list_events(self, namespace: str, fields: str) -> list[Any]:
        return self._cluster.list("v1", "Event", namespace=namespace, fields=fields)


_POD_OWNERS: Final = frozenset(
    ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "Pod")
)


def _list_or_empty(ask: Callable[[], list[Any]]) -> list[Any]:
    """Return a list, or an empty one: a failed search for a cause is no error of its own."""
    try:
        return ask()
    except UserError:
        return []


def _event_time(event: Body) -> str:
    return (
        get_text(event, "series", "lastObservedTime")
        or get_text(event, "lastTimestamp")
        or get_text(event, "eventTime")
        or get_text(get_metadata(event), "creationTimestamp")
    )
