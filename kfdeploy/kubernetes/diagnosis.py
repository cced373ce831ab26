"""Why a workload is not ready, from its pods and their events, in a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfdeploy.kubernetes.readiness import describe_condition, find_condition

Body = Mapping[str, Any]
_LONG = 400
"""Characters of a message that are shown: the cause is at the end of what a runtime says."""
_BEGINNING = frozenset(("ContainerCreating", "PodInitializing"))
"""What a container waits for in the normal course of things; events say what keeps it."""
_NOT_TOLD = frozenset(("BackOff", "FailedToRetrieveImagePullSecret"))
"""Warnings that only repeat, or that pods with an image at hand have too."""


@dataclass(frozen=True, slots=True)
class RelatedObjects:
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


def explain_unready(body: Body, related: RelatedObjects) -> str:
    """The cause, or an empty text where nothing says one."""
    told = [(pod, text) for pod in related.pods if (text := _explain_pod(pod, related))]
    if told:
        pod, text = told[0]
        others = len(told) - 1
        more = f" (and {others} pod{'s' if others > 1 else ''} more)" if others else ""
        return f"pod {_get_name(pod)}: {text}{more}"
    for maker in (*related.makers, body):
        # Quota, an admission webhook, a service account that is not there: no pod was made.
        failure = find_condition(maker, "ReplicaFailure")
        if failure.get("status") == "True":
            return _shorten_text(describe_condition(failure))
        if text := _last_warning(maker, related):
            return text
    return _explain_claims(related.claims, related)


def newest_replica_set(deployment: Body, sets: Iterable[Body]) -> Body | None:
    """Of a Deployment's ReplicaSets the one of its newest form."""
    uid = _get_uid(deployment)
    own = [item for item in sets if uid in owner_uids(item)]
    return max(own, key=_revision_key, default=None)


def newest_pods(workload: Body, makers: Sequence[Body], pods: Iterable[Body]) -> list[Body]:
    """The pods that count: of a workload's newest form where there are some, newest first."""
    uids = {_get_uid(item) for item in makers} or {_get_uid(workload)}
    own = [
        pod
        for pod in pods
        if (uids & owner_uids(pod) or _get_uid(pod) in uids)
        and not _get_metadata(pod).get("deletionTimestamp")
    ]
    own.sort(key=lambda pod: (str(_get_metadata(pod).get("creationTimestamp", "")), _get_name(pod)))
    own.reverse()
    revision = (workload.get("status") or {}).get("updateRevision")
    if revision:
        # A pod of an older form that is not ready keeps a StatefulSet from going on.
        form = "controller-revision-hash"
        newest = [p for p in own if (_get_metadata(p).get("labels") or {}).get(form) == revision]
        own = newest or own
    return own


def mounted_claims(pods: Iterable[Body]) -> set[str]:
    """The names of the claims that pods mount."""
    return {
        str(volume["persistentVolumeClaim"].get("claimName", ""))
        for pod in pods
        for volume in (pod.get("spec") or {}).get("volumes") or ()
        if volume.get("persistentVolumeClaim")
    }


def owner_uids(body: Body) -> set[str]:
    """The uids of an object's owners."""
    return {str(item.get("uid", "")) for item in _get_metadata(body).get("ownerReferences") or ()}


def event_text(event: Body) -> str:
    return _shorten_text(describe_condition(event))


def _explain_pod(pod: Body, related: RelatedObjects) -> str:
    """What keeps a pod from being ready; empty for one that is."""
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded" or find_condition(pod, "Ready").get("status") == "True":
        return ""
    scheduled = find_condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        text = f"unschedulable: {_shorten_text(str(scheduled.get('message') or ''))}".rstrip(": ")
        # The scheduler says that claims are unbound, and only their events say why.
        cause = _explain_claims(related.claims, related)
        return f"{text}; {cause}" if cause else text
    if status.get("phase") == "Failed" and not status.get("containerStatuses"):
        return _shorten_text(describe_condition(status)) or "failed"
    for container, initial in _unready_containers(pod):
        if text := _explain_container(pod, container, initial, related):
            return text
    return _last_warning(pod, related)


def _unready_containers(pod: Body) -> Iterator[tuple[Body, bool]]:
    status = pod.get("status") or {}
    for item in status.get("initContainerStatuses") or ():
        if not item.get("ready") or not (item.get("state") or {}):
            yield item, True
    for item in status.get("containerStatuses") or ():
        if not item.get("ready"):
            yield item, False


def _explain_container(pod: Body, container: Body, initial: bool, related: RelatedObjects) -> str:
    name = f"{'init ' if initial else ''}container {container.get('name')}"
    now = container.get("state") or {}
    if waiting := now.get("waiting"):
        return _explain_waiting(pod, container, name, waiting, related)
    if ended := now.get("terminated"):
        return "" if initial and not ended.get("exitCode") else f"{name} {_describe_exit(ended)}"
    if now.get("running") is not None:
        if initial:
            return f"{name} still runs"
        text = _last_warning(pod, related)
        return f"{name} runs, not ready{f': {text}' if text else ''}"
    return ""


def _explain_waiting(
    pod: Body, container: Body, name: str, waiting: Mapping[str, Any], related: RelatedObjects
) -> str:
    reason = str(waiting.get("reason") or "waiting")
    message = _shorten_text(str(waiting.get("message") or ""))
    if reason in _BEGINNING:
        # A pod that has just begun says so of each of its containers.
        return _last_warning(pod, related)
    if "Image" in reason or reason in ("RegistryUnavailable", "SignatureValidationFailed"):
        image = str(container.get("image") or "")
        if reason == "ImagePullBackOff":
            message = _pull_failure(pod, related) or message
        there = not image or image in message
        return ": ".join(part for part in (reason, "" if there else image, message) if part)
    if reason == "CrashLoopBackOff":
        last = (container.get("lastState") or {}).get("terminated") or {}
        return (
            f"{reason}: {name} {_describe_exit(last)}" if last else f"{reason}: {name}: {message}"
        )
    return f"{reason}: {name}{f': {message}' if message else ''}"


def _pull_failure(pod: Body, related: RelatedObjects) -> str:
    """Between two attempts a container says only that it waits; the event has what failed."""
    for event in reversed(related.events.get(_get_uid(pod), ())):
        if event.get("reason") == "Failed" and "pull" in str(event.get("message", "")):
            return _shorten_text(str(event["message"]))
    return ""


def _describe_exit(ended: Mapping[str, Any]) -> str:
    code, reason = ended.get("exitCode"), ended.get("reason")
    text = "was ended by the kernel: out of memory" if reason == "OOMKilled" else f"exited {code}"
    # Its last lines, where the container asks for them (terminationMessagePolicy).
    message = _shorten_text(str(ended.get("message") or ""))
    return f"{text}: {message}" if message else text


def _explain_claims(claims: Sequence[Body], related: RelatedObjects) -> str:
    for claim in claims:
        if (claim.get("status") or {}).get("phase") != "Bound" and (
            text := _last_warning(claim, related)
        ):
            return f"claim {_get_name(claim)}: {text}"
    return ""


def _last_warning(body: Body, related: RelatedObjects) -> str:
    for event in reversed(related.events.get(_get_uid(body), ())):
        if event.get("reason") not in _NOT_TOLD:
            return event_text(event)
    return ""


def _shorten_text(text: str) -> str:
    """On one line; of a long one its beginning and its end."""
    line = " ".join(text.split())
    if len(line) <= _LONG:
        return line
    return f"{line[: _LONG // 2].rstrip()} … {line[-_LONG // 2 :].lstrip()}"


def _revision_key(body: Body) -> tuple[int, str]:
    meta = _get_metadata(body)
    text = (meta.get("annotations") or {}).get("deployment.kubernetes.io/revision", "")
    return (int(text) if text.isdigit() else 0), str(meta.get("creationTimestamp", ""))


def _get_metadata(body: Body) -> Mapping[str, Any]:
    return body.get("metadata") or {}


def _get_name(body: Body) -> str:
    return str(_get_metadata(body).get("name", ""))


def _get_uid(body: Body) -> str:
    return str(_get_metadata(body).get("uid", ""))
