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
class Readiness:
    """``failed`` is what does not become ready by waiting; ``reason`` is a few words."""

    status: Status
    reason: str = ""

    @property
    def is_ready(self) -> bool:
        return self.status == "ready"


READY = Readiness("ready")


def assess_readiness(body: Body) -> Readiness:
    """The state of a live object, whole as the API server has it."""
    meta = _as_mapping(body.get("metadata"))
    if meta.get("deletionTimestamp"):
        return Readiness("progressing", "is being deleted")
    judge = _JUDGES.get((_get_api_group(body), str(body.get("kind"))))
    if judge is not None:
        return judge(body)
    return _assess_generic(body)


def find_condition(body: Body, kind: str) -> Mapping[str, Any]:
    """The condition of a type; empty where there is none."""
    conditions = _as_mapping(body.get("status")).get("conditions")
    for item in conditions if isinstance(conditions, list) else ():
        if isinstance(item, dict) and item.get("type") == kind:
            return item
    return {}


def describe_condition(item: Mapping[str, Any]) -> str:
    """A condition's reason and message, as far as it has them."""
    return ": ".join(str(part) for part in (item.get("reason"), item.get("message")) if part)


def _check_observed(body: Body) -> Readiness | None:
    """Not ready as long as what its status says is of an older form of it."""
    seen = _as_mapping(body.get("status")).get("observedGeneration")
    if not isinstance(seen, int):
        return Readiness("progressing", "its controller has not reported yet")
    if seen < _get_generation(body):
        return Readiness("progressing", "its controller has not reported on its last change yet")
    return None


def _assess_deployment(body: Body) -> Readiness:
    if (early := _check_observed(body)) is not None:
        return early
    spec, status = _as_mapping(body.get("spec")), _as_mapping(body.get("status"))
    wanted = _get_count(spec, "replicas", 1)
    ready = f"{min(_get_count(status, 'readyReplicas'), wanted)}/{wanted} ready"
    progressing = find_condition(body, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        limit = _get_count(spec, "progressDeadlineSeconds", 600)
        return Readiness("failed", f"{ready}, without progress for {limit} s")
    # Nobody rolls out what a person has paused.
    if not spec.get("paused"):
        if (updated := _get_count(status, "updatedReplicas")) < wanted:
            return Readiness("progressing", f"{ready}, {updated}/{wanted} of the newest form")
        if _get_count(status, "replicas") > updated:
            return Readiness("progressing", f"{ready}, pods of its older form still there")
    if min(_get_count(status, "availableReplicas"), _get_count(status, "readyReplicas")) < wanted:
        return Readiness("progressing", ready)
    if find_condition(body, "Available").get("status", "True") != "True":
        return Readiness("progressing", f"{ready}, not yet available")
    return READY


def _assess_stateful_set(body: Body) -> Readiness:
    if (early := _check_observed(body)) is not None:
        return early
    spec, status = _as_mapping(body.get("spec")), _as_mapping(body.get("status"))
    wanted = _get_count(spec, "replicas", 1)
    have = _get_count(status, "readyReplicas")
    ready = f"{min(have, wanted)}/{wanted} ready"
    if have < wanted:
        return Readiness("progressing", ready)
    strategy = _as_mapping(spec.get("updateStrategy"))
    if strategy.get("type") == "OnDelete":
        return READY
    partition = _get_count(_as_mapping(strategy.get("rollingUpdate")), "partition")
    changed = status.get("updateRevision") and status.get("currentRevision") != status.get(
        "updateRevision"
    )
    updated, due = _get_count(status, "updatedReplicas"), max(wanted - partition, 0)
    if changed and updated < due:
        return Readiness("progressing", f"{ready}, {updated}/{due} of the newest form")
    return READY


def _assess_daemon_set(body: Body) -> Readiness:
    if (early := _check_observed(body)) is not None:
        return early
    spec, status = _as_mapping(body.get("spec")), _as_mapping(body.get("status"))
    wanted = _get_count(status, "desiredNumberScheduled")
    have = min(_get_count(status, "numberReady"), _get_count(status, "numberAvailable"))
    ready = f"{min(have, wanted)}/{wanted} ready"
    if _as_mapping(spec.get("updateStrategy")).get("type") != "OnDelete":
        updated = _get_count(status, "updatedNumberScheduled")
        if updated < wanted:
            return Readiness("progressing", f"{ready}, {updated}/{wanted} of the newest form")
    return READY if have >= wanted else Readiness("progressing", ready)


def _assess_replica_set(body: Body) -> Readiness:
    if (early := _check_observed(body)) is not None:
        return early
    wanted = _get_count(_as_mapping(body.get("spec")), "replicas", 1)
    status = _as_mapping(body.get("status"))
    have = min(_get_count(status, "readyReplicas"), _get_count(status, "availableReplicas"))
    if have >= wanted:
        return READY
    return Readiness("progressing", f"{have}/{wanted} ready")


def _assess_job(body: Body) -> Readiness:
    for kind in ("Failed", "FailureTarget"):
        if (item := find_condition(body, kind)).get("status") == "True":
            return Readiness("failed", describe_condition(item) or "failed")
    for kind in ("Complete", "SuccessCriteriaMet", "Suspended"):
        if find_condition(body, kind).get("status") == "True":
            return READY
    spec, status = _as_mapping(body.get("spec")), _as_mapping(body.get("status"))
    done, wanted = _get_count(status, "succeeded"), _get_count(spec, "completions", 1)
    return Readiness("progressing", f"{done}/{wanted} done")


def _assess_pod(body: Body) -> Readiness:
    phase = str(_as_mapping(body.get("status")).get("phase") or "Pending")
    if phase == "Succeeded":
        return READY
    if phase == "Failed":
        return Readiness("failed", describe_condition(_as_mapping(body.get("status"))) or "failed")
    if phase == "Running" and find_condition(body, "Ready").get("status") == "True":
        return READY
    return Readiness("progressing", "runs, not ready" if phase == "Running" else phase.lower())


def _assess_claim(body: Body) -> Readiness:
    phase = str(_as_mapping(body.get("status")).get("phase") or "Pending")
    if phase == "Bound":
        return READY
    return Readiness("failed" if phase == "Lost" else "progressing", phase.lower())


def _assess_crd(body: Body) -> Readiness:
    accepted = find_condition(body, "NamesAccepted")
    if accepted.get("status") == "False":
        return Readiness("failed", describe_condition(accepted) or "its names are taken")
    established = find_condition(body, "Established")
    if established.get("status") == "True":
        return READY
    return Readiness("progressing", describe_condition(established) or "not yet served")


def _assess_api_service(body: Body) -> Readiness:
    available = find_condition(body, "Available")
    if available.get("status") == "True":
        return READY
    return Readiness("progressing", describe_condition(available) or "not yet available")


def _assess_namespace(body: Body) -> Readiness:
    phase = str(_as_mapping(body.get("status")).get("phase") or "Active")
    return READY if phase == "Active" else Readiness("progressing", phase.lower())


def _always_ready(body: Body) -> Readiness:
    return READY


def _assess_generic(body: Body) -> Readiness:
    """Of a kind that somebody else's controller looks after."""
    generation = _get_generation(body)
    seen = _as_mapping(body.get("status")).get("observedGeneration")
    if isinstance(seen, int) and seen < generation:
        return Readiness("progressing", "its controller has not reported on its last change yet")
    if (stalled := find_condition(body, "Stalled")).get("status") == "True":
        return Readiness("failed", describe_condition(stalled) or "stalled")
    if (busy := find_condition(body, "Reconciling")).get("status") == "True":
        return Readiness("progressing", describe_condition(busy) or "being reconciled")
    for kind in ("Ready", "Available"):
        item = find_condition(body, kind)
        if not item:
            continue
        told = item.get("observedGeneration")
        if isinstance(told, int) and told < generation:
            return Readiness(
                "progressing", "its controller has not reported on its last change yet"
            )
        if item.get("status") != "True":
            return Readiness("progressing", describe_condition(item) or f"not {kind.lower()}")
        return READY
    return READY


_JUDGES: dict[tuple[str, str], Callable[[Body], Readiness]] = {
    ("apps", "Deployment"): _assess_deployment,
    ("apps", "StatefulSet"): _assess_stateful_set,
    ("apps", "DaemonSet"): _assess_daemon_set,
    ("apps", "ReplicaSet"): _assess_replica_set,
    ("batch", "Job"): _assess_job,
    ("", "Pod"): _assess_pod,
    ("", "PersistentVolumeClaim"): _assess_claim,
    ("", "Namespace"): _assess_namespace,
    ("", "Service"): _always_ready,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _assess_crd,
    ("apiregistration.k8s.io", "APIService"): _assess_api_service,
}


def _get_api_group(body: Body) -> str:
    return str(body.get("apiVersion", "")).rpartition("/")[0]


def _get_generation(body: Body) -> int:
    return _get_count(_as_mapping(body.get("metadata")), "generation")


def _get_count(node: Mapping[str, Any], key: str, default: int = 0) -> int:
    value = node.get(key)
    return value if isinstance(value, int) else default


def _as_mapping(node: Any) -> Mapping[str, Any]:
    return node if isinstance(node, dict) else {}
