"""One apply at a time in a cluster: a Lease, renewed while it is held."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from kfdeploy.errors import UserError
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.errors import ApiError
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.programs import process

NAME: Final = "kfdeploy"
SECONDS: Final = 30
"""Who has not renewed it for so long is taken to be gone."""
_RENEW_SECONDS: Final = 8.0
_ASK_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 2.0
_GONE_SECONDS: Final = 0.1
_API: Final = "coordination.k8s.io/v1"


@dataclass
class HeldLease:
    """The lock of an apply that is running.

    Attributes:
        lost: set when another one has taken it, or may have, as it was not renewed in time.
        taken_by: who that is; empty where nobody could be asked.
    """

    lost: threading.Event = field(default_factory=threading.Event)
    taken_by: str = ""

    def ensure_held(self) -> None:
        """Raises:
        UserError: another one has taken it, or may have.
        """
        if not self.lost.is_set():
            return
        if self.taken_by:
            raise UserError(
                f"the lock was lost: {self.taken_by} has taken it",
                hint="run `kfdeploy apply` again when the other one is done",
            )
        raise UserError(
            "the lock was lost: the API server did not answer for so long that another apply may"
            " have taken it",
            hint="`kubectl version` says whether it can be reached from here; then run"
            " `kfdeploy apply` again",
        )


@contextlib.contextmanager
def hold_lease(
    cluster: Cluster, namespace: str, on_progress: Callable[[str], None]
) -> Iterator[HeldLease]:
    """Hold the cluster's lock until the block ends.

    One that is left behind (its process killed, its machine gone) is taken over: at once where it
    was a process of this machine that is no more, nor any program that it had started; else when
    nobody has renewed it for `SECONDS`.

    Args:
        namespace: Helm's; it must exist.
        told: what is being waited for.

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
            with contextlib.suppress(UserError):  # it runs out by itself
                _release_lease(cluster, key, me)


def _acquire_lease(
    cluster: Cluster, key: ObjectKey, me: str, on_progress: Callable[[str], None]
) -> None:
    seen, since = "", time.monotonic()
    while True:
        found = cluster.get(key)
        holder = _get_holder(found)
        if found is None:
            body = {
                "apiVersion": _API,
                "kind": "Lease",
                **_lease_metadata(key),
                "spec": _lease_spec(me, None),
            }
            with contextlib.suppress(ApiError):  # somebody was faster, or an answer was lost
                cluster.create(body)
            if _get_holder(cluster.get(key)) == me:
                return
            continue
        renewed = f"{holder} {found['spec'].get('renewTime', '')}"
        if (
            not holder
            or _is_gone(holder)
            or (renewed == seen and time.monotonic() - since > SECONDS)
        ):
            with contextlib.suppress(ApiError):
                cluster.replace({**found, "spec": _lease_spec(me, found["spec"])})
            if _get_holder(cluster.get(key)) == me:
                return
            continue
        if renewed != seen and seen.startswith(f"{holder} "):
            raise UserError(
                f"another apply is running: {_describe_holder(holder)} holds the lock since"
                f" {found['spec'].get('acquireTime', 'some time')}",
                hint="run `kfdeploy apply` again when it is done",
            )
        if renewed != seen:
            on_progress(
                f"the lock is held by {_describe_holder(holder)}: looking whether it is alive"
            )
            seen, since = renewed, time.monotonic()
        until = time.monotonic() + _LOOK_SECONDS
        while time.monotonic() < until and not _is_gone(holder):
            time.sleep(_GONE_SECONDS)


def _renew_lease(
    cluster: Cluster, key: ObjectKey, me: str, held: HeldLease, done: threading.Event
) -> None:
    # Its questions are not asked for as long as others': others may take what is not renewed.
    asking = replace(cluster, patience=_ASK_SECONDS)
    renewed, pause = time.monotonic(), _RENEW_SECONDS
    try:
        while not done.wait(pause):
            pause = _RENEW_SECONDS
            try:
                found = asking.get(key)
                if _get_holder(found) != me:
                    held.taken_by = (
                        _describe_holder(_get_holder(found)) or "somebody who has gone again"
                    )
                    held.lost.set()
                    return
                assert found is not None
                asking.replace({**found, "spec": {**found["spec"], "renewTime": _format_now()}})
                renewed = time.monotonic()
            except UserError:
                pause = 0.5
                if time.monotonic() - renewed > SECONDS - _ASK_SECONDS:
                    held.lost.set()
                    return
    finally:
        asking.close()


def _release_lease(cluster: Cluster, key: ObjectKey, me: str) -> None:
    found = cluster.get(key)
    if found is not None and _get_holder(found) == me:
        cluster.replace({**found, "spec": {**found["spec"], "holderIdentity": ""}})


def _get_holder(lease: Mapping[str, Any] | None) -> str:
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")


def _is_gone(holder: str) -> bool:
    """Whether it was a process of this machine that no longer runs, nor what looks after its
    programs."""
    host, *pids = holder.split("/")[:3]
    return (
        host == socket.gethostname()
        and len(pids) == 2
        and all(pid.isdigit() and not process.is_running(int(pid)) for pid in pids)
    )


def _describe_holder(holder: str) -> str:
    """Host and process, for people."""
    return "/".join(holder.split("/")[:2])


def _lease_spec(me: str, before: Mapping[str, Any] | None) -> dict[str, Any]:
    now = _format_now()
    return {
        "holderIdentity": me,
        "leaseDurationSeconds": SECONDS,
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": int((before or {}).get("leaseTransitions") or 0) + (before is not None),
    }


def _lease_metadata(key: ObjectKey) -> dict[str, Any]:
    return {"metadata": {"name": key.name, "namespace": key.namespace}}


def _format_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
