from __future__ import annotations

from typing import Any

import pytest

from kfdeploy.kubernetes.diagnosis import (
    RelatedObjects,
    explain_unready,
    mounted_claims,
    newest_pods,
    newest_replica_set,
)

Body = dict[str, Any]
DEPLOYMENT: Body = {"kind": "Deployment", "metadata": {"name": "web", "uid": "d"}}


def pod(status: Body, name: str = "web-1", **meta: Any) -> Body:
    return {"metadata": {"name": name, "uid": f"uid-{name}", **meta}, "status": status}


def container(now: Body, *, last: Body | None = None, **more: Any) -> Body:
    about = {"name": "main", "image": "registry.test/web:1", "ready": False, **more}
    return {**about, "state": now, "lastState": last or {}}


def waiting(reason: str, message: str = "", **more: Any) -> Body:
    now = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [container(now, **more)]}


def event(reason: str, message: str) -> Body:
    return {"reason": reason, "message": message, "type": "Warning"}


_EXITED = {"terminated": {"exitCode": 2, "reason": "Error", "message": "no such\n  database\n"}}
_KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
_UNSCHEDULABLE = {
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient cpu.",
        }
    ]
}


@pytest.mark.parametrize(
    ("status", "events", "text"),
    [
        (
            waiting("ErrImagePull", 'failed to resolve "registry.test/web:1": not found'),
            [],
            'ErrImagePull: failed to resolve "registry.test/web:1": not found',
        ),
        (
            waiting("ErrImagePull", "unauthorized"),
            [],
            "ErrImagePull: registry.test/web:1: unauthorized",
        ),
        (
            waiting("ImagePullBackOff", 'Back-off pulling image "registry.test/web:1"'),
            [
                event("Failed", 'Failed to pull image "registry.test/web:1": not found'),
                event("Failed", "Error: ImagePullBackOff"),
                event("BackOff", 'Back-off pulling image "registry.test/web:1"'),
            ],
            'ImagePullBackOff: Failed to pull image "registry.test/web:1": not found',
        ),
        (
            waiting("InvalidImageName", "couldn't parse"),
            [],
            "InvalidImageName: registry.test/web:1: couldn't parse",
        ),
        (
            waiting("CrashLoopBackOff", "back-off 5m0s restarting", last=_EXITED),
            [],
            "CrashLoopBackOff: container main exited 2: no such database",
        ),
        (
            waiting("CrashLoopBackOff", "back-off 5m0s restarting", last=_KILLED),
            [],
            "CrashLoopBackOff: container main was killed by the kernel: out of memory",
        ),
        (
            waiting("CreateContainerConfigError", 'secret "db" not found'),
            [],
            'CreateContainerConfigError: container main: secret "db" not found',
        ),
        (
            waiting("ContainerCreating"),
            [event("FailedMount", 'MountVolume.SetUp failed for volume "a": secret "b" not found')],
            'FailedMount: MountVolume.SetUp failed for volume "a": secret "b" not found',
        ),
        (waiting("ContainerCreating"), [], ""),
        (_UNSCHEDULABLE, [], "unschedulable: 0/3 nodes are available: 3 Insufficient cpu."),
        (
            {"containerStatuses": [container({"running": {}})]},
            [event("Unhealthy", "Readiness probe failed: code 503")],
            "container main runs, not ready: Unhealthy: Readiness probe failed: code 503",
        ),
        (
            {"containerStatuses": [container(_EXITED)]},
            [],
            "container main exited 2: no such database",
        ),
        (
            {
                "initContainerStatuses": [
                    container({"terminated": {"exitCode": 0}}, ready=True),
                    container({"running": {}}, name="wait-for-db"),
                ],
                **waiting("PodInitializing"),
            },
            [],
            "init container wait-for-db still runs",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "no disk"},
            [],
            "Evicted: no disk",
        ),
    ],
)
def test_causes_of_a_pod(status: Body, events: list[Body], text: str) -> None:
    one = pod(status)
    found = explain_unready(DEPLOYMENT, RelatedObjects(pods=[one], events={"uid-web-1": events}))
    assert found == (f"pod web-1: {text}" if text else "")


def test_pods_with_a_cause_are_counted_and_one_is_named() -> None:
    pods = [
        pod({"conditions": [{"type": "Ready", "status": "True"}]}, "web-0"),
        *(pod(waiting("ErrImagePull", "gone"), f"web-{n}") for n in (1, 2, 3)),
    ]
    text = "pod web-1: ErrImagePull: registry.test/web:1: gone (and 2 more pods)"
    assert explain_unready(DEPLOYMENT, RelatedObjects(pods=pods)) == text


def test_without_pods_the_cause_is_what_their_maker_was_refused() -> None:
    message = 'pods "web-1" is forbidden: exceeded quota: small'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
    maker = {"metadata": {"uid": "r"}, "status": {"conditions": [{**failure, "message": message}]}}
    assert explain_unready(DEPLOYMENT, RelatedObjects(makers=[maker])) == f"FailedCreate: {message}"
    quiet = {"metadata": {"uid": "r"}}
    events = {"r": [event("FailedCreate", message)]}
    assert (
        explain_unready(DEPLOYMENT, RelatedObjects(makers=[quiet], events=events))
        == f"FailedCreate: {message}"
    )
    assert explain_unready(
        DEPLOYMENT, RelatedObjects(events={"d": [event("FailedCreate", "a webhook")]})
    ) == ("FailedCreate: a webhook")


def test_an_unbound_claim_says_why_a_pod_has_no_node() -> None:
    claim = {"metadata": {"name": "data", "uid": "c"}, "status": {"phase": "Pending"}}
    events = {"c": [event("ProvisioningFailed", 'storageclass "fast" not found')]}
    found = explain_unready(
        DEPLOYMENT, RelatedObjects(pods=[pod(_UNSCHEDULABLE)], claims=[claim], events=events)
    )
    assert found == (
        "pod web-1: unschedulable: 0/3 nodes are available: 3 Insufficient cpu.;"
        ' claim data: ProvisioningFailed: storageclass "fast" not found'
    )
    assert explain_unready(claim, RelatedObjects(claims=[claim], events=events)) == (
        'ProvisioningFailed: storageclass "fast" not found'
    )


def test_long_messages_keep_their_beginning_and_their_end() -> None:
    found = explain_unready(
        DEPLOYMENT, RelatedObjects(pods=[pod(waiting("ErrImagePull", f"first {'x' * 900} last"))])
    )
    assert len(found) < 500
    assert " … " in found
    assert "first" in found
    assert found.endswith("last")


def test_only_pods_of_the_newest_form_count() -> None:
    def replica_set(name: str, revision: str) -> Body:
        return {
            "metadata": {
                "name": name,
                "uid": name,
                "annotations": {"deployment.kubernetes.io/revision": revision},
                "ownerReferences": [{"uid": "d"}],
            }
        }

    sets = [replica_set("old", "9"), replica_set("new", "10")]
    other = {"metadata": {"uid": "z", "ownerReferences": [{"uid": "other"}]}}
    newest = newest_replica_set(DEPLOYMENT, [*sets, other])
    assert newest is sets[1]
    pods = [
        pod({}, "a", ownerReferences=[{"uid": "old"}]),
        pod({}, "b", ownerReferences=[{"uid": "new"}]),
        pod({}, "c", ownerReferences=[{"uid": "new"}], deletionTimestamp="now"),
    ]
    assert newest_pods(DEPLOYMENT, [sets[1]], pods) == [pods[1]]


def test_of_a_stateful_set_older_pods_count_where_there_are_no_others() -> None:
    body = {"metadata": {"uid": "s"}, "status": {"updateRevision": "b"}}

    def made(name: str, form: str) -> Body:
        labels = {"controller-revision-hash": form}
        return pod({}, name, labels=labels, ownerReferences=[{"uid": "s"}])

    old, new = made("db-0", "a"), made("db-1", "b")
    assert newest_pods(body, [], [old, new]) == [new]
    assert newest_pods(body, [], [old]) == [old]


def test_claims_that_pods_mount() -> None:
    volumes = [{"persistentVolumeClaim": {"claimName": "data"}}, {"emptyDir": {}}]
    assert mounted_claims([{"spec": {"volumes": volumes}}, {}]) == {"data"}
