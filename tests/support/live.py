"""A cluster that behaves as a real one does while a whole Kubeflow is applied to it.

    with serve_live_cluster(tmp_path / "live") as live:
        live.cluster.kubectl("get", "pods", "-A")
        live.nodes.faults(Fault("pull", pod="kubeflow/katib-.*"))

A real control plane, and stand-ins for what runs on nodes: tests/support/nodes.py and operators.py
say what they do and what they don't.
"""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.cluster import Cluster, NoCluster, serve_cluster
from tests.support.nodes import DEFAULT, Binding, Fault, Nodes, serve_nodes
from tests.support.operators import serve_operators

# Second number of the ClusterIPs; 96 is for clusters where nobody listens at them.
_NETWORKS: Final = range(97, 160)
_WAIT_SECONDS: Final = 300.0
# The controllers' own limit of 20 requests a second is most of what a set's rollout takes.
_CONTROLLERS: Final = ("--kube-api-qps=200", "--kube-api-burst=300")


@dataclass(frozen=True, slots=True)
class LiveCluster:
    """A running control plane with stand-ins for nodes and operators.

    Attributes:
        operators: process id of the operators' stand-in; None where there is none.
    """

    cluster: Cluster
    nodes: Nodes
    operators: int | None

    @property
    def env(self) -> dict[str, str]:
        """Variables by which kubectl, Helm and kfdeploy find it, and no other cluster."""
        return {"KUBECONFIG": str(self.cluster.kubeconfig), "KUBERC": "off"}

    def to_json(self) -> dict[str, Any]:
        """For another process, which gets at it by `from_json`."""
        return {
            "server": self.cluster.server,
            "kubeconfig": str(self.cluster.kubeconfig),
            "folder": str(self.cluster.folder),
            "pids": dict(self.cluster.pids),
            "nodes": list(self.nodes.names),
            "nodes_pid": self.nodes.pid,
            "nodes_folder": str(self.nodes.folder),
            "operators": self.operators,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LiveCluster:
        folder, kubeconfig = Path(content["folder"]), Path(content["kubeconfig"])
        cluster = Cluster(content["server"], kubeconfig, folder, content["pids"])
        nodes = Nodes(tuple(content["nodes"]), content["nodes_pid"], Path(content["nodes_folder"]))
        return cls(cluster, nodes, content["operators"])


@contextlib.contextmanager
def serve_live_cluster(
    folder: Path,
    *,
    apiserver: Sequence[str] = (),
    controllers: Sequence[str] = _CONTROLLERS,
    nodes: Sequence[Mapping[str, Any]] = DEFAULT,
    faults: Sequence[Fault] = (),
    delay: float = 0.0,
    storage: Binding | None = "WaitForFirstConsumer",
    operators: bool = True,
) -> Iterator[LiveCluster]:
    """Run one until the block ends. Its context's name is ``test``.

    A copy of ``folder``, made after the block has ended, is the same cluster again, all applied.

    Args:
        apiserver, controllers: further flags of these programs.
        nodes, faults, delay, storage: see `serve_nodes`.
        operators: without, nothing answers for webhooks.

    Raises:
        NoCluster: a program is missing or does not start, or port 443 is not for this user.
        NotStarted: a stand-in does not start; with its log.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(_network(folder / "network"))
        flags = {"apiserver": apiserver, "controllers": controllers, "services": network}
        cluster = stack.enter_context(serve_cluster(folder / "cluster", **flags))  # type: ignore[arg-type]
        options: dict[str, Any] = {"faults": faults, "delay": delay, "storage": storage}
        running = stack.enter_context(
            serve_nodes(cluster, folder / "nodes", nodes=nodes, **options)
        )
        process = None
        if operators:
            process = stack.enter_context(serve_operators(cluster, folder / "operators"))
        yield LiveCluster(cluster, running, process)


@contextlib.contextmanager
def _network(record: Path) -> Iterator[str]:
    """A network that no other live cluster of this machine has; the same one for the same data.

    ClusterIPs are stored: a copy of a cluster waits for the network that the first one had.
    """
    until = time.monotonic() + _WAIT_SECONDS
    candidates = [int(record.read_text())] if record.exists() else list(_NETWORKS)
    while time.monotonic() < until:
        for number in candidates:
            lock = Path(tempfile.gettempdir()) / f"kfdeploy-tests-network-{number}"
            with lock.open("a") as opened:
                try:
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                record.write_text(str(number))
                yield f"127.{number}.0.0/16"
                return
        time.sleep(0.2)
    raise NoCluster(f"no network is free for ClusterIPs: {candidates}")
