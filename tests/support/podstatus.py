"""What a kubelet would write into a pod's status, and the events it would write beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.kubeapi import Body, now

Word = tuple[str, str]
"""An event's reason and message; all of them are warnings."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pod fares: equal ones need not be written twice."""

    how: str
    container: str = ""
    message: str = ""


def outcome(pod: Body, missing: Sequence[Word], fault: Mapping[str, Any] | None) -> Outcome:
    """What becomes of a pod that lacks ``missing``, and that ``fault`` is for."""
    if missing:
        reason, message = missing[0]
        how = "config" if reason == "Failed" else "mount"
        return Outcome(how, pod["spec"]["containers"][0]["name"], message)
    if fault and fault["kind"] != "slow":
        return Outcome(fault["kind"], _faulty_container(pod, fault["image"]))
    return Outcome("succeeded" if ends(pod) else "running")


def ends(pod: Body) -> bool:
    """Whether its containers come to an end, as a job's do; nobody here says that they fail."""
    return bool(pod["spec"].get("restartPolicy", "Always") != "Always")


def is_for(fault: Mapping[str, Any], pod: Body) -> bool:
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    if not re.match(fault["pod"], name):
        return False
    return not fault["image"] or any(
        re.search(fault["image"], container["image"]) for container in _containers(pod)
    )


def needed(pod: Body) -> Iterator[tuple[str, str, Word]]:
    """Kind and name of each ConfigMap and Secret without which it does not start, and the words."""
    for volume in pod["spec"].get("volumes") or ():
        sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
        for source in sources:
            for kind, field, key in (
                ("secrets", "secret", "secretName" if source is volume else "name"),
                ("configmaps", "configMap", "name"),
            ):
                if (content := source.get(field)) and not content.get("optional"):
                    one = {"secrets": "secret", "configmaps": "configmap"}[kind]
                    said = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {one}'
                    yield kind, content[key], ("FailedMount", f'{said} "{content[key]}" not found')
    for container in _containers(pod):
        read = [each.get("valueFrom") or {} for each in container.get("env") or ()]
        for source in (*read, *(container.get("envFrom") or ())):
            for kind, fields in (
                ("secrets", ("secretKeyRef", "secretRef")),
                ("configmaps", ("configMapKeyRef", "configMapRef")),
            ):
                for field in fields:
                    if (content := source.get(field)) and not content.get("optional"):
                        one = {"secrets": "secret", "configmaps": "configmap"}[kind]
                        said = f'Error: {one} "{content["name"]}" not found'
                        yield kind, content["name"], ("Failed", said)


def status(pod: Body, what: Outcome, address: str) -> Body:
    """The status that says so."""
    time = now()
    started = what.how in ("running", "succeeded", "crash", "unready")
    ready = what.how == "running"
    done = what.how == "succeeded"
    waiting = {"reason": "PodInitializing"} if pod["spec"].get("initContainers") else None
    containers = []
    for container in pod["spec"]["containers"]:
        wrong = container["name"] == what.container
        containers.append(_container(container, what if wrong else None, started, done, time))
    inits = []
    for container in pod["spec"].get("initContainers") or ():
        stays = container.get("restartPolicy") == "Always"
        wrong = container["name"] == what.container
        if wrong and waiting:
            for each in containers:
                each["state"] = {"waiting": waiting}
        shown = _container(container, what if wrong else None, started, done or not stays, time)
        inits.append({**shown, "ready": started and not wrong})
    phase = "Succeeded" if done else "Running" if started else "Pending"
    truth = {
        "PodReadyToStartContainers": started and not done,
        "Initialized": started or not inits,
        "Ready": ready,
        "ContainersReady": ready,
    }
    why: dict[str, str] = {}
    if done:
        why = {"reason": "PodCompleted"}
    elif not ready:
        unready = [c["name"] for c in containers if not c["ready"]]
        message = f"containers with unready status: [{' '.join(unready)}]"
        why = {"reason": "ContainersNotReady", "message": message}
    conditions: list[dict[str, Any]] = [
        {
            "type": kind,
            "status": "True" if true else "False",
            "lastTransitionTime": time,
            **(why if kind in ("Ready", "ContainersReady") else {}),
        }
        for kind, true in truth.items()
    ]
    host = "10.250.0.1"
    own = host if pod["spec"].get("hostNetwork") else address
    content: Body = {
        "phase": phase,
        "startTime": pod.get("status", {}).get("startTime", time),
        "hostIP": host,
        "hostIPs": [{"ip": host}],
        "conditions": conditions,
        "containerStatuses": containers,
        "qosClass": pod.get("status", {}).get("qosClass", "BestEffort"),
    }
    if started:
        content |= {"podIP": own, "podIPs": [{"ip": own}]}
    if inits:
        content["initContainerStatuses"] = inits
    return content


def events(pod: Body, what: Outcome) -> list[Word]:
    """What `kubectl describe` would show below."""
    image = next((c["image"] for c in _containers(pod) if c["name"] == what.container), "")
    pull = f'Failed to pull image "{image}": {_not_found(image)}'
    back_off = f"Back-off restarting failed container {what.container} in pod"
    name = f"{pod['metadata']['name']}_{pod['metadata']['namespace']}({pod['metadata']['uid']})"
    return {
        "pull": [
            ("Failed", pull),
            ("Failed", "Error: ErrImagePull"),
        ],
        "backoff": [
            ("BackOff", f'Back-off pulling image "{image}"'),
            ("Failed", "Error: ImagePullBackOff"),
        ],
        "crash": [("BackOff", f"{back_off} {name}")],
        "unready": [
            ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
        ],
        "mount": [("FailedMount", what.message)],
        "config": [("Failed", what.message)],
    }.get(what.how, [])


def _container(container: Body, what: Outcome | None, started: bool, done: bool, time: str) -> Body:
    ended = {"reason": "Completed", "exitCode": 0, "startedAt": time, "finishedAt": time}
    image = container["image"]
    out: Body = {
        "name": container["name"],
        "image": image,
        "imageID": image if started else "",
        "ready": started and not done,
        "started": started and not done,
        "restartCount": 0,
        "state": {"waiting": {"reason": "ContainerCreating"}},
    }
    if started:
        out["state"] = {"terminated": ended} if done else {"running": {"startedAt": time}}
    how = what.how if what else ""
    if how == "unready":
        out["ready"] = False
    elif how == "crash":
        message = f"back-off 40s restarting failed container={container['name']}"
        failed = {**ended, "reason": "Error", "exitCode": 1}
        out |= {"ready": False, "started": False, "restartCount": 3}
        out["state"] = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        out["lastState"] = {"terminated": failed}
    elif how == "pull":
        out["state"] = {"waiting": {"reason": "ErrImagePull", "message": _not_found(image)}}
    elif how == "backoff":
        message = f'Back-off pulling image "{image}": ErrImagePull: {_not_found(image)}'
        out["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
    elif how == "config" and what:
        message = what.message.removeprefix("Error: ")
        out["state"] = {"waiting": {"reason": "CreateContainerConfigError", "message": message}}
    return out


def _not_found(image: str) -> str:
    said = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}"'
    return f"rpc error: code = NotFound desc = {said}: {image}: not found"


def _faulty_container(pod: Body, image: str) -> str:
    """The first whose image it is; without one, the first of all."""
    for container in _containers(pod):
        if image and re.search(image, container["image"]):
            return str(container["name"])
    return str(pod["spec"]["containers"][0]["name"])


def _containers(pod: Body) -> list[Body]:
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
