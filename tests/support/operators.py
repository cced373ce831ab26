"""Stand-ins for what Kubeflow's operators do that the order of a set waits for.

    with (
        serve_cluster(folder) as cluster,
        serve_nodes(cluster, folder / "nodes"),
        serve_operators(cluster, folder / "operators"),
    ):
        ...

Each does its work only while the real operator's pods are ready, so that a wrong order fails here
as on a real cluster. What is simulated:

- webhooks and CRD conversions that name a Service: a server at its ClusterIP while an endpoint of
  the Service is ready, else the connection is refused. All is admitted unchanged (no sidecar is
  injected, nothing is defaulted); conversion changes ``apiVersion`` and nothing else;
- CAs: cert-manager's cainjector for what has its annotations, with what the Certificate's Secret,
  or the Secret named, holds; whoever serves a webhook writes its own CA where no annotation can be
  resolved (Knative, Istio, Spark, trainer, JobSet); cert-manager's own webhook makes the Secret
  with its CA. Knative's empty rules for ConfigMaps are filled in, and Istio's validation refuses
  once it runs;
- cert-manager: Issuers, and Certificates with their Secrets. All certificates come from one CA of
  the stand-in's, whatever the issuer, and are never renewed;
- Profiles: namespace, service accounts, role bindings, quota, the finalizer and the condition;
- istiod: ``istio-ca-root-cert`` in each namespace.

What is not: everything else that operators do. There are no aggregated API services in Kubeflow's
sets, and none here. A webhook's pod is ready before its server listens, by some milliseconds.
Webhooks listen on port 443, for which a user other than root needs
``sysctl net.ipv4.ip_unprivileged_port_start=443`` or lower.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from tests.support.cluster import Cluster, NoCluster
from tests.support.kubeapi import serve_process


@contextlib.contextmanager
def serve_operators(cluster: Cluster, folder: Path) -> Iterator[int]:
    """Be the operators until the block ends; yields the process id.

    Args:
        folder: for its log and its certificates.

    Raises:
        NoCluster: this user may not listen on port 443.
        NotStarted: the process ended; with its log.
    """
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("127.255.0.1", 443))
        except PermissionError as error:
            raise NoCluster(f"webhooks listen on port 443: {error}") from error
    folder = folder.absolute()
    arguments = (str(cluster.folder), str(folder))
    with serve_process("tests.support.reconciler", folder, *arguments) as pid:
        yield pid
