from __future__ import annotations

from typing import Any

import pytest

from kfdeploy.kubernetes.readiness import READY, Readiness, assess_readiness

Body = dict[str, Any]


def made(kind: str, spec: Body | None = None, status: Body | None = None, **meta: Any) -> Body:
    apis = {
        "CustomResourceDefinition": "apiextensions.k8s.io/v1",
        "APIService": "apiregistration.k8s.io/v1",
        "Job": "batch/v1",
        **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"), "apps/v1"),
        **dict.fromkeys(("Certificate", "Issuer"), "cert-manager.io/v1"),
    }
    return {
        "apiVersion": apis.get(kind, "v1"),
        "kind": kind,
        "metadata": {"name": "x", "generation": 2, **meta},
        "spec": spec or {},
        "status": status or {},
    }


def counts(*numbers: int, generation: int = 2, **more: Any) -> Body:
    names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    return {"observedGeneration": generation, **dict(zip(names, numbers, strict=True)), **more}


def conditions(*items: tuple[str, str], **more: Any) -> Body:
    return {"conditions": [{"type": kind, "status": value, **more} for kind, value in items]}


def nodes(desired: int, updated: int, ready: int) -> Body:
    return {
        "observedGeneration": 2,
        "desiredNumberScheduled": desired,
        "updatedNumberScheduled": updated,
        "numberReady": ready,
        "numberAvailable": ready,
    }


_STALE = "its controller has not reported on its last change yet"
_UNSEEN = "its controller has not reported yet"
_OVERDUE = {
    "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
}
_REVISIONS: Body = {"currentRevision": "a", "updateRevision": "b"}


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (made("Deployment"), "progressing", _UNSEEN),
        (made("Deployment", status=counts(1, 1, 1, 1, generation=1)), "progressing", _STALE),
        (made("Deployment", status=counts(1, 1, 1, 1)), "ready", ""),
        (made("Deployment", {"replicas": 0}, counts(0, 0, 0, 0)), "ready", ""),
        (made("Deployment", {"replicas": 3}, counts(3, 3, 1, 1)), "progressing", "1/3 ready"),
        (
            made("Deployment", status=counts(2, 1, 1, 1)),
            "progressing",
            "1/1 ready, pods of its older revision still exist",
        ),
        (
            made("Deployment", {"replicas": 2}, counts(3, 1, 2, 2)),
            "progressing",
            "2/2 ready, 1/2 updated",
        ),
        (
            made("Deployment", {"paused": True}, counts(1, 0, 1, 1)),
            "ready",
            "",
        ),
        (
            made("Deployment", status={**counts(1, 1, 0, 0), **_OVERDUE}),
            "failed",
            "0/1 ready, without progress for 600 s",
        ),
        (made("StatefulSet"), "progressing", _UNSEEN),
        (made("StatefulSet", status=counts(1, 1, 1, 1)), "ready", ""),
        (made("StatefulSet", {"replicas": 2}, counts(2, 2, 1, 1)), "progressing", "1/2 ready"),
        (
            made("StatefulSet", {"replicas": 2}, counts(2, 1, 2, 2, **_REVISIONS)),
            "progressing",
            "2/2 ready, 1/2 updated",
        ),
        (
            made(
                "StatefulSet",
                {"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}},
                counts(2, 1, 2, 2, **_REVISIONS),
            ),
            "ready",
            "",
        ),
        (
            made(
                "StatefulSet",
                {"updateStrategy": {"type": "OnDelete"}},
                counts(1, 0, 1, 1, **_REVISIONS),
            ),
            "ready",
            "",
        ),
        # Zeros are what the API server itself writes.
        (made("DaemonSet", status={"desiredNumberScheduled": 0}), "progressing", _UNSEEN),
        (made("DaemonSet", status=nodes(0, 0, 0)), "ready", ""),
        (made("DaemonSet", status=nodes(3, 3, 2)), "progressing", "2/3 ready"),
        (
            made("DaemonSet", status=nodes(3, 1, 3)),
            "progressing",
            "3/3 ready, 1/3 updated",
        ),
        (made("DaemonSet", status=nodes(3, 3, 3)), "ready", ""),
        (made("ReplicaSet", status=counts(1, 0, 0, 0)), "progressing", "0/1 ready"),
        (made("Job"), "progressing", "0/1 done"),
        (made("Job", status=conditions(("Complete", "True"))), "ready", ""),
        (made("Job", status=conditions(("Suspended", "True"))), "ready", ""),
        (
            made("Job", status=conditions(("Failed", "True"), reason="BackoffLimitExceeded")),
            "failed",
            "BackoffLimitExceeded",
        ),
        (made("Pod"), "progressing", "pending"),
        (made("Pod", status={"phase": "Running"}), "progressing", "runs, not ready"),
        (
            made("Pod", status={"phase": "Running", **conditions(("Ready", "True"))}),
            "ready",
            "",
        ),
        (made("Pod", status={"phase": "Succeeded"}), "ready", ""),
        (
            made("Pod", status={"phase": "Failed", "reason": "Evicted", "message": "no disk"}),
            "failed",
            "Evicted: no disk",
        ),
        (made("PersistentVolumeClaim", status={"phase": "Bound"}), "ready", ""),
        (made("PersistentVolumeClaim", status={"phase": "Pending"}), "progressing", "pending"),
        (made("PersistentVolumeClaim", status={"phase": "Lost"}), "failed", "lost"),
        (made("Service", {"type": "LoadBalancer"}, {"loadBalancer": {}}), "ready", ""),
        (made("CustomResourceDefinition"), "progressing", "not yet served"),
        (
            made("CustomResourceDefinition", status=conditions(("Established", "True"))),
            "ready",
            "",
        ),
        (
            made(
                "CustomResourceDefinition",
                status=conditions(("NamesAccepted", "False"), reason="PluralConflict"),
            ),
            "failed",
            "PluralConflict",
        ),
        (
            made("APIService", status=conditions(("Available", "False"), message="no endpoints")),
            "progressing",
            "no endpoints",
        ),
        (made("APIService", status=conditions(("Available", "True"))), "ready", ""),
        (made("ConfigMap"), "ready", ""),
        (made("Namespace", status={"phase": "Terminating"}), "progressing", "terminating"),
        (made("ConfigMap", deletionTimestamp="now"), "progressing", "is being deleted"),
        (made("Issuer"), "ready", ""),
        (made("Issuer", status={"observedGeneration": 1}), "progressing", _STALE),
        (made("Issuer", status=conditions(("Ready", "True"))), "ready", ""),
        (
            made("Issuer", status=conditions(("Ready", "True"), observedGeneration=1)),
            "progressing",
            _STALE,
        ),
        (
            made("Certificate", status=conditions(("Ready", "False"), reason="DoesNotExist")),
            "progressing",
            "DoesNotExist",
        ),
        (made("Certificate", status=conditions(("Available", "Unknown"))), "progressing", None),
        (made("Certificate", status=conditions(("Stalled", "True"))), "failed", "stalled"),
        (made("Certificate", status=conditions(("Reconciling", "True"))), "progressing", None),
        (made("Certificate", status=conditions(("Degraded", "True"))), "ready", ""),
    ],
)
def test_states(body: Body, status: str, reason: str | None) -> None:
    found = assess_readiness(body)
    assert found.status == status
    if reason is not None:
        assert found.reason == reason


def test_a_state_of_nothing_odd_is_ready() -> None:
    assert assess_readiness({"kind": "Odd", "status": None, "metadata": None}) == READY
    assert assess_readiness({"kind": "Odd", "status": {"conditions": "none"}}) == Readiness("ready")
