"""The process of `tests.support.nodes`.

python -m tests.support.kubelet FOLDER
"""

from __future__ import annotations

import http.client
import itertools
import json
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.support import podstatus
from tests.support.kubeapi import (
    STRATEGIC,
    Api,
    ApiError,
    Body,
    Event,
    Seen,
    end_with_input,
    log,
    name_of,
    now,
    say_ready,
)
from tests.support.nodes import STORAGE_CLASS

_LOOK_SECONDS: Final = 0.2
_BACK_OFF_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 0.5
_BEAT_SECONDS: Final = 10.0
_PROVISIONER: Final = "stand-in.kfdeploy.test"
_SELECTED: Final = "volume.kubernetes.io/selected-node"
_CONDITIONS: Final = {
    "Ready": "True",
    "MemoryPressure": "False",
    "DiskPressure": "False",
    "PIDPressure": "False",
}


class Kubelet:
    """Brings each bound pod to where it should be, and remembers what it wrote."""

    def __init__(self, api: Api, settings: Mapping[str, Any], folder: Path) -> None:
        self._api = api
        self._delay: float = settings["delay"]
        self._storage: str | None = settings["storage"]
        self._folder = folder / "faults"
        self._faults: list[dict[str, Any]] = []
        self._faults_read: dict[Path, int] = {}
        self._seen = Seen()
        self._written: dict[str, podstatus.Outcome] = {}  # pod's uid to what its status says
        self._first: dict[str, float] = {}
        self._addresses: dict[str, str] = {}
        self._counter = itertools.count(2)
        self._due: dict[tuple[str, str], float] = {}
        self.events: Final[queue.SimpleQueue[Event]] = queue.SimpleQueue()

    def run(self) -> None:
        watch = self._api.watch
        watch("secrets", "/api/v1/secrets", self.events, names=True)
        watch("configmaps", "/api/v1/configmaps", self.events, names=True)
        watch("pods", "/api/v1/pods?fieldSelector=spec.nodeName!%3D", self.events, names=False)
        if self._storage:
            watch("claims", "/api/v1/persistentvolumeclaims", self.events, names=False)
        ready = False
        while True:
            self._take_events()
            if not self._seen.synced("secrets", "configmaps", "pods"):
                continue
            if not ready:
                ready = True
                say_ready()
            self._read_faults()
            at = time.monotonic()
            for name in [name for name, due in self._due.items() if due <= at]:
                del self._due[name]
                if pod := self._seen.of("pods").get(name):
                    self._try(name, self._bring, pod)

    def _take_events(self) -> None:
        """All there are, waiting a moment for the first; marks the pods to look at."""
        wait = _LOOK_SECONDS
        if self._due:
            wait = min(wait, max(0.0, min(self._due.values()) - time.monotonic()))
        try:
            event = self.events.get(timeout=wait) if wait else self.events.get_nowait()
            while True:
                self._take(event)
                event = self.events.get_nowait()
        except queue.Empty:
            return

    def _take(self, event: Event) -> None:
        shown, gone = self._seen.take(event)
        kind = event[0]
        if kind == "pods":
            for pod in shown:
                self._due.setdefault(name_of(pod), 0.0)
                if pod["metadata"].get("deletionTimestamp"):
                    self._due[name_of(pod)] = 0.0
            for pod in gone:
                for kept in (self._written, self._first, self._addresses):
                    kept.pop(pod["metadata"]["uid"], None)
        elif kind == "claims":
            for claim in shown:
                self._try(name_of(claim), self._give_volume, claim)
            for claim in gone:
                self._try(name_of(claim), self._take_volume, claim)
        else:
            # Some pod may have waited for it; looking at those that run costs nothing.
            for name, pod in self._seen.of("pods").items():
                how = self._written.get(pod["metadata"]["uid"])
                if how and how.how in ("mount", "config"):
                    self._due.setdefault(name, 0.0)

    def _read_faults(self) -> None:
        files = {file: file.stat().st_mtime_ns for file in sorted(self._folder.glob("*.json"))}
        if files != self._faults_read:
            self._faults_read = files
            self._faults = [each for file in files for each in json.loads(file.read_text())]
            for name in self._seen.of("pods"):
                self._due.setdefault(name, 0.0)

    def _try(self, name: tuple[str, str], act: Callable[[Body], None], item: Body) -> None:
        """Act; what fails is tried again, unless it is gone or was changed meanwhile."""
        try:
            act(item)
        except ApiError as error:
            if error.status not in (404, 409):
                log(f"{'/'.join(name)}: {error}")
                self._again(name, act, item)
        except (OSError, http.client.HTTPException) as error:
            log(f"{'/'.join(name)}: {error}")
            self._again(name, act, item)

    def _again(self, name: tuple[str, str], act: Callable[[Body], None], item: Body) -> None:
        if act == self._bring:
            self._due[name] = time.monotonic() + _AGAIN_SECONDS
        else:
            threading.Timer(_AGAIN_SECONDS, self.events.put, [("claims", "MODIFIED", item)]).start()

    # -- pods -------------------------------------------------------------------------------------

    def _bring(self, pod: Body) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        uid: str = metadata["uid"]
        if metadata.get("deletionTimestamp"):
            if self._written.get(uid) != _GONE:
                exactly = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
                self._api.call("DELETE", path, exactly)
                self._written[uid] = _GONE
            return
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return
        fault = next((each for each in self._faults if podstatus.is_for(each, pod)), None)
        late = self._delay + (fault["seconds"] if fault and fault["kind"] == "slow" else 0.0)
        due = self._first.setdefault(uid, time.monotonic()) + late
        if due > time.monotonic():
            self._due[name_of(pod)] = due
            return
        before = self._written.get(uid) or _shown(pod)
        runs = before is not None and before.how in _RUN
        if runs and fault and fault["kind"] == "pull":
            fault = None  # it was pulled
        missing = [
            said
            for kind, name, said in podstatus.needed(pod)
            if not runs and (metadata["namespace"], name) not in self._seen.of(kind)
        ]
        what = podstatus.outcome(pod, missing, fault)
        if what.how == "pull" and before and before.how in ("pull", "backoff"):
            if before.how == "pull":
                self._due[name_of(pod)] = time.monotonic() + _BACK_OFF_SECONDS
                self._written[uid] = podstatus.Outcome("pulled", what.container)
            return
        if what.how == "pull" and before and before.how == "pulled":
            what = podstatus.Outcome("backoff", what.container)
        if what == before:
            return
        if uid not in self._addresses:
            self._addresses[uid] = _address(next(self._counter))
        content = podstatus.status(pod, what, self._addresses[uid])
        self._api.call("PATCH", f"{path}/status", {"status": content}, STRATEGIC)
        self._written[uid] = what
        if what.how == "pull":
            self._due[name_of(pod)] = time.monotonic() + _BACK_OFF_SECONDS
        for reason, message in podstatus.events(pod, what):
            self._tell(pod, reason, message)

    def _tell(self, pod: Body, reason: str, message: str) -> None:
        metadata = pod["metadata"]
        names = ("namespace", "name", "uid", "resourceVersion")
        host = pod["spec"]["nodeName"]
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{secrets.token_hex(8)}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                **{name: metadata[name] for name in names},
            },
            "reason": reason,
            "message": message,
            "type": "Warning",
            "source": {"component": "kubelet", "host": host},
            "reportingComponent": "kubelet",
            "reportingInstance": host,
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
        }
        self._api.call("POST", f"/api/v1/namespaces/{metadata['namespace']}/events", event)

    # -- volumes ----------------------------------------------------------------------------------

    def _give_volume(self, claim: Body) -> None:
        metadata, spec = claim["metadata"], claim["spec"]
        if spec.get("volumeName") or spec.get("storageClassName") != STORAGE_CLASS:
            return
        chosen = (metadata.get("annotations") or {}).get(_SELECTED)
        if self._storage == "WaitForFirstConsumer" and not chosen:
            return
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": f"pvc-{metadata['uid']}",
                "annotations": {"pv.kubernetes.io/provisioned-by": _PROVISIONER},
            },
            "spec": {
                "accessModes": spec["accessModes"],
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "storageClassName": STORAGE_CLASS,
                "volumeMode": spec.get("volumeMode", "Filesystem"),
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    **{name: metadata[name] for name in ("namespace", "name", "uid")},
                },
                "hostPath": {"path": f"/stand-in/{metadata['uid']}"},
            },
        }
        self._api.make("/api/v1/persistentvolumes", volume)

    def _take_volume(self, claim: Body) -> None:
        name = claim["spec"].get("volumeName")
        if name and claim["spec"].get("storageClassName") == STORAGE_CLASS:
            self._api.call("DELETE", f"/api/v1/persistentvolumes/{name}")


def _address(number: int) -> str:
    return f"10.{244 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


_GONE: Final = podstatus.Outcome("gone")
_RUN: Final = frozenset({"running", "crash", "unready"})


def _shown(pod: Body) -> podstatus.Outcome | None:
    """A pod that ran before this process did goes on running."""
    conditions = pod.get("status", {}).get("conditions") or ()
    if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
        return podstatus.Outcome("running")
    return None


# -- nodes ----------------------------------------------------------------------------------------


def _register(api: Api, node: Body) -> None:
    name = node["metadata"]["name"]
    api.make("/api/v1/nodes", node)
    conditions = [
        {
            "type": kind,
            "status": state,
            "reason": "StandIn",
            "message": "",
            "lastHeartbeatTime": now(),
            "lastTransitionTime": now(),
        }
        for kind, state in _CONDITIONS.items()
    ]
    addresses = [{"type": "InternalIP", "address": "10.250.0.1"}]
    status = {**node["status"], "conditions": conditions, "addresses": addresses}
    api.call("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, STRATEGIC)


def _beat(api: Api, names: list[str]) -> None:
    """Renew each node's lease, by which the node controller knows that it lives."""
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    while True:
        for name in names:
            renewed = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
            spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": renewed}
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"},
                "spec": spec,
            }
            try:
                if not api.make(leases, lease):
                    api.call("PATCH", f"{leases}/{name}", {"spec": spec}, STRATEGIC)
            except (ApiError, OSError, http.client.HTTPException) as error:
                log(f"lease {name}: {error}")
        time.sleep(_BEAT_SECONDS)


def _usable(api: Api, names: list[str]) -> bool:
    """Whether the node controller took the taint off that each new node has."""
    nodes = {each["metadata"]["name"]: each for each in api.call("GET", "/api/v1/nodes")["items"]}
    taints = [t for n in names for t in nodes[n]["spec"].get("taints") or ()]
    return not any(taint["key"] == "node.kubernetes.io/not-ready" for taint in taints)


def main(folder: Path) -> None:
    end_with_input()
    settings = json.loads((folder / "settings.json").read_text())
    api = Api(Path(settings["cluster"]))
    names = [node["metadata"]["name"] for node in settings["nodes"]]
    for node in settings["nodes"]:
        _register(api, node)
    threading.Thread(target=_beat, args=(api, names), daemon=True).start()
    if settings["storage"]:
        api.make(
            "/apis/storage.k8s.io/v1/storageclasses",
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {
                    "name": STORAGE_CLASS,
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": _PROVISIONER,
                "volumeBindingMode": settings["storage"],
            },
        )
    while not _usable(api, names):
        time.sleep(0.05)
    Kubelet(api, settings, folder).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
