"""The lock that allows one apply at a time in a cluster: a Lease that its holder renews."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from kfdeploy.errors import UserError
from kfdeploy.kubernetes.accessors import Body, get_mapping, get_text
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.errors import ApiError
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.programs import process

NAME: Final = "kfdeploy"
SECONDS: Final = 30
"""A holder that has not renewed its lease for so long counts as gone."""
_RENEW_SECONDS: Final = 8.0
_RETRY_SECONDS: Final = 0.5
_RENEW_PATIENCE: Final = 5.0
"""Seconds of patience of a renewal: others may take a lease that is not renewed in time."""
_LOOK_SECONDS: Final = 2.0
_LOCAL_LOOK_SECONDS: Final = 0.1
"""Pauses between two looks at a holder: at its lease, and at its process on this machine."""
_API: Final = "coordination.k8s.io/v1"


@dataclass
class HeldLease:
    """The lock of a running apply.

    Attributes:
        lost: set when another apply has taken the lock, or may have because it was not renewed.
        taken_by: the new holder; empty if the API server did not answer.
    """

    lost: threading.Event = field(default_factory=threading.Event)
    taken_by: str = ""

    def ensure_held(self) -> None:
        """Raises:
        UserError: another apply has taken the lock, or may have.
        """
        if not self.lost.is_set():
            return
        if self.taken_by:
            raise UserError(
                f"the lock was lost: {self.taken_by} has taken it",
                hint="run `kfdeploy apply` again when the other apply is done",
            )
        raise UserError(
            "the lock was lost: the API server did not answer for so long that another apply may"
            " have taken it",
            hint="`kubectl version` tells whether this machine reaches the API server; then run"
            " `kfdeploy apply` again",
        )


@contextlib.contextmanager
def hold_lease(
    cluster: Cluster, namespace: str, on_progress: Callable[[str], None]
) -> Iterator[HeldLease]:
    """Hold the cluster's lock until the block ends.

    A lock that was left behind is taken over. If its holder was a process of this machine, this
    happens as soon as that process, and the guard of its programs, no longer run. Otherwise it
    happens when nobody has renewed the lock for `SECONDS`.

    Args:
        namespace: the namespace of Helm's records; it must exist.
        on_progress: called with a line that says what is waited for.

    Raises:
        UserError: another apply is running.
    """
    key = ObjectKey(_API, "Lease", namespace, NAME)
    me = f"{socket.gethostname()}/{os.getpid()}/{process.guard_pid()}/{time.time_ns():x}"
    _acquire_lease(cluster, key, me, on_progress)
    held, done = HeldLease(), threading.Event()
    renewer = threading.Thread(
        target=_renew_lease, args=(cluster, key, me, held, done), daemon=True
    )
    renewer.start()
    try:
        yield held
    finally:
        done.set()
        renewer.join()
        if not held.lost.is_set():
            with contextlib.suppress(UserError):  # an unreleased lease expires by itself
                _release_lease(cluster, key, me)


def _acquire_lease(
    cluster: Cluster, key: ObjectKey, me: str, on_progress: Callable[[str], None]
) -> None:
    """Take the lock, if need be when its holder turns out to be gone."""
    seen: _Renewal | None = None
    since = time.monotonic()
    while True:
        found = cluster.get(key)
        last = None if found is None else _Renewal.from_lease(found)
        is_silent = last is not None and last == seen and time.monotonic() - since > SECONDS
        if last is None or last.is_free or is_silent:
            # Another apply may be faster, and the answer may be lost: the lease says who has it.
            with contextlib.suppress(ApiError):
                _write_holder(cluster, key, found, me)
            if _get_holder(cluster.get(key)) == me:
                return
            continue
        if last != seen:
            if seen is not None and seen.holder == last.holder:  # it has renewed the lease
                raise UserError(
                    f"another apply is running: {_describe_holder(last.holder)} holds the lock"
                    f" since {get_text(found, 'spec', 'acquireTime') or 'some time'}",
                    hint="run `kfdeploy apply` again when it is done",
                )
            on_progress(
                f"the lock is held by {_describe_holder(last.holder)}: checking that it is alive"
            )
            seen, since = last, time.monotonic()
        next_look = time.monotonic() + _LOOK_SECONDS
        while time.monotonic() < next_look and not _is_gone(last.holder):
            time.sleep(_LOCAL_LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class _Renewal:
    """Who holds a lease, and when it was renewed last; the clock is the holder's."""

    holder: str
    time: str

    @classmethod
    def from_lease(cls, lease: Body) -> _Renewal:
        return cls(_get_holder(lease), get_text(lease, "spec", "renewTime"))

    @property
    def is_free(self) -> bool:
        return not self.holder or _is_gone(self.holder)


def _write_holder(cluster: Cluster, key: ObjectKey, found: Body | None, me: str) -> None:
    """Create the lease, or replace the one that was found, with ``me`` as its holder."""
    if found is not None:
        cluster.replace({**found, "spec": _make_spec(me, get_mapping(found, "spec"))})
        return
    metadata = {"name": key.name, "namespace": key.namespace}
    spec = _make_spec(me, None)
    cluster.create({"apiVersion": _API, "kind": "Lease", "metadata": metadata, "spec": spec})


def _renew_lease(
    cluster: Cluster, key: ObjectKey, me: str, held: HeldLease, done: threading.Event
) -> None:
    """Renew the lease until ``done``; say in ``held`` when it is, or may be, lost."""
    own = replace(cluster, patience=_RENEW_PATIENCE)
    renewed, pause = time.monotonic(), _RENEW_SECONDS
    try:
        while not done.wait(pause):
            try:
                found = own.get(key)
                if found is None or _get_holder(found) != me:
                    other = _describe_holder(_get_holder(found))
                    held.taken_by = other or "another apply, which has ended,"
                    held.lost.set()
                    return
                own.replace({**found, "spec": {**found["spec"], "renewTime": _format_now()}})
                renewed, pause = time.monotonic(), _RENEW_SECONDS
            except UserError:
                pause = _RETRY_SECONDS
                if time.monotonic() - renewed > SECONDS - _RENEW_PATIENCE:
                    held.lost.set()
                    return
    finally:
        own.close()


def _release_lease(cluster: Cluster, key: ObjectKey, me: str) -> None:
    found = cluster.get(key)
    if found is not None and _get_holder(found) == me:
        cluster.replace({**found, "spec": {**found["spec"], "holderIdentity": ""}})


def _get_holder(lease: Body | None) -> str:
    return get_text(lease, "spec", "holderIdentity")


def _is_gone(holder: str) -> bool:
    """Return whether a holder was a process of this machine that no longer runs.

    The guard that ends its programs must have ended too.
    """
    host, *pids = holder.split("/")[:3]
    return (
        host == socket.gethostname()
        and len(pids) == 2
        and all(pid.isdigit() and not process.is_running(int(pid)) for pid in pids)
    )


def _describe_holder(holder: str) -> str:
    """Return a holder's host and process, for people."""
    return "/".join(holder.split("/")[:2])


def _make_spec(me: str, before: Body | None) -> dict[str, Any]:
    now = _format_now()
    return {
        "holderIdentity": me,
        "leaseDurationSeconds": SECONDS,
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": int((before or {}).get("leaseTransitions") or 0) + (before is not None),
    }


def _format_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
