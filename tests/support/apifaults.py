"""The proxy of tests/support/faults.py in front of an API server.

    with faulty_api(live.cluster, tmp_path, Faults(too_many=0.1)) as (proxy, env):
        kfdeploy("apply", site.set, env=env)
        proxy.stop()        # connections break, and the port refuses
        proxy.start()

A refusal is the proxy's own: 429 and 5xx have no ``Status`` in them, as those of a load balancer in
front of an API server. Who asks through it is the cluster's administrator, without a certificate
of its own.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.cluster import Cluster
from tests.support.faults import Faults, Faulty


class _FaultyApi(Faulty):
    def __init__(self, cluster: Cluster, faults: Faults) -> None:
        super().__init__(urlsplit(cluster.server).netloc, faults)
        folder = cluster.folder
        self._context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._context.load_cert_chain(folder / "admin.crt", folder / "admin.key")

    def connect(self, stopped: threading.Event) -> socket.socket:
        plain = super().connect(stopped)
        there = self._context.wrap_socket(plain, server_hostname="127.0.0.1")
        self._opened(there, stopped)  # a stop has no hold on the plain one any more
        return there


@contextlib.contextmanager
def faulty_api(
    cluster: Cluster, folder: Path, faults: Faults | None = None
) -> Iterator[tuple[Faulty, Mapping[str, str]]]:
    """A proxy until the block ends, and the variables by which programs ask through it.

    Args:
        folder: for a kubeconfig, whose context is ``test``, as that of the cluster itself.
    """
    proxy = _FaultyApi(cluster, faults or Faults())
    proxy.start()
    try:
        config = json.loads(cluster.kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {"server": f"http://{proxy.host}"}
        config["users"][0]["user"] = {}
        file = folder / f"faulty-{proxy.host.rpartition(':')[2]}.kubeconfig"
        file.write_text(json.dumps(config))
        yield proxy, {"KUBECONFIG": str(file), "KUBERC": "off"}
    finally:
        proxy.stop()
