"""Why a workload is not ready, from its pods and their events, in a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfdeploy.kubernetes.readiness import condition, says

Body = Mapping[str, Any]
_LONG = 400
"""Characters of a message that are shown: the cause is at the end of what a runtime says."""
_BEGINNING = frozenset(("ContainerCreating", "PodInitializing"))
"""What a container waits for in the normal course of things; events say what keeps it."""
_NOT_TOLD = frozenset(("BackOff", "FailedToRetrieveImagePullSecret"))
"""Warnings that only repeat, or that pods with an image at hand have too."""


@dataclass(frozen=True, slots=True)
class Around:
    """What belongs to a workload.

    Attributes:
        makers: what makes its pods for it: the newest ReplicaSet of a Deployment; else empty.
        pods: the pods of its newest form.
        claims: the claims of those pods, and a claim itself where that is waited for.
        events: warnings about any of them, by the uid of what they are about, oldest first.
    """

    makers: Sequence[Body] = ()
    pods: Sequence[Body] = ()
    claims: Sequence[Body] = ()
    events: Mapping[str, Sequence[Body]] = field(default_factory=dict)


def why(body: Body, around: Around) -> str:
    """The cause, or an empty text where nothing says one."""
    told = [(pod, text) for pod in around.pods if (text := _of_pod(pod, around))]
    if told:
        pod, text = told[0]
        others = len(told) - 1
        more = f" (and {others} pod{'s' if others > 1 else ''} more)" if others else ""
        return f"pod {_name(pod)}: {text}{more}"
    for maker in (*around.makers, body):
        # Quota, an admission webhook, a service account that is not there: no pod was made.
        failure = condition(maker, "ReplicaFailure")
        if failure.get("status") == "True":
            return _short(says(failure))
        if text := _warning(maker, around):
            return text
    return _of_claims(around.claims, around)


def newest_replica_set(deployment: Body, sets: Iterable[Body]) -> Body | None:
    """Of a Deployment's ReplicaSets the one of its newest form."""
    uid = _uid(deployment)
    own = [item for item in sets if uid in owners(item)]
    return max(own, key=_revision, default=None)


def newest_pods(workload: Body, makers: Sequence[Body], pods: Iterable[Body]) -> list[Body]:
    """The pods that count: of a workload's newest form where there are some, newest first."""
    uids = {_uid(item) for item in makers} or {_uid(workload)}
    own = [
        pod
        for pod in pods
        if (uids & owners(pod) or _uid(pod) in uids) and not _meta(pod).get("deletionTimestamp")
    ]
    own.sort(key=lambda pod: (str(_meta(pod).get("creationTimestamp", "")), _name(pod)))
    own.reverse()
    revision = (workload.get("status") or {}).get("updateRevision")
    if revision:
        # A pod of an older form that is not ready keeps a StatefulSet from going on.
        form = "controller-revision-hash"
        newest = [p for p in own if (_meta(p).get("labels") or {}).get(form) == revision]
        own = newest or own
    return own


def claims_of(pods: Iterable[Body]) -> set[str]:
    """The names of the claims that pods mount."""
    return {
        str(volume["persistentVolumeClaim"].get("claimName", ""))
        for pod in pods
        for volume in (pod.get("spec") or {}).get("volumes") or ()
        if volume.get("persistentVolumeClaim")
    }


def owners(body: Body) -> set[str]:
    """The uids of an object's owners."""
    return {str(item.get("uid", "")) for item in _meta(body).get("ownerReferences") or ()}


def event_text(event: Body) -> str:
    return _short(says(event))


def _of_pod(pod: Body, around: Around) -> str:
    """What keeps a pod from being ready; empty for one that is."""
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded" or condition(pod, "Ready").get("status") == "True":
        return ""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        text = f"unschedulable: {_short(str(scheduled.get('message') or ''))}".rstrip(": ")
        # The scheduler says that claims are unbound, and only their events say why.
        cause = _of_claims(around.claims, around)
        return f"{text}; {cause}" if cause else text
    if status.get("phase") == "Failed" and not status.get("containerStatuses"):
        return _short(says(status)) or "failed"
    for container, initial in _containers(pod):
        if text := _of_container(pod, container, initial, around):
            return text
    return _warning(pod, around)


def _containers(pod: Body) -> Iterator[tuple[Body, bool]]:
    status = pod.get("status") or {}
    for item in status.get("initContainerStatuses") or ():
        if not item.get("ready") or not (item.get("state") or {}):
            yield item, True
    for item in status.get("containerStatuses") or ():
        if not item.get("ready"):
            yield item, False


def _of_container(pod: Body, container: Body, initial: bool, around: Around) -> str:
    name = f"{'init ' if initial else ''}container {container.get('name')}"
    now = container.get("state") or {}
    if waiting := now.get("waiting"):
        return _waiting(pod, container, name, waiting, around)
    if ended := now.get("terminated"):
        return "" if initial and not ended.get("exitCode") else f"{name} {_ended(ended)}"
    if now.get("running") is not None:
        if initial:
            return f"{name} still runs"
        text = _warning(pod, around)
        return f"{name} runs, not ready{f': {text}' if text else ''}"
    return ""


def _waiting(
    pod: Body, container: Body, name: str, waiting: Mapping[str, Any], around: Around
) -> str:
    reason = str(waiting.get("reason") or "waiting")
    message = _short(str(waiting.get("message") or ""))
    if reason in _BEGINNING:
        # A pod that has just begun says so of each of its containers.
        return _warning(pod, around)
    if "Image" in reason or reason in ("RegistryUnavailable", "SignatureValidationFailed"):
        image = str(container.get("image") or "")
        if reason == "ImagePullBackOff":
            message = _pull_failure(pod, around) or message
        there = not image or image in message
        return ": ".join(part for part in (reason, "" if there else image, message) if part)
    if reason == "CrashLoopBackOff":
        last = (container.get("lastState") or {}).get("terminated") or {}
        return f"{reason}: {name} {_ended(last)}" if last else f"{reason}: {name}: {message}"
    return f"{reason}: {name}{f': {message}' if message else ''}"


def _pull_failure(pod: Body, around: Around) -> str:
    """Between two attempts a container says only that it waits; the event has what failed."""
    for event in reversed(around.events.get(_uid(pod), ())):
        if event.get("reason") == "Failed" and "pull" in str(event.get("message", "")):
            return _short(str(event["message"]))
    return ""


def _ended(ended: Mapping[str, Any]) -> str:
    code, reason = ended.get("exitCode"), ended.get("reason")
    text = "was ended by the kernel: out of memory" if reason == "OOMKilled" else f"exited {code}"
    # Its last lines, where the container asks for them (terminationMessagePolicy).
    message = _short(str(ended.get("message") or ""))
    return f"{text}: {message}" if message else text


def _of_claims(claims: Sequence[Body], around: Around) -> str:
    for claim in claims:
        if (claim.get("status") or {}).get("phase") != "Bound" and (
            text := _warning(claim, around)
        ):
            return f"claim {_name(claim)}: {text}"
    return ""


def _warning(body: Body, around: Around) -> str:
    for event in reversed(around.events.get(_uid(body), ())):
        if event.get("reason") not in _NOT_TOLD:
            return event_text(event)
    return ""


def _short(text: str) -> str:
    """On one line; of a long one its beginning and its end."""
    line = " ".join(text.split())
    if len(line) <= _LONG:
        return line
    return f"{line[: _LONG // 2].rstrip()} … {line[-_LONG // 2 :].lstrip()}"


def _revision(body: Body) -> tuple[int, str]:
    meta = _meta(body)
    text = (meta.get("annotations") or {}).get("deployment.kubernetes.io/revision", "")
    return (int(text) if text.isdigit() else 0), str(meta.get("creationTimestamp", ""))


def _meta(body: Body) -> Mapping[str, Any]:
    return body.get("metadata") or {}


def _name(body: Body) -> str:
    return str(_meta(body).get("name", ""))


def _uid(body: Body) -> str:
    return str(_meta(body).get("uid", ""))
