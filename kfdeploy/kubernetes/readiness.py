"""Assess whether an object of the cluster is ready, by what its controller wrote into it.

The rules are those of kstatus (sigs.k8s.io/cli-utils, ``pkg/kstatus``), except for three:

- A workload that its controller has not looked at yet is not ready. A DaemonSet's counts are zero
  until then.
- A Job is ready when it is done.
- A Service is ready without its load balancer, which an isolated cluster may never have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from kfdeploy.kubernetes.accessors import (
    Body,
    get_api_group,
    get_mapping,
    get_spec,
    get_status,
    get_text,
    get_value,
    is_being_deleted,
    list_mappings,
)

Status = Literal["ready", "progressing", "failed"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of an object.

    Attributes:
        status: ``failed`` if waiting will not make the object ready.
        reason: a few words; empty for an object that is ready.
    """

    status: Status
    reason: str = ""

    @property
    def is_ready(self) -> bool:
        return self.status == "ready"


READY: Final = Readiness("ready")
_CHANGE_NOT_SEEN: Final = Readiness(
    "progressing", "its controller has not reported on its last change yet"
)


def _progressing(reason: str) -> Readiness:
    return Readiness("progressing", reason)


def _failed(reason: str) -> Readiness:
    return Readiness("failed", reason)


def assess_readiness(body: Body) -> Readiness:
    """Return the state of a live object, given in full as the API server has it."""
    if is_being_deleted(body):
        return _progressing("is being deleted")
    assess = _ASSESSMENTS.get((get_api_group(body), get_text(body, "kind")), _assess_other)
    return assess(body)


def find_condition(body: Body, kind: str) -> Body:
    """Return the condition of a type; empty if there is none."""
    conditions = list_mappings(body, "status", "conditions")
    return next((item for item in conditions if item.get("type") == kind), {})


def describe_condition(condition: Body) -> str:
    """Return a condition's reason and message, as far as it has them."""
    parts = (condition.get("reason"), condition.get("message"))
    return ": ".join(str(part) for part in parts if part)


def _has_condition(body: Body, kind: str) -> bool:
    return find_condition(body, kind).get("status") == "True"


# -- workloads -------------------------------------------------------------------------------------


def _check_observed(body: Body) -> Readiness | None:
    """Return why a status is out of date; None if its controller has seen the last change."""
    seen = get_value(body, "status", "observedGeneration")
    if not isinstance(seen, int):
        return _progressing("its controller has not reported yet")
    return _CHANGE_NOT_SEEN if seen < _get_generation(body) else None


def _assess_deployment(body: Body) -> Readiness:
    spec, status = get_spec(body), get_status(body)
    wanted = _get_count(spec, "replicas", 1)
    ready, available = _get_count(status, "readyReplicas"), _get_count(status, "availableReplicas")
    text = f"{min(ready, wanted)}/{wanted} ready"
    if find_condition(body, "Progressing").get("reason") == "ProgressDeadlineExceeded":
        limit = _get_count(spec, "progressDeadlineSeconds", 600)
        return _failed(f"{text}, without progress for {limit} s")
    # A paused Deployment is not rolled out by anybody.
    if not spec.get("paused"):
        updated = _get_count(status, "updatedReplicas")
        if updated < wanted:
            return _progressing(f"{text}, {updated}/{wanted} updated")
        if _get_count(status, "replicas") > updated:
            return _progressing(f"{text}, pods of its older revision still exist")
    if min(available, ready) < wanted:
        return _progressing(text)
    if find_condition(body, "Available").get("status", "True") != "True":
        return _progressing(f"{text}, not yet available")
    return READY


def _assess_stateful_set(body: Body) -> Readiness:
    spec, status = get_spec(body), get_status(body)
    wanted, ready = _get_count(spec, "replicas", 1), _get_count(status, "readyReplicas")
    text = f"{min(ready, wanted)}/{wanted} ready"
    if ready < wanted:
        return _progressing(text)
    strategy = get_mapping(spec, "updateStrategy")
    if strategy.get("type") == "OnDelete":
        return READY
    newest = status.get("updateRevision")
    if newest and newest != status.get("currentRevision"):
        partition = _get_count(get_mapping(strategy, "rollingUpdate"), "partition")
        updated, due = _get_count(status, "updatedReplicas"), max(wanted - partition, 0)
        if updated < due:
            return _progressing(f"{text}, {updated}/{due} updated")
    return READY


def _assess_daemon_set(body: Body) -> Readiness:
    status = get_status(body)
    wanted = _get_count(status, "desiredNumberScheduled")
    ready = min(_get_count(status, "numberReady"), _get_count(status, "numberAvailable"))
    text = f"{min(ready, wanted)}/{wanted} ready"
    if get_value(body, "spec", "updateStrategy", "type") != "OnDelete":
        updated = _get_count(status, "updatedNumberScheduled")
        if updated < wanted:
            return _progressing(f"{text}, {updated}/{wanted} updated")
    return READY if ready >= wanted else _progressing(text)


def _assess_replica_set(body: Body) -> Readiness:
    status, wanted = get_status(body), _get_count(get_spec(body), "replicas", 1)
    ready = min(_get_count(status, "readyReplicas"), _get_count(status, "availableReplicas"))
    return READY if ready >= wanted else _progressing(f"{ready}/{wanted} ready")


def _once_observed(assess: Callable[[Body], Readiness]) -> Callable[[Body], Readiness]:
    """Assess a workload by its status, once that is of its last change."""
    return lambda body: _check_observed(body) or assess(body)


def _assess_job(body: Body) -> Readiness:
    for kind in ("Failed", "FailureTarget"):
        if (condition := find_condition(body, kind)).get("status") == "True":
            return _failed(describe_condition(condition) or "failed")
    if any(_has_condition(body, kind) for kind in ("Complete", "SuccessCriteriaMet", "Suspended")):
        return READY
    done = _get_count(get_status(body), "succeeded")
    return _progressing(f"{done}/{_get_count(get_spec(body), 'completions', 1)} done")


def _assess_pod(body: Body) -> Readiness:
    phase = _get_phase(body, "Pending")
    if phase == "Failed":
        return _failed(describe_condition(get_status(body)) or "failed")
    if phase == "Succeeded" or (phase == "Running" and _has_condition(body, "Ready")):
        return READY
    return _progressing("runs, not ready" if phase == "Running" else phase.lower())


# -- other kinds of Kubernetes ---------------------------------------------------------------------


def _assess_claim(body: Body) -> Readiness:
    phase = _get_phase(body, "Pending")
    if phase == "Bound":
        return READY
    return Readiness("failed" if phase == "Lost" else "progressing", phase.lower())


def _assess_crd(body: Body) -> Readiness:
    accepted = find_condition(body, "NamesAccepted")
    if accepted.get("status") == "False":
        return _failed(describe_condition(accepted) or "its names are taken")
    return _require_condition(body, "Established", "not yet served")


def _assess_api_service(body: Body) -> Readiness:
    return _require_condition(body, "Available", "not yet available")


def _require_condition(body: Body, kind: str, otherwise: str) -> Readiness:
    condition = find_condition(body, kind)
    if condition.get("status") == "True":
        return READY
    return _progressing(describe_condition(condition) or otherwise)


def _assess_namespace(body: Body) -> Readiness:
    phase = _get_phase(body, "Active")
    return READY if phase == "Active" else _progressing(phase.lower())


def _always_ready(body: Body) -> Readiness:
    return READY


_ASSESSMENTS: Final[dict[tuple[str, str], Callable[[Body], Readiness]]] = {
    ("apps", "Deployment"): _once_observed(_assess_deployment),
    ("apps", "StatefulSet"): _once_observed(_assess_stateful_set),
    ("apps", "DaemonSet"): _once_observed(_assess_daemon_set),
    ("apps", "ReplicaSet"): _once_observed(_assess_replica_set),
    ("batch", "Job"): _assess_job,
    ("", "Pod"): _assess_pod,
    ("", "PersistentVolumeClaim"): _assess_claim,
    ("", "Namespace"): _assess_namespace,
    ("", "Service"): _always_ready,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _assess_crd,
    ("apiregistration.k8s.io", "APIService"): _assess_api_service,
}


# -- kinds of others -------------------------------------------------------------------------------


def _assess_other(body: Body) -> Readiness:
    """Assess an object by the conditions that controllers commonly write."""
    generation = _get_generation(body)
    if _is_older(get_status(body), generation):
        return _CHANGE_NOT_SEEN
    if (stalled := find_condition(body, "Stalled")).get("status") == "True":
        return _failed(describe_condition(stalled) or "stalled")
    if (busy := find_condition(body, "Reconciling")).get("status") == "True":
        return _progressing(describe_condition(busy) or "being reconciled")
    condition = find_condition(body, "Ready") or find_condition(body, "Available")
    if _is_older(condition, generation):
        return _CHANGE_NOT_SEEN
    if condition and condition.get("status") != "True":
        otherwise = f"not {str(condition['type']).lower()}"
        return _progressing(describe_condition(condition) or otherwise)
    return READY


def _is_older(status: Body, generation: int) -> bool:
    """Return whether a status, or a condition, says that it is of an older generation."""
    seen = status.get("observedGeneration")
    return isinstance(seen, int) and seen < generation


def _get_generation(body: Body) -> int:
    return _get_count(get_mapping(body, "metadata"), "generation")


def _get_phase(body: Body, default: str) -> str:
    return get_text(body, "status", "phase") or default


def _get_count(node: Body, key: str, default: int = 0) -> int:
    value = node.get(key)
    return value if isinstance(value, int) else default
