"""Explain in one line why a workload is not ready, from its pods and their events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kfdeploy.kubernetes.accessors import (
    Body,
    get_annotations,
    get_labels,
    get_mapping,
    get_metadata,
    get_name,
    get_status,
    get_text,
    get_uid,
    is_being_deleted,
    list_mappings,
    list_owner_references,
)
from kfdeploy.kubernetes.readiness import describe_condition, find_condition

_MESSAGE_MAX: Final = 400
"""Characters of a message that are shown. A container runtime has the cause at the end."""
_STARTING: Final = frozenset(("ContainerCreating", "PodInitializing"))
"""Reasons of a container that waits in the normal course of events."""
_IMAGE_REASONS: Final = frozenset(("RegistryUnavailable", "SignatureValidationFailed"))
"""Reasons of a failed pull that have no ``Image`` in their name."""
_UNHELPFUL_EVENTS: Final = frozenset(("BackOff", "FailedToRetrieveImagePullSecret"))
"""Warnings that repeat others, or that pods get too whose node has the image already."""
_REVISION_HASH: Final = "controller-revision-hash"


@dataclass(frozen=True, slots=True)
class RelatedObjects:
    """The objects that belong to a workload.

    Attributes:
        makers: what creates its pods for it: the newest ReplicaSet of a Deployment; else empty.
        pods: pods of its newest revision.
        claims: claims of those pods, or the claim itself if that is the object to explain.
        events: warnings by the uid of the object that they are about, oldest first.
    """

    makers: Sequence[Body] = ()
    pods: Sequence[Body] = ()
    claims: Sequence[Body] = ()
    events: Mapping[str, Sequence[Body]] = field(default_factory=dict)


def explain_unready(body: Body, related: RelatedObjects) -> str:
    """Return the cause; empty if nothing says one."""
    explained = [(pod, text) for pod in related.pods if (text := _explain_pod(pod, related))]
    if explained:
        pod, text = explained[0]
        others = len(explained) - 1
        more = f" (and {others} more pod{'s' if others > 1 else ''})" if others else ""
        return f"pod {get_name(pod)}: {text}{more}"
    for maker in (*related.makers, body):
        # No pod was created: a quota, an admission webhook, a missing service account.
        failure = find_condition(maker, "ReplicaFailure")
        if failure.get("status") == "True":
            return _shorten_text(describe_condition(failure))
        if text := _last_warning(maker, related):
            return text
    return _explain_claims(related.claims, related)


def newest_replica_set(deployment: Body, sets: Iterable[Body]) -> Body | None:
    """Return the ReplicaSet of a Deployment's newest revision."""
    uid = get_uid(deployment)
    own = [item for item in sets if uid in owner_uids(item)]
    return max(own, key=_revision_key, default=None)


def newest_pods(workload: Body, makers: Sequence[Body], pods: Iterable[Body]) -> list[Body]:
    """Return a workload's pods, newest first; of its newest revision where it has such pods."""
    uids = {get_uid(item) for item in makers} or {get_uid(workload)}
    own = [
        pod
        for pod in pods
        if (uids & owner_uids(pod) or get_uid(pod) in uids) and not is_being_deleted(pod)
    ]
    own.sort(key=lambda pod: (_get_creation_time(pod), get_name(pod)), reverse=True)
    revision = get_status(workload).get("updateRevision")
    # A pod of an older revision that is not ready keeps a StatefulSet from updating.
    newest = [pod for pod in own if revision and get_labels(pod).get(_REVISION_HASH) == revision]
    return newest or own


def mounted_claims(pods: Iterable[Body]) -> set[str]:
    """Return the names of the claims that pods mount."""
    return {
        get_text(volume, "persistentVolumeClaim", "claimName")
        for pod in pods
        for volume in list_mappings(pod, "spec", "volumes")
        if volume.get("persistentVolumeClaim")
    }


def owner_uids(body: Body) -> set[str]:
    """Return the uids of an object's owners."""
    return {get_text(owner, "uid") for owner in list_owner_references(body)}


def event_text(event: Body) -> str:
    """Return an event's reason and message on one line."""
    return _shorten_text(describe_condition(event))


def _explain_pod(pod: Body, related: RelatedObjects) -> str:
    """Return what keeps a pod from being ready; empty if it is ready."""
    status = get_status(pod)
    if status.get("phase") == "Succeeded" or find_condition(pod, "Ready").get("status") == "True":
        return ""
    scheduled = find_condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        text = f"unschedulable: {_shorten_text(str(scheduled.get('message') or ''))}".rstrip(": ")
        # The scheduler says that claims are unbound. Only their events say why.
        cause = _explain_claims(related.claims, related)
        return f"{text}; {cause}" if cause else text
    if status.get("phase") == "Failed" and not status.get("containerStatuses"):
        return _shorten_text(describe_condition(status)) or "failed"
    for container in _unready_containers(pod):
        if text := _explain_container(pod, container, related):
            return text
    return _last_warning(pod, related)


@dataclass(frozen=True, slots=True)
class _Container:
    """One container's status.

    Attributes:
        is_initial: it is an init container.
    """

    status: Body
    is_initial: bool

    @property
    def state(self) -> Body:
        return get_mapping(self.status, "state")

    def __str__(self) -> str:
        return f"{'init ' if self.is_initial else ''}container {self.status.get('name')}"


def _unready_containers(pod: Body) -> Iterator[_Container]:
    status = get_status(pod)
    for item in list_mappings(status, "initContainerStatuses"):
        if not item.get("ready") or not item.get("state"):
            yield _Container(item, is_initial=True)
    for item in list_mappings(status, "containerStatuses"):
        if not item.get("ready"):
            yield _Container(item, is_initial=False)


def _explain_container(pod: Body, container: _Container, related: RelatedObjects) -> str:
    state = container.state
    if waiting := get_mapping(state, "waiting"):
        return _explain_waiting(pod, container, waiting, related)
    if ended := get_mapping(state, "terminated"):
        is_done = container.is_initial and not ended.get("exitCode")
        return "" if is_done else f"{container} {_describe_exit(ended)}"
    if state.get("running") is None:
        return ""
    if container.is_initial:
        return f"{container} still runs"
    return _join_parts(f"{container} runs, not ready", _last_warning(pod, related))


def _explain_waiting(
    pod: Body, container: _Container, waiting: Body, related: RelatedObjects
) -> str:
    reason = get_text(waiting, "reason") or "waiting"
    message = _shorten_text(get_text(waiting, "message"))
    if reason in _STARTING:
        # Each container of a pod that has just started says so. Events say what keeps it.
        return _last_warning(pod, related)
    if "Image" in reason or reason in _IMAGE_REASONS:
        if reason == "ImagePullBackOff":
            message = _find_pull_failure(pod, related) or message
        image = get_text(container.status, "image")
        return _join_parts(reason, "" if image in message else image, message)
    last = get_mapping(container.status, "lastState", "terminated")
    if reason == "CrashLoopBackOff" and last:
        return f"{reason}: {container} {_describe_exit(last)}"
    return _join_parts(reason, str(container), message)


def _find_pull_failure(pod: Body, related: RelatedObjects) -> str:
    """Return what the last pull failed with.

    Between two attempts the container's status says only that it waits.
    """
    for event in reversed(related.events.get(get_uid(pod), ())):
        message = get_text(event, "message")
        if event.get("reason") == "Failed" and "pull" in message:
            return _shorten_text(message)
    return ""


def _describe_exit(ended: Body) -> str:
    code, reason = ended.get("exitCode"), ended.get("reason")
    text = "was killed by the kernel: out of memory" if reason == "OOMKilled" else f"exited {code}"
    # The message has the container's last lines if its terminationMessagePolicy asks for them.
    return _join_parts(text, _shorten_text(get_text(ended, "message")))


def _explain_claims(claims: Sequence[Body], related: RelatedObjects) -> str:
    for claim in claims:
        is_bound = get_status(claim).get("phase") == "Bound"
        if not is_bound and (text := _last_warning(claim, related)):
            return f"claim {get_name(claim)}: {text}"
    return ""


def _last_warning(body: Body, related: RelatedObjects) -> str:
    for event in reversed(related.events.get(get_uid(body), ())):
        if event.get("reason") not in _UNHELPFUL_EVENTS:
            return event_text(event)
    return ""


def _shorten_text(text: str) -> str:
    """Return a text on one line: all of it, or its beginning and its end."""
    line = " ".join(text.split())
    if len(line) <= _MESSAGE_MAX:
        return line
    half = _MESSAGE_MAX // 2
    return f"{line[:half].rstrip()} … {line[-half:].lstrip()}"


def _join_parts(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def _revision_key(body: Body) -> tuple[int, str]:
    text = get_text(get_annotations(body), "deployment.kubernetes.io/revision")
    return (int(text) if text.isdigit() else 0), _get_creation_time(body)


def _get_creation_time(body: Body) -> str:
    return get_text(get_metadata(body), "creationTimestamp")
