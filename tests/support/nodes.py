"""Nodes for the tests' cluster, for as long as a block runs: a stand-in for kubelets.

    with serve_cluster(folder) as cluster, serve_nodes(cluster, folder / "nodes") as nodes:
        ...
        nodes.faults(Fault("pull", pod="kubeflow/katib-.*"))   # from now on
        nodes.faults()                                         # and all is well again

What is simulated: nodes that are Ready and stay so; a bound pod runs and is ready at once, or after
``delay`` seconds; pods that do not restart succeed; a pod waits, as ContainerCreating or
CreateContainerConfigError, for the ConfigMaps and Secrets that it mounts or reads; deletion;
images that cannot be pulled, containers that crash or never become ready, with the events that a
kubelet writes; a default StorageClass and a volume for each claim that a pod uses (or for each at
once), removed with its claim.

What is not: no container runs, nothing is pulled, probes are not asked, a pod does not care whether
those it calls are up, node pressure and eviction do not happen.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tests.support.cluster import Cluster
from tests.support.kubeapi import serve_process

Binding = Literal["WaitForFirstConsumer", "Immediate"]
STORAGE_CLASS: Final = "standard"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with some pods.

    Attributes:
        kind: ``pull``: the image cannot be pulled (ErrImagePull, then ImagePullBackOff);
            ``crash``: the container ends with code 1 (CrashLoopBackOff);
            ``unready``: it runs, and its readiness probe fails; ``slow``: it takes ``seconds``.
        pod: regular expression that ``NAMESPACE/NAME`` begins with; empty for any.
        image: regular expression found in a container's image; that container has the fault.
    """

    kind: Literal["pull", "crash", "unready", "slow"]
    pod: str = ""
    image: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Nodes:
    """Running stand-ins.

    Attributes:
        names: of the nodes.
        pid: of their process.
        folder: for what they are told.
    """

    names: tuple[str, ...]
    pid: int
    folder: Path
    _mine: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)

    def faults(self, *faults: Fault) -> None:
        """These and no others from now on, but for those that other processes ask for.

        ``crash`` and ``unready`` happen to pods that run, too. Without any, pods recover.
        """
        _write_faults(self.folder, self._mine, faults)


def node(
    name: str,
    *,
    architecture: str = "amd64",
    gpus: int = 0,
    labels: Mapping[str, str] | None = None,
    taints: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """A Node with 64 cores, 256 GiB and room for 500 pods."""
    room = {"cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "1Ti"}
    if gpus:
        room["nvidia.com/gpu"] = str(gpus)
    own = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        **({"nvidia.com/gpu.present": "true"} if gpus else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**own, **(labels or {})}},
        "spec": {"taints": [dict(taint) for taint in taints]},
        "status": {
            "capacity": room,
            "allocatable": room,
            "nodeInfo": {
                **dict.fromkeys(("machineID", "systemUUID", "bootID"), name),
                "kernelVersion": "6.12.0",
                "osImage": "stand-in",
                "containerRuntimeVersion": "containerd://2.1.0",
                "kubeletVersion": "v1.36.3",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": architecture,
            },
        },
    }


DEFAULT: Final = (node("node-1"), node("node-2"), node("gpu-1", gpus=8))


@contextlib.contextmanager
def serve_nodes(
    cluster: Cluster,
    folder: Path,
    *,
    nodes: Sequence[Mapping[str, Any]] = DEFAULT,
    faults: Sequence[Fault] = (),
    delay: float = 0.0,
    storage: Binding | None = "WaitForFirstConsumer",
) -> Iterator[Nodes]:
    """Be the kubelets of ``nodes`` until the block ends; they are Ready when it begins.

    Args:
        folder: for its log and its settings.
        delay: seconds that each pod takes from bound to ready.
        storage: when the default StorageClass gives a claim its volume; None: there is no class.

    Raises:
        NotStarted: the process ended; with its log.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "cluster": str(cluster.folder),
        "nodes": list(nodes),
        "delay": delay,
        "storage": storage,
    }
    _write_faults(folder, "first", faults)
    (folder / "settings.json").write_text(json.dumps(settings))
    with serve_process("tests.support.kubelet", folder, str(folder)) as pid:
        names = tuple(each["metadata"]["name"] for each in nodes)
        yield Nodes(names, pid, folder, "first")


def _write_faults(folder: Path, name: str, faults: Sequence[Fault]) -> None:
    place = folder / "faults"
    place.mkdir(exist_ok=True)
    file = place / f"{name}.json"
    fresh = folder / f"{name}.new"
    fresh.write_text(json.dumps([asdict(fault) for fault in faults]))
    fresh.replace(file)
