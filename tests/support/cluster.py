"""A real Kubernetes control plane on loopback, for as long as a block runs.

    with serve_cluster(tmp_path / "cluster") as cluster:
        cluster.namespace("a")
        cluster.create(text_or_mapping, options=["-n", "a"])
        cluster.kubectl("get", "pods", "-n", "a")

etcd, kube-apiserver, kube-controller-manager and kube-scheduler, and no node: objects are admitted,
defaulted, stored, owned and scheduled as anywhere, and no container ever runs.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.markers import require_servers
from tests.support.registries import free_port

_BIN: Final = Path(__file__).resolve().parents[2] / ".tools" / "bin"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
# The API server dials a webhook's Service by its ClusterIP. In this range that is an address of
# this machine: refused at once where nothing listens, and a server bound to it is the webhook.
SERVICE_NETWORK: Final = "127.96.0.0/16"
_SERVER_NAMES: Final = (
    "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1"
)
# Who signs in with a certificate of its own: file name to subject.
_CLIENTS: Final = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
}


class NoCluster(RuntimeError):
    """A program for it is missing, or one did not start."""


class Programs:
    """The running programs of a cluster, by name."""

    def __init__(self, folder: Path, commands: Mapping[str, Sequence[str]]) -> None:
        self._folder = folder
        self._commands = commands
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start a program that does not run; what it says is added to its log."""
        require_servers(name)
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [_program(name), *self._commands[name]],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """End a program without asking it (SIGKILL)."""
        self._running[name].kill()
        self._running[name].wait()

    def stop(self) -> None:
        """End all, those last that others need."""
        for name in reversed(self._running):
            process = self._running[name]
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._running.items()}

    @property
    def ended(self) -> list[str]:
        """Those that are no longer running."""
        return [name for name, process in self._running.items() if process.poll() is not None]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running control plane.

    Attributes:
        server: ``https://127.0.0.1:PORT``.
        kubeconfig: of a cluster administrator, with absolute paths.
        folder: what it keeps; serving the same folder again shows the same objects.
        pids: program to process, as they began.
        programs: of a cluster that this process serves: a test can kill them and start them again.
    """

    server: str
    kubeconfig: Path
    folder: Path
    pids: Mapping[str, int]
    programs: Programs | None = field(default=None, compare=False, repr=False)

    @property
    def ca(self) -> Path:
        """PEM file of the CA that signed the server's certificate and its clients'."""
        return self.folder / "ca.crt"

    def kubectl(
        self, *arguments: str | Path, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator; with ``check`` a failure fails the test."""
        flags = (f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder / 'discovery'}")
        done = subprocess.run(
            [_program("kubectl"), *flags, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "KUBERC": "off"},
        )
        if check:
            said = f"kubectl {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
            assert done.returncode == 0, said
        return done

    def create(self, *objects: str | Mapping[str, Any], options: Sequence[str] = ()) -> list[Any]:
        """Create objects, given as YAML or as what YAML would hold; returns what was stored."""
        texts = [each if isinstance(each, str) else json.dumps(each) for each in objects]
        # Text that begins with a brace would be read as JSON to its end.
        stdin = "".join(f"---\n{text}\n" for text in texts)
        done = self.kubectl("create", "-o", "json", "-f", "-", *options, stdin=stdin)
        return list(_documents(done.stdout))

    def get(self, *arguments: str) -> Any:
        """What ``kubectl get ARGUMENTS`` finds."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def namespace(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Make a namespace and wait until pods can be created in it; returns its name."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        # Admission refuses pods whose service account is not there yet.
        self.kubectl(
            *("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=60s")
        )
        return name


@contextlib.contextmanager
def serve_cluster(
    folder: Path,
    *,
    apiserver: Sequence[str] = (),
    controllers: Sequence[str] = (),
    services: str = SERVICE_NETWORK,
) -> Iterator[Cluster]:
    """Run a control plane that keeps its data in ``folder`` until the block ends.

    Args:
        apiserver: further flags of kube-apiserver, such as ``--feature-gates=...``.
        controllers: further flags of kube-controller-manager.
        services: network of the ClusterIPs, on loopback. Where stand-ins listen at them
            (`tests.support.operators`), no two clusters may have the same one at a time.

    Raises:
        NoCluster: a program is missing, or one does not start; with the end of its log.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    _make_certificates(folder)
    for attempt in range(3):
        with contextlib.ExitStack() as stack:
            try:
                cluster = _started(stack, folder, apiserver, controllers, services)
            except NoCluster as error:
                # Between the look for a free port and its use another program can take it.
                if "address already in use" not in str(error) or attempt == 2:
                    raise
                continue
            yield cluster
            return


def _started(
    stack: contextlib.ExitStack,
    folder: Path,
    apiserver: Sequence[str],
    controllers: Sequence[str],
    services: str,
) -> Cluster:
    store, port = free_port(), free_port()
    server = f"https://127.0.0.1:{port}"
    for client in _CLIENTS:
        _write_kubeconfig(folder, client, server)
    commands = _commands(folder, store, port, services)
    commands["kube-apiserver"] += apiserver
    commands["kube-controller-manager"] += controllers
    for name in commands:
        (folder / f"{name}.log").unlink(missing_ok=True)
    programs = Programs(folder, commands)
    stack.callback(programs.stop)

    def wait(path: str, what: str) -> None:
        until = time.monotonic() + _START_SECONDS
        while not _found(folder, port, path):
            ended = programs.ended
            if ended or time.monotonic() > until:
                blamed = ended or list(programs.pids)
                logs = [f"--- {name}\n{_end_of(folder / f'{name}.log')}" for name in blamed]
                raise NoCluster("\n".join([f"the cluster did not start: no {what}", *logs]))
            time.sleep(0.02)

    programs.start("etcd")
    programs.start("kube-apiserver")
    wait("/readyz", "API server that is ready")
    programs.start("kube-controller-manager")
    programs.start("kube-scheduler")
    # `readyz` comes before these, which only the controllers make.
    wait("/api/v1/namespaces/default/serviceaccounts/default", "default service account")
    wait("/api/v1/namespaces/default/configmaps/kube-root-ca.crt", "root CA in a namespace")
    return Cluster(server, folder / "admin.kubeconfig", folder, programs.pids, programs)


def _commands(folder: Path, store: int, port: int, services: str) -> dict[str, list[str]]:
    """Each program's flags. All that listens does so on loopback."""
    etcd = f"http://127.0.0.1:{store}"
    peer = "http://127.0.0.1:0"  # nobody will ask for it
    return {
        "etcd": [
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # a test's data need not survive the machine
        ],
        "kube-apiserver": [
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            f"--service-cluster-ip-range={services}",
            # A loopback address is no endpoint that Kubernetes would accept.
            "--endpoint-reconciler-type=none",
            f"--client-ca-file={folder / 'ca.crt'}",
            f"--tls-cert-file={folder / 'apiserver.crt'}",
            f"--tls-private-key-file={folder / 'apiserver.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'service-accounts.key'}",
            f"--service-account-signing-key-file={folder / 'service-accounts.key'}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
        ],
        "kube-controller-manager": [
            f"--kubeconfig={folder / 'controller-manager.kubeconfig'}",
            "--secure-port=0",
            "--leader-elect=false",
            # Each controller has rights of its own; their common user has none.
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={folder / 'service-accounts.key'}",
            f"--root-ca-file={folder / 'ca.crt'}",
            f"--cluster-signing-cert-file={folder / 'ca.crt'}",
            f"--cluster-signing-key-file={folder / 'ca.key'}",
        ],
        "kube-scheduler": [
            f"--kubeconfig={folder / 'scheduler.kubeconfig'}",
            "--secure-port=0",
            "--leader-elect=false",
        ],
    }


# -- processes ------------------------------------------------------------------------------------


def _program(name: str) -> str:
    path = os.pathsep.join((str(_BIN), os.environ.get("PATH", os.defpath)))
    if found := shutil.which(name, path=path):
        return found
    raise NoCluster(f"{name} is not on PATH; `make setup` builds it")


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else ""


def _found(folder: Path, port: int, path: str) -> bool:
    """Whether the API server, asked by the administrator, has it."""
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _documents(text: str) -> Iterator[Any]:
    """kubectl prints one JSON document after the other, with nothing between them."""
    decoder = json.JSONDecoder()
    text = text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:].lstrip()


# -- certificates ---------------------------------------------------------------------------------


def _make_certificates(folder: Path) -> None:
    """A CA, the API server's certificate, one for each client, and the service accounts' key."""
    last = folder / "service-accounts.key"
    if last.exists():
        return
    authority = ("-addext", "keyUsage=critical,keyCertSign", "-subj", "/CN=test cluster CA")
    ca = ("-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    _openssl("req", "-x509", *_NEW_KEY, *authority, *ca, "-days", "3650")
    server = f"subjectAltName={_SERVER_NAMES}\nextendedKeyUsage=serverAuth\n"
    _make_certificate(folder, "apiserver", "/CN=kube-apiserver", server)
    for name, subject in _CLIENTS.items():
        _make_certificate(folder, name, subject, "extendedKeyUsage=clientAuth\n")
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", last)


_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _make_certificate(folder: Path, name: str, subject: str, extensions: str) -> None:
    request, extra = folder / f"{name}.csr", folder / f"{name}.ext"
    extra.write_text(extensions)
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    _openssl("req", *_NEW_KEY, "-subj", subject, "-keyout", key, "-out", request)
    signer = ("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial")
    dated = ("-days", "3650", "-extfile", extra, "-out", certificate)
    _openssl("x509", "-req", "-in", request, *signer, *dated)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def _write_kubeconfig(folder: Path, client: str, server: str) -> None:
    cluster = {"server": server, "certificate-authority": str(folder / "ca.crt")}
    user = {
        "client-certificate": str(folder / f"{client}.crt"),
        "client-key": str(folder / f"{client}.key"),
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": client, "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": client}}],
        "current-context": "test",
    }
    file = folder / f"{client}.kubeconfig"
    file.write_text(json.dumps(content))  # JSON is YAML
    file.chmod(0o600)
