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
from kfdeploy.kubernetes.readiness import READY, State

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
class NotReady:
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
        return {"object": self.key.to_json(), "state": self.state, "why": self.why}


@dataclass(frozen=True, slots=True)
class Waiting:
    """How far a wait is.

    Attributes:
        pending: what is not ready yet, with the causes that were known last.
        seconds: since it began.
    """

    ready: int
    total: int
    pending: tuple[NotReady, ...]
    seconds: float


def wait(
    cluster: Cluster,
    keys: Iterable[ObjectKey],
    *,
    seconds: float,
    told: Callable[[Waiting], None] = lambda waiting: None,
    pause: float = PAUSE,
) -> tuple[NotReady, ...]:
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
    binding = _Binding(cluster)
    open_ = wanted
    while True:
        bodies = _bodies(cluster, open_)
        pending = []
        for key in open_:
            state = _state(bodies.get(key), binding)
            if not state.is_ready:
                cause = causes.get(key, "")
                pending.append(NotReady(key, state.reason, cause, state.status == "failed"))
        # What was ready once may fall back; the last look is at everything again.
        if not pending and open_ != wanted:
            open_ = wanted
            continue
        now = time.monotonic()
        told(Waiting(len(wanted) - len(pending), len(wanted), tuple(pending), now - started))
        over = now - started >= seconds or all(item.is_final for item in pending)
        if not pending:
            return ()
        if over:
            return explain(cluster, pending, bodies)
        if now - explained >= _EXPLAIN_EVERY:
            some = explain(cluster, pending[:_EXPLAINED_MAX], bodies)
            causes = {item.key: item.why for item in some}
            explained = time.monotonic()
        open_ = tuple(item.key for item in pending)
        time.sleep(max(0.0, min(pause, seconds - (time.monotonic() - started))))


def explain(
    cluster: Cluster, pending: Sequence[NotReady], bodies: Mapping[ObjectKey, Body]
) -> tuple[NotReady, ...]:
    """The same with the causes. What we may not read (pods, events) is left out of them.

    Args:
        bodies: the objects as they were last seen, as far as they are there.
    """
    seen = _Seen(cluster)

    def one(item: NotReady) -> NotReady:
        body = bodies.get(item.key)
        if body is None:
            return item
        around = seen.around(item.key, body)
        return NotReady(item.key, item.state, model.why(body, around), item.is_final)

    found = {item.key: item for _, item in parallel.each(one, pending, _JOBS, lambda: None)}
    return tuple(found[item.key] for item in pending)


def _state(body: Body | None, binding: _Binding) -> State:
    if body is None:
        return State("progressing", ABSENT)
    found = readiness.state(body)
    if body.get("kind") == "PersistentVolumeClaim" and not found.is_ready and binding.is_late(body):
        return READY
    return found


def _bodies(cluster: Cluster, keys: Sequence[ObjectKey]) -> dict[ObjectKey, Body]:
    """The objects, by one list a kind and namespace, or by themselves where there is but one."""
    groups: defaultdict[tuple[str, str, str], list[ObjectKey]] = defaultdict(list)
    for key in keys:
        groups[key.api_version, key.kind, key.namespace].append(key)
    out: dict[ObjectKey, Body] = {}

    def read(where: tuple[str, str, str]) -> dict[ObjectKey, Body]:
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

    for _, found in parallel.each(read, list(groups), _JOBS, lambda: None):
        out.update(found)
    return out


class _Binding:
    """Claims that nobody binds before a pod mounts them are not waited for: their pods are."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._modes: dict[str, str] = {}

    def is_late(self, claim: Body) -> bool:
        name = str((claim.get("spec") or {}).get("storageClassName") or "")
        if not name:
            return False
        if name not in self._modes:
            key = ObjectKey("storage.k8s.io/v1", "StorageClass", "", name)
            found = _allowed(lambda: [self._cluster.get(key)])
            mode = (found[0] or {}).get("volumeBindingMode") if found else ""
            self._modes[name] = str(mode or "")
        return self._modes[name] == "WaitForFirstConsumer"


class _Seen:
    """What belongs to the workloads of some namespaces; each list is asked for once.

    Two threads that want the same list at once may both ask for it, which costs only that.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lists: dict[tuple[str, str], list[Body]] = {}

    def around(self, key: ObjectKey, body: Body) -> model.Around:
        if key.kind == "PersistentVolumeClaim":
            return model.Around((), (), (body,), self._events((body,)))
        if key.kind not in _MAKES_PODS:
            return model.Around(events=self._events((body,)))
        makers: tuple[Body, ...] = ()
        if key.kind == "Deployment":
            newest = model.newest_replica_set(body, self._list("apps/v1", "ReplicaSet", key))
            if newest is None:
                return model.Around(events=self._events((body,)))
            makers = (newest,)
        pods = model.newest_pods(body, makers, self._list("v1", "Pod", key))
        names = model.claims_of(pods)
        claims = (
            [c for c in self._list("v1", "PersistentVolumeClaim", key) if _name(c) in names]
            if names
            else []
        )
        unbound = [c for c in claims if (c.get("status") or {}).get("phase") != "Bound"]
        asked = (body, *makers, *pods[:_PODS_MAX], *unbound)
        return model.Around(makers, pods, unbound, self._events(asked))

    def _list(self, api_version: str, kind: str, near: ObjectKey) -> list[Body]:
        where = (kind, near.namespace)
        if where not in self._lists:
            self._lists[where] = _allowed(
                lambda: self._cluster.list(api_version, kind, namespace=near.namespace)
            )
        return self._lists[where]

    def _events(self, bodies: Sequence[Body]) -> dict[str, list[Body]]:
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
            out[uid] = sorted(_allowed(partial(self._warned, namespace, fields)), key=_when)
        return out

    def _warned(self, namespace: str, fields: str) -> list[Any]:
        return self._cluster.list("v1", "Event", namespace=namespace, fields=fields)


_MAKES_PODS: Final = frozenset(
    ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "Pod")
)


def _allowed(ask: Callable[[], list[Any]]) -> list[Any]:
    """What only helps to explain is not worth an error of its own."""
    try:
        return ask()
    except UserError:
        return []


def _when(event: Body) -> str:
    meta = event.get("metadata") or {}
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(
        series
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or meta.get("creationTimestamp")
        or ""
    )


def _name(body: Body) -> str:
    return str((body.get("metadata") or {}).get("name", ""))
