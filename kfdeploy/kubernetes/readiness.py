"""Whether an object that the cluster has is ready, from what its controller wrote of it.

The rules are those of kstatus (sigs.k8s.io/cli-utils, ``pkg/kstatus``), but for three: a workload
that its controller has not looked at yet is not ready (a DaemonSet's counts are zeros until then);
a Job is ready when it is done; a Service is ready without its load balancer, which an isolated
cluster may never have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Body = Mapping[str, Any]
Status = Literal["ready", "progressing", "failed"]


@dataclass(frozen=True, slots=True)
class State:
    """``failed`` is what does not become ready by waiting; ``reason`` is a few words."""

    status: Status
    reason: str = ""

    @property
    def is_ready(self) -> bool:
        return self.status == "ready"


READY = State("ready")


def state(body: Body) -> State:
    """The state of a live object, whole as the API server has it."""
    meta = _mapping(body.get("metadata"))
    if meta.get("deletionTimestamp"):
        return State("progressing", "is being deleted")
    judge = _JUDGES.get((_group(body), str(body.get("kind"))))
    if judge is not None:
        return judge(body)
    return _generic(body)


def condition(body: Body, kind: str) -> Mapping[str, Any]:
    """The condition of a type; empty where there is none."""
    conditions = _mapping(body.get("status")).get("conditions")
    for item in conditions if isinstance(conditions, list) else ():
        if isinstance(item, dict) and item.get("type") == kind:
            return item
    return {}


def says(item: Mapping[str, Any]) -> str:
    """A condition's reason and message, as far as it has them."""
    return ": ".join(str(part) for part in (item.get("reason"), item.get("message")) if part)


def _workload(body: Body) -> State | None:
    """Not ready as long as what its status says is of an older form of it."""
    seen = _mapping(body.get("status")).get("observedGeneration")
    if not isinstance(seen, int):
        return State("progressing", "its controller has not reported yet")
    if seen < _generation(body):
        return State("progressing", "its controller has not reported on its last change yet")
    return None


def _deployment(body: Body) -> State:
    if (early := _workload(body)) is not None:
        return early
    spec, status = _mapping(body.get("spec")), _mapping(body.get("status"))
    wanted = _count(spec, "replicas", 1)
    ready = f"{min(_count(status, 'readyReplicas'), wanted)}/{wanted} ready"
    progressing = condition(body, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        limit = _count(spec, "progressDeadlineSeconds", 600)
        return State("failed", f"{ready}, without progress for {limit} s")
    # Nobody rolls out what a person has paused.
    if not spec.get("paused"):
        if (updated := _count(status, "updatedReplicas")) < wanted:
            return State("progressing", f"{ready}, {updated}/{wanted} of the newest form")
        if _count(status, "replicas") > updated:
            return State("progressing", f"{ready}, pods of its older form still there")
    if min(_count(status, "availableReplicas"), _count(status, "readyReplicas")) < wanted:
        return State("progressing", ready)
    if condition(body, "Available").get("status", "True") != "True":
        return State("progressing", f"{ready}, not yet available")
    return READY


def _stateful_set(body: Body) -> State:
    if (early := _workload(body)) is not None:
        return early
    spec, status = _mapping(body.get("spec")), _mapping(body.get("status"))
    wanted = _count(spec, "replicas", 1)
    have = _count(status, "readyReplicas")
    ready = f"{min(have, wanted)}/{wanted} ready"
    if have < wanted:
        return State("progressing", ready)
    strategy = _mapping(spec.get("updateStrategy"))
    if strategy.get("type") == "OnDelete":
        return READY
    partition = _count(_mapping(strategy.get("rollingUpdate")), "partition")
    changed = status.get("updateRevision") and status.get("currentRevision") != status.get(
        "updateRevision"
    )
    updated, due = _count(status, "updatedReplicas"), max(wanted - partition, 0)
    if changed and updated < due:
        return State("progressing", f"{ready}, {updated}/{due} of the newest form")
    return READY


def _daemon_set(body: Body) -> State:
    if (early := _workload(body)) is not None:
        return early
    spec, status = _mapping(body.get("spec")), _mapping(body.get("status"))
    wanted = _count(status, "desiredNumberScheduled")
    have = min(_count(status, "numberReady"), _count(status, "numberAvailable"))
    ready = f"{min(have, wanted)}/{wanted} ready"
    if _mapping(spec.get("updateStrategy")).get("type") != "OnDelete":
        updated = _count(status, "updatedNumberScheduled")
        if updated < wanted:
            return State("progressing", f"{ready}, {updated}/{wanted} of the newest form")
    return READY if have >= wanted else State("progressing", ready)


def _replica_set(body: Body) -> State:
    if (early := _workload(body)) is not None:
        return early
    wanted = _count(_mapping(body.get("spec")), "replicas", 1)
    status = _mapping(body.get("status"))
    have = min(_count(status, "readyReplicas"), _count(status, "availableReplicas"))
    if have >= wanted:
        return READY
    return State("progressing", f"{have}/{wanted} ready")


def _job(body: Body) -> State:
    for kind in ("Failed", "FailureTarget"):
        if (item := condition(body, kind)).get("status") == "True":
            return State("failed", says(item) or "failed")
    for kind in ("Complete", "SuccessCriteriaMet", "Suspended"):
        if condition(body, kind).get("status") == "True":
            return READY
    spec, status = _mapping(body.get("spec")), _mapping(body.get("status"))
    done, wanted = _count(status, "succeeded"), _count(spec, "completions", 1)
    return State("progressing", f"{done}/{wanted} done")


def _pod(body: Body) -> State:
    phase = str(_mapping(body.get("status")).get("phase") or "Pending")
    if phase == "Succeeded":
        return READY
    if phase == "Failed":
        return State("failed", says(_mapping(body.get("status"))) or "failed")
    if phase == "Running" and condition(body, "Ready").get("status") == "True":
        return READY
    return State("progressing", "runs, not ready" if phase == "Running" else phase.lower())


def _claim(body: Body) -> State:
    phase = str(_mapping(body.get("status")).get("phase") or "Pending")
    if phase == "Bound":
        return READY
    return State("failed" if phase == "Lost" else "progressing", phase.lower())


def _definition(body: Body) -> State:
    accepted = condition(body, "NamesAccepted")
    if accepted.get("status") == "False":
        return State("failed", says(accepted) or "its names are taken")
    established = condition(body, "Established")
    if established.get("status") == "True":
        return READY
    return State("progressing", says(established) or "not yet served")


def _api_service(body: Body) -> State:
    available = condition(body, "Available")
    if available.get("status") == "True":
        return READY
    return State("progressing", says(available) or "not yet available")


def _namespace(body: Body) -> State:
    phase = str(_mapping(body.get("status")).get("phase") or "Active")
    return READY if phase == "Active" else State("progressing", phase.lower())


def _there(body: Body) -> State:
    return READY


def _generic(body: Body) -> State:
    """Of a kind that somebody else's controller looks after."""
    generation = _generation(body)
    seen = _mapping(body.get("status")).get("observedGeneration")
    if isinstance(seen, int) and seen < generation:
        return State("progressing", "its controller has not reported on its last change yet")
    if (stalled := condition(body, "Stalled")).get("status") == "True":
        return State("failed", says(stalled) or "stalled")
    if (busy := condition(body, "Reconciling")).get("status") == "True":
        return State("progressing", says(busy) or "being reconciled")
    for kind in ("Ready", "Available"):
        item = condition(body, kind)
        if not item:
            continue
        told = item.get("observedGeneration")
        if isinstance(told, int) and told < generation:
            return State("progressing", "its controller has not reported on its last change yet")
        if item.get("status") != "True":
            return State("progressing", says(item) or f"not {kind.lower()}")
        return READY
    return READY


_JUDGES: dict[tuple[str, str], Callable[[Body], State]] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "ReplicaSet"): _replica_set,
    ("batch", "Job"): _job,
    ("", "Pod"): _pod,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Namespace"): _namespace,
    ("", "Service"): _there,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("apiregistration.k8s.io", "APIService"): _api_service,
}


def _group(body: Body) -> str:
    return str(body.get("apiVersion", "")).rpartition("/")[0]


def _generation(body: Body) -> int:
    return _count(_mapping(body.get("metadata")), "generation")


def _count(node: Mapping[str, Any], key: str, default: int = 0) -> int:
    value = node.get(key)
    return value if isinstance(value, int) else default


def _mapping(node: Any) -> Mapping[str, Any]:
    return node if isinstance(node, dict) else {}
