"""Waits until objects of the cluster are ready, and finds out why those are not that are not."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kfdeploy import parallel
from kfdeploy.errors import UserError
from kfdeploy.kubernetes import diagnosis as model
from kfdeploy.kubernetes import readiness
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.kubernetes.readiness import READY, Readiness

if TYPE_CHECKING:
    from kfdeploy.kubernetes.cluster.client import Cluster

Body = Mapping[str, Any]

PAUSE: Final = 1.0
"""Seconds between two looks."""
_EXPLAIN_EVERY: Final = 5.0
"""Seconds between two looks for causes, which ask for more than the objects themselves."""
_EXPLAINED_MAX: Final = 20
"""Of how many objects a cause is looked for while it is waited; in the end of all."""
ABSENT: Final = "is not there"
"""State of what nobody has made yet."""
_PODS_MAX: Final = 3
"""Of how many pods of a workload the events are read: they mostly say the same."""
_JOBS: Final = 8


@dataclass(frozen=True, slots=True)
class UnreadyObject:
    """An object that is not ready.

    Attributes:
        is_final: waiting will not make it ready.
        why: the cause, where something says it; else empty.
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
    """How far a wait is.

    Attributes:
        pending: what is not ready yet, with the causes that were known last.
        seconds: since it began.
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
        seconds: at most; with 0 it looks once.
        told: after each look.
        pause: seconds between two looks.

    Returns:
        What is not ready, with its cause: when the time is over, or earlier when waiting does not
        help any of it. Empty when all is ready.

    Raises:
        UserError: the API server does not let us look, or is gone for longer than the cluster's
            patience.
    """
    wanted = tuple(dict.fromkeys(keys))
    started = time.monotonic()
    explained, causes = started, dict[ObjectKey, str]()
    binding = _ClaimBinding(cluster)
    open_ = wanted
    while True:
        bodies = _read_bodies(cluster, open_)
        pending = []
        for key in open_:
            state = _get_readiness(bodies.get(key), binding)
            if not state.is_ready:
                cause = causes.get(key, "")
                pending.append(UnreadyObject(key, state.reason, cause, state.status == "failed"))
        # What was ready once may fall back; the last look is at everything again.
        if not pending and open_ != wanted:
            open_ = wanted
            continue
        now = time.monotonic()
        on_progress(
            WaitProgress(len(wanted) - len(pending), len(wanted), tuple(pending), now - started)
        )
        over = now - started >= seconds or all(item.is_final for item in pending)
        if not pending:
            return ()
        if over:
            return explain_pending(cluster, pending, bodies)
        if now - explained >= _EXPLAIN_EVERY:
            some = explain_pending(cluster, pending[:_EXPLAINED_MAX], bodies)
            causes = {item.key: item.why for item in some}
            explained = time.monotonic()
        open_ = tuple(item.key for item in pending)
        time.sleep(max(0.0, min(pause, seconds - (time.monotonic() - started))))


def explain_pending(
    cluster: Cluster, pending: Sequence[UnreadyObject], bodies: Mapping[ObjectKey, Body]
) -> tuple[UnreadyObject, ...]:
    """The same with the causes. What we may not read (pods, events) is left out of them.

    Args:
        bodies: the objects as they were last seen, as far as they are there.
    """
    seen = _RelatedCache(cluster)

    def explain_object(item: UnreadyObject) -> UnreadyObject:
        body = bodies.get(item.key)
        if body is None:
            return item
        around = seen.collect_related(item.key, body)
        return UnreadyObject(
            item.key, item.state, model.explain_unready(body, around), item.is_final
        )

    found = {
        item.key: item
        for _, item in parallel.run_in_threads(explain_object, pending, _JOBS, lambda: None)
    }
    return tuple(found[item.key] for item in pending)


def _get_readiness(body: Body | None, binding: _ClaimBinding) -> Readiness:
    if body is None:
        return Readiness("progressing", ABSENT)
    found = readiness.assess_readiness(body)
    if (
        body.get("kind") == "PersistentVolumeClaim"
        and not found.is_ready
        and binding.is_delayed(body)
    ):
        return READY
    return found


def _read_bodies(cluster: Cluster, keys: Sequence[ObjectKey]) -> dict[ObjectKey, Body]:
    """The objects, by one list a kind and namespace, or by themselves where there is but one."""
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
        named = {str((body.get("metadata") or {}).get("name")): body for body in listed}
        # Items of a list need not say what they are.
        said = {"apiVersion": api_version, "kind": kind}
        return {key: {**named[key.name], **said} for key in own if key.name in named}

    for _, found in parallel.run_in_threads(read_group, list(groups), _JOBS, lambda: None):
        out.update(found)
    return out


class _ClaimBinding:
    """Claims that nobody binds before a pod mounts them are not waited for: their pods are."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._modes: dict[str, str] = {}

    def is_delayed(self, claim: Body) -> bool:
        name = str((claim.get("spec") or {}).get("storageClassName") or "")
        if not name:
            return False
        if name not in self._modes:
            key = ObjectKey("storage.k8s.io/v1", "StorageClass", "", name)
            found = _list_or_empty(lambda: [self._cluster.get(key)])
            mode = (found[0] or {}).get("volumeBindingMode") if found else ""
            self._modes[name] = str(mode or "")
        return self._modes[name] == "WaitForFirstConsumer"


class _RelatedCache:
    """What belongs to the workloads of some namespaces; each list is asked for once.

    Two threads that want the same list at once may both ask for it, which costs only that.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lists: dict[tuple[str, str], list[Body]] = {}

    def collect_related(self, key: ObjectKey, body: Body) -> model.RelatedObjects:
        if key.kind == "PersistentVolumeClaim":
            return model.RelatedObjects((), (), (body,), self._events_by_uid((body,)))
        if key.kind not in _MAKES_PODS:
            return model.RelatedObjects(events=self._events_by_uid((body,)))
        makers: tuple[Body, ...] = ()
        if key.kind == "Deployment":
            newest = model.newest_replica_set(body, self._list_cached("apps/v1", "ReplicaSet", key))
            if newest is None:
                return model.RelatedObjects(events=self._events_by_uid((body,)))
            makers = (newest,)
        pods = model.newest_pods(body, makers, self._list_cached("v1", "Pod", key))
        names = model.mounted_claims(pods)
        claims = (
            [
                c
                for c in self._list_cached("v1", "PersistentVolumeClaim", key)
                if _object_name(c) in names
            ]
            if names
            else []
        )
        unbound = [c for c in claims if (c.get("status") or {}).get("phase") != "Bound"]
        asked = (body, *makers, *pods[:_PODS_MAX], *unbound)
        return model.RelatedObjects(makers, pods, unbound, self._events_by_uid(asked))

    def _list_cached(self, api_version: str, kind: str, near: ObjectKey) -> list[Body]:
        where = (kind, near.namespace)
        if where not in self._lists:
            self._lists[where] = _list_or_empty(
                lambda: self._cluster.list(api_version, kind, namespace=near.namespace)
            )
        return self._lists[where]

    def _events_by_uid(self, bodies: Sequence[Body]) -> dict[str, list[Body]]:
        """What was said of objects, by uid, oldest first.

        Of claims not only the warnings: that nothing provides a volume is none.
        """
        out: dict[str, list[Body]] = {}
        for body in bodies:
            meta = body.get("metadata") or {}
            uid = str(meta.get("uid", ""))
            fields = f"involvedObject.uid={uid}"
            # An item of a list does not say its kind; only claims have an access mode.
            if "accessModes" not in (body.get("spec") or {}):
                fields += ",type=Warning"
            namespace = str(meta.get("namespace") or "default")
            out[uid] = sorted(
                _list_or_empty(partial(self._list_events, namespace, fields)), key=_event_time
            )
        return out

    def _list_events(self, namespace: str, fields: str) -> list[Any]:
        return self._cluster.list("v1", "Event", namespace=namespace, fields=fields)


_MAKES_PODS: Final = frozenset(
    ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "Pod")
)


def _list_or_empty(ask: Callable[[], list[Any]]) -> list[Any]:
    """What only helps to explain is not worth an error of its own."""
    try:
        return ask()
    except UserError:
        return []


def _event_time(event: Body) -> str:
    meta = event.get("metadata") or {}
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(
        series
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or meta.get("creationTimestamp")
        or ""
    )


def _object_name(body: Body) -> str:
    return str((body.get("metadata") or {}).get("name", ""))
